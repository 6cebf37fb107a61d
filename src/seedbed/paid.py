"""Completions that a server was asked for, kept between runs in one SQLite file of the user's cache folder, so that a token is paid once.

A completion is in it before anybody sees it, and survives a crash of the machine. Unlike a cache that only saves work, it is never thrown
away: a file that cannot be read or written is an error. Prompts are not in it, their hashes are; answers are.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from seedbed.errors import EngineError
from seedbed.types import Completion

T = TypeVar("T")
WAIT_S = 30.0
"""How long to wait for another process that writes."""


def place() -> Path:
    """$XDG_CACHE_HOME/seedbed/completions.sqlite, or under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seedbed" / "completions.sqlite"


def key_of(*facts: Any) -> bytes:
    """32 bytes that stand for all that an answer depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()


class Paid:
    """Completions by key. Threads and processes may share a file. Raises EngineError where it cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, threading.Lock()
        self.db = self._tried(self._open)

    def get(self, key: bytes) -> Completion | None:
        rows = self._tried(lambda: self.db.execute("SELECT text, tokens, finished FROM completions WHERE key = ?", [key]).fetchall())
        return Completion(rows[0][0], rows[0][1], bool(rows[0][2])) if rows else None

    def put(self, key: bytes, completion: Completion) -> None:
        """Keeps it: after this returns, neither a killed process nor a power cut loses it."""
        row = (key, completion.text, completion.tokens, completion.finished)
        self._tried(lambda: self.db.execute("INSERT OR IGNORE INTO completions VALUES (?, ?, ?, ?)", row))

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE IF NOT EXISTS completions (key BLOB PRIMARY KEY, text TEXT, tokens INTEGER, finished INTEGER) WITHOUT ROWID")
        return db

    def _tried(self, work: Callable[[], T]) -> T:
        try:
            with self.lock:
                return work()
        except (sqlite3.Error, OSError) as error:
            raise EngineError(
                f"{self.path} keeps paid completions and cannot be used: {error}. Free it, move it away, or set XDG_CACHE_HOME to another folder."
            ) from error


@cache
def paid(path: Path) -> Paid:
    """The file, opened once a process."""
    return Paid(path)

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
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from seedbed.errors import EngineError
from seedbed.limits import Purse
from seedbed.types import Completion, Prompt, Sampling, Session

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

    def get(self, key: bytes) -> tuple[Completion, int] | None:
        """The completion and its prompt's tokens; these are 0 where an older version kept it."""
        rows = self._tried(lambda: self.db.execute("SELECT text, tokens, finished, read FROM completions WHERE key = ?", [key]).fetchall())
        return (Completion(rows[0][0], rows[0][1], bool(rows[0][2])), rows[0][3]) if rows else None

    def put(self, key: bytes, completion: Completion, read: int) -> None:
        """Keeps it: after this returns, neither a killed process nor a power cut loses it. read: tokens of its prompt."""
        row = (key, completion.text, completion.tokens, completion.finished, read)
        self._tried(lambda: self.db.execute("INSERT OR IGNORE INTO completions (key, text, tokens, finished, read) VALUES (?, ?, ?, ?, ?)", row))

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        db.execute("CREATE TABLE IF NOT EXISTS completions (key BLOB PRIMARY KEY, text TEXT, tokens INTEGER, finished INTEGER) WITHOUT ROWID")
        if "read" not in {column[1] for column in db.execute("PRAGMA table_info(completions)")}:
            db.execute("ALTER TABLE completions ADD COLUMN read INTEGER NOT NULL DEFAULT 0")
        db.execute("COMMIT")
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


def most(session: Session, prompt: Prompt, sampling: Sampling) -> float:
    """Money that a completion can cost; 0 where the session has no prices."""
    priced = getattr(session, "most", None)
    return float(priced(prompt, sampling)) if priced else 0.0


def paid_now(completion: Completion) -> float:
    """Money that this call paid for it."""
    return 0.0 if completion.again else completion.cost


def within(purse: Purse, session: Session, prompts: Iterable[tuple[int, Prompt]], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
    """session.complete() as far as the purse goes. Raises EngineError where it is too small for the next prompt."""
    held: dict[int, float] = {}

    def affordable() -> Iterator[tuple[int, Prompt]]:
        for key, prompt in prompts:
            held[key] = most(session, prompt, sampling)
            if not purse.hold(held[key]):
                raise EngineError(
                    f"--max-cost {purse.money:g} is used up: {max(0.0, purse.left):.4g} is left, and the next prompt can cost {held[key]:.4g}. "
                    "What is paid for is kept; the same command goes on from there."
                )
            yield key, prompt

    for key, completion in session.complete(affordable(), sampling):
        purse.settle(held.pop(key), paid_now(completion))
        yield key, completion

"""Sentence vectors kept between processes, in one SQLite file of the user's cache folder.

It can only save work, never change an answer: an entry is named after all that its bytes depend on, and carries a checksum. A damaged file
is made anew, one that cannot be written is replaced by memory, and the oldest entries go first. Texts are not in it, their hashes are.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

LIMIT = 100_000
"""Vectors kept; about 180 MB of 384 dimensions."""
WAIT_S = 5.0


def place() -> Path:
    """$XDG_CACHE_HOME/seedbed/embeddings.sqlite, or under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seedbed" / "embeddings.sqlite"


class Vectors:
    """float32 vectors by 16-byte key. Two processes may share a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, threading.Lock()
        self.db = self._open()

    def _open(self) -> sqlite3.Connection:
        for _ in range(2):
            with suppress(sqlite3.Error, OSError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                db = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
                try:
                    return _prepared(db)
                except sqlite3.DatabaseError as error:
                    db.close()
                    if isinstance(error, sqlite3.OperationalError):  # locked or read-only: no damage
                        break
                    self.path.unlink(missing_ok=True)
        return _prepared(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))

    def get(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """The vectors of those keys that are there and whole."""
        wanted, found = list(keys), {}
        with self.lock:
            for i in range(0, len(wanted), 500):
                part = wanted[i : i + 500]
                for key, entry in self._rows(f"SELECT key, entry FROM vectors WHERE key IN ({','.join('?' * len(part))})", part):
                    if int.from_bytes(entry[:4], "little") == zlib.crc32(key + entry[4:]):
                        found[key] = np.frombuffer(entry[4:], dtype="<f4")
        return found

    def _rows(self, query: str, values: list[bytes]) -> list[tuple[bytes, bytes]]:
        try:
            return self.db.execute(query, values).fetchall()
        except sqlite3.OperationalError:
            return []  # locked for longer than WAIT_S
        except sqlite3.DatabaseError:
            self.db.close()
            self.path.unlink(missing_ok=True)
            self.db = self._open()
            return []

    def put(self, vectors: Mapping[bytes, np.ndarray]) -> None:
        """Adds or replaces; the oldest above LIMIT go."""
        entries = [(key, v.astype("<f4").tobytes()) for key, v in vectors.items()]
        checked = [(key, zlib.crc32(key + data).to_bytes(4, "little") + data) for key, data in entries]
        with self.lock, suppress(sqlite3.Error), self.db:
            self.db.execute("BEGIN IMMEDIATE")
            self.db.executemany("INSERT OR REPLACE INTO vectors (key, entry) VALUES (?, ?)", checked)
            self.db.execute("DELETE FROM vectors WHERE id <= (SELECT max(id) FROM vectors) - ?", [LIMIT])


def _prepared(db: sqlite3.Connection) -> sqlite3.Connection:
    """The table made, and the file tried by writing to it. A crash of the machine may damage it, and then it is made anew: no fsync."""
    db.execute("PRAGMA synchronous = OFF")
    db.execute("CREATE TABLE IF NOT EXISTS vectors (id INTEGER PRIMARY KEY, key BLOB UNIQUE, entry BLOB)")
    db.execute("PRAGMA user_version = 1")
    return db


@cache
def vectors(path: Path) -> Vectors:
    """The file, opened once a process."""
    return Vectors(path)

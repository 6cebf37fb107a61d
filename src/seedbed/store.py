"""The run folder: fingerprints, whole-or-nothing steps, an append-only checksummed journal, parts cut from it.

A step in the making is `NAME.partial/`; renaming it makes it whole. What a journal has accepted is never lost: a stop at any instant
costs the rows in flight, and a torn last line is cut off when the journal is opened again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedbed.errors import StoreError


def fingerprint(*facts: Any) -> str:
    """Six hex digits that name a step after all that it depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:6]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_hashes(folder: Path, names: Sequence[str]) -> None:
    """hashes.json: what the files of a step were when it was made."""
    write_json(folder / "hashes.json", {name: file_hash(folder / name) for name in names})


def unchanged(folder: Path, names: Sequence[str]) -> None:
    """Raises StoreError when a file of the step is missing, or is not what `write_hashes` saw."""
    try:
        written = json.loads((folder / "hashes.json").read_text())
        now = {name: file_hash(folder / name) for name in names}
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder} is missing or damaged: {error}. Remove it and run again; other steps stay.") from error
    if written != now:
        raise StoreError(f"{folder} was changed after it was made. Remove it and run again; other steps stay.")


def write_text(path: Path, text: str) -> None:
    """Writes whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object that `write_json` wrote. Raises StoreError when the file is missing or holds none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is missing or damaged: {error}. Run the recipe again: finished steps are kept.") from error
    if not isinstance(found, dict):
        raise StoreError(f"{path} is damaged: it must hold a JSON object. Got {found!r:.80}. Run the recipe again: finished steps are kept.")
    return found


def write_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """JSON lines, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    partial.replace(path)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON lines; a line ends at a newline alone (a text may hold other line separators). Raises StoreError when the file is damaged."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is missing or damaged: {error}. Remove the folder {path.parent} and run again; other steps stay.") from error


class Journal:
    """Append-only records, one line each: CRC-32 of the JSON, a space, the JSON."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file; a torn tail (a line cut by a crash) is removed. Raises StoreError when an earlier line is damaged."""
        self.path = path
        self.records: list[Any] = []
        good = 0
        if path.exists():
            data = path.read_bytes()
            for line in re.findall(rb"[^\n]*\n|[^\n]+$", data):
                record = _decode(line)
                if record is None:
                    if good + len(line) < len(data):
                        raise StoreError(f"{path}: damaged at byte {good}. Remove the folder {path.parent.name} and run again; other steps stay.")
                    break
                self.records.append(record)
                good += len(line)
            if good < len(data):
                os.truncate(path, good)
        self._file = path.open("ab")

    def add(self, record: Any) -> None:
        """Accepts one record, here and in `records`."""
        self.write(record)
        self.records.append(record)

    def write(self, record: Any) -> None:
        """Accepts one record and forgets it: after this returns, a killed process does not lose it."""
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
        self._file.write(b"%08x %s\n" % (zlib.crc32(text), text))
        self._file.flush()

    def close(self) -> None:
        """Flushes to the disk itself, so that a power cut after this loses nothing either."""
        os.fsync(self._file.fileno())
        self._file.close()


def _decode(line: bytes) -> Any | None:
    if not line.endswith(b"\n") or len(line) < 10:
        return None
    text = line[9:-1]
    try:
        return json.loads(text) if int(line[:8], 16) == zlib.crc32(text) else None
    except ValueError:
        return None


@dataclass(frozen=True)
class Store:
    """One run folder, held by one process at a time."""

    root: Path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Locks the folder. Raises StoreError when another process runs in it."""
        import fcntl

        try:
            self.root.mkdir(parents=True, exist_ok=True)
            file = (self.root / ".lock").open("w")
        except OSError as error:
            raise StoreError(f"{self.root} cannot be written: {error.strerror}. Give another --out.") from error
        with file as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StoreError(f"{self.root} is in use by another process. Wait for it, or give another --out.") from error
            yield

    def path(self, name: str) -> Path:
        return self.root / name

    def step(self, name: str, make: Callable[[Path], None]) -> Path:
        """The folder of a whole step; made by `make(folder)` when it is not there yet. `make` may find what a stopped call left."""
        if not (self.root / name).exists():
            make(self.reopen(name))
            self.close(name)
        return self.root / name

    def reopen(self, name: str) -> Path:
        """The folder of a step that can grow or is in the making: `.partial`, until `close`."""
        whole, partial = self.root / name, self.root / f"{name}.partial"
        if whole.exists():
            whole.rename(partial)
        partial.mkdir(parents=True, exist_ok=True)
        return partial

    def close(self, name: str) -> Path:
        """Makes a reopened step whole."""
        return (self.root / f"{name}.partial").rename(self.root / name)

    def replace(self, name: str, make: Callable[[Path], None]) -> Path:
        """A folder at the top that later runs make anew (`dataset`)."""
        whole, partial, old = self.root / name, self.root / f"{name}.partial", self.root / f"{name}.old"
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
        make(partial)
        if whole.exists():
            if _same(whole, partial):
                shutil.rmtree(partial)
                return whole
            whole.rename(old)
        partial.rename(whole)
        shutil.rmtree(old, ignore_errors=True)
        return whole


def _same(a: Path, b: Path) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    names = [{str(p.relative_to(x)) for p in x.rglob("*") if p.is_file()} for x in (a, b)]
    return names[0] == names[1] and all((a / n).read_bytes() == (b / n).read_bytes() for n in names[0])


def write_part(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Rows of JSON-able records as one Parquet file: `index` and `record`, the JSON; whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "index": pa.array([int(r["index"]) for r in records], pa.int64()),
            "record": pa.array([json.dumps(r, ensure_ascii=False, sort_keys=True) for r in records], pa.string()),
        }
    )
    partial = path.with_name(path.name + ".partial")
    pq.write_table(table, partial, compression="zstd")
    partial.replace(path)


def read_parts(folder: Path) -> Iterator[dict[str, Any]]:
    """Records of all parts, in order of parts and rows. Raises StoreError for a damaged one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("part-*.parquet")):
        try:
            records = pq.read_table(path, columns=["record"]).column("record").to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"{path} is damaged: {error}. Remove the folder {folder} and run again; other steps stay.") from error
        yield from map(json.loads, records)

"""The run folder: fingerprints, whole-or-nothing steps, an append-only checksummed journal, parts cut from it.

A step in the making is `NAME.partial/`; renaming it makes it whole. What a journal has accepted is never lost: a stop at any instant
costs the rows in flight, and a torn last line is cut off when the journal is opened again.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from seedbed.errors import StoreError

T = TypeVar("T")
SCANNED = 1 << 24
"""Bytes of a file that are read at once."""
BLOCK = 1000
"""Lines that are read at once."""


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
        raise StoreError(f"{path} is missing or damaged: {error}. Remove it and run the recipe again: finished steps are kept.") from error
    if not isinstance(found, dict):
        raise StoreError(
            f"{path} is damaged: it must hold a JSON object. Got {found!r:.80}. Remove it and run the recipe again: finished steps are kept."
        )
    return found


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(line_of(r) for r in records)
    partial.replace(path)


def line_of(record: Mapping[str, Any]) -> str:
    """The record as one line of JSON lines; other mappings in it than dicts are written as these."""
    return json.dumps(record, ensure_ascii=False, default=dict) + "\n"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON lines; a line ends at a newline alone (a text may hold other line separators). Raises StoreError when the file is damaged."""
    return list(each_line(path))


def each_line(path: Path) -> Iterator[dict[str, Any]]:
    """`read_lines`, one at a time."""
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise ValueError(f"a line is no JSON object: {line.decode():.80}")
                    yield record
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is missing or damaged: {error}. Remove the folder {path.parent} and run again; other steps stay.") from error


class _Reading:
    """A file that is open as long as somebody looks at it, under whatever name."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def read(self, at: int, size: int) -> bytes:
        return os.pread(self.number, size, at)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class Lines(Sequence[T]):
    """JSON lines on disk as a sequence: a line is read when it is asked for. In memory are 12 bytes a line."""

    def __init__(self, path: Path, make: Callable[[Any], T]) -> None:
        """make: of a line's record. Raises StoreError when the file is missing."""
        import numpy as np

        self.path, self.make = path, make
        ends, at = [np.zeros(1, dtype=np.int64)], 0
        try:
            self._file = _Reading(path)
            while block := self._file.read(at, SCANNED):
                ends.append(np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")) + at + 1)
                at += len(block)
        except OSError as error:
            raise StoreError(f"{path} is missing or damaged: {error}. Remove the folder {path.parent} and run again; other steps stay.") from error
        starts = np.concatenate(ends)
        self._at, self._size = starts[:-1], np.diff(starts).astype(np.int32)

    def take(self, places: Any) -> Lines[T]:
        """Those at the places, an ascending array of indices or a mask, of the same file."""
        part = copy(self)
        part._at, part._size = self._at[places], self._size[places]
        return part

    def raw(self) -> Iterator[bytes]:
        """The lines as they stand in the file."""
        for i in range(0, len(self), BLOCK):
            at, size = self._at[i : i + BLOCK].tolist(), self._size[i : i + BLOCK].tolist()
            low, span = at[0], at[-1] + size[-1] - at[0]
            if span > SCANNED:
                yield from (self._file.read(a, s) for a, s in zip(at, size, strict=True))
            else:
                block = self._file.read(low, span)
                yield from (block[a - low : a - low + s] for a, s in zip(at, size, strict=True))

    def __len__(self) -> int:
        return len(self._at)

    def __iter__(self) -> Iterator[T]:
        return (self.make(json.loads(line)) for line in self.raw())

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> list[T]: ...
    def __getitem__(self, place: int | slice) -> T | list[T]:
        if isinstance(place, slice):
            return list(self.take(place)) if (place.step or 1) > 0 else [self[i] for i in range(*place.indices(len(self)))]
        return self.make(json.loads(self._file.read(int(self._at[place]), int(self._size[place]))))


def spilled(path: Path, records: Iterable[Mapping[str, Any]], make: Callable[[Any], T]) -> Lines[T]:
    """The records as a sequence that waits on disk."""
    write_lines(path, records)
    return Lines(path, make)


class Mapped(Sequence[T]):
    """make(row) of each row of a sequence, when it is asked for."""

    def __init__(self, rows: Sequence[Any], make: Callable[[Any], T]) -> None:
        self.rows, self.make = rows, make

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[T]:
        return map(self.make, self.rows)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> list[T]: ...
    def __getitem__(self, place: int | slice) -> T | list[T]:
        return [self.make(row) for row in self.rows[place]] if isinstance(place, slice) else self.make(self.rows[place])


def journalled(path: Path) -> Iterator[Any]:
    """The records of a journal, one at a time; none where there is no file. A torn tail (a line cut by a crash) is removed when it is reached.

    Raises StoreError when an earlier line is damaged."""
    if not path.exists():
        return
    good, size = 0, path.stat().st_size
    with path.open("rb") as file:
        for line in file:
            record = _decode(line)
            if record is None:
                break
            yield record
            good += len(line)
    if good < size:
        if good + len(line) < size:
            raise StoreError(f"{path}: damaged at byte {good}. Remove this file and run again; what stands in others stays.")
        os.truncate(path, good)


class Journal:
    """Append-only records, one line each: CRC-32 of the JSON, a space, the JSON."""

    def __init__(self, path: Path, read: Callable[[Iterator[Any]], Any] = list) -> None:
        """Opens or makes the file, as `journalled` reads it. read: what `records` is to be, of an iterator over the records."""
        self.path = path
        earlier = journalled(path)
        self.records = read(earlier)
        for _ in earlier:  # to the end, where a torn line is
            pass
        self._file = path.open("ab")

    def add(self, record: Any) -> None:
        """Accepts one record, here and in `records`."""
        self.write(record)
        self.records.append(record)

    def write(self, record: Any) -> None:
        """Accepts one record and forgets it: after this returns, a killed process does not lose it."""
        self._file.write(_encode(record))
        self._file.flush()

    def replace(self, records: Iterable[Any]) -> None:
        """Only these from here on: whole or not at all."""
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("wb") as file:
            file.writelines(map(_encode, records))
        partial.replace(self.path)
        self._file.close()
        self._file = self.path.open("ab")

    @property
    def size(self) -> int:
        """Bytes."""
        return self._file.tell()

    def close(self) -> None:
        """Flushes to the disk itself, so that a power cut after this loses nothing either."""
        os.fsync(self._file.fileno())
        self._file.close()


def _encode(record: Any) -> bytes:
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), default=dict).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


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
    def held(self, wait: bool = False) -> Iterator[None]:
        """Locks the folder. Raises StoreError when another process runs in it, or waits for that one's end."""
        import fcntl

        try:
            self.root.mkdir(parents=True, exist_ok=True)
            file = (self.root / ".lock").open("w")
        except OSError as error:
            raise StoreError(f"{self.root} cannot be written: {error.strerror}. Give another --out.") from error
        with file as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
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
        """Makes a reopened step whole, without what a killed `safetensors.save_file` left: it writes to `.tmp` and drawn letters, then renames."""
        partial = self.root / f"{name}.partial"
        for left in partial.rglob(".tmp*"):
            left.unlink()
        return partial.rename(self.root / name)

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
    return names[0] == names[1] and all(filecmp.cmp(a / n, b / n, shallow=False) for n in names[0])


def write_part(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Rows of JSON-able records as one Parquet file: `index` and `record`, the JSON; whole or not at all. Its pages carry a checksum."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "index": pa.array([int(r["index"]) for r in records], pa.int64()),
            "record": pa.array([json.dumps(r, ensure_ascii=False, sort_keys=True, default=dict) for r in records], pa.string()),
        }
    )
    table = table.replace_schema_metadata({"rows": str(len(records))})  # pages have a checksum, the number of rows beside them has not
    partial = path.with_name(path.name + ".partial")
    pq.write_table(table, partial, compression="zstd", write_page_checksum=True, write_statistics=False)
    partial.replace(path)


def read_parts(folder: Path) -> Iterator[dict[str, Any]]:
    """Records of all parts, in order of parts and rows. Raises StoreError for a damaged one."""
    for _, records in each_part(folder, "record"):
        yield from map(json.loads, records)


def indices_of(folder: Path) -> list[int]:
    """The index of each row of `read_parts`. Raises StoreError for a part that is damaged anywhere."""
    return [index for _, part in each_part(folder) for index in part]


def each_part(folder: Path, column: Literal["index", "record"] = "index") -> Iterator[tuple[Path, list[Any]]]:
    """Each part's file and a column of its rows, in order. Raises StoreError for a part that is damaged anywhere."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("part-*.parquet")):
        try:
            table = pq.read_table(path, columns=["index", "record"], page_checksum_verification=True)
            if (table.schema.metadata or {}).get(b"rows", b"%d" % len(table)) != b"%d" % len(table):
                raise ValueError("rows are missing")
            found = table.column(column).to_pylist()
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            raise StoreError(f"{path} is damaged: {error}. Remove the folder {folder} and run again; other steps stay.") from error
        yield path, found

"""A user's file as a table: CSV, TSV, JSON lines, JSON (each also gzipped), Parquet, Arrow, a folder, or a hub dataset.

Every failure is a DataError that says which file and line, what was found and what to do. Nothing here knows of tasks.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seedbed.errors import DataError, did_you_mean
from seedbed.jsonfile import DECODER, rows_of

LINE_LIMIT = 10_000_000
"""Bytes of one line, and characters of one CSV cell; a longer one is refused before it is whole in memory."""
JSON_LIMIT = 1_000_000_000
"""Bytes of a JSON file, which has to be whole in memory."""
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".csv.gz", ".tsv.gz", ".jsonl.gz", ".json.gz", ".parquet", ".arrow")
IN_FOLDERS = ((".parquet",), (".arrow",), (".jsonl", ".jsonl.gz"), (".json", ".json.gz"), (".csv", ".csv.gz"), (".tsv", ".tsv.gz"))
"""Kinds of file that a folder's rows are read from: the first kind that it holds."""
NOTES = ("metadata.json", "dataset_info.json", "dataset_infos.json", "state.json", "config.json")
"""Files beside the rows of other tools, and no rows."""
NESTED = ("parquet-files", "data", "default", "train")
"""Folders in which other tools put the rows, where theirs holds several."""
SPLITS = re.compile(r"(?:^|[-_.])(train|test|validation|valid|val|dev|eval)(?:$|[-_.])")
HUB = "hub:"
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows as they stand in a file.

    source: the file's name, for messages. stem: its short name, for ids. columns: in the order they first appear.
    places: the line (unit "line") or row (unit "row") each row begins at, from 1. files: of a folder, the file of each row; else empty.
    """

    source: str
    stem: str
    columns: tuple[str, ...]
    rows: tuple[Record, ...]
    places: tuple[int, ...]
    unit: str
    files: tuple[str, ...] = ()

    def place(self, index: int) -> str:
        """Where a row stands, for a message."""
        return f"{self.files[index] if self.files else self.source}, {self.unit} {self.places[index]}"

    def at(self, index: int, column: str) -> str:
        """Where a value stands, for a message."""
        return f"{self.place(index)}, column {column!r}"

    def require(self, names: Iterable[str]) -> None:
        """Raises DataError when the table lacks one of the columns; names all that are missing."""
        missing = [name for name in dict.fromkeys(names) if name not in self.columns]
        if not missing:
            return
        hints = "".join(did_you_mean(name, self.columns) for name in missing)
        if len(self.columns) == 1 and re.search("[;|\t]", self.columns[0]):
            hints += " The header holds no comma: is the file separated by another sign? Save it with commas."
        words = f"no column {missing[0]!r}" if len(missing) == 1 else f"no columns {missing}"
        raise DataError(f"{self.source}: {words}. The columns are {list(self.columns)}.{hints} Correct the recipe or the file.")


def read(path: Path | str) -> Table:
    """The rows of a file, of a folder (written by `datasets.save_to_disk`, or holding files of one of the kinds above, also in one folder of
    it), or of `hub:owner/name[:split]`.

    Only the last uses the network. Raises DataError for whatever cannot be read.
    """
    if str(path).startswith(HUB):
        return _read_hub(str(path))
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        beside = [name for name in os.listdir(path.parent) if name != path.name] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, beside) if path.parent.is_dir() else f" There is no folder {path.parent} either."
        raise DataError(f"{path}: no such file.{hint} Correct the path (in a recipe, a relative one starts at the recipe's folder).")
    suffix = _suffix(path.name)
    if not suffix:
        raise DataError(f"{path}: files of this kind are not read. Allowed: {', '.join(SUFFIXES)}, a folder, hub:owner/name.")
    rows, places, unit = _read_file(path, suffix)
    return _table(path, path.name[: -len(suffix)], rows, places, unit)


def _suffix(name: str) -> str:
    """The longest of the suffixes that the name ends with, or ""."""
    return next((s for s in sorted(SUFFIXES, key=len, reverse=True) if name.lower().endswith(s)), "")


def _read_file(path: Path, suffix: str) -> tuple[list[Record], list[int], str]:
    """(rows, places, unit)."""
    if suffix in (".parquet", ".arrow"):
        rows = _read_parquet(path) if suffix == ".parquet" else _read_arrow(path)
        return rows, list(range(1, len(rows) + 1)), "row"
    if suffix.startswith(".jsonl"):
        return *_read_json_lines(path), "line"
    if suffix.startswith(".json"):
        return _read_json(path)
    return *_read_csv(path, "\t" if suffix.startswith(".tsv") else ","), "line"


def _table(source: object, stem: str, rows: Sequence[Record], places: Sequence[int], unit: str) -> Table:
    if not rows:
        raise DataError(f"{source}: holds no rows. Give a file with at least one row.")
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(str(source), stem, columns, tuple(rows), tuple(places), unit)


def _lines(path: Path, limit: int = LINE_LIMIT) -> Iterator[tuple[int, str]]:
    """(number from 1, text with its line end), decoded line by line so that errors can name the line. limit: bytes of one line."""
    number = offset = 0
    try:
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
            while raw := file.readline(limit + 1):
                number += 1
                if len(raw) > limit:
                    raise DataError(f"{path}, line {number}: over {limit:,} bytes, the most one line may have. Shorten or delete it.")
                yield number, _decode(path, number, offset, raw)
                offset += len(raw)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}, after line {number}: the gzip file is damaged or cut short ({error}). Copy or make it again.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}). Check the path and its permissions.") from error


def _decode(path: Path, number: int, offset: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        bad = len(raw) - len(error.object) + error.start  # a byte order mark is cut off before decoding
        raise DataError(
            f"{path}, line {number}: not UTF-8 at byte {offset + bad}, counted from 0 (0x{raw[bad]:02x}). Save the file as UTF-8."
        ) from error


def _read_json_lines(path: Path) -> tuple[list[Record], list[int]]:
    rows: list[Record] = []
    places: list[int] = []
    for number, text in _lines(path):
        if not text.strip():
            continue
        try:
            row = DECODER.decode(text)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {number}: broken JSON, {error.msg} at character {error.colno}. Each line must be one whole JSON object."
            ) from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: JSON that cannot be read ({error}). Correct or delete the line.") from error
        if not isinstance(row, dict):
            raise DataError(f'{path}, line {number}: must be one JSON object such as {{"text": "..."}}. Got a {type(row).__name__}.')
        rows.append(row)
        places.append(number)
    return rows, places


def _read_csv(path: Path, delimiter: str) -> tuple[list[Record], list[int]]:
    header: list[str] = []
    rows: list[Record] = []
    places: list[int] = []
    before = csv.field_size_limit(LINE_LIMIT)  # the module's own limit, 128 KiB, is less than a long document
    try:
        for number, cells in _csv_records(path, delimiter):
            if not header:
                header = _header(path, number, cells)
            elif len(cells) != len(header):
                raise DataError(
                    f"{path}, line {number}: {len(cells)} cells, but the header has {len(header)}. "
                    f"Put quotes around values that hold {delimiter!r}, or correct the row."
                )
            else:
                rows.append({name: cell for name, cell in zip(header, cells, strict=True) if name})
                places.append(number)
    finally:
        csv.field_size_limit(before)
    if not header:
        raise DataError(f"{path}: is empty. Give a file with a header line and at least one row.")
    if not rows:
        raise DataError(f"{path}: holds a header and no rows. Give at least one row.")
    return rows, places


def _header(path: Path, number: int, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(f"{path}, line {number}: the header names {twice} more than once. Give each column its own name.")
    return names


def _csv_records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line where the record begins, its cells); blank lines are skipped."""
    reader = csv.reader((text for _, text in _lines(path)), delimiter=delimiter, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            unclosed = "end of data" in str(error) or "field limit" in str(error)
            found = f"a quote is never closed, or a cell is over {LINE_LIMIT:,} characters" if unclosed else f"broken quoting, {error}"
            if "new-line" in str(error):
                raise DataError(
                    f"{path}, line {start}: holds a carriage return that ends no line. Save the file with line ends LF or CR LF."
                ) from error
            raise DataError(f'{path}, line {start}: in the row that begins here {found}. Inside a quoted value write a quote twice: "".') from error
        if cells:
            yield start, cells


def _read_json(path: Path) -> tuple[list[Record], list[int], str]:
    """Rows of one JSON value (see `jsonfile`), by number where several begin on a line; a file of one object a line is taken for JSON lines, as
    many tools name those .json."""
    text = "".join(text for _, text in _lines(path, JSON_LIMIT))
    try:
        found = rows_of(text)
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("{") and "\n" in text.strip():
            return *_read_json_lines(path), "line"
        raise DataError(f"{path}, line {error.lineno}: broken JSON, {error.msg} at character {error.colno}. Correct the file.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: JSON that cannot be read ({error}). Give a list of objects, or one JSON object a line.") from error
    lines = [line for _, line in found]
    places, unit = (lines, "line") if len(set(lines)) == len(lines) else (list(range(1, len(found) + 1)), "row")
    for (row, _), place in zip(found, places, strict=True):
        if not isinstance(row, dict):
            raise DataError(f'{path}, {unit} {place}: must be one JSON object such as {{"text": "..."}}. Got a {type(row).__name__}.')
    return [row for row, _ in found], places, unit


def _read_parquet(path: Path) -> list[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            content = file.read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: a damaged Parquet file, or none ({_first_line(error)}). Copy or make it again.") from error
    return _arrow_rows(path, content)


def _read_arrow(path: Path) -> list[Record]:
    """An Arrow file, or the stream that the library datasets writes."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file:
            try:
                content = pa.ipc.open_stream(file).read_all()
            except pa.ArrowInvalid:
                content = pa.ipc.open_file(file).read_all()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: a damaged Arrow file, or none ({_first_line(error)}). Copy or make it again.") from error
    return _arrow_rows(path, content)


def _arrow_rows(path: Path, content: Any) -> list[Record]:
    """Rows of an Arrow table; numbered classes become their names, which the library datasets keeps in the schema."""
    _header(path, 1, content.column_names)
    rows: list[dict[str, Any]] = content.to_pylist()
    try:
        features = json.loads(content.schema.metadata[b"huggingface"])["info"]["features"]
        named = {name: f["names"] for name, f in features.items() if f.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        named = {}
    for name, names in named.items():
        for row in rows:
            value = row.get(name)
            row[name] = names[value] if isinstance(value, int) and 0 <= value < len(names) else None
    return list(rows)


def _read_folder(path: Path) -> Table:
    if (path / "dataset_dict.json").is_file():
        names = sorted(p.name for p in path.iterdir() if (p / "state.json").is_file())
        if len(names) == 1:
            return _read_folder(path / names[0])
        raise DataError(f"{path}: holds the splits {names}. Name one of them, for example {path / (names or ['train'])[0]}.")
    parts = _parts(path)
    if not parts:
        inside = [
            p for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith(".") and (_parts(p) or (p / "dataset_dict.json").is_file())
        ]
        usual = [p for name in NESTED for p in inside if p.name == name][:1] or inside
        if len(usual) == 1:
            return _read_folder(usual[0])
        found = f"its folders {[p.name for p in inside]} each hold rows. Name one of them" if inside else "no file of rows is in it. Name a file"
        raise DataError(f"{path}: {found}. Allowed: {', '.join(SUFFIXES)}, or a folder of them.")
    named = {part: re.sub(r"[-_.]?\d+(-of-\d+)?$", "", part.name[: -len(_suffix(part.name))]) for part in parts}
    if len(set(named.values())) > 1 and any(SPLITS.search(name) for name in named.values()):  # all together would mix test into training rows
        raise DataError(f"{path}: its files are of several splits, {sorted(set(named.values()))}. Name one file, or give each split its own folder.")
    rows: list[Record] = []
    places: list[int] = []
    files: list[str] = []
    by_part = [_read_file(part, _suffix(part.name)) for part in parts]
    units = {unit for _, _, unit in by_part}  # of JSON, each file has its own
    for part, (of_part, where, _) in zip(parts, by_part, strict=True):
        rows.extend(of_part)
        places.extend(where if len(units) == 1 else range(1, len(of_part) + 1))
        files.extend([str(part)] * len(of_part))
    return replace(_table(path, path.resolve().name, rows, places, units.pop() if len(units) == 1 else "row"), files=tuple(files))


def _parts(path: Path) -> list[Path]:
    """The files of a folder that hold its rows, by name."""
    files = [p for p in sorted(path.iterdir()) if p.is_file() and p.name not in NOTES and not p.name.startswith((".", "cache-"))]
    by_kind = ([p for p in files if _suffix(p.name) in kind] for kind in IN_FOLDERS)
    return next((found for found in by_kind if found), [])


def _read_hub(source: str) -> Table:
    name, _, split = source.removeprefix(HUB).partition(":")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise DataError(f"{source}: not the name of a hub dataset. Write hub:owner/name or hub:owner/name:split.")
    split = split or "train"
    return _from_datasets(source, f"{name.rpartition('/')[2]}-{split}", lambda library: library.load_dataset(name, split=split))


def _from_datasets(source: str, stem: str, load: Any) -> Table:
    """A dataset of the `datasets` library; numbered classes become their names, -1 (unlabelled) becomes None."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{source}: needs the library datasets. Run: pip install 'seedbed[datasets]'") from error
    try:
        dataset = load(datasets)
        rows: list[dict[str, Any]] = dataset.to_list()
    except Exception as error:  # the library raises whatever its network and file layers raise
        raise DataError(f"{source}: cannot be loaded ({type(error).__name__}: {_first_line(error)}). Check name, split and network.") from error
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.ClassLabel):
            for row in rows:
                row[name] = None if row[name] in (None, -1) else feature.int2str(row[name])
    return _table(source, stem, rows, range(1, len(rows) + 1), "row")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

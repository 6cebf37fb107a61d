"""The dataset on disk: kept rows as Parquet beside their card, in a folder that `datasets.load_dataset` opens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from seedbed.task import Task
from seedbed.types import Candidate

ORIGIN = ("model_hash", "adapter_hash", "sampling", "filters")
"""Of a row's provenance, what a run knows of all its rows alike."""
GROUP = 1 << 15
"""Rows of a dataset that are in memory at once, and in one row group of its file."""


@dataclass(frozen=True)
class Written:
    """The data file of a dataset: its place in the folder, Arrow schema and rows; nbytes: of the rows in memory, size: of the file."""

    file: str
    schema: Any
    rows: int
    nbytes: int
    size: int


def data_file(kept: Iterable[Candidate]) -> str:
    """`data/train-DIGEST.parquet`. `datasets` caches a local folder by its card and file names, not by what is in them: so the name says it."""
    digest = hashlib.sha256(b"[")
    for i, c in enumerate(kept):
        digest.update((", " * bool(i) + json.dumps([c.id, c.fields, c.provenance, c.annotations], default=dict)).encode())
    digest.update(b"]")
    return f"data/train-{digest.hexdigest()[:16]}.parquet"


def write_dataset(folder: Path, task: Task, kept: Sequence[Candidate], card: Callable[[Written], str]) -> None:
    """The rows in `data_file(kept)` and README.md (the card of that file); `datasets.load_dataset(folder)` opens it. Equal input, equal bytes.

    Columns: the task's, `provenance` {candidate, index, sources, weights, generator, model, seed, label, those of ORIGIN, annotations}, of which all
    from sources to ORIGIN are None where `Candidate.provenance` lacks them, and `synthetic`, always true. label: which the teacher wrote, where
    `generate.relabel` gave the row another's. annotations: {annotator, labels,
    probabilities} of each annotator, the likeliest label first. Lists are nested; those of no common type are JSON texts. Rows are
    written GROUP at a time.
    """
    import pyarrow.parquet as pq

    name = data_file(kept)
    kinds = {column: _kind(c.fields[column] for c in kept if c.fields is not None) for column in task.columns if column in task.structured}
    stream = iter(kept)
    first = _table(task, list(islice(stream, GROUP)), kinds)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(folder / name, first.schema) as writer:
        writer.write_table(first)
        while part := list(islice(stream, GROUP)):
            writer.write_table(_table(task, part, kinds))
    # As a reader gets it: its size in memory is the one that `datasets` counts.
    with pq.ParquetFile(folder / name) as file:
        nbytes = sum(file.read_row_group(i).nbytes for i in range(file.num_row_groups))
    written = Written(name, first.schema, len(kept), nbytes, (folder / name).stat().st_size)
    (folder / "README.md").write_bytes(card(written).encode())


def _table(task: Task, kept: Sequence[Candidate], kinds: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    records = [c.fields for c in kept if c.fields is not None]
    if len(records) != len(kept):
        raise ValueError("a candidate without fields cannot be kept.")
    columns = {name: _column([r[name] for r in records], kinds.get(name)) for name in task.columns}
    schema = {"sources": pa.list_(pa.string()), "weights": pa.list_(pa.float64()), "generator": pa.string(), "model": pa.string()}
    schema |= {"seed": pa.int64(), "label": pa.string(), "model_hash": pa.string(), "adapter_hash": pa.string()}
    drawn = {"temperature": pa.float64(), "top_p": pa.float64(), "max_tokens": pa.int64()}
    schema |= {"sampling": pa.struct(drawn), "filters": pa.list_(pa.string())}
    said = {"annotator": pa.string(), "labels": pa.list_(pa.string()), "probabilities": pa.list_(pa.float64())}
    origins = [
        {"candidate": c.id, "index": c.index, "annotations": [(kind, list(p), list(p.values())) for kind, p in c.annotations.items()]}
        | {name: c.provenance.get(name) for name in schema}
        for c in kept
    ]
    shape = {"candidate": pa.string(), "index": pa.int64()} | schema | {"annotations": pa.list_(pa.struct(said))}
    columns["provenance"] = pa.array(origins, pa.struct(shape))
    columns["synthetic"] = pa.array([True] * len(kept), pa.bool_())
    return pa.table(columns)


def _column(values: list[Any], kind: Any) -> Any:
    """kind: the Arrow type of a nested column; None: texts, and values of no common type as JSON."""
    import pyarrow as pa

    if kind is not None:
        return pa.array(values, kind)
    return pa.array([value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values], pa.string())


def _kind(values: Iterable[Any]) -> Any:
    """The Arrow type that holds all values of a nested column as they are; None where there is none."""
    import pyarrow as pa

    stream, kinds = iter(values), list[Any]()
    try:
        while part := list(islice(stream, GROUP)):
            nested = pa.array(part)
            if json.dumps(nested.to_pylist()) != json.dumps(part):  # Arrow unifies silently: 1 to 1.0, a missing key to None
                return None
            kinds.append(pa.schema([("value", nested.type)]))
        kind = pa.unify_schemas(kinds).field("value").type
    except pa.ArrowException:
        return None  # mixed types: JSON holds them
    return kind

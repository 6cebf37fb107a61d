"""From tables to examples and a split sample, and back to a dataset on disk.

How a sample is split: test first, and it does not depend on the seed, so that seeds share one test; then `rows` training rows are
drawn by the seed, and dev is taken from those. Labels are spread in proportion (largest remainder), a label with a single row goes
to fit, and rows of the same passage, input or group never stand on two sides. (Files that come split already are left as they are.)
With `folds` no row is set aside for the test: each row is in the test of one fold, whose training rows are the others.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from seedbed.canaries import plant
from seedbed.errors import DataError, did_you_mean
from seedbed.layouts import chats
from seedbed.readers import HUB, Table, read
from seedbed.task import Task, labels_of
from seedbed.types import Example, Sample, seed_for

__all__ = ["SampleSpec", "Table", "examples", "load_sample", "read", "record"]

ADDED = ("provenance", "synthetic")
"""Columns that `write_dataset` adds, so that no task can use their names."""


class SampleSpec(BaseModel):
    """Where the examples are, and how many to use.

    path: one file, split here. fit, dev, test: files that are split already; dev and test are taken from fit where absent.
    pool: inputs without targets. hide: the pool is the left-out rows, without their targets: to try out what annotating is worth where all
    rows are labelled. rows or fraction: how many training rows (fit + dev; with a dev file: fit rows, and at most as many
    of dev) to use, the others become `Sample.more`. dev_share: share of the training rows that becomes dev. test_share: share of the
    rows that becomes test, 0 for none. folds: in its place, for few rows: each is in the test of one fold. The run's rows are grown from all, and
    their gain is that of rows grown anew in each fold, without its test rows. canaries: rows with random words that are planted among what the
    teacher learns, to see whether it gives them away (metric `membership`); each stands there canary_repeats times. A run with them is an audit:
    do not use its rows. File names are
    relative to the recipe; `hub:owner/name:split` is allowed. license: of these rows, as the hub spells it (`cc-by-4.0`), for the dataset's card.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None = None
    fit: str | None = None
    dev: str | None = None
    test: str | None = None
    pool: str | None = None
    hide: bool = False
    rows: Annotated[int, Field(ge=2)] | None = None
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    dev_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.25
    folds: Annotated[int, Field(ge=2, le=20)] | None = None
    canaries: Annotated[int, Field(ge=0, le=1000)] = 0
    canary_repeats: Annotated[int, Field(ge=1, le=1000)] = 1
    license: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$")] | None = None

    @model_validator(mode="after")
    def _agree(self) -> SampleSpec:
        problems = []
        if self.path and self.fit:
            problems.append("'path' is one file to split and 'fit' a file split already. Got both, give one.")
        if not self.path and not self.fit:
            problems.append("needs 'path' (one file, split here) or 'fit' (files split already). Got neither.")
        alone = [name for name in ("dev", "test") if getattr(self, name) and not self.fit]
        if alone:
            problems.append(f"{' and '.join(map(repr, alone))} without 'fit'. Name the training file with 'fit' instead of 'path'.")
        if self.rows is not None and self.fraction is not None:
            problems.append(f"'rows' and 'fraction' say the same thing. Got rows = {self.rows} and fraction = {self.fraction}, give one.")
        if self.hide and self.pool:
            problems.append("'hide' makes the pool of the left-out rows, and 'pool' names a file of it. Got both, give one.")
        if self.hide and self.rows is None and self.fraction is None:
            problems.append("'hide' hides the targets of the rows that 'rows' or 'fraction' leave out. Got neither, give one.")
        for share in sorted(self.idle & self.model_fields_set):
            why = "'folds' makes each row a test row once" if self.folds and share == "test_share" else f"'{share[:-6]}' names a file"
            problems.append(f"'{share}' has no use when {why}. Give one of them.")
        if self.folds and self.test:
            problems.append("'folds' tests on the training rows, each once, and 'test' names a file of test rows. Give one of them.")
        if problems:
            raise ValueError(" ".join(problems))
        return self

    @property
    def idle(self) -> set[str]:
        """The shares that a named file, or folds, leave without use."""
        return {f"{name}_share" for name in ("dev", "test") if getattr(self, name)} | ({"test_share"} if self.folds else set())


def examples(table: Table, task: Task, *, need_target: bool = True) -> tuple[Example, ...]:
    """The table's rows as examples of the task; need_target False reads inputs alone.

    Texts are stripped. Ids come from a column `id`, or are `<stem>-<row>`. Columns that only scoring reads come along where the table
    has them; a row without `references` has its target as the only one. Raises DataError.
    """
    table.require(task.columns if need_target else task.inputs)
    found, seen = [], dict[str, int]()
    for i in range(len(table.rows)):
        fields = record(table, i, task, need_target=need_target)
        name = _text(table.at(i, "id"), table.rows[i].get("id")) if "id" in table.columns else f"{table.stem}-{i + 1}"
        if name in seen:
            raise DataError(f"{table.at(i, 'id')}: {name!r} stands in {table.unit} {seen[name]} too. Give each row its own id.")
        seen[name] = table.places[i]
        found.append(Example(name, fields))
    return tuple(found)


def record(table: Table, index: int, task: Task, *, need_target: bool = True) -> dict[str, Any]:
    """The fields of one row, as `examples` reads it. Raises DataError."""
    needed = task.columns if need_target else task.inputs
    also = [c for c in (*task.extras, *([task.tests] if task.tests else [])) if c in table.columns and c not in needed]
    fields = {name: _cell(table, index, name, task) for name in (*needed, *also)}
    if need_target and task.references and task.references not in fields:
        fields[task.references] = [fields[str(task.target)]]
    if need_target and task.has_labels and task.labels:
        _check_label(table.at(index, str(task.target)), fields[str(task.target)], task.labels)
    return fields


def _check_label(where: str, label: str, labels: Sequence[str]) -> None:
    if label not in labels:
        allowed = str(list(labels)) if len(labels) <= 20 else f"{list(labels[:20])} and {len(labels) - 20} more"
        hint = did_you_mean(label, labels)
        raise DataError(
            f"{where}: unknown label {label!r}. Allowed: {allowed}.{hint} Correct the row, or add the label to the task.", "unknown label"
        )


def _cell(table: Table, index: int, name: str, task: Task) -> Any:
    value, where = table.rows[index].get(name), table.at(index, name)
    if name not in task.structured and name != task.references:
        return _text(where, value)
    if isinstance(value, str):  # how CSV holds a list
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: must be a list, in CSV as JSON. Got the text {_short(value)}. Correct the row.", "no list") from error
    if not isinstance(value, list):
        raise DataError(f"{where}: must be a list, in CSV as JSON. Got {_short(value)}. Correct the row.", "no list")
    if name == task.references and not (value and all(isinstance(v, str) and v.strip() for v in value)):
        raise DataError(f"{where}: must be a list of one or more texts. Got {_short(value)}. Correct the row.")
    try:
        _encodable(where, json.dumps(value, ensure_ascii=False))
    except TypeError as error:
        raise DataError(f"{where}: must hold only what JSON can ({error}). Got {_short(value)}. Correct the row.") from error
    return value


def _text(where: str, value: Any) -> str:
    """A text value, stripped; numbers as Python writes them, true and false as JSON does."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise DataError(f"{where}: no value. Fill it in or delete the row.", "no value")
    if not isinstance(value, str | int | float):
        raise DataError(
            f"{where}: must be a text. Got a {type(value).__name__}, {_short(value)}. Write it as text, or name another column.", "no text"
        )
    text = str(value).strip()
    if not text:
        raise DataError(f"{where}: the text is empty. Fill it in or delete the row.", "empty text")
    return _encodable(where, text)


def _encodable(where: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: holds half of a surrogate pair, {text[error.start]!r}, which is no text. Correct the row.") from error
    return text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def load_sample(spec: SampleSpec, task: Task, seed: int, base: Path) -> Sample:
    """Reads the files and splits them as the module says; `Sample.task` has its labels filled in. Raises DataError.

    base: folder that relative file names start at. seed: redraws fit and dev, never the test.
    """
    tables = {part: _open(base, name) for part in ("path", "fit", "dev", "test", "pool") if (name := getattr(spec, part))}
    main = "path" if spec.path else "fit"
    _check_columns(task, tables, tables.get("test", tables[main]))
    files = _own_ids({part: examples(table, task, need_target=part != "pool") for part, table in tables.items()})
    source, rows = tables[main].source, files[main]
    if spec.folds:
        _rows_used(spec, len(rows), source)
        folds = tuple(_split(spec, task, seed, files, train, test, source) for test, train in _folds(task, rows, spec.folds, source))
        return replace(_split(spec, task, seed, files, rows, (), source), folds=folds)
    test, train = (files["test"], rows) if "test" in files else _choose(task, rows, round(spec.test_share * len(rows)), 0, whole=True)
    return _split(spec, task, seed, files, train, test, source)


def _split(
    spec: SampleSpec,
    task: Task,
    seed: int,
    files: Mapping[str, tuple[Example, ...]],
    train: tuple[Example, ...],
    test: tuple[Example, ...],
    source: str,
) -> Sample:
    """The sample of these training and test rows: fit, dev, and what `rows` leave out."""
    n = min(len(train), spec.rows) if spec.folds and spec.rows else _rows_used(spec, len(train), source)
    fit, more = _choose(task, train, n, seed_for(seed, "rows"), whole=False)
    tested = {key for e in test for key in _keys(task, e)} if spec.folds else set[str]()  # else files that come split are left as they are
    if "dev" in files:
        dev = tuple(e for e in files["dev"] if not tested.intersection(_keys(task, e)))
        if spec.rows or spec.fraction:
            dev, _ = _choose(task, dev, min(n, len(dev)), seed_for(seed, "dev"), whole=False)
    else:
        dev, fit = _choose(task, fit, max(1, round(spec.dev_share * n)), seed_for(seed, "dev"), whole=True)
        checked = {key for e in dev for key in _keys(task, e)}
        more = tuple(e for e in more if not checked.intersection(_keys(task, e)))
    of_fold, share = spec.folds and test, "folds" if spec.folds else "test_share"
    beside = f", {len(test)} of them in a fold's test," if of_fold else ""
    among = " among a fold's training rows. Lower 'folds' or add rows" if of_fold else ""
    if len(fit) < 2 or not dev:
        raise DataError(
            f"{source}: {len(train) + len(test)} rows{beside} give {len(fit)} for fit and {len(dev)} for dev; at least 2 and 1 are needed. "
            f"Rows with equal {together(task)} stay together, and a label's only row goes to fit. "
            f"Add rows, or change 'rows', 'fraction', '{share}' or 'dev_share'."
        )
    labels = labels_of(task, (*fit, *dev))
    if task.has_labels and len(labels) < 2:
        raise DataError(f"{source}, column {task.target!r}: a {task.kind} needs two labels or more. Got {list(labels)}{among}.")
    pool = tuple(replace(e, fields={k: v for k, v in e.fields.items() if k in task.inputs}) for e in more) if spec.hide else files.get("pool", ())
    pool = tuple(e for e in pool if not tested.intersection(_keys(task, e)))
    planted = plant(task, fit, 0 if spec.folds and test else spec.canaries, seed_for(seed, "canaries"))
    return Sample(replace(task, labels=labels), fit, dev, test, pool, more, planted, spec.canary_repeats)


def _folds(task: Task, rows: Sequence[Example], k: int, source: str) -> list[tuple[tuple[Example, ...], tuple[Example, ...]]]:
    """k times (test, training rows): rows that share a key in one fold, labels in proportion; a label's only block is in no test, as no student
    could have learned it. It does not depend on a seed."""
    strata: dict[str, list[list[int]]] = {}
    for block in sorted(_blocks(task, rows), key=lambda block: seed_for(0, rows[block[0]].id)):
        strata.setdefault(_label(task, [rows[i] for i in block]), []).append(block)
    fold_of: dict[int, int] = {}
    dealt = [(label, block) for label in sorted(strata) if len(strata[label]) > 1 for block in sorted(strata[label], key=len, reverse=True)]
    if len(dealt) < k:
        raise DataError(
            f"{source}: folds = {k} need as many rows with different {together(task)}. Got {len(dealt)} beside labels' "
            "only rows, which are in no test. Lower 'folds' or add rows."
        )
    of_label, size = Counter[tuple[str, int]](), [0] * k
    for label, block in dealt:  # the largest first, to the fold with the fewest rows of the label, of these to the smallest
        fold = min(range(k), key=lambda fold: (of_label[label, fold], size[fold]))
        fold_of |= dict.fromkeys(block, fold)
        of_label[label, fold] += len(block)
        size[fold] += len(block)
    sides = []
    for fold in range(k):
        test = tuple(e for i, e in enumerate(rows) if fold_of.get(i) == fold)
        sides.append((test, tuple(e for i, e in enumerate(rows) if fold_of.get(i) != fold)))
    return sides


def _open(base: Path, name: str) -> Table:
    return chats(read(name if name.startswith(HUB) else base / name))


def _check_columns(task: Task, tables: Mapping[str, Table], scored: Table) -> None:
    """What `examples` does not ask of every table: scoring columns where the test comes from, the group wherever rows are split."""
    clash = [name for name in (*task.columns, *task.extras) if name in ADDED]
    if clash:
        raise DataError(f"the task's column {clash[0]!r} has a name that the written dataset needs. Rename the column.")
    scored.require(task.extras)
    for part, table in tables.items():
        if task.group and part != "pool":
            table.require([task.group])


def _own_ids(files: Mapping[str, tuple[Example, ...]]) -> dict[str, tuple[Example, ...]]:
    """Ids are unique within a file; where two files share one, all get the name of their part in front."""
    ids = [e.id for part in files.values() for e in part]
    if len(set(ids)) == len(ids):
        return dict(files)
    return {name: tuple(replace(e, id=f"{name}:{e.id}") for e in part) for name, part in files.items()}


def _rows_used(spec: SampleSpec, available: int, source: str) -> int:
    if spec.fraction is not None:
        return max(1, round(spec.fraction * available))
    if spec.rows is not None and spec.rows > available:
        raise DataError(f"{source}: 'rows' asks for {spec.rows} training rows. Got {available} beside the test. Lower 'rows' or add rows.")
    return available if spec.rows is None else spec.rows


def _shared_columns(task: Task) -> tuple[str, ...]:
    """Columns whose equal values keep rows on one side: the passage or premise of qa and pair, else the whole input."""
    return tuple(c for c in (*task.given_columns, *task.inputs) if c in task.inputs)[:1] if task.kind in ("pair", "qa") else task.inputs


def together(task: Task) -> str:
    """The columns whose equal values keep rows on one side, in words."""
    return " and ".join(map(repr, dict.fromkeys((*_shared_columns(task), *([task.group] if task.group else [])))))


def _keys(task: Task, example: Example) -> list[str]:
    """Two rows with a key in common belong on one side."""
    shared = json.dumps([example.fields[name] for name in _shared_columns(task)])
    return [f"shared {shared}", f"group {example.fields[task.group]}"] if task.group and task.group in example.fields else [shared]


def _blocks(task: Task, rows: Sequence[Example]) -> list[list[int]]:
    """Indices of rows that share a key, directly or through other rows."""
    parent = list(range(len(rows)))

    def top(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    first: dict[str, int] = {}
    for i, example in enumerate(rows):
        for key in _keys(task, example):
            parent[top(i)] = top(first.setdefault(key, i))
    blocks: dict[int, list[int]] = {}
    for i in range(len(rows)):
        blocks.setdefault(top(i), []).append(i)
    return list(blocks.values())


def _choose(task: Task, rows: Sequence[Example], want: int, seed: int, *, whole: bool) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """(`want` of the rows, the others), each in file order; labels in proportion.

    whole True: rows of one block stay together (then about `want`), and each label keeps a block among the others.
    whole False: exactly `want` rows, and every label at least once where `want` allows.
    """
    blocks = _blocks(task, rows) if whole else [[i] for i in range(len(rows))]
    # Sorting by a hash of the id draws without a generator: the same on every Python, and nearly the same when rows are added.
    blocks.sort(key=lambda block: seed_for(seed, rows[block[0]].id))
    strata: dict[str, list[list[int]]] = {}
    for block in blocks:
        strata.setdefault(_label(task, [rows[i] for i in block]), []).append(block)
    counts = {label: sum(map(len, of)) for label, of in strata.items()}
    most = {label: counts[label] - min(map(len, of)) if whole else counts[label] for label, of in strata.items()}
    quotas = _quotas(counts, want, 0 if whole or want < len(strata) else 1, most)
    taken: set[int] = set()
    for label, of in strata.items():
        left = quotas[label]
        for block in of:
            if len(block) <= left:
                taken.update(block)
                left -= len(block)
    if whole and want and not taken and len(blocks) > 1:  # every block is larger than its share: the smallest that can be spared
        spare = [block for of in strata.values() if len(of) > 1 for block in of] or [block for block in blocks if len(block) > 1]
        taken.update(*sorted(spare, key=len)[:1])
    chosen = tuple(e for i, e in enumerate(rows) if i in taken)
    return chosen, tuple(e for i, e in enumerate(rows) if i not in taken)


def _label(task: Task, block: Iterable[Example]) -> str:
    """The most frequent label of a block; "" for tasks without labels."""
    if not task.has_labels or not task.target:
        return ""
    counts = Counter(str(e.fields[task.target]) for e in block)
    return max(sorted(counts), key=lambda label: counts[label])


def _quotas(counts: Mapping[str, int], want: int, least: int, most: Mapping[str, int]) -> dict[str, int]:
    """`want` divided in proportion to the counts by largest remainder; parts stay in `least` to `most`, even if the sum misses `want`."""
    ideal = {label: want * count / sum(counts.values()) for label, count in counts.items()}
    got = {label: min(most[label], max(least, int(ideal[label]))) for label in counts}
    while (short := min(want, sum(most.values())) - sum(got.values())) > 0:
        for label in sorted((c for c in counts if got[c] < most[c]), key=lambda c: got[c] - ideal[c])[:short]:
            got[label] += 1
    while (over := sum(got.values()) - want) > 0:
        for label in sorted((c for c in counts if got[c] > least), key=lambda c: ideal[c] - got[c])[:over]:
            got[label] -= 1
    return got


def in_words(sample: Sample) -> str:
    """Its sizes; with folds the tests' rows are rows of fit and dev, but for those whose label is in no other row."""
    folds = f" of these, in {len(sample.folds)} folds" * bool(sample.folds)
    return f"fit {len(sample.fit)}, dev {len(sample.dev)}, test {len(sample.tested)} rows{folds}"

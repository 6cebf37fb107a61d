"""The kept step: each filter judges what the ones before it kept; what is dropped is kept too, with who dropped it and why.

Candidates go through row by row filters a part at a time and wait on disk for those that judge all together: memory does not grow with
their number.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any

from seedbed.catalog import guarded
from seedbed.errors import ComponentError
from seedbed.parts import Component
from seedbed.recipe import Recipe
from seedbed.store import Lines, line_of, spilled, unchanged, write_hashes, write_lines
from seedbed.types import Candidate, Sample, Verdict

SIFTED = ("kept.jsonl", "dropped.jsonl")
JUDGED_TOGETHER = 1000
"""Candidates in one part of row-by-row filtering."""
Reason = tuple[int, str]
"""(the place of a filter in the recipe, why it drops)."""
FIRST, LAST = -1, 10**6
"""Places of what no filter drops: a candidate that nobody gave a label, and one of the wrong form that no filter looked at."""


def sift(out: Path, candidates: Iterable[Candidate], recipe: Recipe, sample: Sample) -> None:
    """Writes kept.jsonl and dropped.jsonl, in which each filter's drops follow those of the filters before."""
    scratch = out / "sifting"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    target = sample.task.target

    def unnamed(c: Candidate) -> Reason | None:  # nobody gave it a label: no filter can judge it
        return (FIRST, "no label") if c.annotated and c.fields is not None and target not in c.fields else None

    def unread(c: Candidate) -> Reason | None:  # no filter of the recipe looked at the form
        return (LAST, c.problem) if c.fields is None else None

    with closing(_Drops(scratch, recipe, sample)) as drops:
        rows: Iterable[Candidate] = drops.passed((c, unnamed(c)) for c in candidates)
        for set_wise, stage in groupby(enumerate(recipe.filters), lambda placed: placed[1].settings.scope == "set"):
            if not set_wise:
                rows = drops.passed(_by_row(list(stage), rows, sample))
                continue
            for place, component in stage:
                lines = rows if isinstance(rows, Lines) else spilled(scratch / f"rows-{place}.jsonl", map(vars, rows), _candidate)
                rows = _together(place, component, lines, sample, drops)
        write_lines(scratch / SIFTED[0], map(vars, drops.passed((c, unread(c)) for c in rows)))
    drops.write(scratch / SIFTED[1])
    for name in SIFTED:
        (scratch / name).replace(out / name)
    shutil.rmtree(scratch)
    write_hashes(out, SIFTED)


def tally(kinds: Iterable[str], dropped: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """`filter:reason` -> rows, by name; of a filter that dropped none its kind alone, with 0. kinds: of the recipe's filters."""
    found = Counter(f"{d['filter']}:{d['reason']}" for d in dropped)
    idle = {kind: 0 for kind in kinds if not any(name.startswith(f"{kind}:") for name in found)}
    return dict(sorted({**found, **idle}.items()))


def write_sifted(out: Path, kept: Iterable[Candidate], dropped: Iterable[Mapping[str, Any]]) -> None:
    """The files of the step, of rows that no filter judged."""
    write_lines(out / SIFTED[0], map(vars, kept))
    write_lines(out / SIFTED[1], dropped)
    write_hashes(out, SIFTED)


def sifted(folder: Path) -> tuple[Lines[Candidate], Lines[dict[str, Any]]]:
    """Kept candidates and dropped records, read when they are asked for. Raises StoreError when a file is not what the step wrote."""
    unchanged(folder, SIFTED)
    return Lines(folder / SIFTED[0], _candidate), Lines(folder / SIFTED[1], dict)


def _candidate(record: dict[str, Any]) -> Candidate:
    return Candidate(**record)


class _Drops:
    """What was dropped, in a file for each filter while all of them work."""

    def __init__(self, scratch: Path, recipe: Recipe, sample: Sample) -> None:
        self.scratch, self.sample = scratch, sample
        self.names = {FIRST: "annotate", LAST: "parse", **{place: f.kind for place, f in enumerate(recipe.filters)}}
        self.files: dict[int, IO[str]] = {}

    def passed(self, judged: Iterable[tuple[Candidate, Reason | None]]) -> Iterator[Candidate]:
        """Those without a reason against them; the others are written down."""
        for candidate, reason in judged:
            if reason is None:
                yield candidate
            else:
                self.add(candidate, *reason)

    def add(self, candidate: Candidate, place: int, reason: str) -> None:
        """Its label: None where it could not be read or the task has none."""
        if place not in self.files:
            self.files[place] = self._path(place).open("w", encoding="utf-8", newline="\n")
        label = (candidate.fields or {}).get(str(self.sample.task.target)) if self.sample.task.has_labels else None
        record = {"id": candidate.id, "filter": self.names[place], "reason": reason, "label": label, "text": candidate.text}
        self.files[place].write(line_of(record))

    def close(self) -> None:
        for file in self.files.values():
            file.close()

    def write(self, path: Path) -> None:
        """All of them in one file."""
        with path.open("wb") as whole:
            for place in sorted(self.files):
                with self._path(place).open("rb") as part:
                    shutil.copyfileobj(part, whole)

    def _path(self, place: int) -> Path:
        return self.scratch / f"dropped-{place}.jsonl"


def _by_row(stage: Sequence[tuple[int, Component]], rows: Iterable[Candidate], sample: Sample) -> Iterator[tuple[Candidate, Reason | None]]:
    """Each candidate, and why the first of these filters that drops it does so."""

    def judge(part: list[Candidate]) -> list[tuple[Candidate, Reason | None]]:
        found: dict[int, Reason] = {}
        left = list(range(len(part)))
        for place, component in stage:
            verdicts = _judged(component, [part[i] for i in left], sample)
            found |= {i: (place, v.reason) for i, v in zip(left, verdicts, strict=True) if not v.keep}
            left = [i for i, v in zip(left, verdicts, strict=True) if v.keep]
        return [(candidate, found.get(i)) for i, candidate in enumerate(part)]

    stream = iter(rows)
    for judged in map(judge, iter(lambda: list(islice(stream, JUDGED_TOGETHER)), [])):
        yield from judged


def _together(place: int, component: Component, rows: Lines[Candidate], sample: Sample, drops: _Drops) -> Lines[Candidate]:
    """Those that a filter of all candidates together keeps."""
    import numpy as np

    verdicts = _judged(component, rows, sample)
    kept = np.array([v.keep for v in verdicts], dtype=bool)
    reasons = (v.reason for v in verdicts if not v.keep)
    for candidate, reason in zip(rows.take(~kept), reasons, strict=True):
        drops.add(candidate, place, reason)
    return rows.take(kept)


def _judged(component: Component, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
    verdicts = guarded(f"[filter] kind = {component.kind!r}", lambda: component.settings.judge(candidates, sample)) if len(candidates) else []
    if not isinstance(verdicts, list) or len(verdicts) != len(candidates) or not all(isinstance(v, Verdict) for v in verdicts):
        raise ComponentError(f"[filter] kind = {component.kind!r}: judge() must give a list of {len(candidates)} Verdicts. Got {verdicts!r:.80}.")
    return verdicts

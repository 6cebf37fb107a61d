"""The annotations step: what each annotator of the recipe says of every candidate. It adds columns and drops nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from seedbed.catalog import guarded
from seedbed.errors import ComponentError
from seedbed.paid import key_of, most
from seedbed.parts import Component
from seedbed.recipe import Recipe
from seedbed.store import Journal, each_line, journalled, spilled, unchanged, write_hashes, write_json, write_lines
from seedbed.types import Annotations, Backing, Candidate, Completion, Prompt, Sample, Sampling, Session, seed_for

WRITTEN = ("annotations.jsonl", "facts.json")
JOURNAL, ANSWERS = "journal.jsonl", "answers.jsonl"
"""What annotators said; what engines answered the one that is at work."""
TOGETHER = 1000
"""Distributions in one record of the journal."""


def annotate(folder: Path, candidates: Iterable[Candidate], recipe: Recipe, sample: Sample, backing: Backing) -> None:
    """annotations.jsonl, a line a candidate, and facts.json. After a stop an annotator that has finished is not asked again, and of the one that
    was at work an engine is not asked again what it has answered."""
    if not (folder / "hashes.json").exists():  # else it was stopped when all was written
        _write(folder, spilled(folder / "candidates.jsonl", map(vars, candidates), lambda record: Candidate(**record)), recipe, sample, backing)
    for name in (JOURNAL, ANSWERS, "candidates.jsonl"):
        (folder / name).unlink(missing_ok=True)


def _write(folder: Path, rows: Sequence[Candidate], recipe: Recipe, sample: Sample, backing: Backing) -> None:
    path = folder / JOURNAL
    with closing(Journal(path, lambda records: [_facts(r["kind"], r["facts"]) for r in records if "facts" in r])) as journal:
        whole = {facts["kind"] for facts in journal.records}
        journal.replace(record for record in journalled(path) if record["kind"] in whole)
        for component in recipe.annotators[len(whole) :]:
            with closing(Journal(folder / ANSWERS, dict)) as answers:
                remembering = replace(backing, remember=partial(_Remembered, answers, component.kind))
                found = _said(component, rows, sample, seed_for(recipe.seed, "annotations", component.kind), remembering)
                said = _checked(component, rows, found)
                for part in iter(lambda said=said: list(islice(said, TOGETHER)), []):  # type: ignore[misc]
                    journal.write({"kind": component.kind, "rows": part})
            journal.write({"kind": component.kind, "facts": dict(found.facts)})
            journal.records.append(_facts(component.kind, found.facts))
            (folder / ANSWERS).unlink()
        columns = {component.kind: _column(path, component.kind) for component in recipe.annotators}
        write_lines(folder / "annotations.jsonl", ({"id": c.id} | {kind: next(column) for kind, column in columns.items()} for c in rows))
        write_json(folder / "facts.json", journal.records)
    write_hashes(folder, WRITTEN)


def _facts(kind: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The kind first, whatever the annotator calls so."""
    return {"kind": kind} | {name: value for name, value in facts.items() if name != "kind"}


class _Remembered:
    """A session whose answers are journalled as they come; those of an earlier call, which are `known`, it gives again without asking."""

    def __init__(self, journal: Journal, kind: str, model: str, session: Session) -> None:
        self.journal, self.asker, self.session = journal, (kind, model), session
        self.known: Mapping[str, Any] = journal.records

    def describe(self) -> Mapping[str, Any]:
        return self.session.describe()

    def most(self, prompt: Prompt, sampling: Sampling) -> float:
        return 0.0 if self._key(prompt, sampling) in self.known else most(self.session, prompt, sampling)

    def score(self, prompt: Prompt, continuations: Sequence[str], ended: bool = False) -> list[tuple[float, int]]:
        key = self._key(prompt, list(continuations), ended)
        if key in self.known:
            return [(value, tokens) for value, tokens in self.known[key]]
        found = self.session.score(prompt, continuations, ended)
        self.journal.write([key, found])
        return found

    def complete(self, prompts: Iterable[tuple[int, Prompt]], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        again, keys = list[tuple[int, Completion]](), dict[int, str]()

        def unknown() -> Iterator[tuple[int, Prompt]]:
            for number, prompt in prompts:
                if (key := self._key(prompt, sampling)) in self.known:
                    again.append((number, replace(Completion(**self.known[key]), again=True)))
                else:
                    keys[number] = key
                    yield number, prompt

        for number, completion in self.session.complete(unknown(), sampling):
            self.journal.write([keys.pop(number), vars(completion)])
            yield number, completion
        yield from again

    def _key(self, *asked: Any) -> str:
        return key_of(*self.asker, *map(repr, asked)).hex()


def _column(path: Path, kind: str) -> Iterator[dict[str, float]]:
    return (row for record in journalled(path) if record["kind"] == kind for row in record.get("rows", ()))


def annotation_facts(folder: Path) -> list[dict[str, Any]]:
    """Of each annotator: its kind, and what its fit chose. Raises StoreError when a file is not what the step wrote."""
    unchanged(folder, WRITTEN)
    found: list[dict[str, Any]] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return found


def annotated(folder: Path, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """The candidates of the step with their columns."""
    for candidate, row in zip(candidates, each_line(folder / "annotations.jsonl"), strict=True):
        yield replace(candidate, annotations={kind: said for kind, said in row.items() if kind != "id"})


def _ranked(distribution: Mapping[str, float]) -> dict[str, float]:
    """The likeliest label first; equally likely ones by name."""
    return dict(sorted(distribution.items(), key=lambda pair: (-pair[1], pair[0])))


def _said(component: Component, candidates: Sequence[Candidate], sample: Sample, seed: int, backing: Backing) -> Annotations:
    where = f"[annotator] kind = {component.kind!r}"
    found = guarded(where, lambda: component.settings.annotate(candidates, sample, seed, backing))
    if not isinstance(found, Annotations) or len(found.rows) != len(candidates):
        raise ComponentError(f"{where}: annotate() must give Annotations with {len(candidates)} rows. Got {found!r:.80}.")
    return found


def _checked(component: Component, candidates: Sequence[Candidate], found: Annotations) -> Iterator[dict[str, float]]:
    """The distributions, ranked; they may be made as they are read."""
    where, rows = f"[annotator] kind = {component.kind!r}", iter(found.rows)
    for candidate in candidates:
        row = guarded(where, lambda: next(rows))
        if row and not (min(row.values()) >= 0 and math.isclose(sum(row.values()), 1, abs_tol=1e-3)):
            raise ComponentError(f"{where}: the probabilities of {candidate.id!r} must be 0 or more and sum to 1, or be none. Got {dict(row)!r:.80}.")
        yield _ranked(row)

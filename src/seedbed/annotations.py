"""The annotations step: what each annotator of the recipe says of every candidate. It adds columns and drops nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from seedbed.catalog import guarded
from seedbed.errors import ComponentError
from seedbed.parts import Component
from seedbed.recipe import Recipe
from seedbed.store import Journal, read_lines, unchanged, write_hashes, write_json, write_lines
from seedbed.types import Annotations, Backing, Candidate, Sample, seed_for

WRITTEN = ("annotations.jsonl", "facts.json")


def annotate(folder: Path, candidates: Sequence[Candidate], recipe: Recipe, sample: Sample, backing: Backing) -> None:
    """annotations.jsonl, a line a candidate, and facts.json; an annotator that has finished is not asked again after a stop."""
    path = folder / "journal.jsonl"
    with closing(Journal(path)) as journal:
        for component in recipe.annotators[len(journal.records) :]:
            found = _said(component, candidates, sample, seed_for(recipe.seed, "annotations", component.kind), backing)
            journal.add({"kind": component.kind, "facts": dict(found.facts), "rows": [_ranked(row) for row in found.rows]})
        said = {record["kind"]: record["rows"] for record in journal.records}
        write_lines(folder / "annotations.jsonl", [{"id": c.id} | {kind: rows[i] for kind, rows in said.items()} for i, c in enumerate(candidates)])
        write_json(folder / "facts.json", [{"kind": record["kind"]} | record["facts"] for record in journal.records])
    write_hashes(folder, WRITTEN)
    path.unlink()


def annotation_facts(folder: Path) -> list[dict[str, Any]]:
    """Of each annotator: its kind, and what its fit chose. Raises StoreError when a file is not what the step wrote."""
    unchanged(folder, WRITTEN)
    found: list[dict[str, Any]] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return found


def annotated(folder: Path, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates of the step with their columns."""
    rows = read_lines(folder / "annotations.jsonl")
    return [replace(c, annotations={kind: said for kind, said in row.items() if kind != "id"}) for c, row in zip(candidates, rows, strict=True)]


def _ranked(distribution: Mapping[str, float]) -> dict[str, float]:
    """The likeliest label first; equally likely ones by name."""
    return dict(sorted(distribution.items(), key=lambda pair: (-pair[1], pair[0])))


def _said(component: Component, candidates: Sequence[Candidate], sample: Sample, seed: int, backing: Backing) -> Annotations:
    where = f"[annotator] kind = {component.kind!r}"
    found = guarded(where, lambda: component.settings.annotate(list(candidates), sample, seed, backing))
    if not isinstance(found, Annotations) or len(found.rows) != len(candidates):
        raise ComponentError(f"{where}: annotate() must give Annotations with {len(candidates)} rows. Got {found!r:.80}.")
    for candidate, row in zip(candidates, found.rows, strict=True):
        if row and not (min(row.values()) >= 0 and math.isclose(sum(row.values()), 1, abs_tol=1e-3)):
            raise ComponentError(f"{where}: the probabilities of {candidate.id!r} must be 0 or more and sum to 1, or be none. Got {dict(row)!r:.80}.")
    return found

"""The kept step: each filter judges what the ones before it kept; what is dropped is kept too, with who dropped it and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seedbed import fleet
from seedbed.catalog import guarded
from seedbed.errors import ComponentError
from seedbed.parts import Component
from seedbed.recipe import Recipe
from seedbed.store import read_lines, unchanged, write_hashes, write_lines
from seedbed.types import Candidate, Sample, Verdict

SIFTED = ("kept.jsonl", "dropped.jsonl")
JUDGED_TOGETHER = 1000
"""Candidates in one part of row-by-row filtering."""


def sift(out: Path, kept: list[Candidate], recipe: Recipe, sample: Sample) -> None:
    """Writes kept.jsonl and dropped.jsonl."""
    target = sample.task.target
    unnamed = [c for c in kept if c.annotated and c.fields is not None and target not in c.fields]  # nobody gave it a label: no filter can judge it
    dropped = [_drop(c, "annotate", "no label", sample) for c in unnamed]
    gone = {c.id for c in unnamed}
    kept = [c for c in kept if c.id not in gone]
    for component in recipe.filters:
        verdicts = list(_judge(component, kept, sample))
        dropped += [_drop(c, component.kind, v.reason, sample) for c, v in zip(kept, verdicts, strict=True) if not v.keep]
        kept = [c for c, v in zip(kept, verdicts, strict=True) if v.keep]
    unread = [c for c in kept if c.fields is None]  # no filter of the recipe looked at the form
    dropped += [_drop(c, "parse", c.problem, sample) for c in unread]
    kept = [c for c in kept if c.fields is not None]
    write_sifted(out, kept, dropped)


def write_sifted(out: Path, kept: Sequence[Candidate], dropped: Sequence[Mapping[str, Any]]) -> None:
    """The files of the step."""
    write_lines(out / "kept.jsonl", [asdict(c) for c in kept])
    write_lines(out / "dropped.jsonl", dropped)
    write_hashes(out, SIFTED)


def sifted(folder: Path) -> tuple[list[Candidate], list[dict[str, Any]]]:
    """Kept candidates and dropped records. Raises StoreError when a file is not what the step wrote."""
    unchanged(folder, SIFTED)
    kept, dropped = (read_lines(folder / name) for name in SIFTED)
    return [Candidate(**record) for record in kept], dropped


def _drop(candidate: Candidate, kind: str, reason: str, sample: Sample) -> dict[str, Any]:
    """label: the dropped row's, None where it could not be read or the task has none."""
    label = (candidate.fields or {}).get(str(sample.task.target)) if sample.task.has_labels else None
    return {"id": candidate.id, "filter": kind, "reason": reason, "label": label, "text": candidate.text}


def _judge(component: Component, candidates: list[Candidate], sample: Sample) -> Iterator[Verdict]:
    def judge(part: list[Candidate]) -> list[Verdict]:
        verdicts = guarded(f"[filter] kind = {component.kind!r}", lambda: component.settings.judge(list(part), sample))
        if not isinstance(verdicts, list) or len(verdicts) != len(part) or not all(isinstance(v, Verdict) for v in verdicts):
            raise ComponentError(f"[filter] kind = {component.kind!r}: judge() must give a list of {len(part)} Verdicts. Got {verdicts!r:.80}.")
        return verdicts

    size = JUDGED_TOGETHER if component.settings.scope == "row" else max(1, len(candidates))
    parts = [candidates[i : i + size] for i in range(0, len(candidates), size)]
    for verdicts in fleet.map_parts(judge, parts):
        yield from verdicts

"""A handful of candidates in seconds, with what the row filters say of each. Nothing is written into the run folder."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from seedbed.annotations import annotate, annotated
from seedbed.answers import answered, drafts, labelled, pool_rows
from seedbed.candidates import complete, read_candidates
from seedbed.catalog import guarded
from seedbed.data import load_sample
from seedbed.grow import step_names
from seedbed.limits import Allowance, Deadline, Purse
from seedbed.recipe import Recipe
from seedbed.relay import Relay
from seedbed.types import Backing, Candidate, Sample, Verdict, seed_for
from seedbed.weights import need_weights

ROWS, DEV_ROWS, FIT_S = 256, 32, 12.0
"""Of the short fit: rows learned from, rows of dev, and seconds after which it is cut."""


@dataclass(frozen=True)
class Preview:
    """candidates, each with the verdict of the first row filter that drops it. teacher: where the candidates come from, in words."""

    teacher: str
    candidates: tuple[tuple[Candidate, str], ...]
    note: str

    def to_json(self) -> dict[str, Any]:
        rows: list[Mapping[str, Any]] = [{"text": c.text, "fields": c.fields, "verdict": verdict} for c, verdict in self.candidates]
        return {"teacher": self.teacher, "note": self.note, "candidates": rows}


def preview(recipe: Recipe, n: int = 5, out: Path | str = "runs") -> Preview:
    """n rows of the finished teacher in OUT/<name>, which are then the first rows of the run; else of a teacher that is fitted shortly. A server
    is asked for these rows and no more, and the note says what that cost."""
    need_weights(recipe)
    sample = load_sample(recipe.sample, recipe.task, recipe.seed, recipe.base)
    finished = Path(out) / recipe.name / step_names(recipe, sample)["teacher"]
    with tempfile.TemporaryDirectory() as name:
        if finished.is_dir():
            folder, words = finished, f"the fitted teacher in {finished}"
        else:
            folder, words = Path(name) / "teacher", _short_fit(recipe, sample, Path(name) / "teacher")
        teacher = recipe.generator.settings.load(folder, sample.task, recipe.lm)
        session = Relay(recipe.engine.settings.open(teacher.model))
        made, most, purse = Path(name) / "candidates", recipe.generate.max_tokens, Purse()
        made.mkdir()
        allowance = Allowance(most, purse=purse)
        if recipe.generate.count or recipe.annotate is None:
            complete(made, teacher, session, sample, n, seed_for(recipe.seed, "candidates"), recipe.generate.sampling, allowance=allowance)
            candidates = read_candidates(made, n)
        else:
            rows, seed = pool_rows(sample, recipe.annotate, seed_for(recipe.seed, "answers"))[:n], seed_for(recipe.seed, "answers")
            spec, wanted = recipe.annotate, sample.task.has_labels
            candidates = drafts(sample.task, rows) if wanted else answered(made, teacher, session, sample, rows, spec, most, seed, allowance)[1]
        if recipe.annotators:
            annotate(made, candidates, recipe, sample, Backing(recipe.lm, teacher, cache(recipe.engine.settings.open), purse))
            candidates = list(labelled(sample.task, annotated(made, candidates), str(recipe.label_by), recipe.generate.relabel))
    judged = tuple((c, _verdict(recipe, sample, c)) for c in candidates)
    whole = [f.kind for f in recipe.filters if f.settings.scope == "set"]
    notes = [f"not asked: {', '.join(whole)}, which judge all candidates together"] if whole else []
    return Preview(words, judged, "; ".join(notes + _served(recipe, len(candidates), purse.spent)))


def _served(recipe: Recipe, n: int, spent: float) -> list[str]:
    """What a server was asked for, where there is one."""
    parts = [part.settings for top in (recipe.engine, recipe.generator, *recipe.annotators) for part in top.all()]
    if not any(getattr(part, "served", False) for part in parts):
        return []
    priced = any(getattr(part, "price_in", 0) or getattr(part, "price_out", 0) for part in parts)
    money = f"{spent:.4g} by price_in and price_out" if priced else "its price is not known here"
    return [f"a server was asked for these {n} rows and no more: {money}. A run with the same teacher does not pay for them again"]


def _short_fit(recipe: Recipe, sample: Sample, folder: Path) -> str:
    """Fits a teacher on a bounded part of the sample; what it was, in words."""
    folder.mkdir()
    settings = recipe.generator.settings
    if not hasattr(settings, "epochs"):
        settings.fit(sample, recipe.lm, recipe.seed, folder)
        return f"a {recipe.generator.kind} teacher"
    rng = random.Random(seed_for(recipe.seed, "preview"))
    fit, dev = (tuple(rng.sample(rows, min(most, len(rows)))) for rows, most in ((sample.fit, ROWS), (sample.dev, DEV_ROWS)))
    part = replace(sample, fit=fit, dev=dev)
    form = {"prompt": "mc"} if getattr(settings, "prompt", "") == "auto" else {}
    cut = replace(settings, **form).fit(part, recipe.lm, recipe.seed, folder, Deadline(time.monotonic() + FIT_S))
    short = f"cut after {FIT_S:g} s" if cut else f"at most {settings.epochs} epochs"
    return f"a short fit for this preview ({short}, {len(part.fit)} of {len(sample.fit)} fit rows): the run's candidates will be better"


def _verdict(recipe: Recipe, sample: Sample, candidate: Candidate) -> str:
    """The first row filter that drops the candidate, and why; "kept" where none does."""
    for component in recipe.filters:
        if component.settings.scope == "row":
            found: Verdict = guarded(f"[filter] kind = {component.kind!r}", partial(component.settings.judge, [candidate], sample))[0]
            if not found.keep:
                return f"{component.kind}:{found.reason}"
    return "kept" if candidate.fields is not None else f"parse:{candidate.problem}"

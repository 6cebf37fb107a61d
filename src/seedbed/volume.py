"""count = "auto": candidates are made until more of them no longer help a student on dev."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from seedbed.gain import Ruler, ideal, judged, lessons
from seedbed.grow import Grown, Timer, grow, own
from seedbed.limits import Limits
from seedbed.recipe import Recipe
from seedbed.stats import Scorer
from seedbed.store import Journal, Store, fingerprint
from seedbed.types import Sample, seed_for

TIMES = 20
"""Candidates at most, for each row of fit + dev."""
SEEDS = 3


def grow_as_asked(store: Store, recipe: Recipe, sample: Sample, limits: Limits, timer: Timer, on: str) -> tuple[Grown, dict[str, Any] | None]:
    """(what was grown, of count = "auto" how far it went and why)."""
    if recipe.generate.auto:
        return grow_until_flat(store, recipe, sample, limits, timer, on)
    return grow(store, recipe, sample, limits, timer, on), None


def grow_until_flat(store: Store, recipe: Recipe, sample: Sample, limits: Limits, timer: Timer, on: str) -> tuple[Grown, dict[str, Any]]:
    """Doubles the candidates, from one for each row of fit + dev, until a doubling raises the student's score on dev by less than one standard
    error of the difference (paired bootstrap over dev rows and seeds); (what was grown, the steps and why they ended).

    A student that chooses by dev sees it twice; that lifts all volumes alike. limits: for all steps together.
    """
    cap, student = min(recipe.generate.count, TIMES * sample.n), recipe.student.settings
    deadline, before_tokens = limits.deadline(), timer.tokens
    reason = "a plain task has no target" if not sample.task.target else student.supports(sample.task)
    if not reason and (first := ideal(sample.task, judged(sample.task, sample.dev))).value is None:
        reason = first.note
    count, before, steps = cap if reason else min(sample.n, cap), None, list[dict[str, Any]]()
    left: Limits | None = limits
    while left:
        grown = grow(store, replace(recipe, generate=recipe.generate.model_copy(update={"count": count})), sample, left, timer, on)
        if grown.cut:
            grown.cut["cut"] |= {"limits": str(limits)}
        if reason:
            return grown, {"steps": [], "why": f"nothing to stop by: {reason}"}
        scorer, ruler = _on_dev(store, recipe, sample, grown, timer)
        mean, low, high = ruler.interval(scorer, SEEDS)
        steps.append({"candidates": grown.recipe.generate.count, "kept": len(grown.kept), "dev": mean, "low": low, "high": high})
        if before is not None:
            rise = ruler.difference(before, scorer, SEEDS, paired=True)
            steps[-1] |= {"rise": rise.mean, "standard_error": rise.se}
            if rise.mean <= rise.se and not grown.cut:
                return grown, {"steps": steps, "why": f"flat: {steps[-2]['candidates']} to {count} candidates brought {rise.mean:.1f} points on dev"}
        if grown.cut or count >= cap:
            return grown, {"steps": steps, "why": "cut by a limit" if grown.cut else f"not flat yet at the most, {cap}"}
        before, count, left = scorer, min(2 * count, cap), limits.left(deadline, timer.tokens - before_tokens)
    return replace(grown, cut=limits.cut(grown.recipe.generate.count, count, {})), {"steps": steps, "why": "cut by a limit"}


def _on_dev(store: Store, recipe: Recipe, sample: Sample, grown: Grown, timer: Timer) -> tuple[Scorer, Ruler]:
    """The scores on dev of students that learned from fit and what is kept so far. Their answers are journalled, each once: volume.jsonl."""
    task, student, soft = sample.task, recipe.student, recipe.label_by if recipe.gain.soft_labels else None
    ruler = Ruler(task, sample.dev, ideal(task, judged(task, sample.dev)).name, seed_for(recipe.seed, "auto", "bootstrap"))
    rows = [*sample.fit, *lessons(grown.kept, str(task.target), soft)]
    learned = fingerprint(grown.names["kept"], student.facts(), soft)

    def answers(s: int) -> list[str]:
        seed = seed_for(recipe.seed, "auto", s)
        return list(own("student", student, lambda: student.settings.learn(task, rows, sample.dev, seed).predict(sample.dev)))

    with closing(Journal(store.path("volume.jsonl"), lambda records: [r["value"] for r in records if r["name"] == learned])) as journal:
        for s in range(len(journal.records), SEEDS):
            value = timer.time("volume", partial(answers, s))
            journal.write({"name": learned, "value": value})
            journal.records.append(value)
        return ruler.scorer(journal.records), ruler

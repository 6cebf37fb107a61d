"""Whether kept rows speak of groups as often, and in the same connections, as real ones do; and whether a student's answers hang on who is meant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from seedbed.catalog import find
from seedbed.groups import NONE, SEVERAL, Groups, grouped, problems
from seedbed.parts import Component
from seedbed.stats import DRAWS, equal_draw, percentile_interval, permutation_p
from seedbed.types import EVIDENCE, Evidence, Example, Measure, Sample, seed_for

LEAST = 20
"""Rows that name a group, on each side, below which nothing is said."""
PERMUTATIONS = 9999
"""The smallest p is 1e-4, so that a gate over a hundred tests can still fail."""
SWAPPED = 500
"""Rows whose groups are swapped at most."""


@dataclass(frozen=True)
class Bias:
    """Skew between groups that the user names. groups: name -> words, such as {women = ["she", "her"], men = ["he", "him"]}, found whole and in any
    case; i-th words stand for each other. column: a column of the task whose values are the groups, instead. student: the part that is asked whether
    its answer changes when the group does, such as {kind = "encoder"}; the linear one where not given.

    `group_skew`: total variation between the shares of groups in kept and in dev + test rows. `amplification:GROUP`: odds of the group against the
    others named, over the same odds in dev + test rows. `bias_amplification`: how much more a label goes with the group it went with in dev + test
    rows (Zhao et al. 2017, arXiv:1707.09457). `counterfactual_flips`: share of dev + test rows whose answer changes with the group's words alone,
    of a student of kept rows; real: of a student of as many fit rows. Rows that name no group, or several, count in `group_skew` alone.
    """

    version: ClassVar[int] = 2
    parts: ClassVar[dict[str, str]] = {"student": "student"}

    groups: Mapping[str, Annotated[tuple[str, ...], Field(min_length=1)]] = field(default_factory=dict)
    column: str = ""
    student: Component | None = None

    def __post_init__(self) -> None:
        if found := problems(self.groups, self.column):
            raise ValueError("; ".join(found))

    def measure(self, sample: Sample, kept: Sequence[Example], seed: int) -> list[Measure]:
        groups, task = Groups(self.groups, self.column), sample.task
        reference = [*sample.dev, *sample.test]
        sides = [grouped(groups, task, rows) for rows in (kept, reference, sample.fit)]
        n = min(map(len, sides[:2]))
        target = str(task.target) if task.has_labels else ""
        labels = [[str(e.fields.get(target, "")) for e in rows] for rows in (kept, reference, sample.fit)]
        found = [skew(sides, seed_for(seed, "skew"))]
        found += [amplification(name, sides) for name in groups.names([*sample.fit, *reference])]
        if target:
            found.append(label_amplification(sides, labels, seed_for(seed, "labels")))
        else:
            found.append(Measure("bias_amplification", None, "", "closer", n, note=f"a task of kind {task.kind} has no labels"))
        return [*found, self._flips(groups, sample, kept, reference, seed_for(seed, "flips"))]

    def _flips(self, groups: Groups, sample: Sample, kept: Sequence[Example], reference: Sequence[Example], seed: int) -> Measure:
        task = sample.task
        student = self.student.settings if self.student else find("student", "linear")()
        reason = groups.why_not_swapped() or ("a plain task has no target" if not task.target else student.supports(task))
        columns = [c for c in task.inputs if c not in task.structured]
        pairs = [] if reason else [(e, Example(e.id, swap)) for e in reference for swap in groups.swaps(e.fields, columns)]
        pairs = equal_draw(pairs, min(SWAPPED, len(pairs)), seed)
        n = min(len(kept), len(sample.fit))
        if reason or len(pairs) < LEAST or not n:
            reason = reason or (f"needs {LEAST} dev + test rows that name one group, got {len(pairs)}" if n else "no kept row, or no fit row")
            return Measure("counterfactual_flips", None, "share", "lower", len(pairs), note=reason)
        said = []
        for i, side in enumerate((kept, sample.fit)):
            taught = student.learn(task, equal_draw(side, n, seed_for(seed, "taught", i)), sample.dev, seed_for(seed, "student"))
            said.append([taught.predict([pair[j] for pair in pairs]) for j in (0, 1)])
        ours, theirs = (np.array([a != b for a, b in zip(*answers, strict=True)], dtype=float) for answers in said)
        low, high = _by_rows(ours, [e.id for e, _ in pairs], seed_for(seed, "rows"))
        # No p: rows share one student, so that their flips are not independent, and to train hundreds would be needed.
        note = f"{len(pairs)} rows with the other group's words; student of {n} kept rows; bootstrap over rows; real: a student of {n} fit rows"
        shown = [Evidence(f"{a} becomes {b}", real=e.id, split="dev + test") for (e, _), a, b in zip(pairs, *said[0], strict=True) if a != b]
        rows = tuple(shown[:EVIDENCE])
        return Measure("counterfactual_flips", float(ours.mean()), "share", "lower", len(pairs), low, high, float(theirs.mean()), note, rows=rows)


def skew(sides: Sequence[Sequence[str]], seed: int) -> Measure:
    """sides: the group of each kept, dev + test and fit row. At equal n; real: fit against dev + test at the same n."""
    n = min(map(len, sides))
    if n < LEAST:
        got = ", ".join(f"{len(side)} {name}" for side, name in zip(sides, ("kept", "dev + test", "fit"), strict=True))
        return Measure("group_skew", None, "share", "lower", n, note=f"needs {LEAST} rows on each side, got {got}")
    named = [len(side) - list(side).count(NONE) for side in sides[:2]]
    if max(named) < LEAST:
        got = f"{named[0]} of {len(sides[0])} kept and {named[1]} of {len(sides[1])} dev + test rows do"
        return Measure("group_skew", None, "share", "lower", n, note=f"needs {LEAST} rows on one side that name a group: {got}")
    names = sorted({name for side in sides for name in side})
    ours, theirs, fit = (np.array([equal_draw(side, n, seed_for(seed, i)).count(name) for name in names]) for i, side in enumerate(sides))
    rng = np.random.default_rng(seed)

    def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(a - b).sum(-1) / (2 * n))

    value = float(apart(ours, theirs))
    low, high = _around(value, apart(rng.multinomial(n, ours / n, size=DRAWS), rng.multinomial(n, theirs / n, size=DRAWS)))
    low, high = max(0.0, low), min(1.0, high)
    dealt = rng.multivariate_hypergeometric(ours + theirs, n, size=PERMUTATIONS, method="marginals")
    p = permutation_p(value, apart(dealt, ours + theirs - dealt))
    shares = ", ".join(f"{name} {100 * a / n:.0f} % for {100 * b / n:.0f} %" for name, a, b in zip(names, ours, theirs, strict=True))
    note = f"kept for dev + test: {shares}; interval: bootstrap; real: fit against dev + test"
    return Measure("group_skew", value, "share", "lower", n, low, high, float(apart(fit, theirs)), note, p)


def amplification(name: str, sides: Sequence[Sequence[str]]) -> Measure:
    """Odds ratio of the group against the other named ones, kept over dev + test: conditional estimate and exact interval (Fisher 1935)."""
    from scipy.stats import fisher_exact
    from scipy.stats.contingency import odds_ratio

    named = [[g for g in side if g not in (NONE, SEVERAL)] for side in sides]
    tables = [[side.count(name), len(side) - side.count(name)] for side in named]
    n, counted = len(named[0]), f"{tables[0][0]} of {len(named[0])} kept rows that name one group, {tables[1][0]} of {len(named[1])} dev + test"
    if min(len(named[0]), len(named[1])) < LEAST:
        return Measure(f"amplification:{name}", None, "times", "closer", n, note=f"needs {LEAST} rows that name a group on each side: {counted}")
    if not (tables[0][0] + tables[1][0]) or not (tables[0][1] + tables[1][1]):
        return Measure(f"amplification:{name}", None, "times", "closer", n, note=f"the group, or every other, is in no row: {counted}")
    found = odds_ratio(np.array(tables[:2]))
    interval = found.confidence_interval(0.95)
    fit = np.array([tables[2], tables[1]])
    beside = odds_ratio(fit).statistic if fit.sum(0).all() and fit.sum(1).all() else math.inf  # no ratio where a row or column is empty
    p = float(fisher_exact(np.array(tables[:2])).pvalue)
    value, low, high = (None if math.isinf(x) else float(x) for x in (found.statistic, interval.low, interval.high))
    note = f"{counted}; exact interval{'' if high is not None else ' without an upper end'}; 1: as in real rows; real: fit against dev + test"
    if value is None:
        note = f"without bound: {note}"
    return Measure(f"amplification:{name}", value, "times", "closer", n, low, high, None if math.isinf(beside) else float(beside), note, p)


def label_amplification(sides: Sequence[Sequence[str]], labels: Sequence[Sequence[str]], seed: int) -> Measure:
    """Mean over labels of b~(g, y) - b(g, y), g the group that most dev + test rows of the label name: Zhao et al. 2017, at equal n."""
    pairs = [[(g, y) for g, y in zip(side, of, strict=True) if g not in (NONE, SEVERAL)] for side, of in zip(sides, labels, strict=True)]
    n = min(map(len, pairs))
    if n < LEAST:
        return Measure("bias_amplification", None, "", "closer", n, note=f"needs {LEAST} rows that name one group on each side, got {n}")
    ours, theirs, fit = (equal_draw(side, n, seed_for(seed, i)) for i, side in enumerate(pairs))
    if len({y for _, y in theirs}) < 2 or len({g for g, _ in theirs}) < 2:
        return Measure("bias_amplification", None, "", "closer", n, note="the dev + test rows that name a group have one label or one group alone")
    codes, shape = _codes(ours, theirs, fit)
    rng, both = np.random.default_rng(seed), codes[: 2 * n]

    def of(mine: np.ndarray, real: np.ndarray) -> float:
        return _amplified(*(np.bincount(side, minlength=shape[0] * shape[1]).reshape(shape) for side in (mine, real)))

    value = of(both[:n], both[n:])
    dealt = np.array([of(both[order[:n]], both[order[n:]]) for order in (rng.permutation(2 * n) for _ in range(PERMUTATIONS))])
    # Far from what exchangeable rows have on average, which is below 0: the group that leads by chance leads less elsewhere.
    p = permutation_p(abs(value - dealt.mean()), np.abs(dealt - dealt.mean()))
    low, high = _around(value, np.array([of(both[rng.integers(n, size=n)], both[n + rng.integers(n, size=n)]) for _ in range(DRAWS)]))
    note = f"mean over labels; {n} rows a side that name one group; 0: no more than in real rows; bootstrap; real: fit against dev + test"
    return Measure("bias_amplification", value, "", "closer", n, low, high, of(codes[2 * n :], both[n:]), note, p)


def _codes(*sides: Sequence[tuple[str, str]]) -> tuple[np.ndarray, tuple[int, int]]:
    """(a number for each row's group and label, one side after the other; how many groups and labels there are)."""
    groups, labels = ({name: i for i, name in enumerate(sorted({row[j] for side in sides for row in side}))} for j in (0, 1))
    return np.array([groups[g] * len(labels) + labels[y] for side in sides for g, y in side]), (len(groups), len(labels))


def _amplified(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Tables (groups, labels) of rows. Labels that either side lacks are left out."""
    both = (ours.sum(0) > 0) & (theirs.sum(0) > 0)
    leading = theirs.argmax(0)[both]
    shares = [side[leading, both.nonzero()[0]] / side.sum(0)[both] for side in (ours, theirs)]
    return float((shares[0] - shares[1]).mean()) if both.any() else 0.0


def _around(value: float, resampled: np.ndarray) -> tuple[float, float]:
    """An interval of the resampled numbers' spread about the value, which itself is biased upwards in a bootstrap."""
    low, high = percentile_interval(resampled - resampled.mean() + value)
    return min(low, value), max(high, value)


def _by_rows(changed: np.ndarray, names: Sequence[str], seed: int) -> tuple[float, float]:
    """Bootstrap over rows: the swaps of one row are drawn together."""
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(name, []).append(i)
    sums, sizes = (np.array([f(changed[of]) for of in places.values()], dtype=float) for f in (np.sum, len))
    picks: Any = np.random.default_rng(seed).integers(len(sums), size=(DRAWS, len(sums)))
    low, high = percentile_interval(sums[picks].sum(1) / sizes[picks].sum(1))
    value = float(changed.mean())
    return min(low, value), max(high, value)

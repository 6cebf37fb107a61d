"""The gain: did the synthetic rows help? One student, trained with and without them, scored on the same real test rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np

from seedbed.data import together
from seedbed.scores import bleu_of, bleu_statistics, exact_match, judgeable, nothing_right, pass_at_1
from seedbed.stats import DRAWS, Difference, Scorer, equal_draw, paired_difference
from seedbed.store import Mapped
from seedbed.task import Task
from seedbed.types import Candidate, Example, Measure, Sample, Student, seed_for

Unit = Callable[[str, Callable[[], Any]], Any]

MIN_TEST = 100
MIN_FOLDED = 20
"""Test rows of all folds together: who asks for folds has no more."""
FOLDS = 5
"""What is proposed to who has few rows."""
EVEN = 0.8
"""Of the training rows of the largest fold: the smallest with fewer is said to be too small."""
FULL_ROWS = 2000
"""The most real rows of the `full` arm and of the real-only curve."""
MOST_KEPT = 20_000
"""The most synthetic rows that a student learns from: an arm of a million would say nothing more, and take days."""
FRACTIONS = (0.25, 0.5, 1.0)
FEWEST_BLOCKS = 4
"""So many test rows must change, all for the better, before a percentile interval can leave out 0: exp(-4) < 0.025 < exp(-3)."""


@dataclass(frozen=True)
class Arm:
    """Points (0 to 100), mean over the seeds, with a 95 % interval over test rows and seeds; None where not measured."""

    mean: float | None
    low: float | None
    high: float | None
    seeds: int
    n_train: int

    def to_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "low": self.low, "high": self.high, "seeds": self.seeds, "n_train": self.n_train}


@dataclass(frozen=True)
class Gain:
    """`difference` is both - real, in points. curve: {"arm", "volume", "n_train", "mean", "low", "high", "seeds"} by arm and n_train.

    volume: of `both`, synthetic rows / (fit + dev); of `real` and `full`, real rows / fit. smallest_detectable: the points that a true
    gain needs to be seen 4 times of 5 (`stats.Z_POWER`), and no fewer than `FEWEST_BLOCKS` test rows are worth. note: why a part is
    None, or where the curve is flat and how many real rows the synthetic ones are worth.
    """

    metric: str
    arms: Mapping[str, Arm]
    difference: Difference | None
    smallest_detectable: float | None
    curve: tuple[Mapping[str, Any], ...]
    note: str

    def to_json(self) -> dict[str, Any]:
        """The `gain` of scores.json."""
        d = self.difference
        return {
            "metric": self.metric,
            "arms": {name: arm.to_json() for name, arm in self.arms.items()},
            "difference": {"mean": d and d.mean, "low": d and d.low, "high": d and d.high},
            "smallest_detectable": self.smallest_detectable,
            "curve": [dict(entry) for entry in self.curve],
            "note": self.note,
        }

    @property
    def verdict(self) -> str:
        """One sentence."""
        d = self.difference
        if d is None:
            return f"the gain could not be measured: {self.note}"
        if d.low > 0:
            return f"real + synthetic beats real by {d.mean:.1f} points (95 % interval {d.low:.1f} to {d.high:.1f})"
        if d.high < 0:
            return f"real + synthetic is worse than real by {-d.mean:.1f} points (95 % interval {-d.high:.1f} to {-d.low:.1f})"
        seen = f"{d.mean:z.1f} points, 95 % interval {d.low:z.1f} to {d.high:z.1f}"
        least, left = self.smallest_detectable or 0.0, max(0.0, 100 - (self.arms["real"].mean or 0.0))
        ceiling = f", more than the {left:.1f} that real rows alone leave" if round(least, 1) > round(left, 1) else ""
        nothing = nothing_right(self.metric, (arm.mean for arm in self.arms.values()))
        return nothing or f"no gain could be shown ({seen}); the smallest this test could show is {least:.1f} points{ceiling}"


@dataclass(frozen=True)
class _Point:
    """One training set: so many real and synthetic rows."""

    arm: str
    volume: float
    real: int
    synthetic: int

    @property
    def n_train(self) -> int:
        return self.real + self.synthetic


def lessons(kept: Sequence[Candidate], target: str, by: str | None) -> Sequence[Example]:
    """What a student learns from kept rows. by: the annotator whose distribution a row teaches where its likeliest label is the row's own; None:
    the label alone."""

    def soft(candidate: Candidate) -> Mapping[str, float] | None:
        said = candidate.annotations.get(by) if by else None
        return said if said and next(iter(said)) == (candidate.fields or {}).get(target) else None  # the likeliest comes first

    return Mapped(kept, lambda c: Example(c.id, c.fields or {}, target_probs=soft(c)))


def measure_gain(
    sample: Sample,
    kept: Sequence[Example],
    student: Student,
    seed: int,
    *,
    seeds: int = 3,
    volumes: Sequence[float] = (0.5, 1, 2, 5, 10, 20),
    folds: Sequence[Sequence[Example]] = (),
    unit: Unit = lambda name, make: make(),
) -> Gain:
    """Trains on fit (real), on kept (synthetic), on both, and on fit + more (full; `FULL_ROWS` rows at most), and scores on test.

    A seed redraws which rows a part of a set has, and is the student's own. A whole set has nothing to redraw: there a student that
    draws no random number gives the same answers for every seed, and the interval holds the test rows' uncertainty alone. dev goes to
    the student for its choices; test rows go to no `learn`. volumes: synthetic rows per row of fit + dev, for the curve. Of more than
    `MOST_KEPT` kept rows each seed draws so many.
    folds: where the sample has folds, the rows that were kept in each. The student learns in every fold, from as many rows as the smallest has,
    and its answers to the tests of all are scored together; `kept` itself, to which no test row is new, is then left aside.
    unit(name, make): gives make()'s value (the predictions on test, a list of strings), or what it gave under that name before.
    Nothing is measured, with the reason in `note`: plain tasks, tests under `MIN_TEST` rows (`MIN_FOLDED` of all folds), a student that cannot do
    the task.
    """
    parts = list(zip(sample.folds, folds, strict=True)) if folds else [(sample, kept)]
    least = _least([s for s, _ in parts], [len(rows) for _, rows in parts])
    metric, reason = decisive(sample, student)
    reason = reason or "a limit came before all folds were grown; the same command with a higher one goes on" * bool(sample.folds and not folds)
    heads = _heads(least)
    if reason:
        return Gain(metric, {name: Arm(None, None, None, 0, p.n_train) for name, p in heads.items()}, None, None, (), reason)
    ruler = Ruler(sample.task, sample.tested, metric, seed_for(seed, "gain", "bootstrap"))
    points = _points(least, volumes, heads)
    long: list[Any] = []
    scorers: dict[_Point, Scorer] = {}
    for point in points:
        scorers[point] = ruler.scorer(
            [_predict(parts, student, point, seed, s, unit, long if point == heads["both"] and not s else None) for s in range(seeds)]
        )
    measured = {p: Arm(*ruler.interval(scorers[p], seeds), seeds, p.n_train) for p in points}
    arms = {name: measured[p] if p in measured else Arm(None, None, None, 0, p.n_train) for name, p in heads.items()}
    curve = tuple({"arm": p.arm, "volume": p.volume, **measured[p].to_json()} for p in points if p.arm != "synthetic")
    if not least.kept:
        return Gain(metric, arms, None, None, curve, "no synthetic rows were kept" + " in one of the folds" * bool(folds))
    difference = ruler.difference(scorers[heads["real"]], scorers[heads["both"]], seeds)
    note = [_flat(points, scorers, measured, ruler, seeds), _worth(points, measured, heads["both"], difference)]
    note += [f"a student learns from {least.kept} of the {len(kept)} kept rows, drawn for each seed"] if least.kept < len(kept) and not folds else []
    note += [f"over {len(folds)} folds, in each of which rows were grown without its test rows", uneven(sample)] if folds else []
    odd = len(sample.tested) - len(judged(sample.task, sample.tested))
    note += [f"{odd} test rows have asserts that cannot be judged and are left out"] if odd else []
    note += [long_rows(long), nothing_right(metric, (arm.mean for arm in arms.values()))]
    smallest = max(difference.smallest_detectable, 100 * FEWEST_BLOCKS / ruler.blocks)
    return Gain(metric, arms, difference, smallest, curve, "; ".join(part for part in note if part))


def decisive(sample: Sample, student: Student) -> tuple[str, str]:
    """(the metric that decides, why it cannot be measured or "")."""
    task, test, needed = sample.task, judged(sample.task, sample.tested), MIN_FOLDED if sample.folds else MIN_TEST
    if not task.target:
        return "score", f"a {task.kind} task has no target to predict"
    first = ideal(task, test)
    if len(test) < needed:
        return first.name, f"a gain needs at least {needed} test rows, got {len(test)}"
    if not sample.fit:
        return first.name, "there is no fit row to train on"
    return first.name, student.supports(task) or ("" if first.value is not None else first.note)


def ideal(task: Task, rows: Sequence[Example]) -> Measure:
    """The first score of the rows' own targets; of code, which is run to be scored, of one row's."""
    asked = rows[:1] if task.kind == "code" else rows
    return task.score([str(e.fields[str(task.target)]) for e in asked], asked)[0]


def judged(task: Task, rows: Sequence[Example]) -> Sequence[Example]:
    """The rows that can be scored: of code those whose asserts can be judged."""
    if task.kind != "code" or not task.tests:
        return rows
    return [e for e in rows if judgeable(str(e.fields[str(task.target)]), e.fields[task.tests])]


def uneven(sample: Sample) -> str:
    """Where rows that stay together make one fold's training rows far fewer than another's: what that does, and what to do; "" else."""
    least = min(sample.folds, key=lambda fold: fold.n, default=sample)
    most = max((fold.n for fold in sample.folds), default=sample.n)
    if least.n >= EVEN * most or not sample.task.target:
        return ""
    return (
        f"folds are uneven: {len(least.test)} of {len(sample.tested)} test rows are in one of {len(sample.folds)}, for rows with equal "
        f"{together(sample.task)} stay together. Students and rows of that fold know {least.n} real rows, not {most}, and students of every fold "
        "learn from as few: the gain is not the dataset's. Divide these rows, leave most of them out, or give a test of its own in place of folds"
    )


@dataclass(frozen=True)
class _Least:
    """Rows of each part of a sample, of the smallest where there are folds. n: fit + dev. full: fit and rows left out."""

    fit: int
    n: int
    full: int
    kept: int


def _least(samples: Sequence[Sample], kept: Sequence[int]) -> _Least:
    fit, n, full = (min(sizes) for sizes in zip(*((len(s.fit), s.n, len(s.fit) + len(s.more)) for s in samples), strict=True))
    return _Least(fit, n, min(full, FULL_ROWS), min(MOST_KEPT, *kept))


def _heads(least: _Least) -> dict[str, _Point]:
    """The arms: everything there is of each. `full` only where there are real rows left over."""
    fit, volume = least.fit, least.kept / max(1, least.n)
    heads = {
        "real": _Point("real", 1.0, fit, 0),
        "synthetic": _Point("synthetic", volume, 0, least.kept),
        "both": _Point("both", volume, fit, least.kept),
    }
    return heads | ({"full": _Point("full", least.full / fit, least.full, 0)} if 0 < fit < least.full else {})


def _points(least: _Least, volumes: Sequence[float], heads: Mapping[str, _Point]) -> list[_Point]:
    """All training sets: the arms and the curve's. Real ones double from fit up to `full`: wide gaps would make a poor interpolation."""
    fit, kept = least.fit, least.kept
    parts = [max(1, round(f * fit)) for f in FRACTIONS]
    if "full" in heads:
        parts += [fit * 2**k for k in range(1, 11) if fit * 2**k < heads["full"].real]
    points = [_Point("real", rows / fit, rows, 0) for rows in sorted(set(parts))] + [heads[name] for name in heads if name == "full"]
    if kept:
        sizes = {round(v * least.n) for v in volumes} | {kept}
        points += [heads["synthetic"]] + [_Point("both", m / least.n, fit, m) for m in sorted(sizes) if 0 < m <= kept]
    return points


def training_sets(sample: Sample, kept: int, volumes: Sequence[float]) -> list[int]:
    """Rows of each set that `measure_gain` would train a student on, once a seed and in each fold."""
    least = _least(sample.folds or (sample,), [kept])
    return [p.n_train for p in _points(least, volumes, _heads(least))]


def _predict(
    parts: Sequence[tuple[Sample, Sequence[Example]]], student: Student, point: _Point, seed: int, s: int, unit: Unit, long: list[Any] | None
) -> list[str]:
    """The predictions on test (of each fold, one after the other: a unit each) of a student trained on one training set, under seed number s.

    long: takes of each fold, where some are longer than the student reads, ((such training rows, all), (such test rows, all)).
    """
    draw = seed_for(seed, "gain", s)

    def make(sample: Sample, kept: Sequence[Example]) -> Any:
        fit = len(sample.fit)
        rows = equal_draw(sample.fit, min(point.real, fit), draw) + equal_draw(sample.more, max(0, point.real - fit), draw)
        return taught(student, sample, rows + equal_draw(kept, point.synthetic, draw), draw, long is not None)

    found: list[str] = []
    for fold, part in enumerate(parts):
        name = f"{point.arm}/{point.n_train}/{s}" + (f"/{fold}" if len(parts) > 1 else "")
        made = unit(name, partial(make, *part))
        if isinstance(made, dict) and long is not None:
            long.append(made["long"])
        found += made["predictions"] if isinstance(made, dict) else made
    return found


def taught(student: Student, sample: Sample, rows: Sequence[Example], seed: int, count: bool) -> Any:
    """The predictions on test of a student of the rows; where some are longer than it reads, and `count`, beside `long` as of `_predict`."""
    predictor = student.learn(sample.task, rows, sample.dev, seed)
    said = list(predictor.predict(sample.test))
    cut = getattr(predictor, "cut", None) if count else None
    counted = [[cut(part), len(part)] for part in (rows, sample.test)] if cut else []
    return {"predictions": said, "long": counted} if any(n for n, _ in counted) else said


@dataclass(frozen=True)
class Ruler:
    """Scores on resampled test rows. Rows of one `task.group` are one block, drawn together: they are not independent."""

    task: Task
    test: tuple[Example, ...]
    metric: str
    seed: int

    @cached_property
    def block_of(self) -> np.ndarray:
        """int (rows,): the block each test row is in."""
        keys = [e.fields[self.task.group] if self.task.group else i for i, e in enumerate(self.test)]
        number = {key: b for b, key in enumerate(dict.fromkeys(keys))}
        return np.array([number[key] for key in keys])

    @cached_property
    def blocks(self) -> int:
        return int(self.block_of.max()) + 1

    def scorer(self, runs: Sequence[Sequence[str]]) -> Scorer:
        """runs: one list of predictions a seed."""
        # Flat arrays: summing what a draw picked is then 8 times faster than from one (blocks, parts).
        sums = [[np.bincount(self.block_of, part) for part in self._parts(predictions).T] for predictions in runs]

        def score(s: int, picked: np.ndarray) -> np.ndarray:
            found = [part.take(picked).sum(axis=1) for part in sums[s]]
            if self.metric == "bleu":
                return np.array([bleu_of(summed) for summed in zip(*found, strict=True)])
            return np.asarray(np.divide(100 * found[0], found[1], out=np.zeros(len(picked)), where=found[1] > 0))

        return score

    def _parts(self, predictions: Sequence[str]) -> np.ndarray:
        """float (rows, parts) whose column sums make the score: BLEU's counts; hits and rows; F1a's 2 TP and (predicted true + really true)."""
        pairs = list(zip(predictions, self.test, strict=True))
        if self.metric == "bleu":
            return np.array([bleu_statistics(p, self.task.references_of(e)) for p, e in pairs])
        if self.metric == "f1a":
            true = [(p == "true", e.fields[str(self.task.target)] == "true") for p, e in pairs]
            return np.array([(2.0 * (p and g), float(p) + float(g)) for p, g in true])
        if self.task.has_labels:
            return np.array([(float(p == str(e.fields[str(self.task.target)])), 1.0) for p, e in pairs])
        if self.metric == "exact_match":
            return np.array([(float(exact_match(p, self.task.references_of(e))), 1.0) for p, e in pairs])
        if self.metric == "pass@1":
            return np.array([(float(bool(ok)), float(ok is not None)) for ok in pass_at_1([(p, e.fields[str(self.task.tests)]) for p, e in pairs])])
        return np.array([((self.task.score([p], [e])[0].value or 0.0) / 100, 1.0) for p, e in pairs])

    def interval(self, score: Scorer, seeds: int) -> tuple[float, float, float]:
        """(mean, low, high) of one arm: its difference from an arm that always scores 0."""
        d = paired_difference(1, seeds, self.blocks, lambda s, picked: np.zeros(len(picked)), score, self.seed, DRAWS)
        return d.mean, d.low, d.high

    def difference(self, a: Scorer, b: Scorer, seeds: int, paired: bool = False) -> Difference:
        return paired_difference(seeds, seeds, self.blocks, a, b, self.seed, DRAWS, paired)


def long_rows(counted: Sequence[Any]) -> str:
    """In words, how many rows are longer than the student reads; "" where none is. counted: the `long` of `taught`, of each fold."""
    (train, of), (test, among) = np.sum(counted, axis=0).tolist() if counted else ((0, 0), (0, 0))
    told = f"{train} of {of} training rows and {test} of {among} test rows are longer than the student reads"
    return f"{told}: it leaves them out or sees their starts alone" if train or test else ""


def _times(point: _Point) -> str:
    return f"{point.volume:.3g} times the real rows ({point.synthetic} synthetic)"


def _flat(points: Sequence[_Point], scorers: Mapping[_Point, Scorer], measured: Mapping[_Point, Arm], ruler: Ruler, seeds: int) -> str:
    """The smallest volume that cannot be told apart from the best one, in words; real rows alone are volume 0."""
    steps = [p for p in points if (p.arm, p.volume) == ("real", 1.0)] + [p for p in points if p.arm == "both"]
    best = max(steps, key=lambda p: measured[p].mean or 0.0)
    first = next(p for p in steps if p is best or ruler.difference(scorers[p], scorers[best], seeds).low <= 0)
    if first is steps[0]:
        shown = next((p for p in steps[1:] if ruler.difference(scorers[first], scorers[p], seeds).low > 0), None)
        if shown:
            return f"{_times(shown)} beats the real rows alone, the volume with the highest mean, {_times(best)}, is not shown to"
        return "flat from the start: no volume of synthetic rows could be shown to beat the real rows alone"
    at = _times(first)
    if first is steps[-1]:
        return f"not flat yet: {at}, the largest volume, beats every smaller one"
    if first is best:
        return f"flat from {at} on: no larger volume did better"
    return f"flat from {at} on: more could not be told apart from the best, {best.volume:.3g} times ({best.synthetic} synthetic)"


def _worth(points: Sequence[_Point], measured: Mapping[_Point, Arm], both: _Point, difference: Difference) -> str:
    """How many real rows the synthetic ones are worth; "" where no difference was shown or the real-only curve does not reach the score."""
    known = [(p.n_train, measured[p].mean or 0.0) for p in points if p.arm in ("real", "full")]
    score = measured[both].mean or 0.0
    rows = _reach(known, score)
    if rows is None or difference.low <= 0 <= difference.high:
        return ""
    start = score - difference.mean
    low, high = _reach(known, start + difference.low), _reach(known, start + difference.high)
    spread = f" ({low:.0f} to {high:.0f})" if low and high else ""
    return f"your {both.real} training rows + {both.synthetic} synthetic behave like {rows:.0f} real rows{spread}"


def _reach(known: Sequence[tuple[int, float]], score: float) -> float | None:
    """The fewest rows at which the curve (rows, points), straight in log rows, reaches the score; None where it does not cover it."""
    if known[0][1] > score:
        return None
    for (n, low), (more, high) in pairwise(known):
        if high >= score:
            return n * (more / n) ** ((score - low) / (high - low)) if high > low else float(n)
    return None

"""Known answers and laws of the metrics."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from seedbed.metrics.coverage import Coverage
from seedbed.metrics.diversity import Diversity
from seedbed.metrics.frechet import Frechet
from seedbed.metrics.mauve import LEAST, NAMES, Mauve, _measure, mauve, mmd
from seedbed.metrics.memorisation import Memorisation, nearest, neighbour_ratio
from seedbed.task import Task
from seedbed.types import Example, Measure, Sample

TASK = Task("classification", ("text",), "label")
FOUR = np.eye(4, dtype=np.float32)


def rows(*counts: int) -> np.ndarray:
    """counts[i] times the i-th of four points that lie equally far apart: the bins are the points."""
    return np.repeat(FOUR[: len(counts)], counts, axis=0)


def cloud(n: int, seed: int, shift: float = 0.0, d: int = 12) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, d)) + shift).astype(np.float32)


def examples(name: str, texts: Sequence[str]) -> tuple[Example, ...]:
    return tuple(Example(f"{name}{i}", {"text": text, "label": "a"}) for i, text in enumerate(texts))


def sample(fit: Sequence[str], dev: Sequence[str] = (), test: Sequence[str] = (), more: Sequence[str] = ()) -> Sample:
    return Sample(TASK, examples("fit", fit), examples("dev", dev), examples("test", test), more=examples("more", more))


def texts_of(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    things = ["lamp", "radio", "alarm", "door", "song", "train", "mail", "oven", "list", "game"]
    return [f"{draw.choice(['set', 'stop', 'play', 'find'])} the {draw.choice(things)} {draw.choice(things)} {i}" for i in range(count)]


def by_name(measures: list[Measure]) -> dict[str, Measure]:
    assert len({m.name for m in measures}) == len(measures)
    for m in measures:
        assert (m.value is None) == (m.low is None) == (m.high is None), m
        assert m.note, m
        if m.value is not None and m.low is not None and m.high is not None:
            assert m.low <= m.value <= m.high, m
    return {m.name: m for m in measures}


# MAUVE, from the formulas and plain loops


def kl(p: list[float], r: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, r, strict=True) if a > 0)


def brute_area(p: list[float], q: list[float]) -> float:
    points = [(0.0, 1.0)]
    for i in range(25):
        w = 1 - 1e-6 - i * (1 - 2e-6) / 24
        r = [w * a + (1 - w) * b for a, b in zip(p, q, strict=True)]
        points.append((math.exp(-5 * kl(q, r)), math.exp(-5 * kl(p, r))))
    points.append((1.0, 0.0))
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))


def brute_frontier(p: list[float], q: list[float], steps: int = 4000) -> float:
    total = 0.0
    for i in range(steps):
        w = (i + 0.5) / steps
        r = [w * a + (1 - w) * b for a, b in zip(p, q, strict=True)]
        total += 2 * (w * kl(p, r) + (1 - w) * kl(q, r)) / steps
    return total


@pytest.mark.parametrize(("p", "q"), [((40, 30, 20, 10), (25, 25, 25, 25)), ((50, 30, 20, 0), (0, 30, 20, 50)), ((60, 20, 20), (30, 70, 100))])
def test_known_bins_give_the_area_of_the_formula(p: tuple[int, ...], q: tuple[int, ...]) -> None:
    found = mauve(rows(*p), rows(*q), seed=3)
    a, b = ([c / sum(side) for c in side] for side in (p, q))
    c, d = ([(c + 0.5) / (sum(side) + len(side) / 2) for c in side] for side in (p, q))
    assert found.k == len(p) and found.n == min(sum(p), sum(q))
    assert sorted(zip(found.p.tolist(), found.q.tolist(), strict=True)) == sorted(zip(p, q, strict=True))
    assert found.value == pytest.approx(brute_area(a, b), abs=1e-9)
    assert found.smoothed == pytest.approx(brute_area(c, d), abs=1e-9)
    assert found.frontier == pytest.approx(brute_frontier(a, b), abs=1e-4)


def test_disjoint_sides_are_at_the_minimum() -> None:
    found = mauve(rows(50, 50, 0, 0), rows(0, 0, 50, 50))
    # The curve is ((1 - w)^5, w^5); its true area is 5 B(6, 5) = 0.00397, and 25 chords lie a little above it.
    assert found.value == pytest.approx(brute_area([1.0, 0.0], [0.0, 1.0]), abs=1e-9)
    assert found.value == pytest.approx(5 * math.gamma(6) * math.gamma(5) / math.gamma(11), abs=1e-3)
    assert found.frontier == pytest.approx(1.0)
    assert found.smoothed > found.value
    assert found.curve.shape == (27, 2) and found.curve[0].tolist() == [1, 0] and found.curve[-1].tolist() == [0, 1]


def test_the_same_points_are_at_the_maximum() -> None:
    p = cloud(300, 1)
    found = mauve(p, np.random.default_rng(0).permutation(p))
    assert found.value == pytest.approx(1.0, abs=1e-12) and found.smoothed == pytest.approx(1.0, abs=1e-12)
    assert found.frontier == pytest.approx(0.0, abs=1e-12) and found.k == 30


def test_neither_order_nor_side_nor_length_of_the_features_matters() -> None:
    p, q, mix = cloud(200, 1), cloud(250, 2, shift=0.4), np.random.default_rng(3)
    found = mauve(p, q, seed=5)
    again = mauve(mix.permutation(p), mix.permutation(q), seed=5)
    assert (again.value, again.smoothed, again.frontier) == (found.value, found.smoothed, found.frontier)
    assert mauve(q, p, seed=5).value == pytest.approx(found.value, abs=1e-12)
    assert mauve(p * 4, q * 0.5, seed=5).value == found.value, "rows are brought to length 1"
    assert 0.004 < found.value < 0.95


def test_farther_is_lower() -> None:
    values = [mauve(cloud(300, 1), cloud(300, 2, shift=s)).value for s in (0.0, 0.3, 0.8)]
    assert values == sorted(values, reverse=True) and values[0] > 0.8 > 0.2 > values[-1]


def test_equal_rows_weigh_as_many() -> None:
    few, p, q = (np.array([[math.cos(math.radians(a)), math.sin(math.radians(a))]]) for a in (0, 30, 50))
    found = mauve(np.concatenate([few, p.repeat(100, axis=0)]), np.concatenate([few, q.repeat(100, axis=0)]), k=2)
    assert found.value < 0.1, "two bins must part the many rows at 30 and 50 degrees, not the few at 0 from the rest"


def test_bins_by_default_and_at_the_edges() -> None:
    assert mauve(cloud(200, 1), cloud(150, 2)).k == 15
    assert mauve(cloud(4, 1), cloud(4, 2)).k == 2
    assert mauve(cloud(50, 1), cloud(50, 2), k=7).k == 7
    assert mauve(rows(5), rows(9)).value == pytest.approx(1.0), "one point only"
    with pytest.raises(ValueError, match="Got 0 and 3"):
        mauve(cloud(0, 1), cloud(3, 1))


# MMD


def test_mmd_against_plain_loops() -> None:
    x, y, s = cloud(7, 1, d=3), cloud(9, 2, d=3), 1.7

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return math.exp(-sum((float(i) - float(j)) ** 2 for i, j in zip(a, b, strict=True)) / (2 * s * s))

    within = [sum(kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j) / (len(z) * (len(z) - 1)) for z in (x, y)]
    across = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    assert mmd(x.astype(float), y.astype(float), s) == pytest.approx(sum(within) - 2 * across, abs=1e-9)


def test_mmd_is_unbiased() -> None:
    same = [mmd(cloud(20, 2 * i), cloud(20, 2 * i + 1), 4.0) for i in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(200) and min(same) < 0
    assert mmd(cloud(50, 1), cloud(50, 2, shift=1.0), 4.0) > 3 * max(same)


# The metric


def test_every_number_of_a_draw_has_an_interval_and_its_real_counterpart() -> None:
    kept, reference, fit = cloud(LEAST, 1, shift=0.6), cloud(LEAST, 2), cloud(LEAST, 3)
    found = Mauve().compare(kept, reference, fit, seed=4)
    copied = Mauve().compare(fit, reference, fit, seed=4)
    assert set(found) == set(NAMES) == set(copied)
    for name in NAMES:
        lower = name in ("frontier_integral", "mmd")
        m = by_name([_measure(name, "lower" if lower else "higher", LEAST, {name: [found[name]]}, "how", "few")])[name]
        assert m.value is not None and m.real is not None and m.low is not None and m.high is not None and m.low < m.high
        assert (m.value > m.real) == lower and not m.low <= m.real <= m.high, "the shift is seen"
        assert copied[name].value == copied[name].real
    assert set(Mauve().compare(kept[1:], reference[1:], fit[1:], seed=4)) == {"mmd"}, "too few for bins"


@pytest.mark.slow
def test_mauve_of_texts() -> None:
    fit, test, few = texts_of(LEAST, 1), texts_of(LEAST + 5, 2), texts_of(12, 3)
    metric, real = Mauve(draws=2), sample(fit, test[:40], test[40:])
    kept = examples("k", fit)
    measures = by_name(metric.measure(real, kept, 7))
    assert list(measures) == list(NAMES)
    assert all(m.n == LEAST and m.value == m.real for m in measures.values()), "copies of fit are as far from test as fit is"
    assert metric.measure(real, kept[::-1], 7) == list(measures.values())
    assert metric.measure(real, kept, 8) != list(measures.values())
    small = by_name(metric.measure(real, examples("k", few), 7))
    assert [m.value is None for m in small.values()] == [True, True, True, False]
    assert "got 12 kept, 105 dev + test and 100 fit" in small["mauve"].note and small["mmd"].n == 12


@pytest.mark.slow
def test_texts_that_the_embedder_reads_in_part_are_counted() -> None:
    texts, long = texts_of(60, 1), "door " * 300
    real = sample(texts[:20], texts[20:40])
    named = {"mmd": Mauve(draws=1), "frechet_distance": Frechet(draws=1), "knn_recall": Coverage(draws=1), "vendi": Diversity(draws=1)}
    for name, metric in named.items():
        for kept, said in ((texts[40:], ""), ([long, *texts[41:]], "1 of 60 texts minilm reads the start alone")):
            note = by_name(metric.measure(real, examples("k", kept), 7))[name].note
            assert said in note and ("the start alone" in note) == bool(said), (name, note)


@pytest.mark.parametrize("kept", [[], ["only one"]])
def test_mauve_without_rows_is_none_with_its_reason(kept: list[str]) -> None:
    measures = by_name(Mauve().measure(sample(["a", "b"], ["c"], ["d"]), examples("k", kept), 1))
    assert all(m.value is None and m.real is None and f"got {len(kept)} kept" in m.note for m in measures.values())


# Memorisation


def test_a_copied_sample_is_memorised_whole() -> None:
    fit, dev, test = texts_of(30, 1), texts_of(10, 2), texts_of(20, 3)
    real = sample(fit, dev, test)
    for name, side in {"fit": fit, "dev": dev, "test": test}.items():
        found = by_name(Memorisation().measure(real, examples("k", [f"{t.upper()}!" for t in side]), 1))
        assert found["verbatim_rate"].value == 1.0 == found[f"verbatim_rate_{name}"].value
        assert found["verbatim_rate"].n == len(side)
    # The copy of fit: each row is its own nearest, and the whole of it is the longest run.
    found = by_name(Memorisation().measure(real, examples("k", fit), 1))
    assert found["longest_shared_run"].value == 5.0 and (found["longest_shared_run"].real or 5.0) < 4.0
    assert found["neighbour_ratio"].value == pytest.approx(0.0, abs=1e-3) and found["neighbour_ratio"].n == 30
    assert Memorisation().measure(real, examples("k", fit)[::-1], 1) == list(found.values())


def test_rates_of_copies_say_where_there_is_no_test_row() -> None:
    """With folds each test row is a row of fit or dev."""
    found = by_name(Memorisation().measure(sample(texts_of(9, 1), texts_of(4, 2)), examples("k", texts_of(5, 3)), 1))
    for name in ("verbatim_rate", "near_verbatim_rate_fit"):
        assert "(0 rows)" not in found[name].note and "real: not known, the sample has no test rows" in found[name].note
    assert found["verbatim_rate_test"].value is None and "no test row" in found["verbatim_rate_test"].note


def test_verbatim_rates_by_hand() -> None:
    real = sample(["a one", "b two", "c three"], ["d four", "i nine"], ["A one!", "e five", "f six", "d four"], ["g seven"])
    kept = examples("k", ["A  ONE", "b two", "d four", "g seven", "h new", ""])
    found = by_name(Memorisation().measure(real, kept, 1))
    rates = {name: (m.value, m.real) for name, m in found.items() if name.startswith("verbatim")}
    assert rates == {
        "verbatim_rate": (4 / 6, 1 / 4),
        "verbatim_rate_fit": (2 / 6, 1 / 4),
        "verbatim_rate_dev": (1 / 6, 1 / 4),
        "verbatim_rate_test": (2 / 6, 1 / 2),
        "verbatim_rate_other": (1 / 6, 0.0),
    }
    assert all(m.better == "lower" and m.n == 6 for name, m in found.items() if name.startswith("verbatim"))


def test_shared_runs_are_of_equally_many_rows() -> None:
    real = sample(["the quick brown fox jumps over the dog"], [], ["a brown fox", "nothing alike"])
    found = by_name(Memorisation().measure(real, examples("k", ["quick brown fox jumps"] * 5), 1))["longest_shared_run"]
    assert (found.value, found.n, found.real) == (4.0, 2, 1.0)


@pytest.mark.parametrize(
    ("real", "kept"),
    [(sample(["a", "b"], ["c"], ["d"]), []), (sample([]), ["a"]), (sample([], ["c"], ["d"]), ["a"]), (sample(["a"]), ["a"])],
    ids=["nothing kept", "no real row", "no fit", "no dev and test"],
)
def test_what_cannot_be_measured_is_none_with_its_reason(real: Sample, kept: list[str]) -> None:
    found = by_name(Memorisation().measure(real, examples("k", kept), 1))
    assert {"verbatim_rate", "longest_shared_run", "neighbour_ratio"} <= set(found)
    assert found["neighbour_ratio"].value is None
    assert (found["verbatim_rate"].value is None) == (not kept or not (real.fit or real.dev or real.test))
    assert (found["longest_shared_run"].value is None) == (not kept or not real.fit)


def test_nearest_distances() -> None:
    real = np.array([[0.0, 0.0], [3.0, 0.0]], dtype=np.float32)
    assert nearest(np.array([[0.0, 4.0], [3.0, 1.0], [3.0, 0.0]]), real) == pytest.approx([4.0, 1.0, 0.0])
    many = cloud(2500, 1)
    assert nearest(many, many[:50]) == pytest.approx(np.linalg.norm(many[:, None] - many[None, :50], axis=2).min(1), abs=1e-5)


def test_neighbour_ratio_is_one_as_far_as_real_text_is() -> None:
    distances = np.random.default_rng(1).uniform(0.5, 1.5, size=(2, 400))
    found = by_name([neighbour_ratio(distances[0], distances[1], 1)])["neighbour_ratio"]
    assert found.value == pytest.approx(1.0, abs=0.1) and found.real == pytest.approx(1.0, abs=0.05)
    assert found.low is not None and found.high is not None and found.low < 1.0 < found.high
    assert found.value and neighbour_ratio(distances[0] / 4, distances[1], 1).value == pytest.approx(found.value / 4)
    none = neighbour_ratio(distances[0], np.zeros(400), 1)
    assert none.value is None and "more than half" in none.note

"""Frechet distance, marginals and label disagreement against closed forms; real rows raise no alarm, planted faults do, with their size."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import binom, kstest, wasserstein_distance

from seedbed.metrics import frechet, marginals
from seedbed.metrics.labels import Labels, _measure, disagreement
from seedbed.metrics.marginals import Marginals
from seedbed.stats import ALARM
from seedbed.task import Task
from seedbed.types import Example, Measure, Sample

WORDS = [f"w{i}" for i in range(60)]


def texts(rng: np.random.Generator, n: int, low: int = 3, high: int = 9) -> list[list[str]]:
    return [[WORDS[w] for w in rng.zipf(1.5, size=rng.integers(low, high)) % 60] for _ in range(n)]


def measured(kept: list[list[str]], fit: list[list[str]], test: list[list[str]], metric: Marginals | None = None) -> dict[str, Measure]:
    parts = [tuple(Example(f"{i}", {"text": " ".join(text)}) for i, text in enumerate(side)) for side in (kept, fit, test)]
    sample = Sample(Task("plain", ("text",)), parts[1], (), parts[2])
    return {m.name: m for m in (metric or Marginals(draws=2)).measure(sample, parts[0], 1)}


@pytest.mark.parametrize(("n", "m"), [(300, 200), (5, 7), (40, 4)])
def test_frechet_distance_is_that_of_the_gaussians(n: int, m: int) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(n, 6)), rng.normal(1, 2, size=(m, 6))
    s, t = np.cov(x.T), np.cov(y.T)
    known = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t)).real
    assert frechet.distance(x, y) == pytest.approx(known, abs=1e-4) and frechet.distance(y, x) == pytest.approx(known, abs=1e-4)
    assert frechet.distance(x, x) == pytest.approx(0.0, abs=1e-6)
    assert frechet.distance(x + 3, x) == pytest.approx(6 * 9, abs=1e-6)


def test_divergence_and_length_are_those_of_the_formulas() -> None:
    one = marginals._numbers([["a", "b"], ["a", "c"], ["d"] * 9, ["e"] * 4], 2)
    ours, theirs = np.array([[1, 1, 0, 0]]), np.array([[0, 0, 1, 1]])
    p, q = np.array([2, 1, 1, 0, 0]) / 4, np.array([0, 0, 0, 9, 4]) / 13
    both = (p + q) / 2

    def bits(shares: np.ndarray) -> float:
        return float(-sum(s * np.log2(s) for s in shares if s))

    assert one["unigram_divergence"](ours, theirs)[0] == pytest.approx(bits(both) - (bits(p) + bits(q)) / 2) == pytest.approx(1.0)
    half = np.array([[1, 0, 0, 0]]), np.array([[0, 1, 0, 0]])
    assert one["unigram_divergence"](*half)[0] == pytest.approx(0.5) and one["bigram_divergence"](*half)[0] == 1.0
    assert one["length_distance"](ours, theirs)[0] == pytest.approx(wasserstein_distance([2, 2], [9, 4])) == 4.5
    assert one["bigram_divergence"](np.array([[0, 0, 0, 0]]), np.array([[0, 0, 0, 0]]))[0] == 0.0, "no pair anywhere"


@pytest.mark.slow
def test_real_rows_raise_no_alarm_beyond_chance() -> None:
    found = defaultdict(list)
    for i in range(40):
        rng = np.random.default_rng(i)
        kept, real, fit = (rng.normal(size=(24, 4)).astype(np.float32) for _ in range(3))
        found["frechet_distance"].append(frechet.compare(kept, real, fit, i, test=True).p)
        for name, draw in marginals.compare(texts(rng, 30), texts(rng, 30), texts(rng, 30), i, test=True).items():
            found[name].append(draw.p)
        features = rng.normal(size=(60, 5))
        labels = np.where(features[:, 0] + rng.normal(size=60) > 0, "a", "b").tolist()
        found["label_disagreement"].append(_measure(disagreement(features, labels, i)[None], 30).p)
    assert len(found) == 5
    for name, p in found.items():
        assert sum(x is not None and x <= ALARM for x in p) <= int(binom.isf(1e-3, 40, ALARM)), name
        assert kstest(p, "uniform", alternative="greater").pvalue > 1e-3, f"{name}: p-values are too small"


def test_identical_and_disjoint_sets_have_their_known_numbers() -> None:
    rng = np.random.default_rng(2)
    real, fit = texts(rng, 60), texts(rng, 60)
    same = measured(real, fit, real)
    assert all(same[name].value == 0.0 and (same[name].p or 0) > 0.5 for name in marginals.UNITS)
    apart = measured([["x" + word for word in text] for text in real], fit, real)
    assert [apart[name].value for name in marginals.UNITS] == pytest.approx([0.0, 1.0, 1.0])
    assert all((m.high or 0) <= 1.0 for m in apart.values() if m.unit == "bits")
    assert apart["unigram_divergence"].p == apart["bigram_divergence"].p == 0.005


def test_two_words_more_in_each_text_are_two_words() -> None:
    rng = np.random.default_rng(3)
    found = measured([["w1", "w2", *text] for text in texts(rng, 200)], texts(rng, 200), texts(rng, 200))["length_distance"]
    assert found.p == 0.005 and found.low is not None and found.high is not None and found.low < 2.0 < found.high and found.high - found.low < 1.0
    assert found.real is not None and found.real < 0.5


def test_wrong_labels_are_found_with_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    features = np.concatenate([rng.normal(size=(200, 8)) + 4 * np.eye(8)[i % 2] for i in range(4)]).astype(np.float32)
    labels = np.repeat(["a", "b", "a", "b"], 200)
    planted = labels.copy()
    wrong = rng.choice(400, size=60, replace=False)
    planted[wrong] = np.where(labels[wrong] == "a", "b", "a")
    kept, real = slice(0, 400), slice(400, 800)
    order = np.concatenate([np.arange(800)[kept], np.arange(800)[real]])
    found = _measure(disagreement(features[order], planted[order].tolist(), 1)[None], 400)
    assert found.low is not None and found.high is not None and found.low < 60 / 400 < found.high
    assert found.real is not None and found.real < 0.03 and found.p is not None and found.p < 1e-6
    clean = _measure(disagreement(features[order], labels[order].tolist(), 1)[None], 400)
    assert clean.p is not None and clean.p > ALARM
    assert not disagreement(features, ["a"] * 800, 1).any(), "one label alone is never wrong"


def test_pairs_that_no_text_has_are_none_and_those_that_one_side_has_are_apart() -> None:
    single, pairs = [[f"word{i}"] for i in range(9)], [["two", "words", f"{i}"] for i in range(9)]
    found = measured(single, pairs, single[::-1])
    assert found["bigram_divergence"].value is None and "two words" in found["bigram_divergence"].note
    assert found["unigram_divergence"].value == 0.0
    assert measured(single, pairs, pairs)["bigram_divergence"].value == 1.0


def test_too_few_rows_or_no_labels_are_none_with_the_reason() -> None:
    rng = np.random.default_rng(5)
    assert all(m.value is None and "needs 4 rows" in m.note for m in measured(texts(rng, 3), texts(rng, 9), texts(rng, 9)).values())
    few = Sample(Task("plain", ("text",)), (), (), ())
    assert Labels().measure(few, [], 0)[0].note == "a task of kind plain has no labels"
    assert "needs 20 rows" in frechet.Frechet().measure(few, [], 0)[0].note

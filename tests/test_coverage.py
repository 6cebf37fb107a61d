"""Known answers and laws of k-NN precision, recall, density, coverage, the classifier and the labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from seedbed.metrics.coverage import (
    FOLDS,
    LABELS,
    LEAST,
    NAMED,
    NEIGHBOURS,
    Coverage,
    Drawn,
    _measure,
    _squared,
    compare_labels,
    fold_auc,
    knn,
    out_of_fold,
)
from seedbed.task import Task
from seedbed.types import Example, Measure, Sample


def cloud(n: int, seed: int, shift: float = 0.0, d: int = 8) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, d)) + np.eye(1, d)[0] * shift).astype(np.float32)


def numbers(kept: np.ndarray, real: np.ndarray, k: int = 5) -> list[float]:
    squared = _squared(np.concatenate([kept, real]).astype(np.float64))
    return knn(squared, np.arange(len(kept)), np.arange(len(kept), len(squared)), k).tolist()


def examples(texts: Sequence[str], labels: Sequence[str]) -> tuple[Example, ...]:
    return tuple(Example(str(i), {"text": t, "label": y}) for i, (t, y) in enumerate(zip(texts, labels, strict=True)))


def labelled(kept: list[str], real: list[str], *, test: bool = True) -> dict[str, Measure]:
    """kept and real labels, equally many; fit has the real ones."""
    found = compare_labels(kept, real, real, set(real), 1, test=test)
    return {name: _measure(name, [draw], len(kept), "") for name, draw in found.items()}


# Neighbours


def test_neighbours_by_hand() -> None:
    real, kept = np.array([[0.0], [1.0], [3.0]]), np.array([[0.5], [10.0], [11.5]])
    # Reach (k = 1) of the real rows: 1, 1, 2; of the kept ones: 9.5, 1.5, 1.5.
    assert numbers(kept, real, k=1) == [1 / 3, 1.0, 2 / 3, 2 / 3]


def test_neighbours_against_plain_loops() -> None:
    x, y, k = cloud(40, 1, 0.5), cloud(40, 2), 3

    def reach(side: np.ndarray, i: int) -> float:
        return float(sorted(np.linalg.norm(side[i] - row) for j, row in enumerate(side) if j != i)[k - 1])

    inside = [[np.linalg.norm(a - b) <= reach(y, j) for j, b in enumerate(y)] for a in x]
    held = [[np.linalg.norm(a - b) <= reach(x, i) for i, a in enumerate(x)] for b in y]
    hand = [np.mean([any(row) for row in inside]), np.mean([any(row) for row in held]), np.sum(inside) / (k * 40), np.mean(np.any(inside, axis=0))]
    assert numbers(x, y, k) == pytest.approx(hand)


def test_the_same_rows_are_covered_and_far_ones_are_not() -> None:
    x = cloud(60, 1)
    precision, recall, density, coverage = numbers(x, x)
    assert (precision, recall, coverage) == (1.0, 1.0, 1.0) and density > 1
    assert numbers(x, x + 100) == [0.0, 0.0, 0.0, 0.0]


def test_exchangeable_rows_have_density_one_and_the_coverage_of_the_closed_form() -> None:
    """Naeem et al. 2020, Lemma 2: the k nearest of 2n - 1 others are all real with chance prod (n - 1 - i) / (2n - 1 - i)."""
    n, k = 50, 5
    found = np.mean([numbers(cloud(n, 2 * i), cloud(n, 2 * i + 1), k) for i in range(60)], axis=0)
    chance = math.prod((n - 1 - i) / (2 * n - 1 - i) for i in range(k))
    assert found[3] == pytest.approx(1 - chance, abs=0.01)
    assert found[2] == pytest.approx(1.0, abs=0.05)
    assert found[0] == pytest.approx(found[1], abs=0.02)


def test_one_mode_only_keeps_precision_and_loses_recall() -> None:
    real = np.concatenate([cloud(100, 1), cloud(100, 2, shift=30)])
    precision, recall, _, coverage = numbers(cloud(200, 3), real)
    assert precision > 0.9 and recall < 0.6 and coverage < 0.6


# The classifier


def auc_of(x: np.ndarray, y: np.ndarray) -> float:
    signs, folds = np.repeat([1.0, -1.0], len(x))[:, None], np.tile(np.arange(len(x)) % FOLDS, 2)
    return float(fold_auc(out_of_fold(np.concatenate([x, y]), signs, folds), signs, folds)[0])


def test_auc_is_one_half_for_alike_and_one_for_apart() -> None:
    same = np.repeat([[1.0, 0.0]], 50, axis=0)
    assert auc_of(same, same) == 0.5, "ties are halves"
    assert auc_of(cloud(60, 1), cloud(60, 2, shift=9)) == 1.0
    assert np.mean([auc_of(cloud(60, 2 * i), cloud(60, 2 * i + 1)) for i in range(40)]) == pytest.approx(0.5, abs=0.02)


def test_auc_of_two_shifted_clouds_is_that_of_the_normal_law() -> None:
    # The best rule looks along the shift s: AUC = Phi(s / sqrt 2).
    best = 0.5 * (1 + math.erf(1.5 / 2))
    assert auc_of(cloud(1000, 1, d=3), cloud(1000, 2, shift=1.5, d=3)) == pytest.approx(best, abs=0.02)


def test_the_regression_is_the_minimum_of_its_loss() -> None:
    from sklearn.linear_model import LogisticRegression

    x = np.concatenate([cloud(50, 1) / 3, cloud(50, 2, shift=1) / 3])
    signs, folds = np.repeat([1.0, -1.0], 50), np.tile(np.arange(50) % FOLDS, 2)
    centred = x - x.mean(0)
    ours = out_of_fold(x, signs[:, None], folds)[:, 0]
    for fold in range(FOLDS):
        fitted = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-9).fit(centred[folds != fold], signs[folds != fold])
        assert ours[folds == fold] == pytest.approx(fitted.decision_function(centred[folds == fold]), abs=0.01)


def test_auc_by_hand() -> None:
    scores, signs, folds = (
        np.array([[3.0], [1.0], [2.0], [0.0], [5.0], [5.0]]),
        np.array([[1.0], [1], [-1], [-1], [1], [-1]]),
        np.array([0, 0, 0, 0, 1, 1]),
    )
    assert fold_auc(scores, signs, folds).tolist() == [(3 / 4 + 1 / 2) / 2]


def test_a_draw_has_numbers_intervals_and_chances() -> None:
    kept, reference, fit = cloud(120, 1, shift=2.0), cloud(120, 2), cloud(120, 3)
    alike = Coverage().compare(fit, reference, kept, 4, test=True)
    apart = Coverage().compare(kept, reference, fit, 4, test=True)
    assert list(apart) == [*NEIGHBOURS, "c2st_auc"]
    for name, draw in apart.items():
        m = _measure(name, [draw], 120, "")
        assert m.low is not None and m.high is not None and m.value is not None and m.real is not None and m.low <= m.value <= m.high
        assert draw.real == pytest.approx(alike[name].value, abs=0.06), "real is fit against the same reference, in other folds"
        assert draw.p is not None and draw.p <= 0.01 < (alike[name].p or 0), name
    assert Coverage().compare(fit, reference, kept, 4, test=False)["c2st_auc"].p is None


# Labels


def test_a_missing_label() -> None:
    real = ["a"] * 40 + ["b"] * 40 + ["c"] * 20
    found = labelled(["a"] * 50 + ["b"] * 50, real)
    assert found["label_coverage"].value == pytest.approx(2 / 3) and found["label_coverage"].real == 1.0
    assert found["label_coverage"].p == 0.001 and (found["label_divergence"].p or 1) < 0.05
    assert found["label_divergence"].value == pytest.approx(0.2)


def test_a_skew_of_three_to_one() -> None:
    m = labelled(["a"] * 75 + ["b"] * 25, ["a"] * 50 + ["b"] * 50)["label_divergence"]
    assert m.value == 0.25 and m.low is not None and m.high is not None and 0.08 < m.low < 0.25 < m.high < 0.42 and (m.p or 1) <= 0.01


def test_the_same_and_disjoint_labels() -> None:
    same = labelled(["a", "b"] * 20, ["b", "a"] * 20)
    assert same["label_coverage"].value == 1.0 and same["label_divergence"].value == 0.0 and same["label_divergence"].p == 1.0
    none = labelled(["x"] * 30, ["a"] * 30)
    assert none["label_coverage"].value == 0.0 and none["label_divergence"].value == 1.0 and none["label_divergence"].p == 0.001


def test_what_cannot_be_measured_is_none_with_its_reason() -> None:
    task, texts = Task("classification", ("text",), "label"), [f"text {i}" for i in range(LEAST)]
    real = Sample(task, examples(texts, ["a"] * LEAST), (), examples(texts, ["a"] * LEAST))
    few = {m.name: m for m in Coverage().measure(real, examples(texts[:5], ["a"] * 5), 1)}
    assert list(few) == list(NAMED)
    assert [name for name, m in few.items() if m.value is not None] == list(LABELS)
    assert "needs 20 rows on each side, got 5 kept, 20 dev + test and 20 fit" in few["c2st_auc"].note
    three = {m.name: m for m in Coverage().measure(real, examples(texts[:3], ["a"] * 3), 1)}
    assert three["label_coverage"].value is None and "needs 4 rows on each side, got 3 kept" in three["label_coverage"].note
    assert all(m.value is None and "got 0 kept" in m.note for m in Coverage().measure(real, (), 1))
    plain = Sample(Task("plain", ("text",)), real.fit, (), real.test)
    unlabelled = {m.name: m for m in Coverage(draws=1).measure(plain, examples(texts, ["a"] * LEAST), 1)}
    assert "a task of kind plain has no labels" in unlabelled["label_coverage"].note and unlabelled["c2st_auc"].value is not None
    assert Coverage(draws=1).measure(plain, examples(texts, ["a"] * LEAST)[::-1], 1) == list(unlabelled.values()), "the rows' order is nothing"


def test_a_share_of_all_or_none_keeps_an_interval() -> None:
    m = _measure("knn_precision", [Drawn(0.0, 0.9, np.zeros(20), 0.005)], 50, "")
    assert m.low == 0.0 and m.high == pytest.approx(0.071, abs=0.001)

"""Known answers and laws of the intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from seedbed.stats import Z_POWER, Difference, bootstrap_mean, equal_draw, median_distance, paired_difference, percentile_interval, wilson


def points(rows: np.ndarray):  # a scorer of one seed's right (1) and wrong (0) rows
    return lambda s, picked: 100 * rows[picked].mean(axis=1)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_values_of_newcombe_1998_table_1_method_3(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_symmetric_and_stays_within_0_and_1() -> None:
    for k in range(11):
        low, high = wilson(k, 10)
        other = wilson(10 - k, 10)
        assert 0 <= low <= k / 10 <= high + 1e-12 <= 1 + 1e-12  # at 10 of 10 the top is 1 but for rounding
        assert (low, high) == pytest.approx((1 - other[1], 1 - other[0]))


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"Got {successes} of {n}"):
        wilson(successes, n)


def test_paired_difference_agrees_with_the_closed_form() -> None:
    n = 500
    a, b = np.zeros(n), np.zeros(n)
    a[:300] = 1  # 300 right
    b[:280], b[300:350] = 1, 1  # 20 lost, 50 won
    found = paired_difference(1, 1, n, points(a), points(b), seed=3)
    se = 100 * np.std(b - a) / math.sqrt(n)
    assert found.mean == pytest.approx(6.0)
    assert found.se == pytest.approx(se, rel=0.06)  # 2,000 draws: the error of a standard error is 1.6 %
    assert (found.low, found.high) == pytest.approx((6 - 1.96 * se, 6 + 1.96 * se), abs=0.2 * se)
    assert found.smallest_detectable == pytest.approx(2.8 * found.se) == pytest.approx(Z_POWER * found.se)


def test_pairing_removes_what_the_rows_share() -> None:
    rows = np.random.default_rng(0).integers(2, size=300).astype(float)
    assert paired_difference(1, 1, 300, points(rows), points(rows), seed=1) == Difference(0.0, 0.0, 0.0, 0.0)


def test_the_spread_over_seeds_counts_for_each_arm() -> None:
    a, b = np.array([50.0, 56.0, 53.0]), np.array([60.0, 70.0])
    found = paired_difference(
        3, 2, 10, lambda s, picked: np.full(len(picked), a[s]), lambda s, picked: np.full(len(picked), b[s]), seed=5, draws=4000
    )
    assert found.mean == pytest.approx(65 - 53)
    assert found.se == pytest.approx(math.sqrt(a.var() / 3 + b.var() / 2), rel=0.05)


def test_equal_seeds_add_no_variance() -> None:
    rows = np.random.default_rng(0).integers(2, size=400).astype(float)
    zero = np.zeros(400)
    one, many = (paired_difference(1, k, 400, points(zero), points(rows), seed=2).se for k in (1, 8))
    assert many == pytest.approx(one, rel=0.06)


def test_swapping_the_arms_turns_the_difference_round() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.integers(2, size=200).astype(float), rng.integers(2, size=200).astype(float)
    there, back = (paired_difference(1, 1, 200, points(x), points(y), seed=9) for x, y in ((a, b), (b, a)))
    assert (there.mean, there.low, there.high, there.se) == pytest.approx((-back.mean, -back.high, -back.low, back.se))


def test_a_bootstrap_mean_agrees_with_the_closed_form() -> None:
    data = np.random.default_rng(1).normal(5, 2, size=400)
    mean, low, high = bootstrap_mean(data, seed=1)
    half = 1.96 * data.std() / 20
    assert mean == pytest.approx(data.mean())
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.15 * half)


def test_the_percentile_interval_is_the_central_95_percent() -> None:
    assert percentile_interval(list(range(1001))) == (25.0, 975.0)


def test_the_seed_alone_decides_every_draw() -> None:
    rows = np.random.default_rng(0).integers(2, size=100).astype(float)
    zero = points(np.zeros(100))
    draws = [
        lambda seed: equal_draw(range(100), 10, seed),
        lambda seed: bootstrap_mean(rows, seed),
        lambda seed: paired_difference(1, 1, 100, zero, points(rows), seed),
    ]
    for draw in draws:
        assert draw(1) == draw(1) != draw(2)


def test_an_equal_draw_keeps_the_order_and_repeats_nothing() -> None:
    items = [f"row {i:02d}" for i in range(40)]
    for seed in range(20):
        drawn = equal_draw(items, 15, seed)
        assert drawn == sorted(set(drawn)) and len(drawn) == 15 and set(drawn) <= set(items)
    assert equal_draw(items, 40, 0) == items
    assert equal_draw([], 0, 0) == []


def test_an_equal_draw_is_uniform() -> None:
    counts = np.zeros(10)
    for seed in range(3000):
        counts[equal_draw(range(10), 3, seed)] += 1
    assert counts / 3000 == pytest.approx(np.full(10, 0.3), abs=4 * math.sqrt(0.3 * 0.7 / 3000))


def test_an_equal_draw_never_makes_up_rows() -> None:
    with pytest.raises(ValueError, match="cannot draw 4 of 3"):
        equal_draw([1, 2, 3], 4, 0)


def test_median_distance() -> None:
    assert median_distance(np.array([[0.0], [0.0], [1.0], [3.0]])) == pytest.approx(2.0)  # 1, 1, 2, 3, 3 without the 0
    assert median_distance(np.zeros((3, 2))) == 1.0

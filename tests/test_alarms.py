"""p-values: real rows in the place of kept ones raise no alarm beyond chance, planted faults do. At full size: benchmarks/calibration.py."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pytest
from conftest import ROOT
from scipy.stats import binom, fisher_exact, kstest
from test_contract import NEEDED

from seedbed.catalog import CATALOG, find
from seedbed.metrics.coverage import Coverage, compare_labels
from seedbed.metrics.diversity import Grams, _draw
from seedbed.metrics.mauve import PERMUTATIONS, Mauve, _chances, mauve, mmd
from seedbed.metrics.memorisation import Memorisation, _difference_p
from seedbed.stats import ALARM, half_spread, permutation_p, spread_interval
from seedbed.task import Task
from seedbed.testing import tiny_sample
from seedbed.types import Example, Measure, Sample

DRAWS = 40
WORDS = "lamp radio alarm door song train mail oven list game bread shirt river cloud table glass stone paper horse clock".split()


def exchangeable(i: int) -> Iterator[tuple[str, float | None]]:
    """(measure, p) of one draw in which both sides come from one source."""
    rng = np.random.default_rng(i)
    kept, real, fit = (rng.normal(size=(30, 5)).astype(np.float32) for _ in range(3))
    yield from ((name, draw.p) for name, draw in Coverage().compare(kept, real, fit, i, test=True).items())
    yield "mmd", Mauve().compare(kept, real, fit, i, 199)["mmd"].p
    labels = [rng.choice(["a", "b", "c", "d"], size=40, p=[0.5, 0.3, 0.17, 0.03]).tolist() for _ in range(3)]
    yield from ((name, draw.p) for name, draw in compare_labels(labels[0], labels[1], labels[2], set("abcd"), i, test=True).items())
    grams = Grams([[f"w{w}" for w in rng.zipf(1.6, size=rng.integers(3, 9)) % 200] for _ in range(40)])
    yield "distinct_2", _draw(lambda rows: grams.distinct(rows, 2), 20, i, 199).p
    yield "self_bleu", _draw(grams.self_bleu, 20, i, 199).p
    yield "neighbour_ratio", _difference_p(rng.exponential(size=40), rng.exponential(size=40), np.median, i)


@pytest.mark.slow
def test_real_rows_in_the_place_of_kept_ones_raise_no_alarm_beyond_chance() -> None:
    found = defaultdict(list)
    for i in range(DRAWS):
        for name, p in exchangeable(i):
            assert p is not None and 0 < p <= 1
            found[name].append(p)
    assert len(found) == 11
    bound = int(binom.isf(1e-3, DRAWS, ALARM))
    for name, p in found.items():
        assert sum(x <= ALARM for x in p) <= bound, name
        assert kstest(p, "uniform", alternative="greater").pvalue > 1e-3, f"{name}: p-values are too small"
        # Counts of labels are few and tie often: a p of them is on the safe side.
        assert np.mean(p) < 0.68 or name == "label_coverage", f"{name}: p-values are too large to find anything"


@pytest.mark.slow
def test_p_of_mauve_counts_the_arrangements_of_the_bins() -> None:
    rng = np.random.default_rng(1)
    p = []
    for i in range(120):
        both = rng.multinomial(200, np.full(8, 1 / 8))
        ours = rng.multivariate_hypergeometric(both, 100)
        result = mauve(np.repeat(np.eye(8), ours, axis=0), np.repeat(np.eye(8), both - ours, axis=0))
        p.append(_chances(result, i, 199))
    for column in np.array(p).T:
        assert kstest(column, "uniform").pvalue > 0.001
        assert (column <= ALARM).sum() <= binom.isf(1e-3, 120, ALARM)
    apart = mauve(np.repeat(np.eye(8), [100, *[0] * 7], axis=0), np.repeat(np.eye(8), [50, 50, *[0] * 6], axis=0))
    assert _chances(apart, 1, PERMUTATIONS) == (0.001, 0.001, 0.001)


def test_permuted_mmd_is_the_mmd_of_the_permuted_rows() -> None:
    from seedbed.metrics.mauve import _mmd_permuted

    x, y = np.random.default_rng(1).normal(size=(2, 12, 3))
    observed, permuted = _mmd_permuted(x, y, 1.5, np.random.default_rng(7), 3)
    assert observed == pytest.approx(mmd(x, y, 1.5))
    rng, both, signs = np.random.default_rng(7), np.concatenate([x, y]), np.repeat([1.0, -1.0], 12)
    for value in permuted:
        ours = rng.permutation(signs) > 0
        assert value == pytest.approx(mmd(both[ours], both[~ours], 1.5))


def test_permutation_p_counts_itself_and_ties() -> None:
    assert permutation_p(3.0, [1.0, 2.0, 3.0, 4.0]) == 3 / 5
    assert permutation_p(0.1 + 0.2, [0.3] * 9) == 1.0, "equal but for the last digit"
    assert permutation_p(5.0, np.zeros(99)) == 0.01


def test_halves_scatter_as_much_as_samples_do() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        rows = rng.exponential(size=60)
        halves = np.array([rng.permutation(rows)[:30].mean() for _ in range(40)])
        low, high = spread_interval(float(rows.mean()), [half_spread(float(rows.mean()), halves)])
        held += low <= 1.0 <= high
    assert 0.90 <= held / 300 <= 0.98


def measured(kept: list[str], fit: list[str], test: list[str]) -> dict[str, Measure]:
    parts = [tuple(Example(f"{i}", {"text": text}) for i, text in enumerate(side)) for side in (kept, fit, test)]
    sample = Sample(Task("plain", ("text",)), parts[1], (), parts[2])
    return {m.name: m for m in Memorisation().measure(sample, parts[0], 1)}


@pytest.mark.slow
def test_a_tenth_of_planted_copies_is_found_with_its_size() -> None:
    rng = np.random.default_rng(3)
    kept, fit, test = ([" ".join(rng.choice(WORDS, size=5)) for _ in range(100)] for _ in range(3))
    clean, planted = measured(kept, fit, test), measured([*fit[:10], *kept[10:]], fit, test)
    rate = planted["verbatim_rate"]
    assert rate.value == 0.10 and rate.low is not None and rate.high is not None and rate.low < 0.10 < rate.high
    assert rate.p is None, "test rows cannot copy from test, so no test of exchangeable rows is made"
    copied = planted["verbatim_rate_fit"].p
    assert copied == pytest.approx(fisher_exact([[10, 90], [0, 100]], alternative="greater").pvalue) and copied <= ALARM
    assert clean["verbatim_rate_fit"].p == 1.0 and (clean["longest_shared_run"].p or 0) > ALARM and (clean["neighbour_ratio"].p or 0) > ALARM
    near = measured([f"{text} again" for text in fit], fit, test)
    assert near["longest_shared_run"].p == near["neighbour_ratio"].p == 0.001, "near copies are alarms although none is verbatim"


def test_a_p_is_written_to_scores() -> None:
    assert list(asdict(Measure("mmd", 0.0)))[-3:] == ["note", "p", "rows"]


@pytest.mark.slow
def test_every_measure_has_its_section_in_the_docs() -> None:
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8").split("\n## Scores of a task")[0]
    sections = set(re.findall(r"^#+ `(\w+)`", page, re.M))
    sample = tiny_sample()
    with_pool = Sample(sample.task, sample.fit, sample.dev, sample.test, more=sample.fit[:1])
    metrics = [find("metric", kind)(**NEEDED.get(kind, {})) for kind in CATALOG["metric"]]
    names = {m.name.partition(":")[0] for metric in metrics for m in metric.measure(with_pool, sample.dev, 0)}  # of a group's, without its name
    assert names == sections

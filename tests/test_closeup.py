"""The map and the nearest real rows: known answers on made features, laws on real ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seedbed.report.closeup import SHOWN, closeup, plane
from seedbed.testing import tiny_sample
from seedbed.types import Candidate, Example


def copies(rows: tuple[Example, ...]) -> list[Candidate]:
    return [Candidate(f"c{i}", i, "", dict(e.fields), True) for i, e in enumerate(rows)]


def test_a_copy_is_nearest_to_what_it_copies() -> None:
    sample = tiny_sample()
    for split in ("fit", "dev", "test"):
        rows = getattr(sample, split)
        found = closeup(sample, copies(rows), 7)
        texts = {split: {sample.task.render(e.fields) for e in getattr(sample, split)} for split in ("fit", "dev", "test")}
        assert len(found["nearest"]) == min(SHOWN, len(rows))
        assert found["searched"] == len(sample.fit) + len(sample.dev) + len(sample.test)
        for entry in found["nearest"]:
            real = rows[int(entry["id"][1:])]
            assert entry["cosine"] == pytest.approx(1, abs=1e-3)
            assert sample.task.body(real.fields) in entry["text"] and entry["text"] in texts[entry["split"]]


def test_the_map_has_as_many_points_on_each_side() -> None:
    sample = tiny_sample()
    kept = copies(sample.test)[:5]
    found = closeup(sample, kept, 7)
    assert len(found["map"]["real"]) == len(found["map"]["synthetic"]) == 5
    assert found == closeup(sample, kept, 7)
    assert found["map"]["real"] != closeup(sample, kept, 8)["map"]["real"]


def test_the_plane_is_the_real_rows_own() -> None:
    """Points of a flat cloud in 10 dimensions keep their distances; how the synthetic ones lie does not change the axes."""
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(50, 2)) * [3.0, 1.0]
    turn, _ = np.linalg.qr(rng.normal(size=(10, 10)))
    real = flat @ turn[:2] + 5
    found = plane(real, real[:7] + 100 * turn[0])
    points = np.array(found["real"])
    assert found["share"] == 1.0
    assert np.linalg.norm(points[0] - points[1]) == pytest.approx(np.linalg.norm(flat[0] - flat[1]), abs=0.01)
    assert found["real"] == plane(real, real[:1])["real"]
    assert np.linalg.norm(np.array(found["synthetic"]) - points[:7], axis=1) == pytest.approx([100] * 7, abs=0.01)
    noisy = plane(rng.normal(size=(400, 10)), real)
    assert noisy["share"] == pytest.approx(2 / 10, abs=0.08)


@pytest.mark.parametrize(("rows", "reason"), [(1, "at least 3 rows on each side, got 1"), (5, "have the same text")])
def test_no_map_has_its_reason(rows: int, reason: str) -> None:
    found = plane(np.ones((rows, 4)), np.ones((rows, 4)))
    assert found["share"] is None and found["real"] == found["synthetic"] == []
    assert reason in found["note"]


def test_one_kept_row_is_enough_for_a_page() -> None:
    sample = tiny_sample()
    found = closeup(sample, copies(sample.fit)[:1], 7)
    assert len(found["nearest"]) == 1 and found["map"]["share"] is None
    assert closeup(replace(sample, dev=(), test=()), copies(sample.fit), 7)["searched"] == len(sample.fit)

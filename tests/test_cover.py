"""Contexts drawn oftener where what was written is rare: the shares' laws, and a run whose teacher looks first."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_run import ROOT, _snapshot

from seedbed import recipe as recipes
from seedbed.errors import RunFailed
from seedbed.generators.soft import Soft
from seedbed.generators.steered import looks
from seedbed.limits import Limits
from seedbed.lm.cover import shares
from seedbed.run import run
from seedbed.shards import make_shard
from seedbed.testing import tiny_sample
from seedbed.types import Candidate, Sample

RUN: dict[str, Any] = {
    "name": "looks",
    "sample": {"path": "examples/helpdesk.csv", "rows": 12, "test_share": 0.3},
    "task": {"kind": "plain", "inputs": ["message"]},
    "generator": {"kind": "soft", "prompt": "nsp", "tokens": 2, "epochs": 1, "cover": True},
    "generate": {"count": 20, "max_tokens": 6},
    "engine": {"kind": "local", "slots": 16, "cache": 32},
    "filter": [],
    "metric": [],
}


def _units(n: int, e: int) -> np.ndarray:
    return np.eye(e)[:n]


def test_rows_whose_texts_are_rare_are_drawn_oftener() -> None:
    """Real rows lie at two places, half at each; all rows but the last write at the first."""
    here, there = _units(2, 8)
    real = np.stack([here] * 4 + [there] * 4)
    texts = np.repeat([here] * 7 + [there], 50, axis=0)
    found = shares(real, texts, np.repeat(np.arange(8), 50), [""] * 8)
    assert found.sum() == pytest.approx(1) and found[7] == pytest.approx(0.5, abs=0.03)
    assert found[:7] == pytest.approx(np.full(7, found[0])), "rows that write alike are drawn alike"
    few = shares(real, texts[::50], np.arange(8), [""] * 8)
    assert 1 / 8 < few[7] < found[7], "one text a row says less than fifty"


def test_rows_that_give_themselves_back_are_drawn_equally() -> None:
    real = _units(6, 8)
    assert shares(real, real, np.arange(6), list("aabbcc")) == pytest.approx(np.full(6, 1 / 6))


def test_labels_keep_their_number_and_rows_without_a_text_are_left_out() -> None:
    real, labels = _units(8, 8), ["a"] * 5 + ["b"] * 2 + ["c"]
    source = np.array([0, 0, 1, 2, 3, 5, 6])  # row 4 wrote nothing that can be read, nor did the only row of c
    found = shares(real, real[[1, 0, 1, 1, 3, 6, 6]], source, labels)
    assert [found[:5].sum(), found[5:7].sum(), found[7]] == pytest.approx([5 / 8, 2 / 8, 1 / 8])
    assert found[4] == 0 and (found[:4] > 0).all()
    assert shares(real, np.empty((0, 8)), np.empty(0, dtype=int), labels) == pytest.approx(np.full(8, 1 / 8))


def test_a_row_that_fails_more_often_is_asked_more_often() -> None:
    real = _units(2, 4)
    found = shares(real, real[[0, 0, 0, 0, 1]], np.array([0, 0, 0, 0, 1]), ["a", "b"])
    assert found == pytest.approx([0.5, 0.5]), "a label's share of what is asked stays"
    found = shares(np.concatenate([real, real]), real[[0, 0, 1, 0, 0, 1]], np.array([0, 0, 1, 2, 2, 3]), [""] * 4)
    assert found[1] > found[0] and found[3] > found[2]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Sample]:
    sample, out = tiny_sample(), tmp_path_factory.mktemp("teacher")
    settings = Soft(prompt="nsp", tokens=2, epochs=1, cover=True)
    settings.fit(sample, "seedling", 0, out)
    return settings.load(out, sample.task, "seedling"), sample


def test_a_round_has_each_row_as_often_as_its_share_says(teacher: tuple[Any, Sample]) -> None:
    one, sample = teacher
    n = len(one.sources)
    wanted = np.random.default_rng(0).dirichlet(np.full(n, 0.5))
    drawing = replace(one, shares=tuple(wanted))
    rows = list(drawing.rows(sample, 50 * n, 3))
    assert rows[: n + 1] == list(drawing.rows(sample, n + 1, 3))
    for start in range(0, len(rows), n):
        counted = Counter(r.source for r in rows[start : start + n])
        times = np.array([counted[s["id"]] for s in one.sources])
        assert (np.abs(times - n * wanted) < 1 + 1e-9).all()
    whole = Counter(r.source for r in rows)
    assert [whole[s["id"]] / len(rows) for s in one.sources] == pytest.approx(wanted, abs=0.02)


def test_what_cannot_be_read_is_no_text(teacher: tuple[Any, Sample]) -> None:
    one, sample = teacher
    assert one.looks == looks(len(one.sources)) == 4 * len(one.sources)
    broken = [Candidate(f"c{i}", i, "", None, False, "no label", {"sources": [s["id"]]}) for i, s in enumerate(one.sources)]
    assert one.having_seen(sample, broken).shares == pytest.approx(np.full(len(one.sources), 1 / len(one.sources)))


def test_many_rows_are_looked_at_once_each() -> None:
    assert [looks(n) for n in (1, 100, 250, 300, 1000, 2000)] == [4, 400, 1000, 900, 1000, 2000]


@pytest.mark.slow
def test_a_run_that_looks_first_is_the_same_by_limits_and_by_shards(tmp_path: Path) -> None:
    built = recipes.build(RUN, ROOT)
    whole = run(built, tmp_path / "whole")
    looked = next(p for p in (tmp_path / "whole/looks").glob("looks-*"))
    assert any(name.startswith(f"{looked.name}/") for name in json.loads((whole.folder / "manifest.json").read_text())["files"]), "verify knows it"
    assert whole.scores["counts"]["candidates"] == 20, "what was looked at is no part of the dataset"
    with pytest.raises(RunFailed, match="0 of 20 rows"):  # cut while it looks
        run(built, tmp_path / "cut", limits=Limits(tokens=30))
    run(built, tmp_path / "cut", limits=Limits(tokens=6 * 4 * 12))  # among the candidates
    run(built, tmp_path / "cut")
    make_shard(built, tmp_path / "joined", 1, 2)
    make_shard(built, tmp_path / "joined", 2, 2)
    run(built, tmp_path / "joined")
    assert looked.name in {p.name for p in (tmp_path / "joined/looks").iterdir()}
    assert _snapshot(tmp_path / "whole/looks") == _snapshot(tmp_path / "joined/looks")
    assert _snapshot(tmp_path / "whole/looks").items() <= _snapshot(tmp_path / "cut/looks").items()  # and the rows kept of the cut one


@pytest.mark.slow
def test_a_teacher_that_looks_first_finds_the_canaries_that_it_learned(tmp_path: Path) -> None:
    planted = RUN | {"sample": RUN["sample"] | {"canaries": 2}, "engine": {"kind": "toy"}}
    assert run(recipes.build(planted, ROOT), tmp_path).scores["counts"]["candidates"] == 20

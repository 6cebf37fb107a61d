"""What a comparison will cost, said before it is run: every seed and fold, what arms share once, nothing of what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_compare import BASE, READS_SIXTY, ROOT
from typer.testing import CliRunner

from seedbed import recipe as recipes
from seedbed.cli import app
from seedbed.compare import compare
from seedbed.priced import price
from seedbed.recipe import Recipe

CHEAP: dict[str, Any] = {k: v for k, v in BASE.items() if k not in ("annotate", "arm")} | {
    "generate": {"count": 30, "max_tokens": 60},
    "sample": {"path": str(ROOT / "examples/helpdesk.csv"), "rows": 100},
    "annotator": [],
    "filter": [{"kind": "form"}],
    "metric": [{"kind": "pii"}],
    "student": {"kind": "short.py:Short"},
}
SAME = {"name": "same", "filter": [{"kind": "form", "low": 0.1}]}
OTHER = {"name": "other", "generator": {"shots": 2}}


@pytest.fixture(autouse=True)
def _small_trials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("seedbed.estimate.TRIAL_S", 0.5)
    monkeypatch.setattr("seedbed.estimate.SMALL", 20)
    monkeypatch.setattr("seedbed.estimate.LARGE", 40)
    (tmp_path / "short.py").write_text(READS_SIXTY)


def recipe(place: Path, **changes: Any) -> Recipe:
    return recipes.build(CHEAP | changes, place)


def test_steps_that_arms_share_are_counted_once_and_each_seed_in_full(tmp_path: Path) -> None:
    one = price(recipe(tmp_path), seeds=1, out=tmp_path)
    assert one["arms"][0]["tokens"] == one["tokens"] > 60
    assert "the recipe has no [[arm]]: it is one arm, hard" in one["assumed"]
    three = price(recipe(tmp_path, arm=[{"name": "a"}, SAME, OTHER]), seeds=2, out=tmp_path)
    a, same, other = three["arms"]
    assert a["tokens"] == pytest.approx(2 * one["tokens"], rel=0.3) and other["tokens"] > one["tokens"]
    assert same["tokens"] == 0 and same["steps"]["candidates"]["seconds"] == 0 and same["steps"]["kept"]["disk_bytes"] > 0
    assert three["tokens"] == sum(row["tokens"] for row in three["arms"]) and not any("one arm" in line for line in three["assumed"])
    assert three["money"] is None and three["money_note"].count("no price is known") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["short.py"]  # nothing is written


def test_folds_are_grown_each_and_the_whole_sample_is_not(tmp_path: Path) -> None:
    whole, folded = (price(recipe(tmp_path, sample=CHEAP["sample"] | more), seeds=1, out=tmp_path) for more in ({}, {"folds": 4, "rows": 120}))
    assert folded["folds"] == 4 and folded["tokens"] == pytest.approx(4 * whole["tokens"], rel=0.3)


def test_a_finished_comparison_costs_its_students_alone(tmp_path: Path) -> None:
    made = recipe(tmp_path, where={"price_per_hour": 3600})
    before = price(made, seeds=1, out=tmp_path)
    assert before["money"] == pytest.approx(before["seconds"], abs=0.2)
    compare(made, seeds=1, out=tmp_path)
    after = price(made, seeds=2, out=tmp_path)["arms"][0]
    assert after["tokens"] == pytest.approx(before["tokens"], rel=0.3), "of the second seed alone"
    (row,) = price(made, seeds=1, out=tmp_path)["arms"]
    assert row["tokens"] == 0 and all(step["seconds"] == 0 for name, step in row["steps"].items() if name != "scores")


def test_the_verb_prints_an_arm_a_line_and_runs_nothing(tmp_path: Path) -> None:
    few = CHEAP["sample"] | {"test_share": 0.05}
    arms = '[[arm]]\nname = "a"\n[[arm]]\nname = "same"\nfilter = [{kind = "form", low = 0.1}]\n'
    (tmp_path / "r.toml").write_text(recipe(tmp_path, sample=few).to_toml() + arms)
    done = CliRunner().invoke(app, ["compare", str(tmp_path / "r.toml"), "--estimate", "--json", "--seeds", "2", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["a,", "same,", "together"] and lines[3].startswith("2 seeds; memory ")
    assert json.loads(lines[-1])["seconds"] > 0 and "0.000 s" not in done.stdout
    assert any("no gain can be measured with student short.py:Short: a gain needs at least 100 test rows" in line for line in lines)
    assert not (tmp_path / "out").exists()

"""count = "auto": where generating stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seedbed import recipe as recipes
from seedbed.candidates import tokens_of
from seedbed.data import load_sample
from seedbed.fleet import HERE
from seedbed.grow import Timer
from seedbed.limits import UNLIMITED, Limits
from seedbed.run import run
from seedbed.specs import MOST
from seedbed.store import Store, journalled
from seedbed.volume import grow_until_flat

ROOT = Path(__file__).resolve().parent.parent
BASE: dict[str, Any] = {
    "name": "auto",
    "seed": 3,
    "sample": {"path": "examples/helpdesk.csv", "rows": 30, "test_share": 0.1},
    "task": {"kind": "classification", "inputs": ["message"], "target": "queue"},
    "engine": {"kind": "toy", "order": 5},
    "generator": {"kind": "hard", "shots": 8},
    "generate": {"count": "auto", "max_tokens": 200, "temperature": 0.7},
    "metric": [],
    "student": {"kind": "linear", "features": "tfidf"},
}
"""Too few test rows for a gain: what stops here is judged on dev."""


@pytest.mark.slow
def test_candidates_double_until_a_doubling_brings_less_than_its_error(tmp_path: Path) -> None:
    made = recipes.build(BASE, ROOT)
    assert made.generate.auto and made.generate.count == MOST
    auto = run(made, tmp_path).scores["counts"]["auto"]
    steps = auto["steps"]
    assert [s["candidates"] for s in steps] == [30 * 2**i for i in range(len(steps))]
    assert len(steps) > 2, "one doubling helped"
    assert all(s["rise"] > s["standard_error"] for s in steps[1:-1])
    assert steps[-1]["rise"] <= steps[-1]["standard_error"] and auto["why"].startswith("flat")


@pytest.mark.slow
def test_the_most_is_twenty_times_the_rows_or_what_the_recipe_says(tmp_path: Path) -> None:
    made = recipes.build(BASE | {"generate": BASE["generate"] | {"count": 45, "auto": True}}, ROOT)
    auto = run(made, tmp_path).scores["counts"]["auto"]
    assert [s["candidates"] for s in auto["steps"]] == [30, 45]
    assert "at the most, 45" in auto["why"] or auto["why"].startswith("flat")


@pytest.mark.slow
def test_a_limit_on_tokens_is_one_of_all_doublings(tmp_path: Path) -> None:
    made, tokens, spent = recipes.build(BASE, ROOT), 4000, 0
    cut = run(made, tmp_path, limits=Limits(tokens=tokens)).scores
    assert cut["counts"]["auto"]["why"] == "cut by a limit"
    assert cut["cut"]["limits"] == f"--max-tokens {tokens}" and cut["cut"]["rows"] < cut["cut"]["of"]
    for folder in (tmp_path / "auto").glob("candidates-*"):
        spent += tokens_of(folder) + sum(record["completion"]["tokens"] for record in journalled(folder / "journal.jsonl"))
    assert tokens - made.generate.max_tokens < spent <= tokens


@pytest.mark.slow
def test_students_of_doublings_learn_once(tmp_path: Path) -> None:
    """Neither a longer run nor the same again trains those of volumes that are there, one of which a stop left with two of its three."""
    log = tmp_path / "log"
    raw = BASE | {"student": {"kind": "tests/plugins.py:Logged", "log": str(log)}}

    def grown(count: int) -> tuple[Any, int]:
        """(how far it went and why, students trained so far)"""
        recipe = recipes.build(raw | {"generate": BASE["generate"] | {"count": count, "auto": True, "max_tokens": 120}}, ROOT)
        sample = load_sample(recipe.sample, recipe.task, recipe.seed, ROOT)
        _, why = grow_until_flat(Store(tmp_path), recipe, sample, UNLIMITED, Timer(), HERE)
        return why, len(log.read_text().splitlines())

    few, trained = grown(30)
    assert trained == 3
    journal = tmp_path / "volume.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    assert grown(30) == (few, 4) and journal.read_bytes() == whole
    more, trained = grown(45)
    assert trained == 7 and more["steps"][0] == few["steps"][0]
    assert grown(45) == (more, 7)


def test_a_task_without_a_target_has_nothing_to_stop_by(tmp_path: Path) -> None:
    plain = {
        "task": {"kind": "plain", "inputs": ["message"]},
        "generate": BASE["generate"] | {"count": 40, "auto": True},
        "filter": [{"kind": "dedup"}],
    }
    counts = run(recipes.build(BASE | plain, ROOT), tmp_path).scores["counts"]
    assert counts["candidates"] == 40
    assert "a plain task has no target" in counts["auto"]["why"]


def test_a_resolved_recipe_says_the_same(tmp_path: Path) -> None:
    made = recipes.build(BASE, ROOT)
    path = tmp_path / "r.toml"
    path.write_text(made.to_toml().replace('path = "examples', f'path = "{ROOT}/examples'))
    assert recipes.load(path).generate == made.generate


def test_another_word_than_auto_is_refused() -> None:
    with pytest.raises(recipes.RecipeError, match="count = 'many'"):
        recipes.build(BASE | {"generate": {"count": "many"}}, ROOT)

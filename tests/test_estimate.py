"""What a run would cost: known answers of a shape, nothing for what is finished, and a preview that leaves no trace."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import RECIPE, seedbed
from test_run import REAL, ROOT, TOY, _snapshot

from seedbed import estimate as estimates
from seedbed import recipe as recipes
from seedbed.computed import busy, seconds_each
from seedbed.errors import RecipeError
from seedbed.estimate import COMPUTED, estimate
from seedbed.flops import DEVICES, Device, Shape
from seedbed.preview import preview
from seedbed.run import run
from seedbed.stats import power_law

SEEDLING = {"hidden": 256, "layers": 6, "heads": 4, "kv_heads": 2, "intermediate": 704, "vocab": 4096}
BIG = {"hidden": 4096, "layers": 32, "heads": 32, "kv_heads": 8, "intermediate": 14336, "vocab": 128256, "tied": False}
TRIAL_S = estimates.TRIAL_S
TEXT = {"path": "examples/helpdesk.csv", "rows": 100}


@pytest.fixture(autouse=True)
def _few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the trials of filters, metrics and student, and little time for the others: what is tested here is no measurement."""
    monkeypatch.setattr(estimates, "TRIAL_S", 0.5)
    monkeypatch.setattr(estimates, "SMALL", 20)
    monkeypatch.setattr(estimates, "LARGE", 40)


def test_an_estimate_says_that_other_programs_ran_beside_its_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    for load, said in ((0.2, 0), (2.5, 1)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert len(busy()) == said
    assert "load 2.5 on 2 processors" in busy()[0]


def test_a_shape_has_the_weights_of_the_model_it_describes() -> None:
    from seedbed.lm.load import load

    assert Shape(**SEEDLING).parameters == sum(p.numel() for p in load("seedling").model.parameters()) == 5_475_584
    assert Shape(**BIG).parameters == 8_030_261_248  # Llama 3.1 8B, by its model card 8.03 B


def test_flops_and_bytes_by_hand() -> None:
    tiny = Shape(hidden=4, layers=2, heads=2, kv_heads=1, intermediate=8, vocab=10)
    # A layer: q and o 4 x 4 each, k and v 4 x 2 each, three of 4 x 8; the output 10 x 4.
    assert tiny.multiplied == 2 * (2 * 16 + 2 * 8 + 96) + 40 == 328
    assert tiny.parameters == 328 + 5 * 4
    assert tiny.forward(3, 7) == 3 * (2 * 328 + 2 * 2 * 7 * 4) == 2304
    assert tiny.fit(3, 7, frozen=True) == 2 * 2304
    assert tiny.fit(3, 7, frozen=False) == 3 * 2304
    assert tiny.cache_bytes(3, 2) == 3 * 2 * 2 * 2 * 2
    assert Device(1e3, 100, 10, 1).seconds(400, 6, 4) == 10  # 400 FLOP at 0.4 of 100 a second
    assert Device(1e3, 100, 10, 1).seconds(400, 600, 2) == 100  # 600 bytes at 0.6 of 10 a second


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ({"hidden": 256}, "shape.layers"),
        (SEEDLING | {"layers": 0}, "shape.layers = 0"),
        (SEEDLING | {"heads": 3}, "hidden = 256 must be a multiple of heads = 3"),
        (SEEDLING | {"kv_heads": 3}, "heads = 4 must be a multiple of kv_heads = 3"),
        (SEEDLING | {"depth": 3}, "shape.depth"),
        ("large", "shape"),
    ],
)
def test_bad_shapes_are_problems_of_the_recipe(shape: Any, problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipes.build(TOY | {"model": {"shape": shape}, "where": {"device": "abacus"}}, ROOT)
    assert any(problem in p for p in caught.value.problems)
    assert any(p.startswith("[where] device = 'abacus'") for p in caught.value.problems), "every problem at once"


def test_a_shape_is_estimated_and_not_run(tmp_path: Path) -> None:
    raw = REAL | {"model": {"name": "some/model", "shape": BIG}, "where": {"device": "h100", "price_per_hour": 2.0}, "metric": [], "filter": []}
    recipe = recipes.build(raw, ROOT)
    with pytest.raises(RecipeError, match="can be estimated, not run"):
        run(recipe, tmp_path)
    with pytest.raises(RecipeError, match="can be estimated, not run"):
        preview(recipe)
    assert not list(tmp_path.iterdir())
    (tmp_path / "again.toml").write_text(recipe.to_toml().replace('path = "', f'path = "{ROOT}/'))
    assert recipes.load(tmp_path / "again.toml").model == recipe.model
    found = estimate(recipe, tmp_path)
    assert found.steps["teacher"].basis == found.steps["candidates"].basis == COMPUTED
    assert found.to_json()["basis"] == COMPUTED
    assert found.memory > 4 * 8.03e9
    assert found.money is not None
    assert found.money == pytest.approx(2.0 * found.to_json()["seconds"] / 3600, rel=0.05, abs=1e-4)
    slower = estimate(recipes.build(raw | {"where": {"device": "a100"}}, ROOT), tmp_path)
    for step in ("teacher", "candidates"):
        assert slower.steps[step].seconds > found.steps[step].seconds
    with_lora = estimate(recipes.build(raw | {"generator": {"kind": "soft", "prompt": "amortised-lora"}}, ROOT), tmp_path)
    frozen = estimate(recipes.build(raw | {"generator": {"kind": "soft", "prompt": "mc"}}, ROOT), tmp_path)
    assert with_lora.steps["teacher"].disk - frozen.steps["teacher"].disk == 4 * Shape.model_validate(BIG).lora(16), "the adapter is kept too"
    assert slower.money is None
    assert "no price" in slower.money_note
    # 48 rows of at most 24 tokens, one read of all weights for every step of 8 slots: bandwidth alone is a lower bound.
    assert found.steps["candidates"].seconds > 48 * 10 / 8 * 4 * 8.03e9 / DEVICES["h100"].bandwidth


def test_a_power_law_is_found_again() -> None:
    assert power_law([(100, 1.0), (200, 4.0)], 400) == pytest.approx(16.0)
    assert power_law([(100, 1.0), (200, 2.0)], 50) == pytest.approx(0.5)
    assert power_law([(100, 3.0), (100, 3.0)], 200) == pytest.approx(6.0)
    assert power_law([(100, 2.0), (200, 1.0)], 400) == pytest.approx(2**0.5), "more work never takes less time"


@pytest.mark.slow
def test_finished_steps_cost_nothing_and_the_rest_is_estimated(tmp_path: Path) -> None:
    raw = TOY | {"metric": []}
    done = run(recipes.build(raw, ROOT), tmp_path)
    before = _snapshot(done.folder)
    found = estimate(recipes.build(raw, ROOT), tmp_path)
    assert found.to_json()["seconds"] == found.to_json()["tokens"] == found.to_json()["disk_bytes"] == 0
    assert {c.basis for c in found.steps.values()} == {"finished"}
    more = estimate(recipes.build(raw | {"generate": raw["generate"] | {"count": 480}}, ROOT), tmp_path)
    assert more.steps["teacher"].seconds == 0
    length = re.search(r"(\d+) tokens a row", more.steps["candidates"].note)
    assert length and more.steps["candidates"].tokens == pytest.approx(360 * int(length[1]), rel=0.01), "120 of 480 rows are there"
    assert more.steps["scores"].seconds > 0
    assert _snapshot(done.folder) == before


POOLED: dict[str, Any] = {name: value for name, value in TOY.items() if name != "generate"} | {
    "sample": {"path": "examples/helpdesk.csv", "rows": 60, "test_share": 0.1, "hide": True},
    "metric": [],
    "annotate": {"count": 40},
}
TEXTS = {"task": {"kind": "text2text", "inputs": ["queue"], "target": "message"}, "filter": [], "generate": {"count": 0, "max_tokens": 40}}


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"annotator": [{"kind": "classifier"}]}, TEXTS], ids=["labels", "texts"])
def test_a_finished_run_on_a_pool_costs_nothing(more: dict[str, Any], tmp_path: Path) -> None:
    """It has no step of answers where the task has labels, no step of labels where it has none, and no annotations of rows that were written."""
    recipe = recipes.build(POOLED | more, ROOT)
    assert estimate(recipe, tmp_path).to_json()["seconds"] > 0
    run(recipe, tmp_path)
    found = estimate(recipe, tmp_path)
    assert {c.basis for c in found.steps.values()} == {"finished"}
    assert found.to_json()["seconds"] == found.to_json()["tokens"] == 0
    assert ("annotations" in found.steps) == ("annotator" in more)


@pytest.mark.slow
def test_more_epochs_of_several_fits_cost_more(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    few = REAL | {"sample": REAL["sample"] | {"rows": 60}, "metric": []}
    made = [{"kind": "soft", "prompt": "amortised", "epochs": epochs} for epochs in (4, 40)]
    cheap, dear = (estimate(recipes.build(few | {"generator": generator}, ROOT), tmp_path).steps["teacher"] for generator in made)
    assert dear.seconds > 2 * cheap.seconds and dear.tokens == pytest.approx(10 * cheap.tokens, abs=10) and "0.000 s" not in dear.note


@pytest.mark.slow
def test_an_estimate_of_a_soft_prompt_counts_its_tokens(tmp_path: Path) -> None:
    """The tokens are a count, not a measurement: epochs times the fit rows' tokens, up to the draw of rows that stand for all."""
    from seedbed.data import load_sample
    from seedbed.lm.load import load
    from seedbed.lm.train import encode

    torch.set_num_threads(1)
    fit = {"sample": REAL["sample"] | {"rows": 60}, "generator": REAL["generator"] | {"epochs": 4, "batch": 16}}
    recipe = recipes.build(REAL | fit | {"metric": []}, ROOT)
    sample = load_sample(recipe.sample, recipe.task, recipe.seed, ROOT)
    texts = [encode(load("seedling"), sample.task.split(e.fields)) for e in sample.fit]
    found = estimate(recipe, tmp_path)
    assert found.steps["teacher"].tokens == pytest.approx(4 * sum(map(len, texts)), rel=0.15)
    assert found.steps["candidates"].tokens == pytest.approx(48 * sum(min(len(t), 24) for t in texts) / len(texts), rel=0.15)
    assert all(found.steps[step].seconds > 0 for step in ("sample", "teacher", "candidates", "kept", "report"))
    assert any("all 4 epochs" in line for line in found.assumed)
    assert not (tmp_path / "tiny").exists()


@pytest.mark.slow
def test_annotators_are_a_step_of_both(tmp_path: Path) -> None:
    parts = {
        "annotator": [{"kind": "classifier"}],
        "filter": [{"kind": "agreement"}],
    }
    recipe = recipes.build(TOY | parts | {"metric": []}, ROOT)
    assert estimate(recipe, tmp_path).steps["annotations"].seconds > 0
    assert {verdict for _, verdict in preview(recipe, 12, tmp_path).candidates} <= {"kept", "agreement:label disagrees", "parse:section missing"}


@pytest.mark.slow
def test_a_preview_of_a_finished_run_shows_its_first_rows_and_changes_nothing(tmp_path: Path) -> None:
    raw = TOY | {"metric": [], "generate": TOY["generate"] | {"count": 40}}
    done = run(recipes.build(raw, ROOT), tmp_path)
    before = _snapshot(done.folder)
    found = preview(recipes.build(raw, ROOT), 6, tmp_path)
    first = {c["id"]: c for line in ("kept", "dropped") for c in _lines(next(done.folder.glob(f"kept-*/{line}.jsonl")))}
    assert len(found.candidates) == 6
    for candidate, verdict in found.candidates:
        record = first[candidate.id]
        assert candidate.text == record["text"]
        assert verdict == (f"{record['filter']}:{record['reason']}" if record.get("filter") in ("form", "overlap") else "kept")
    assert "dedup" in found.note
    assert _snapshot(done.folder) == before


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_preview_without_a_run_says_that_its_fit_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr("seedbed.preview.FIT_S", 0.0)  # cut after the first step
    found = preview(recipes.build(REAL, ROOT), 2, tmp_path)
    assert "a short fit for this preview" in found.teacher
    assert len(found.candidates) == 2
    assert not (tmp_path / "tiny").exists()


def test_the_verbs_print_one_json_object_last(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.format(data=ROOT / "examples/helpdesk.csv"))
    sets = [
        "--set",
        "engine.kind=toy",
        "--set",
        "generator.kind=hard",
        "--set",
        "sample.rows=150",
        "--set",
        "generate.count=20",
        "--set",
        "gain.seeds=1",
        "--set",
        "gain.volumes=[1]",
    ]
    done = seedbed("estimate", tmp_path / "r.toml", "--json", *sets, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert list(found["steps"]) == ["sample", "teacher", "candidates", "kept", "scores", "report"]
    assert (found["basis"], found["money"]) == ("measured", None)
    assert found["money_note"]
    looked = seedbed("preview", tmp_path / "r.toml", "-n", "2", "--json", *sets, "--out", tmp_path)
    assert looked.returncode == 0, looked.stderr
    assert len(json.loads(looked.stdout.splitlines()[-1])["candidates"]) == 2
    bad = seedbed("estimate", tmp_path / "r.toml", "--set", "model.shape.hidden=0")
    assert (bad.returncode, "Traceback" in bad.stderr) == (2, False)
    shaped = [f"--set=model.shape.{key}={value}" for key, value in SEEDLING.items()]
    refused = seedbed("run", tmp_path / "r.toml", *shaped, "--out", tmp_path)
    assert (refused.returncode, "can be estimated, not run" in refused.stderr) == (2, True)
    assert seedbed("run", tmp_path / "r.toml", "--max-minutes", "0").returncode == 2
    assert seedbed("run", tmp_path / "r.toml", "--max-tokens", "0").returncode == 2


def test_trials_stay_within_their_time() -> None:
    assert 5 * TRIAL_S < 40


def test_a_first_trial_that_was_disturbed_makes_no_step_free() -> None:
    assert seconds_each((3.0, 10), (5.0, 20)) == pytest.approx(0.2)
    assert seconds_each((6.0, 10), (5.0, 20)) == seconds_each((5.0, 20), (5.0, 20)) == pytest.approx(0.25)

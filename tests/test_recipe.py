"""A bad recipe names every problem at once: where, what was got, what is allowed."""

from __future__ import annotations

import math
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from seedbed import recipe
from seedbed.catalog import CATALOG, find
from seedbed.errors import ComponentError, RecipeError
from seedbed.run import run
from seedbed.store import fingerprint
from seedbed.weights import absent

ROOT = Path(__file__).resolve().parent.parent
GOOD: dict[str, Any] = {
    "sample": {"path": "examples/helpdesk.csv"},
    "task": {"kind": "classification", "inputs": ["message"], "target": "queue"},
}


def test_what_is_resolved_reads_back_to_itself() -> None:
    for path in (ROOT / "recipes").glob("*.toml"):
        sets = [] if "[sample]" in path.read_text() else ["sample.path=../examples/helpdesk.csv"]
        loaded = recipe.load(path, sets)
        again = recipe.build(tomllib.loads(loaded.to_toml()), path.parent)
        assert again == loaded
        assert again.to_toml() == loaded.to_toml()
    split = recipe.build(GOOD | {"sample": {"fit": "../examples/helpdesk.csv", "test": "../examples/helpdesk.csv"}}, ROOT / "recipes")
    assert recipe.build(tomllib.loads(split.to_toml()), ROOT / "recipes") == split
    labelled = recipe.build(GOOD | {"annotate": {"path": "examples/helpdesk.csv"}, "annotator": [{"kind": "classifier"}]}, ROOT)
    assert recipe.build(tomllib.loads(labelled.to_toml()), ROOT) == labelled
    with pytest.raises(RecipeError, match="both say what the pool is"):
        recipe.build(tomllib.loads(labelled.to_toml()) | {"annotate": {"path": "examples/other.csv"}}, ROOT)


def test_base_is_where_paths_start_from(tmp_path: Path) -> None:
    moved = tmp_path / "moved.toml"
    moved.write_text(
        f'base = "{os.path.relpath(ROOT, tmp_path)}"\n{recipe.build(GOOD | {"arm": [{"name": "a"}]}, ROOT).to_toml()}[[arm]]\nname = "a"\n'
    )
    loaded = recipe.load(moved)
    assert loaded == recipe.build(GOOD, ROOT) and loaded.arms[0][1] == loaded and "base" not in loaded.to_toml()
    for bad in (3, "a\0b"):
        with pytest.raises(RecipeError, match=rf"(?s)base must be the folder .* Got {re.escape(repr(bad))}\."):
            recipe.build(GOOD | {"base": bad, "student": {"kind": "short.py:Short"}}, ROOT)
    with pytest.raises(RecipeError, match=rf"path = 'none.csv': there is no such file \(relative paths start at {tmp_path / 'far'}\)"):
        recipe.build(GOOD | {"base": "far", "sample": {"path": "none.csv"}}, tmp_path)


@pytest.mark.parametrize("arm", ["arm = 3", '[arm]\nname = "a"'])
def test_kinds_to_compare_do_not_hide_an_arm_of_another_form(tmp_path: Path, arm: str) -> None:
    file = tmp_path / "r.toml"
    file.write_text(f"{arm}\n")
    with pytest.raises(RecipeError, match=r"\[arm\] must be written \[\[arm\]\]"):
        recipe.load(file, (), ["hard"])


def test_a_resolved_recipe_read_back_is_the_same_in_every_fingerprint() -> None:
    made = recipe.build(GOOD, ROOT)
    again = recipe.build(tomllib.loads(made.to_toml()), ROOT)
    for section in ("generate", "gain", "model", "where"):
        assert fingerprint(getattr(again, section).model_dump()) == fingerprint(getattr(made, section).model_dump())
    for part in ("engine", "generator", "student"):
        assert fingerprint(getattr(again, part).facts()) == fingerprint(getattr(made, part).facts())
    for parts in ("annotators", "filters", "metrics"):
        assert fingerprint([p.facts() for p in getattr(again, parts)]) == fingerprint([p.facts() for p in getattr(made, parts)])


def test_no_filter_at_all_is_not_the_usual_ones() -> None:
    made = recipe.load(ROOT / "recipes/helpdesk.toml", ["filter=[]", "metric=[]"])
    again = recipe.build(tomllib.loads(made.to_toml()), ROOT / "recipes")
    assert again == made and again.filters == ()
    assert [metric.kind for metric in again.metrics] == ["pii"]  # its gate holds whatever a recipe asks for
    usual = recipe.load(ROOT / "recipes/few-rows.toml", ['metric.5.allow=["email"]'])
    assert [metric.settings.allow for metric in usual.metrics if metric.kind == "pii"] == [("email",)]


def test_a_gate_reads_one_metric() -> None:
    with pytest.raises(RecipeError, match=r"kind = 'pii' is there more than once"):
        recipe.build({**GOOD, "metric": [{"kind": "pii", "allow": ["email"]}, {"kind": "pii"}]}, ROOT)


def test_every_problem_is_named_at_once() -> None:
    bad = {
        "sead": 1,
        "seed": -1,
        "sample": {"path": "examples/nothing.csv", "rows": 1},
        "task": {"kind": "clasification", "inputs": ["message"], "target": "queue"},
        "generator": {"kind": "sotf"},
        "filter": [{"kind": "dedup", "treshold": 0.5}, {"kind": "dedup", "threshold": 2.0}],
        "generate": {"count": 0},
    }
    with pytest.raises(RecipeError) as caught:
        recipe.build(bad, ROOT)
    text = str(caught.value)
    for words in (
        "[sead] is no section of a recipe",
        "Did you mean 'seed'?",
        "seed must be a whole number of at least 0. Got -1.",
        "[sample] rows",
        "[task] kind = 'clasification'",
        "[generator] kind = 'sotf' is unknown",
        "Did you mean 'soft'?",
        "[filter 1] has no setting 'treshold'",
        "Did you mean 'threshold'?",
        "[filter 2] threshold = 2.0",
        "[generate] count = 0",
    ):
        assert words in text, words
    assert len(caught.value.problems) == 8


def test_a_missing_file_is_a_problem_of_the_recipe() -> None:
    for path in ("examples/nothing.csv", "x" * 5000, "a\0b"):
        with pytest.raises(RecipeError, match="there is no such file"):
            recipe.build(GOOD | {"sample": {"path": path}}, ROOT)


def test_sections_that_must_be_there() -> None:
    with pytest.raises(RecipeError) as caught:
        recipe.build({}, ROOT)
    assert len(caught.value.problems) == 2


def test_an_engine_that_cannot_take_the_prompts_is_refused() -> None:
    with pytest.raises(RecipeError, match="needs an engine that takes soft prompts"):
        recipe.build(GOOD | {"engine": {"kind": "tests/plugins.py:TextOnly"}}, ROOT)
    served = {"engine": {"kind": "openai", "base_url": "http://localhost:1/v1", "mode": "text"}}
    recipe.build(GOOD | served | {"generator": {"kind": "soft", "prompt": "amortised"}}, ROOT)
    with pytest.raises(RecipeError, match="needs an engine that takes adapter prompts"):
        recipe.build(GOOD | served | {"generator": {"kind": "soft", "prompt": "amortised-lora"}}, ROOT)


def test_annotations_that_nobody_writes_or_can_write_are_named() -> None:
    agreement = GOOD | {"filter": [{"kind": "form"}, {"kind": "agreement"}]}
    with pytest.raises(RecipeError, match=r'\[filter 2\] .* reads .*Got no annotator. Write \[\[annotator\]\] kind = "classifier"'):
        recipe.build(agreement, ROOT)
    assert [a.kind for a in recipe.build(agreement | {"annotator": [{"kind": "classifier"}]}, ROOT).annotators] == ["classifier"]
    with pytest.raises(RecipeError, match=r"\[annotator 2\] kind = 'classifier' stands twice"):
        recipe.build(agreement | {"annotator": [{"kind": "classifier"}, {"kind": "classifier", "tune": True}]}, ROOT)
    with pytest.raises(RecipeError, match=r"\[annotator 1\] .* a plain task has none"):
        recipe.build(GOOD | {"task": {"kind": "plain", "inputs": ["message"]}, "annotator": [{"kind": "classifier"}]}, ROOT)


def test_set_reaches_every_section() -> None:
    sets = ["generator.tokens=32", "filter.2.threshold=0.5", "name=other", "task.given=[]", "student.features=tfidf", "sample.rows=40"]
    found = recipe.build(GOOD, ROOT, sets)
    assert found.generator.settings.tokens == 32
    assert found.filters[1].settings.threshold == 0.5
    assert (found.name, found.student.settings.features, found.sample.rows) == ("other", "tfidf", 40)
    assert found.generator.kind == "soft", "setting one field keeps the default kind"


def test_a_set_that_is_no_toml_is_a_plain_word() -> None:
    for word in ("[" * 5000, "9" * 5000):
        with pytest.raises(RecipeError, match="seed must be a whole number"):
            recipe.build(GOOD, ROOT, [f"seed={word}"])


def test_a_recipe_writes_down_signs_and_numbers_as_toml_has_them() -> None:
    parts = {"generator": {"kind": "hard", "template": "attributes", "attributes": {"a \U0001f600": ["x\x7f", "\U0001f600"]}}}
    parts["student"] = {"kind": "causal", "lr": math.inf}
    made = recipe.build(GOOD | parts, ROOT)
    assert recipe.build(tomllib.loads(made.to_toml()), ROOT) == made


def test_a_set_counts_as_messages_do() -> None:
    with pytest.raises(RecipeError, match=r"\[filter 2\] threshold"):
        recipe.build(GOOD, ROOT, ["filter.2.threshold=2"])


@pytest.mark.parametrize("text", ["generator", "filter.9.kind=x", "filter.0.kind=x", "filter.kind=x", "filter.².kind=x"])
def test_a_set_that_cannot_be_applied_is_named(text: str) -> None:
    with pytest.raises(RecipeError, match="--set"):
        recipe.build(GOOD, ROOT, [text])


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"a = ", "is not TOML"), (b"\xff\xfe", "is not UTF-8"), (b"a = " + b"[" * 5000, "is not TOML"), (b"a = " + b"9" * 5000, "is not TOML")],
)
def test_a_broken_file(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "r.toml").write_bytes(content)
    with pytest.raises(RecipeError, match=words):
        recipe.load(tmp_path / "r.toml")
    with pytest.raises(RecipeError, match="cannot be read"):
        recipe.load(tmp_path / "absent.toml")


def test_plugins_are_files_and_their_bytes_count(tmp_path: Path) -> None:
    source = (ROOT / "tests/plugins.py").read_text()
    (tmp_path / "mine.py").write_text(source)
    raw = GOOD | {"sample": {"path": str(ROOT / "examples/helpdesk.csv")}, "filter": [{"kind": "mine.py:Parsed"}]}
    first = recipe.build(raw, tmp_path).filters[0]
    (tmp_path / "mine.py").write_text(source + "\n# edited\n")
    second = recipe.build(raw, tmp_path).filters[0]
    assert first.identity != second.identity


def test_a_plugin_file_is_run_once_for_each_content(tmp_path: Path) -> None:
    count = f"\nwith open({str(tmp_path / 'runs')!r}, 'a') as file:\n    file.write('run ')\n"
    (tmp_path / "mine.py").write_text((ROOT / "tests/plugins.py").read_text() + count)
    raw = GOOD | {"sample": {"path": str(ROOT / "examples/helpdesk.csv")}, "filter": [{"kind": "mine.py:Parsed"}]}
    assert recipe.build(raw, tmp_path) == recipe.build(raw, tmp_path)
    assert (tmp_path / "runs").read_text().split() == ["run"]


def test_a_template_is_found_from_the_recipe_and_its_bytes_count(tmp_path: Path) -> None:
    raw = GOOD | {"sample": {"path": str(ROOT / "examples/helpdesk.csv")}, "generator": {"kind": "hard", "template": "my.jinja"}}
    facts = []
    for folder, text in (("a", "{{ given }}"), ("b", "{{ given }}"), ("c", "Again: {{ given }}")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "my.jinja").write_text(text)
        made = recipe.build(raw, tmp_path / folder)
        facts.append(made.generator.facts())
        assert made.generator.settings.template == str(tmp_path / folder / "my.jinja") and 'template = "my.jinja"' in made.to_toml()
    assert facts[0] == facts[1] != facts[2], "its bytes count, and not where it is"


def test_a_models_folder_is_found_from_the_recipe_or_else_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, folder = tmp_path / "project", "models/own"
    for place in (project / folder, tmp_path / "here/of-cwd"):
        place.mkdir(parents=True)
        (place / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "here")
    parts = {"metric": [{"kind": "coverage", "embedder": folder}, {"kind": "heldout", "model": "of-cwd"}], "generator": {"kind": "refine"}}
    raw = GOOD | parts | {"sample": {"path": str(ROOT / "examples/helpdesk.csv")}, "model": {"name": folder}}
    raw["generator"] |= {"draft": {"kind": "soft", "embedder": folder}}
    made = recipe.build(raw, project)
    assert absent(made) == [] and made.model.name == folder and Path(made.lm).resolve() == project / folder
    assert Path(made.metrics[0].settings.embedder).resolve() == Path(made.generator.settings.draft.settings.embedder).resolve() == project / folder
    assert made.metrics[1].settings.model == "of-cwd"
    assert made.to_toml().count(f'"{folder}"') == 3 and "project" not in made.to_toml()
    assert recipe.build(tomllib.loads(made.to_toml()), project) == made
    monkeypatch.chdir(project)
    beside = recipe.build(raw, project)
    assert beside.lm == beside.metrics[0].settings.embedder == folder
    assert beside.metrics[0].facts() == made.metrics[0].facts(), "a run's steps are the same wherever it is asked for"
    served = {"kind": "prompted", "engine": {"kind": "openai", "base_url": "http://localhost:1/v1"}, "model": folder}
    monkeypatch.chdir(tmp_path)
    assert recipe.build(raw | {"annotator": [served]}, project).annotators[0].settings.model == folder, "a server's own word"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("..a:B", "cannot be imported"),
        (":", "cannot be imported"),
        ("nofile.py:X", "does not exist"),
        ("tests/plugins.py:Absent", "has no class 'Absent'"),
        ("tests/plugins.py:Sequence", "must be a frozen dataclass"),
        ("tests/plugins.py:TextOnly", "it lacks the method 'judge'"),
        ("no.such.module:X", "cannot be imported"),
    ],
)
def test_a_plugin_that_cannot_be_used(kind: str, words: str) -> None:
    with pytest.raises(ComponentError, match=words):
        find("filter", kind, ROOT)


def test_everything_in_the_catalog_is_there() -> None:
    for role, kinds in CATALOG.items():
        for kind in kinds:
            assert find(role, kind).__doc__


ASKS = {
    "annotator": [{"kind": "prompted", "engine": {"kind": "toy", "order": 3}, "model": "other", "votes": 3}],
    "generator": {"kind": "hard"},
    "engine": {"kind": "toy"},
}


def test_a_part_may_hold_an_engine_of_its_own() -> None:
    made = recipe.build(GOOD | ASKS, ROOT)
    asked = made.annotators[0].settings.engine
    assert (asked.kind, asked.settings.order) == ("toy", 3)
    assert 'engine = {kind = "toy", order = 3, smooth = 0.01}' in made.to_toml()
    again = recipe.build(tomllib.loads(made.to_toml()), ROOT)
    assert again == made and again.to_toml() == made.to_toml()
    other = recipe.build(GOOD | ASKS, ROOT, ["annotator.1.engine.order=5"])
    assert other.annotators[0].facts() != made.annotators[0].facts()
    assert "engine:toy" in made.annotators[0].facts()[1]["engine"]["identity"]


def test_a_wrong_engine_of_a_part_is_named_with_its_place() -> None:
    with pytest.raises(RecipeError) as wrong:
        recipe.build(GOOD | ASKS, ROOT, ["annotator.1.engine.order=0"])
    assert wrong.value.problems == ("[annotator 1] engine order = 0: Input should be greater than or equal to 1.",)
    for value, words in (('"openai"', "[annotator 1] engine must be a section with kind"), ('{kind="opnai"}', "Did you mean 'openai'?")):
        with pytest.raises(RecipeError) as wrong:
            recipe.build(GOOD | ASKS, ROOT, [f"annotator.1.engine={value}"])
        assert words in wrong.value.problems[0]


def test_only_the_engine_that_is_asked_has_to_take_the_prompts(tmp_path: Path) -> None:
    engine = (
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Deaf:\n    can = frozenset({'soft'})\n    def open(self, model): ...\n"
    )
    (tmp_path / "deaf.py").write_text(engine)
    raw = GOOD | ASKS | {"sample": {"path": str(ROOT / "examples/helpdesk.csv")}}
    with pytest.raises(RecipeError, match=r"\[annotator 1\] kind = 'prompted' needs an engine that takes text prompts; \[annotator 1\] engine kind"):
        recipe.build(raw, tmp_path, ["annotator.1.engine={kind='deaf.py:Deaf'}"])
    with pytest.raises(RecipeError) as wrong:
        recipe.build(raw, tmp_path, ["engine={kind='deaf.py:Deaf'}"])
    assert len(wrong.value.problems) == 1 and wrong.value.problems[0].startswith("[generator]")


@pytest.mark.parametrize("name", ["paper-finetune", "paper-softsrv"])
def test_the_papers_settings_pass_and_have_a_price(name: str) -> None:
    from seedbed.computed import computed
    from seedbed.data import load_sample

    made = recipe.load(ROOT / f"recipes/{name}.toml")
    sample = load_sample(made.sample, made.task, made.seed, made.base)
    costs, memory, _ = computed(made, sample, None, ROOT, [])
    assert made.model.shape is not None and made.model.shape.parameters > 8e9
    assert costs["teacher"].seconds > 0 and costs["candidates"].seconds > 0 and memory > made.model.shape.parameters


def test_a_model_that_is_not_there_is_said_before_any_work(tmp_path: Path) -> None:
    empty = str(tmp_path / "empty")
    Path(empty).mkdir()
    parts = {
        "model": {"name": empty},
        "metric": [{"kind": "mauve", "embedder": "no/such/place"}, {"kind": "heldout", "model": "seedling"}],
        "annotator": [{"kind": "prompted", "engine": {"kind": "openai", "base_url": "http://localhost:1/v1"}, "model": "a-server-knows/this/name"}],
    }
    loaded = recipe.build(GOOD | parts, ROOT)
    assert [problem.split(":")[0] for problem in absent(loaded)] == [f"[model] name = {empty!r}", "[metric 1] embedder = 'no/such/place'"]
    with pytest.raises(RecipeError, match=r"this folder has no config.json"):
        run(loaded, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    assert absent(recipe.build(GOOD | parts | {"model": {}, "metric": []}, ROOT)) == []
    inner = {"kind": "refine", "draft": {"kind": "soft", "embedder": "nope/none"}, "engine": {"kind": "local"}, "model": "not/there"}
    bias = {"kind": "bias", "groups": {"a": ["he"], "b": ["she"]}, "student": {"kind": "encoder", "model": "nor/this"}}
    nested = absent(recipe.build(GOOD | {"generator": inner, "metric": [bias]}, ROOT))
    assert [problem.split(" =")[0] for problem in nested] == ["[generator] model", "[generator] draft embedder", "[metric 1] student model"]
    elsewhere = {"model": {"name": empty}, "metric": [], "annotator": [], "generator": {"kind": "hard"}}
    kinds = {"local": 1, "vllm": 1, "openai": 0, "toy": 0}  # a server knows names of its own, and the toy engine none
    assert {kind: len(absent(recipe.build(GOOD | elsewhere | {"engine": {"kind": kind}}, ROOT))) for kind in kinds} == kinds

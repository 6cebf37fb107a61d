"""What a newcomer meets: the recipe that `seedbed init` guesses, what `check` says of it, and a run that was stopped and changed."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_run import ROOT, TOY

from seedbed import recipe as recipes
from seedbed.checked import check
from seedbed.errors import RecipeError, StoreError
from seedbed.generators.hard import Hard
from seedbed.init import recipe_for
from seedbed.recipe import Recipe
from seedbed.run import run
from seedbed.students.causal import Causal
from seedbed.weights import need_weights, too_deep

TEXTS = "source,target\n" + "".join(f"ask {i} about it,say {i * 7} of it\n" for i in range(60))
LABELS = "message,queue\n" + "".join(f"mail {i} about it,{'ab'[i % 2]}\n" for i in range(60))
PLAIN = "message\n" + "".join(f"mail {i} about it\n" for i in range(60))


def _guessed(folder: Path, rows: str, name: str = "mine.csv") -> Recipe:
    """The recipe that init writes for a file with these rows."""
    (folder / name).write_text(rows)
    (folder / "mine.toml").write_text(recipe_for(folder / name))
    return recipes.load(folder / "mine.toml")


@pytest.mark.parametrize(("rows", "kind"), [(TEXTS, "text2text"), (LABELS, "classification"), (PLAIN, "plain")])
def test_the_student_of_a_guessed_recipe_can_do_its_task(rows: str, kind: str, tmp_path: Path) -> None:
    recipe = _guessed(tmp_path, rows)
    assert recipe.task.kind == kind
    assert check(recipe).rows["fit"] > 0
    student = recipe.student.settings
    assert not recipe.task.target or student.supports(recipe.task) == ""
    assert (student == Causal(layers=2)) == (kind == "text2text"), "fewer blocks than its teacher has"
    assert tomllib.loads((tmp_path / "mine.toml").read_text())["model"]["name"] == "seedling"


def _folder(place: Path, config: dict[str, Any]) -> Path:
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config))
    return place


@pytest.mark.parametrize(
    "config",
    [{"num_hidden_layers": 3}, {"n_layer": 3}, {"text_config": {"num_hidden_layers": 3}}, {"n_layer": 9, "text_config": {"n_layer": 3}}],
)
def test_a_student_of_more_blocks_than_its_model_has_is_refused_before_anything_is_read(config: dict[str, Any], tmp_path: Path) -> None:
    recipe, place = _guessed(tmp_path, TEXTS), _folder(tmp_path / "model", config)
    for layers, good in ((3, True), (4, False)):
        asked = replace(recipe, student=replace(recipe.student, settings=Causal(model=str(place), layers=layers)))
        if good:
            assert check(asked).rows["fit"] > 0
            need_weights(asked)
        for look in () if good else (check, need_weights):
            with pytest.raises(RecipeError, match=r"\[student\] layers = 4: .* has 3 blocks\. Allowed: 1 to 3"):
                look(asked)


def test_a_student_is_not_called_too_deep_where_the_number_of_blocks_is_unknown(tmp_path: Path) -> None:
    recipe = _guessed(tmp_path, TEXTS)
    for name in (str(_folder(tmp_path / "other", {})), str(tmp_path / "absent"), "some/absent-model"):
        assert too_deep(replace(recipe, student=replace(recipe.student, settings=Causal(model=name, layers=99)))) == []
    with pytest.raises(RecipeError, match="'seedling' has 6 blocks"):
        check(replace(recipe, student=replace(recipe.student, settings=Causal(layers=7))))


@pytest.mark.parametrize("student", ["linear", "encoder"])
def test_check_says_where_a_student_cannot_do_the_task(student: str, tmp_path: Path) -> None:
    for rows, said in ((TEXTS, True), (LABELS, False), (PLAIN, False)):
        _guessed(tmp_path, rows)
        recipe = recipes.load(tmp_path / "mine.toml", [f'student={{kind="{student}"}}'])
        notes = [note for note in check(recipe).notes if "the gain will not be measured" in note]
        found = f'the {student} student predicts labels, and a text2text task has none. Give [student] kind = "causal", which writes its answers.'
        assert notes == [f"the gain will not be measured: {found}"] * said
    _guessed(tmp_path, TEXTS)
    assert not any("student" in note for note in check(recipes.load(tmp_path / "mine.toml")).notes)


def test_init_says_what_the_texts_that_it_left_out_are_good_for(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("id,english,french,price\n" + "".join(f"{i},good day {i},un bon jour {i},{i}.5\n" for i in range(60)))
    said = [line for line in recipe_for(file).splitlines() if line.startswith("# ") and "english" in line]
    assert said == [
        "# left out: id, english, price",
        "# english is a text too: --inputs english writes it alone, --inputs french --target english one from the other",
    ]
    assert tomllib.loads(recipe_for(file, inputs=["english"]))["task"] == {"kind": "plain", "inputs": ["english"]}
    assert tomllib.loads(recipe_for(file, None, ["french"], "english"))["task"] == {"kind": "text2text", "inputs": ["french"], "target": "english"}
    assert "text too" not in recipe_for(file, inputs=["english"]) + recipe_for(file, None, ["french"], "english")


def test_a_column_name_of_several_lines_breaks_no_comment(tmp_path: Path) -> None:
    rows = [{"a\nb\x7f": f"word {i}", "text": f"a longer mail {i} about it"} for i in range(60)]
    task = _guessed(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "mine.jsonl").task
    assert task.inputs == ("text",)
    assert "# left out: a b \n" in (tmp_path / "mine.toml").read_text()


def test_init_offers_to_check_texts_against_their_data(tmp_path: Path) -> None:
    rows = "".join(
        json.dumps({"triples": [[f"Town {i}", "country", f"Land {i % 7}"]], "text": f"Town {i} is in Land {i % 7}."}) + "\n" for i in range(60)
    )
    assert "verified" not in [part.kind for part in _guessed(tmp_path, rows, "mine.jsonl").filters]
    offered = recipe_for(tmp_path / "mine.jsonl").replace('# [[filter]]\n# kind = "verified"', '[[filter]]\nkind = "verified"')
    (tmp_path / "mine.toml").write_text(offered)
    recipe = recipes.load(tmp_path / "mine.toml")
    assert [part.kind for part in recipe.filters] == ["form", "verified", "dedup", "overlap"] and recipe.task.kind == "data2text"
    assert '"verified"' not in recipe_for(_written(tmp_path / "labels.csv", LABELS))


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


LISTS: list[tuple[dict[str, Any], str, tuple[str, ...], str]] = [
    ({"triples": [["Oulu", "in", "Finland"]], "text": "Oulu is in Finland.", "category": "City"}, "data2text", ("triples",), "text"),
    ({"references": ["In Finland."], "triples": [["Oulu", "in", "Finland"]], "text": "Oulu is in Finland."}, "data2text", ("triples",), "text"),
    ({"acts": [{"slot": "city"}], "context": ["Hi."], "text": "Where to?", "domain": "travel"}, "data2text", ("acts", "context"), "text"),
    ({"triples": [["Oulu", "in", "Finland"]], "sentence": "Oulu is in Finland."}, "data2text", ("triples",), "sentence"),
    (
        {"task_id": 1, "text": "Add two.", "code": "def add(a, b): return a + b", "test_list": ["assert add(1, 2) == 3"], "setup": ""},
        "code", ("text",), "code",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("row", "kind", "inputs", "target"), LISTS)
def test_lists_tell_which_column_is_the_text_that_is_made_of_them(
    row: dict[str, Any], kind: str, inputs: tuple[str, ...], target: str, tmp_path: Path
) -> None:
    rows = [
        {name: i if name == "task_id" else f"{value} {i}" if isinstance(value, str) and " " in value else value for name, value in row.items()}
        for i in range(60)
    ]
    task = _guessed(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "mine.jsonl").task
    assert (task.kind, task.inputs, task.target) == (kind, inputs, target)
    assert task.tests == ("test_list" if kind == "code" else None)
    assert task.references == ("references" if "references" in row else None)


def test_a_run_that_was_stopped_in_its_fit_holds_no_folder_against_a_changed_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = (recipes.build(TOY | {"generator": {"kind": "hard", "shots": n}}, ROOT) for n in (2, 3))

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Hard, "fit", stop)
        with pytest.raises(KeyboardInterrupt):
            run(before, tmp_path)
    assert list((tmp_path / "tiny").glob("teacher-*.partial"))
    assert run(after, tmp_path).scores == run(after, tmp_path / "fresh").scores
    with pytest.raises(StoreError, match="another recipe"):  # what is finished is not given up unasked
        run(before, tmp_path)
    (tmp_path / "tiny/scores.json").unlink()
    with pytest.raises(StoreError, match="another recipe"):
        run(before, tmp_path)

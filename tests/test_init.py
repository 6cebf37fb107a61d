"""What a newcomer meets: the recipe that `seedbed init` guesses, what `check` says of it, and a run that was stopped and changed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from seedbed import recipe as recipes
from seedbed.checked import check
from seedbed.init import recipe_for
from seedbed.recipe import Recipe
from seedbed.students.causal import Causal

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

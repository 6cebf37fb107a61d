"""What a comparison leaves beside its steps: the table, and the recipe of the best way, whose run finds its steps made."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedbed.errors import StoreError
from seedbed.parts import toml_string
from seedbed.store import Store, read_json, write_json, write_text

if TYPE_CHECKING:
    from seedbed.recipe import Recipe

DATASET = "Dataset of"


def write_outcome(store: Store, facts: Mapping[str, Any], text: str) -> str:
    """compare.json, and compare.md: the text and the commands of `facts["recipes"]`. A table of another `facts["of"]` that is there stays under its
    own name: what is to be said of it, or ""."""
    table, page = store.path("compare.json"), store.path("compare.md")
    former, said = read_json(table) if table.exists() else facts, ""
    if former.get("of") != facts["of"]:
        kept = f"compare-{former.get('of', 'before')}"
        if page.exists():  # its best.toml will be that of the new table
            lines = page.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            write_text(store.path(f"{kept}.md"), "".join(line for line in lines if not line.startswith(f"- {DATASET}")).rstrip() + "\n")
        table.replace(store.path(f"{kept}.json"))
        said = f"The table that was here, of other arms, settings or seeds, is now {kept}.md (and .json)."
    write_json(table, facts)
    write_text(page, "\n".join([text, *(f"- {line}" for line in datasets(store.root, facts["recipes"]))]).rstrip() + "\n")
    return said


def not_compared(folder: Path) -> None:
    """Raises StoreError where the folder is a comparison's and no run's, with the command that makes a run of its best way."""
    if not (folder / "compare-of.json").is_file():
        return
    if not (folder / "compare.json").is_file():
        raise StoreError(f"{folder} holds a comparison that has no table yet. The same seedbed compare command goes on.")
    recipes = read_json(folder / "compare.json").get("recipes")
    made = "No arm of it was found to be the best, so that there is no recipe of one"
    if not isinstance(recipes, dict):  # of an earlier version
        made = "The same seedbed compare command writes the recipe of its best arm"
    elif recipes:
        made = "; ".join(datasets(folder, recipes))
    raise StoreError(f"{folder} holds a comparison, not a run; seedbed show {folder} prints its table. {made}.")


def datasets(folder: Path, recipes: Mapping[str, str]) -> list[str]:
    """Of each file of `write_best` whose way it is, and the command that makes a dataset of it."""
    return [f"{DATASET} {way}, whose steps are made: {shlex.join(_command(folder, name))}" for name, way in recipes.items()]


def _command(folder: Path, name: str) -> list[str]:
    return ["seedbed", "run", str(folder / name), "--out", str(folder.parent)]


def write_best(store: Store, recipe: Recipe, number: int) -> tuple[str, str]:
    """The recipe as that of a run: (its file's name in the comparison's folder, the run's name). number: of the student, from 1."""
    behind = f"-{number}" if number > 1 else ""
    run, base = f"{recipe.name[:90]}-best{behind}", os.path.relpath(recipe.base.resolve(), store.root.resolve())
    write_text(store.path(f"best{behind}.toml"), f"base = {toml_string(base)}\n{replace(recipe, name=run).to_toml()}")
    return f"best{behind}.toml", run


def nameable(store: Store, base: Path) -> Store:
    """The store. Raises StoreError where TOML, which is UTF-8, cannot hold the way from its folder to the recipe's, as `write_best` writes it."""
    try:
        os.path.relpath(base.resolve(), store.root.resolve()).encode()
    except UnicodeEncodeError as error:
        raise StoreError(
            f"{base.resolve()} is not UTF-8, so that best.toml in {store.root} could not name it. Give an --out inside it, or rename it."
        ) from error
    return store


def lend(store: Store, run: str, steps: Iterable[str], say: Callable[[str], None]) -> None:
    """Gives the run beside the comparison the steps that it has not begun: the files are the same ones on the disk, and no step writes into a file
    that it has finished. steps: paths in the run's folder, each named after a step of the comparison. say: told where it is in use or cannot be
    written, which the comparison is whole without."""
    lent = Store(store.root.parent / run)
    try:
        with lent.held():
            for step in steps:
                made, place, partial = store.path(Path(step).name), lent.path(step), lent.path(f"{step}.partial")
                if made.is_dir() and not place.exists() and not partial.exists():
                    halfway = lent.path(".lent")
                    shutil.rmtree(halfway, ignore_errors=True)
                    shutil.copytree(made, halfway, copy_function=_linked)
                    place.parent.mkdir(exist_ok=True)
                    halfway.rename(place)
    except (StoreError, OSError) as error:
        say(f"The steps that are made were not given to the run {lent.root}, which would make them again: {error} Then give the same command again.")


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)

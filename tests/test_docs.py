"""README, CONTRIBUTING and docs/: every block is run, on a small budget where it would take minutes; nothing that ships is left out."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import shutil
import tomllib
from pathlib import Path

import pytest
import typer
from pages import FENCE, HELPDESK, ROOT, Desk

from seedbed.catalog import CATALOG
from seedbed.cli import app
from seedbed.data import load_sample
from seedbed.recipe import build

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))]
SLOW = {"docs/compare.md", "docs/cluster.md", "docs/extending.md"}
DOCS = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in PAGES)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Where all pages are played; the example's run stands there already."""
    made = Desk(tmp_path_factory.mktemp("desk"))
    made.play(f"```bash\n{HELPDESK}\n```\n")
    for name in ("teacher", "candidates"):  # the README's run in Python has the same ones and need not make them again
        for step in (made.folder / "runs/helpdesk").glob(f"{name}-*"):
            shutil.copytree(step, made.folder / "runs/short" / step.name)
    return made


@pytest.mark.parametrize("name", [pytest.param(page, marks=pytest.mark.slow) if page in SLOW else page for page in PAGES])
def test_every_block_of_a_page_works_and_prints_what_the_page_shows(desk: Desk, name: str) -> None:
    for shown in desk.play((ROOT / name).read_text(encoding="utf-8")):
        assert shown.loose or shown.same, f"{name} shows\n{shown.text}\nbut this was printed:\n{shown.got}"


def test_blocks_are_of_a_kind_that_is_played() -> None:
    """A fence that the pattern does not see, or of another language, would go untried."""
    fences = re.findall(r"^```(\w+)$", DOCS, re.M)
    assert len(fences) == len(FENCE.findall(DOCS))
    assert set(fences) <= {"bash", "python", "toml", "text"}


def test_the_plugins_of_the_docs_pass_their_checks() -> None:
    """Each role has a whole file on the page, the check that belongs to it and a piece of recipe."""
    page = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    for role in CATALOG:
        assert f"from seedbed.testing import check_{role}\n" in page
        assert re.search(rf"^\[+{role}\]+\nkind = \"\w+\.py:\w+\"$", page, re.M)


def test_the_recipe_of_texts_fits_rows_like_those_it_shows(tmp_path: Path) -> None:
    page = (ROOT / "docs/compare.md").read_text(encoding="utf-8")
    body = next(block for language, block in re.findall(r"```(\w+)\n(.*?)```", page, re.S) if block.startswith("# texts.toml"))
    for name, row in re.findall(r'"(\w+\.jsonl)" +# ({.*})', body):
        assert json.loads(row)["triples"]
        (tmp_path / name).write_text("".join(row.replace("Finland", f"Land{i}") + "\n" for i in range(30)))
    recipe = build(tomllib.loads(body), tmp_path)
    assert len(load_sample(recipe.sample, recipe.task, recipe.seed, tmp_path).pool) == 30


def test_the_reference_is_what_the_code_says() -> None:
    page = runpy.run_path(str(ROOT / "docs/reference.py"))["page"]()
    assert (ROOT / "docs/reference.md").read_text(encoding="utf-8") == page, "write it again: python docs/reference.py"


@pytest.mark.parametrize("name", [kind for kinds in CATALOG.values() for kind in kinds])
def test_every_component_is_in_the_docs(name: str) -> None:
    assert f'`kind = "{name}"`' in DOCS


def test_every_verb_and_flag_is_in_the_docs() -> None:
    files = (ROOT / "docs/files.md").read_text(encoding="utf-8")
    for verb, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert f"`seedbed {verb}" in files
        assert not [o for param in command.params for o in param.opts if o.startswith("-") and f"`{o}`" not in DOCS]


def test_every_key_of_the_results_is_in_the_docs(desk: Desk) -> None:
    page = (ROOT / "docs/files.md").read_text(encoding="utf-8")
    run = desk.folder / "runs/helpdesk"
    scores, manifest = (json.loads((run / name).read_text(encoding="utf-8")) for name in ("scores.json", "manifest.json"))
    keys = {*scores, *scores["measures"][0], *scores["gain"], *scores["gain"]["arms"]["real"], *scores["counts"], *manifest}
    assert not [key for key in sorted(keys) if not re.search(rf"\b{key}\b", page)]
    for path in run.iterdir():
        assert path.name.startswith(".") or f"`{re.sub(r'-[0-9a-f]{6}$', '-*', path.name)}" in page


def test_every_measure_is_in_the_docs(desk: Desk) -> None:
    scores = json.loads((desk.folder / "runs/helpdesk/scores.json").read_text(encoding="utf-8"))
    assert not [m["name"] for m in scores["measures"] if not re.search(rf"\b{m['name']}\b", DOCS)]


def test_the_site_builds_without_a_warning_and_without_the_network(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed: pip install 'seedbed[docs]'")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    for page in tmp_path.rglob("*.html"):
        assert not re.findall(r"""(?:src=|<link[^>]*href=)["'](?:https?:)?//""", page.read_text(encoding="utf-8")), page.name
    for sheet in tmp_path.rglob("*.css"):
        assert not re.findall(r"""url\(["']?(?:https?:)?//""", sheet.read_text(encoding="utf-8")), sheet.name


def test_the_map_of_the_house_is_true() -> None:
    house = README.split("## The house")[1].split("```")[1]
    names = re.findall(r"^  ([a-z_./ ]+?)(?:  |$)", house, re.M)
    listed = {name.rstrip("/") for line in names for name in line.split()}
    package = ROOT / "src/seedbed"
    real = {p.name for p in package.glob("*.py") if p.name != "__init__.py"} | {p.name for p in package.iterdir() if (p / "__init__.py").is_file()}
    assert not [name for name in listed if not (package / name).exists()]
    assert real - listed <= {"candidates.py", "fleet.py", "progress.py", "text.py"}
    assert all(f"{role}s" in listed for role in CATALOG)

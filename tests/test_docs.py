"""The README's commands and code are run, on a small budget where they would take minutes."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from seedbed.catalog import CATALOG
from seedbed.testing import check_filter

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETS = ("generator.epochs=2", "generate.count=80", "gain.seeds=1", "engine.cache=112", 'filter=[{kind="form"}]')
SHORT = [part for text in SETS for part in ("--set", text)]
"""Two epochs write no text that a classifier agrees with, so no filter asks for it."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a newcomer has it: the checkout's recipes and examples, and a file of one's own."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("recipes", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "examples/helpdesk.csv", folder / "tickets.csv")
    return folder


def test_every_command_of_the_readme_works(desk: Path) -> None:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("seedbed ")]
    assert len(commands) >= 8
    for command in ["seedbed run recipes/helpdesk.toml", *(c for c in commands if not c.startswith("seedbed run"))]:
        words, _, target = command.partition(">")
        args = [
            sys.executable,
            "-m",
            "seedbed.cli",
            *shlex.split(words)[1:],
            *(SHORT if command.split()[1] in ("run", "estimate", "preview") else []),
        ]
        done = subprocess.run(args, capture_output=True, text=True, cwd=desk)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        if target:
            (desk / target.strip()).write_text(done.stdout)
    mine = subprocess.run([sys.executable, "-m", "seedbed.cli", "check", "tickets.toml"], capture_output=True, text=True, cwd=desk)
    assert mine.returncode == 0, mine.stderr
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{line.split()[1]}:" in makefile for line in lines if line.startswith("make "))


def test_the_python_of_the_readme_works(desk: Path) -> None:
    code = next(block for block in blocks("python") if "load_recipe" in block)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=desk)
    assert done.returncode == 0, done.stderr
    assert "verbatim_rate" in done.stdout


def test_the_plugin_of_the_readme_works() -> None:
    code = next(block for block in blocks("python") if "TooPolite" in block)
    space: dict[str, object] = {}
    exec(compile(code, "too_polite.py", "exec"), space)
    check_filter(space["TooPolite"]())  # type: ignore[operator]


def test_the_map_of_the_house_is_true() -> None:
    house = README.split("## The house")[1].split("```")[1]
    names = re.findall(r"^  ([a-z_./ ]+?)(?:  |$)", house, re.M)
    listed = {name.rstrip("/") for line in names for name in line.split()}
    package = ROOT / "src/seedbed"
    real = {p.name for p in package.glob("*.py") if p.name != "__init__.py"} | {p.name for p in package.iterdir() if (p / "__init__.py").is_file()}
    assert not [name for name in listed if not (package / name).exists()]
    assert real - listed <= {"candidates.py", "fleet.py", "progress.py", "text.py"}
    assert all(f"{role}s" in listed for role in CATALOG)

"""The doctor finds what is broken, says what to change, and its exit status says so to scripts."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from test_run import ROOT, TOY
from typer.testing import CliRunner

from seedbed import doctor as doctor_module
from seedbed import recipe as recipes
from seedbed import sandbox
from seedbed.cli import app
from seedbed.doctor import Check, doctor


def of(name: str, checks: list[Check]) -> Check:
    return next(check for check in checks if check.name == name)


def test_this_machine_is_well_and_scripts_can_read_it(tmp_path: Path) -> None:
    recipe, out = tmp_path / "r.toml", tmp_path / "out"
    recipe.write_text(recipes.build(TOY | {"sample": {"path": str(ROOT / "examples/helpdesk.csv")}}, ROOT).to_toml())
    out.mkdir()
    done = CliRunner().invoke(app, ["doctor", str(recipe), "--out", str(out), "--json"])
    found = json.loads(done.stdout.splitlines()[-1])
    assert (done.exit_code, found["good"]) == (0, True), done.stdout
    names = [check["name"] for check in found["checks"]]
    assert {"packages", "memory", "disk", "file system", "seedling", "minilm", "engine local", "sandbox", "ray", "engine toy"} <= set(names)
    assert not any(check["advice"] for check in found["checks"] if check["state"] == "good")
    assert list(out.iterdir()) == []


def test_what_is_broken_is_found_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seedbed.engines.local import LocalSession

    score = LocalSession.score

    def off(self: Any, *what: Any) -> Any:
        return [(nats + 0.02, n) for nats, n in score(self, *what)]

    monkeypatch.setattr(LocalSession, "score", off)
    monkeypatch.setattr(doctor_module, "SEEDLING_SHA256", "0" * 64)
    monkeypatch.setattr("seedbed.lm.embed.minilm_folder", lambda: 1 / 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "total used free")(3, 2, 1))
    monkeypatch.setattr(doctor_module, "requires", lambda _: ["numpy<1", "not-there>=1", "not-there-either; extra == 'x'"])
    checks = doctor(None, tmp_path)
    bad = {check.name for check in checks if check.state == "bad"}
    assert bad == {"engine local", "seedling", "minilm", "disk", "packages"}
    assert all(check.advice for check in checks if check.state == "bad")
    assert "ZeroDivisionError" in of("minilm", checks).found
    said = of("packages", checks).advice
    assert "numpy" in said and "not-there is missing" in said and "either" not in said
    assert CliRunner().invoke(app, ["doctor", "--out", str(tmp_path)]).exit_code == 1


def test_no_sandbox_and_no_lock_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only tasks of code need a sandbox; two runs in one folder would spoil each other without a lock."""
    sandbox.ready.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    found = [check for name in ("_sandbox", "_disk") for check in getattr(doctor_module, name)(*([tmp_path] if name == "_disk" else []))]
    sandbox.ready.cache_clear()
    assert of("sandbox", found).state == "note" and "bwrap is not installed" in of("sandbox", found).advice
    assert of("file system", found).state == "bad" and "second lock" in of("file system", found).found


def test_the_recipes_engine_is_tried() -> None:
    checks = doctor(recipes.build(TOY | {"engine": {"kind": "tests/plugins.py:Raises"}}, ROOT))
    assert of("engine tests/plugins.py:Raises", checks).state == "bad"

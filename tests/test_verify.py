"""`seedbed verify`: a clean run passes; every kind of forgery is found, and the first file or row that it touches is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_run import LIGHT, TOY

from seedbed import recipe as recipes
from seedbed.errors import StoreError
from seedbed.run import run, sealed
from seedbed.verify import verify

ROOT = Path(__file__).resolve().parent.parent
RAW = TOY | {"metric": [{"kind": "pii"}], "annotator": [{"kind": "classifier"}]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(the run's folder, its recipe beside the data)."""
    out = tmp_path_factory.mktemp("verify")
    shutil.copytree(ROOT / "examples", out / "examples")
    recipe = recipes.build(RAW, out)
    (out / "tiny.toml").write_text(recipe.to_toml(), encoding="utf-8")
    run(recipe, out / "runs")
    return out / "runs/tiny", out / "tiny.toml"


def failures(folder: Path, recipe: Path | None = None) -> dict[str, str]:
    return {c.name: c.why for c in verify(folder, recipe) if c.passed is False}


def test_a_clean_run_passes_every_check(made: tuple[Path, Path]) -> None:
    folder, recipe = made
    assert [(c.name, c.passed, c.why) for c in verify(folder, recipe) if not c.passed] == []
    unread = [c for c in verify(folder) if c.passed is None]
    assert [c.name for c in unread] == ["names", "verdicts", "measures"] and all("give --recipe" in c.why for c in unread)


@pytest.mark.slow
def test_a_project_that_was_moved_fits_nothing_anew_and_verifies(tmp_path: Path) -> None:
    raw = LIGHT | {"generator": {"kind": "hard", "template": "mine.jinja"}, "generate": {"count": 20, "max_tokens": 200}, "filter": []}
    here, there = tmp_path / "here", tmp_path / "elsewhere/there"
    shutil.copytree(ROOT / "examples", here / "examples")
    (here / "mine.jinja").write_text("{% for e in examples %}{{ e }}\n---\n{% endfor %}{{ given }}")
    run(recipes.build(raw, here), here / "runs")
    before = json.loads((here / "runs/tiny/manifest.json").read_text())["steps"]
    (here / "tiny.toml").write_text((here / "runs/tiny/recipe.toml").read_text())
    there.parent.mkdir()
    here.rename(there)
    assert failures(there / "runs/tiny", there / "tiny.toml") == {}
    made = recipes.load(there / "tiny.toml")
    assert json.loads((run(made, there / "runs").folder / "manifest.json").read_text())["steps"] == before
    assert str(tmp_path) not in made.to_toml()


@pytest.mark.slow
def test_a_run_of_a_version_that_added_no_audit_is_no_forgery(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = RAW | {"metric": [{"kind": "memorisation"}], "sample": {"path": str(made[1].parent / "examples/helpdesk.csv"), "rows": 100}}
    with monkeypatch.context() as earlier:
        earlier.setattr(recipes, "_audits", lambda values, sensitive, problems: values["metric"])
        recipe = recipes.build(raw, tmp_path)
        (tmp_path / "tiny.toml").write_text(recipe.to_toml(), encoding="utf-8")
        run(recipe, tmp_path)
    found = {c.name: c for c in verify(tmp_path / "tiny", tmp_path / "tiny.toml")}
    assert [name for name, c in found.items() if not c.passed] == ["gates"]
    assert found["gates"].passed is None and "no audit was measured" in found["gates"].why


def test_a_run_that_kept_no_row_is_no_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}\n")
    with pytest.raises(StoreError, match=r"kept no row, so that there is nothing to verify. Why: seedbed show .* dropped."):
        verify(tmp_path)


def test_each_row_says_how_it_was_made(made: tuple[Path, Path]) -> None:
    (file,) = (made[0] / "dataset/data").glob("*.parquet")
    row = pq.read_table(file).to_pylist()[0]["provenance"]
    assert row["seed"] > 2**31 and row["sampling"] == {"temperature": 0.7, "top_p": 0.95, "max_tokens": 200}
    assert row["filters"] == ["form", "dedup", "overlap"] and row["generator"] == "hard" and row["sources"]
    assert len({r["provenance"]["seed"] for r in pq.read_table(file).to_pylist()}) == len(pq.read_table(file))


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(value) or value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def reseal(folder: Path) -> None:
    """As a forger does who knows of the hashes."""
    rewrite(folder / "manifest.json", lambda m: m | {"files": sealed(folder, m)})


def forge_row(folder: Path) -> None:
    (file,) = (folder / "dataset/data").glob("*.parquet")
    rows = pq.read_table(file)
    texts = rows.column("message").to_pylist()
    texts[3] = "forged"
    pq.write_table(rows.set_column(rows.column_names.index("message"), "message", pa.array(texts)), file)


def forge_real(folder: Path) -> None:
    (file,) = (folder / "dataset/data").glob("*.parquet")
    rows = pq.read_table(file)
    pq.write_table(rows.set_column(rows.column_names.index("synthetic"), "synthetic", pa.array([False] * len(rows))), file)


def forge_kept(folder: Path) -> None:
    path = next(folder.glob("kept-*/kept.jsonl"))
    lines = path.read_text(encoding="utf-8").split("\n")
    record = json.loads(lines[2])
    lines[2] = json.dumps(record | {"text": record["text"] + " forged"}, ensure_ascii=False)
    path.write_text("\n".join(lines), encoding="utf-8")


def forge_source(folder: Path) -> None:
    path = next(folder.glob("kept-*/kept.jsonl"))
    lines = path.read_text(encoding="utf-8").split("\n")
    record = json.loads(lines[0])
    record["provenance"]["sources"] = ["nobody"]
    path.write_text("\n".join([json.dumps(record, ensure_ascii=False), *lines[1:]]), encoding="utf-8")


def lose_a_drop(folder: Path) -> None:
    path = next(folder.glob("kept-*/dropped.jsonl"))
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")


def forge_measure(folder: Path) -> None:
    for path in (folder / "scores.json", next(folder.glob("scores-*/scores.json"))):
        rewrite(path, lambda s: s["measures"][0].update(value=0.77))


def forge_gate(folder: Path) -> None:
    rewrite(folder / "scores.json", lambda s: s["gates"][0].update(passed=False))


@pytest.mark.parametrize(
    ("forge", "check", "named"),
    [
        (forge_row, "dataset", "row 4 of the dataset"),
        (forge_real, "dataset", "holds a row that no run wrote"),
        (forge_kept, "origin", "no candidate has this id and text"),
        (forge_source, "origin", "'nobody' is no row of the sample"),
        (lose_a_drop, "counts", "counts.candidates"),
        (forge_gate, "gates", "do not follow"),
        (forge_measure, "measures", "value of pii_rate is 0.77"),
        (lose_a_drop, "verdicts", "dropped.jsonl, line 1"),
    ],
)
def test_a_forgery_is_found_even_where_the_hashes_were_written_anew(
    made: tuple[Path, Path], tmp_path: Path, forge: Callable[[Path], None], check: str, named: str
) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(made[0], folder)
    forge(folder)
    assert "was changed after the run" in failures(folder)["files"]
    reseal(folder)
    found = failures(folder, made[1])
    assert "files" not in found and named in found[check], found


def test_files_that_are_missing_or_new_are_named(made: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(made[0], folder)
    (folder / "dataset/extra.csv").write_text("a")
    assert failures(folder) == {"files": "dataset/extra.csv was added after the run"}
    (folder / "report.html").unlink()
    assert failures(folder) == {"files": "report.html is missing"}
    (folder / "manifest.json").unlink()
    with pytest.raises(StoreError, match="no finished run"):
        verify(folder)


def test_a_strangers_folder_runs_no_code_and_leads_nowhere_else(made: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(made[0], folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: ...\n")
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe.read_text() + f"\n[[filter]]\nkind = {json.dumps(str(folder / 'evil.py') + ':Evil')}\n")
    assert "files" in failures(folder) and not (tmp_path / "ran").exists()
    for steps in ({"kept": "../../.."}, {"kept": "/"}, ["kept"]):
        rewrite(folder / "manifest.json", lambda m, steps=steps: m | {"steps": steps})  # type: ignore[misc]
        with pytest.raises(StoreError, match="its steps are no names of folders"):
            verify(folder)


def test_other_real_rows_are_seen_by_the_names_of_the_steps(made: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(made[1].parent / "examples", tmp_path / "examples")
    path = tmp_path / "examples/helpdesk.csv"
    path.write_text("\n".join(path.read_text(encoding="utf-8").split("\n")[:-20]) + "\n", encoding="utf-8")
    shutil.copy(made[1], tmp_path / "tiny.toml")
    assert "step sample should be" in failures(made[0], tmp_path / "tiny.toml")["names"]


def test_the_command_prints_each_check_and_fails_where_one_does(made: tuple[Path, Path], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from seedbed.cli import app

    good = CliRunner().invoke(app, ["verify", str(made[0]), "--json"])
    assert good.exit_code == 0 and json.loads(good.stdout.splitlines()[-1])["checks"][0] == {"name": "files", "passed": True, "why": ""}
    shutil.copytree(made[0], tmp_path / "tiny")
    (tmp_path / "tiny/scores.json").write_text("{}")
    bad = CliRunner().invoke(app, ["verify", str(tmp_path / "tiny")])
    assert bad.exit_code == 1 and "FAILED      files     scores.json was changed" in bad.stdout

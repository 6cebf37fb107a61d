"""Arms side by side: equal rows, shared steps, a control, and what a limit leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from seedbed import recipe as recipes
from seedbed.arms import arms_of
from seedbed.cli import app
from seedbed.compare import FULL, REAL, compare
from seedbed.data import load_sample
from seedbed.errors import RecipeError, StoreError
from seedbed.export import dataset_rows, export
from seedbed.grow import step_names
from seedbed.outcome import write_outcome
from seedbed.ranking import table
from seedbed.recipe import Recipe
from seedbed.run import run
from seedbed.show import open_report, rows_of, state_of
from seedbed.store import Store, journalled, read_lines
from seedbed.verify import verify

ROOT = Path(__file__).resolve().parent.parent
BASE: dict[str, Any] = {
    "name": "side",
    "seed": 3,
    "sample": {"path": "examples/helpdesk.csv", "rows": 100, "hide": True},
    "task": {"kind": "classification", "inputs": ["message"], "target": "queue"},
    "engine": {"kind": "toy", "order": 5},
    "generator": {"kind": "hard", "shots": 8},
    "generate": {"count": 60, "max_tokens": 200, "temperature": 0.7},
    "annotate": {"count": 50},
    "annotator": [{"kind": "classifier"}],
    "filter": [{"kind": "form"}, {"kind": "dedup"}, {"kind": "overlap"}],
    "metric": [{"kind": "memorisation"}],
    "arm": [{"name": "many shots"}, {"name": "few shots", "generator": {"shots": 2}}],
}
MODES = ("generate", "annotate")
READS_SIXTY = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Short:
    def supports(self, task): return ""
    def learn(self, task, rows, dev, seed): return Read(task.labels[0])
class Read:
    def __init__(self, label): self.label = label
    def predict(self, rows): return [self.label for _ in rows]
    def cut(self, rows): return sum(len(row.fields["message"]) > 60 for row in rows)
"""


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    out = tmp_path_factory.mktemp("side")
    found = compare(recipes.build(BASE, ROOT), MODES, seeds=2, out=out)
    return found.folder, found.rows


@pytest.mark.slow
def test_every_arm_in_every_mode_stands_between_the_real_rows_and_all_real_rows(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    rows = compared[1]
    assert [(r["arm"], r["mode"]) for r in rows] == [
        (REAL, "-"), ("many shots", "generate"), ("many shots", "annotate"), ("few shots", "generate"), ("few shots", "annotate"), (FULL, "-"),
    ]  # fmt: skip
    wanted = {
        "arm",
        "mode",
        "seeds",
        "n_real",
        "n_kept",
        "metric",
        "mean",
        "low",
        "high",
        "gain",
        "gain_low",
        "gain_high",
        "mauve",
        "copies",
        "tokens",
        "seconds",
    }
    assert all(wanted <= set(r) and r["seeds"] == 2 and r["low"] <= r["mean"] <= r["high"] for r in rows)
    assert rows[0]["gain"] is None and all(r["gain_low"] <= r["gain"] <= r["gain_high"] for r in rows[1:])


def test_the_kept_rows_are_equally_many_and_those_of_the_arm_that_keeps_fewest(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    arms = [r for r in compared[1] if r["mode"] != "-"]
    assert {r["n_kept"] for r in arms} == {min(k for r in arms for k in r["kept"])}


def test_a_row_that_annotates_says_how_much_of_dev_its_annotator_reads_right(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    facts = [json.loads(path.read_text())[0] for path in compared[0].glob("labels-*/facts.json")]
    assert len(facts) == 2 and all(f["dev_rows"] > 0 for f in facts)  # a seed each: both arms have the same labels
    rows = sum(f["dev_rows"] for f in facts)
    right = sum(f["dev_rows"] * f["dev_accuracy"] for f in facts)
    said = f"its classifier reads {100 * right / rows:.0f} % of {rows} dev rows right"
    for row in compared[1]:
        assert row["note"].split("; ").count(said) == (row["mode"] == "annotate")


def test_a_second_student_learns_all_rows_only_of_an_arm_that_kept_more(
    tmp_path: Path, compared: tuple[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    most = max(max(r["kept"]) / r["n_kept"] for r in compared[1] if r["mode"] != "-")
    monkeypatch.setattr("seedbed.compare.WORTH_A_STUDENT", most - 1e-9)
    out = tmp_path / "side"
    shutil.copytree(compared[0], out / compared[0].name)
    again = compare(recipes.build(BASE, ROOT), MODES, seeds=2, out=out).rows
    assert all("all_gain" in r for r in compared[1] if r["mode"] != "-" and max(r["kept"]) > 1.05 * r["n_kept"])
    assert {max(r["kept"]) / r["n_kept"] for r in again if "all_gain" in r} == {most}


def test_the_gain_is_the_score_less_the_real_rows_own(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    rows = compared[1]
    for r in rows[1:]:
        assert r["gain"] == pytest.approx(r["mean"] - rows[0]["mean"])


def test_annotating_is_the_same_work_whatever_generates(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, rows = compared
    a, b = (r for r in rows if r["mode"] == "annotate")
    assert (a["mean"], a["gain"], a["tokens"]) == (b["mean"], b["gain"], 0)
    samples = {p.name for p in folder.glob("teacher-*")}
    assert len(samples) == 4  # two arms under two seeds; annotating by a classifier needs no teacher


def test_nothing_is_made_twice(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, rows = compared
    before = {p: p.stat().st_mtime_ns for step in ("teacher", "candidates", "annotations", "kept") for p in folder.glob(f"{step}-*/*")}
    units = (folder / "units.jsonl").read_bytes()
    again = compare(recipes.build(BASE, ROOT), MODES, seeds=2, out=folder.parent)
    assert [r | {"seconds": 0} for r in again.rows] == [r | {"seconds": 0} for r in rows]
    assert (folder / "units.jsonl").read_bytes() == units
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert json.loads((folder / "compare.json").read_text())["rows"] == again.rows


@pytest.mark.slow
def test_the_best_way_is_a_recipe_whose_run_makes_none_of_its_steps_again(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, rows = compared
    best = next(r for r in rows if r["best"])
    assert "seedbed run" in (folder / "compare.md").read_text() and "best.toml" in (folder / "compare.md").read_text()
    made = recipes.load(folder / "best.toml", ["gain.seeds=1", "gain.volumes=[1]"])
    names = step_names(made, load_sample(made.sample, made.task, made.seed, made.base))
    done = run(made, folder.parent)
    assert done.folder.name == "side-best" and json.loads((done.folder / "manifest.json").read_text())["steps"] == names
    there = [name for name in names.values() if (folder / name).exists()]
    assert {name.split("-")[0] for name in there} >= {"kept", "annotations" if best["mode"] == "generate" else "labels"}
    for file in (file for name in there for file in (folder / name).rglob("*") if file.is_file()):
        assert file.samefile(done.folder / file.relative_to(folder))
    kept = read_lines(folder / names["kept"] / "kept.jsonl")
    assert [row["message"] for row in dataset_rows(done.folder)] == [row["fields"]["message"] for row in kept] and len(kept) == best["kept"][0]


@pytest.mark.slow
def test_a_run_of_the_only_way_finds_its_teacher_and_its_candidates_and_is_verified(tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text(READS_SIXTY)
    shutil.copy(ROOT / "examples/helpdesk.csv", tmp_path)
    cheap = {"annotator": [], "filter": [{"kind": "form"}], "metric": [{"kind": "pii"}], "student": {"kind": "short.py:Short"}}
    recipe = {k: v for k, v in BASE.items() if k not in ("annotate", "arm")} | cheap | {"sample": {"path": "helpdesk.csv", "rows": 100}}
    folder = compare(recipes.build(recipe, tmp_path), (), seeds=1, out=tmp_path / "out").folder
    done = run(recipes.load(folder / "best.toml"), tmp_path / "out").folder
    steps = json.loads((done / "manifest.json").read_text())["steps"]
    for step in ("teacher", "candidates", "kept"):
        assert all(file.samefile(done / steps[step] / file.name) for file in (folder / steps[step]).iterdir())
    assert not [check for check in verify(done, folder / "best.toml") if check.passed is False]


@pytest.mark.slow
def test_hours_leave_cells_without_a_number_and_a_reason_and_the_next_call_fills_them(tmp_path: Path) -> None:
    made = recipes.build(BASE | {"arm": BASE["arm"][:1]}, ROOT)
    cut = compare(made, MODES, seeds=1, out=tmp_path / "cut", hours=1e-9)
    assert all(r["mean"] is None and "--hours" in r["note"] for r in cut.rows)
    assert cut.unfinished
    whole, uncut = (compare(made, MODES, seeds=1, out=tmp_path / name) for name in ("cut", "uncut"))
    assert [r | {"seconds": 0} for r in whole.rows] == [r | {"seconds": 0} for r in uncut.rows]
    assert not whole.unfinished


def test_measures_are_of_all_seeds_of_their_row_or_none(
    tmp_path: Path, compared: tuple[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(compared[0], tmp_path / "side-compare")
    units = tmp_path / "side-compare/units.jsonl"
    lines = units.read_bytes().splitlines(keepends=True)
    measures = [line for line in lines if b"/measures" in line]
    units.write_bytes(b"".join(line for line in lines if line not in measures[1::2]))  # of every second seed
    cells = iter([False] * 8)  # the time is up when all cells are grown
    monkeypatch.setattr("seedbed.limits.Hours.over", lambda clock: next(cells, True))
    cut = compare(recipes.build(BASE, ROOT), MODES, seeds=2, out=tmp_path, hours=1)
    assert [r["seeds"] for r in cut.rows] == [2] * 6
    assert all(r["measures"] == {} and r["copies"] is None for r in cut.rows)
    assert all("measures missing: stopped at --hours 1" in r["note"] for r in cut.rows[1:5])


@pytest.mark.slow
def test_an_arm_that_keeps_nothing_says_why_and_spoils_no_other(tmp_path: Path) -> None:
    arms = [{"name": "good"}, {"name": "bad", "filter": [{"kind": "form", "low": 0.49, "high": 0.51, "slack": 1.0}], "generate": {"max_tokens": 3}}]
    good, bad = compare(recipes.build(BASE | {"arm": arms}, ROOT), ("generate",), seeds=2, out=tmp_path, hours=1).rows[1:3]
    assert good["mean"] is not None and good["n_kept"] == min(good["kept"])
    assert bad["mean"] is None and [note.split(":")[0] for note in bad["note"].split("; ")] == ["seed 1 kept no row", "seed 2 kept no row"]


def test_an_arm_of_too_few_rows_says_what_was_done_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text(READS_SIXTY)
    cheap = {"annotator": [], "filter": [{"kind": "form"}], "metric": [{"kind": "pii"}], "student": {"kind": "short.py:Short"}}
    few = {"name": "few", "filter": [{"kind": "form", "low": 0.4, "high": 0.6, "slack": 1.0}], "generate": {"count": 16}}
    recipe = {k: v for k, v in BASE.items() if k != "annotate"} | cheap | {"arm": [{"name": "all"}, few]}
    made = recipes.build(recipe | {"sample": {"path": str(ROOT / "examples/helpdesk.csv"), "rows": 100}}, tmp_path)
    row = compare(made, (), seeds=1, out=tmp_path).rows[2]
    assert row["n_kept"] > 0
    assert re.search(
        rf"kept {row['n_kept']} rows, under 15 % of the most: it is scored at these and not ranked with the others at \d+\. "
        r"Let it keep more \(it dropped form:.* \d+\), or give all arms a higher \[generate\] count",
        row["note"],
    )


@pytest.mark.slow
def test_a_student_of_an_arm_has_a_control_of_its_own(tmp_path: Path) -> None:
    arms = [{"name": "a"}, {"name": "b", "student": {"kind": "linear", "features": "tfidf"}}]
    rows = compare(recipes.build(BASE | {"arm": arms}, ROOT), ("annotate",), seeds=1, out=tmp_path).rows
    reals = [r for r in rows if r["arm"] == REAL]
    assert len(reals) == 2 and reals[0]["mean"] != reals[1]["mean"]
    for arm, real in zip(rows[2:4], reals, strict=True):
        assert arm["gain"] == pytest.approx(arm["mean"] - real["mean"])


@pytest.mark.slow
def test_a_damaged_unit_costs_its_file_and_no_step(tmp_path: Path, compared: tuple[Path, list[dict[str, Any]]]) -> None:
    units = Path(shutil.copytree(compared[0], tmp_path / "side-compare")) / "units.jsonl"
    units.write_bytes(b"x" + units.read_bytes()[1:])
    with pytest.raises(StoreError, match=r"units.jsonl: damaged at byte 0. Remove this file and run again"):
        compare(recipes.build(BASE, ROOT), MODES, seeds=2, out=tmp_path)
    units.unlink()
    whole = compare(recipes.build(BASE, ROOT), MODES, seeds=2, out=tmp_path)
    assert [r | {"seconds": 0} for r in whole.rows] == [r | {"seconds": 0} for r in compared[1]]


def test_a_seed_is_another_student_where_files_name_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "coin.py").write_text(
        "import random\nfrom dataclasses import dataclass\n@dataclass(frozen=True)\nclass Coin:\n"
        '    def supports(self, task): return ""\n'
        "    def learn(self, task, rows, dev, seed): return Tossed(task.labels, seed)\n"
        "class Tossed:\n    def __init__(self, labels, seed): self.labels, self.seed = labels, seed\n"
        "    def predict(self, rows):\n        toss = random.Random(self.seed)\n        return [toss.choice(self.labels) for _ in rows]\n"
    )
    lines = (ROOT / "examples/helpdesk.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    for name, rows in (("fit", lines[1:60]), ("dev", lines[60:80]), ("test", lines[80:200])):
        (tmp_path / f"{name}.csv").write_text("".join([lines[0], *rows]), encoding="utf-8")
    files = {name: f"{name}.csv" for name in ("fit", "dev", "test")}
    cheap = {"sample": files, "student": {"kind": "coin.py:Coin"}, "annotator": [], "filter": [{"kind": "form"}], "metric": [{"kind": "pii"}]}
    made = recipes.build({k: v for k, v in BASE.items() if k not in ("annotate", "arm")} | cheap, tmp_path)
    found = compare(made, (), seeds=2, out=tmp_path)
    units = [r for r in journalled(found.folder / "units.jsonl") if r["name"].endswith(REAL)]
    assert len(units) == 2 and units[0]["value"] != units[1]["value"]
    assert found.recipes == {
        "best.toml": "hard, generate, coin.py:Coin"
    }  # the only way; its files and its plug-in are found from the folder of the recipe that was compared
    assert recipes.load(found.folder / "best.toml") == replace(made, name="side-best")


def test_rows_longer_than_a_student_reads_are_in_the_note(tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text(READS_SIXTY)
    places = {"sample": {"path": str(ROOT / "examples/helpdesk.csv"), "rows": 100}, "student": {"kind": "short.py:Short"}}
    cheap = places | {"annotator": [], "filter": [{"kind": "form"}], "metric": [{"kind": "pii"}]}
    made = recipes.build({k: v for k, v in BASE.items() if k not in ("annotate", "arm")} | cheap, tmp_path)
    sample = load_sample(made.sample, made.task, made.seed, tmp_path)
    fit, test = (sum(len(row.fields["message"]) > 60 for row in part) for part in (sample.fit, sample.test))
    found = compare(made, (), seeds=2, out=tmp_path)
    told = [row["note"] for row in found.rows]
    among = f"{test} of {len(sample.test)} test rows are longer than the student reads"
    assert f"{fit} of {len(sample.fit)} training rows and {among}" in told[0] and all(among in note for note in told)
    assert f" of {len(sample.fit) + found.rows[1]['n_kept']} training rows" in told[1]
    assert compare(made, (), seeds=2, out=tmp_path).rows[1]["note"] == told[1]


MUTE = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Mute:
    def supports(self, task): return "says nothing"
    def learn(self, task, rows, dev, seed): raise AssertionError
"""


def cheap(place: Path, student: str, code: str, **changes: Any) -> Recipe:
    """A recipe whose student is the class of this name and code, in the folder."""
    (place / "own.py").write_text(code)
    parts = {"annotator": [], "filter": [{"kind": "form"}], "metric": [{"kind": "pii"}], "student": {"kind": f"own.py:{student}"}}
    parts |= {"sample": {"path": str(ROOT / "examples/helpdesk.csv"), "rows": 100}, "generate": {"count": 20, "max_tokens": 60}}
    return recipes.build({k: v for k, v in BASE.items() if k not in ("annotate", "arm")} | parts | changes, place)


def test_it_is_said_that_no_gain_can_be_measured_before_the_work(tmp_path: Path) -> None:
    told: list[tuple[str, bool]] = []
    made = cheap(tmp_path, "Mute", MUTE)
    compare(made, seeds=1, out=tmp_path, say=lambda line: told.append((line, any(tmp_path.glob("side-compare/teacher-*")))))
    said = "no gain can be measured with student own.py:Mute: says nothing. Rows are grown all the same, and the table has no scores."
    assert told[0] == (said, False) and [line for line, _ in told].count(said) == 1
    able: list[str] = []
    compare(cheap(tmp_path, "Short", READS_SIXTY), seeds=1, out=tmp_path, say=able.append)
    assert not any("can be measured" in line for line in able)


WRONG_ALL = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Wrong:
    right: int = 0
    def supports(self, task): return ""
    def learn(self, task, rows, dev, seed): return self
    def predict(self, rows): return [e.fields["queue"] if i < self.right else "none" for i, e in enumerate(rows)]
"""


def test_a_test_that_no_student_gets_a_row_of_right_says_nothing_of_a_gain(tmp_path: Path) -> None:
    arms = [{"name": "a"}, {"name": "b"}, {"name": "one", "student": {"kind": "own.py:Wrong", "right": 1}}]
    found = compare(cheap(tmp_path, "Wrong", WRONG_ALL, arm=arms), seeds=1, out=tmp_path).rows
    assert [row["mean"] for row in found[:5]] == pytest.approx([0, 100 / 240, 0, 0, 100 / 240], abs=0.5)
    said = ["no student got a test row right: this test says nothing of a gain" in row["note"] for row in found]
    assert said == [row["mean"] == 0 for row in found] and sum(said) == 4  # with full real


def test_each_cell_is_said_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    told: list[str] = []
    folded = {"path": str(ROOT / "examples/helpdesk.csv"), "rows": 100, "folds": 2}
    compare(cheap(tmp_path, "Short", READS_SIXTY, sample=folded, arm=[{"name": "a"}, {"name": "b"}]), seeds=2, out=tmp_path, say=told.append)
    wanted = []
    for seed in (1, 2):
        for arm in "ab":
            cell = f"{arm}, generate, seed {seed} of 2"
            wanted += [f"{cell}, fold 1 of 2: begins", f"{cell}, fold 2 of 2: begins", f"{cell}: "]
    assert all(line.startswith(start) for line, start in zip(told[:12], wanted, strict=True)), told
    assert all("rows kept in the least of 2 folds" in line for line in told[2:12:3])


def test_the_table_of_other_settings_is_kept(tmp_path: Path) -> None:
    two = cheap(tmp_path, "Mute", MUTE, arm=BASE["arm"])
    told: list[str] = []
    first = compare(two, seeds=1, out=tmp_path, say=told.append)
    compare(two, seeds=1, out=tmp_path, say=told.append)
    assert not list(first.folder.glob("compare-??????.*"))
    before = {name: (first.folder / name).read_text() for name in ("compare.json", "compare.md")}
    one = compare(replace(two, arms=two.arms[:1]), seeds=1, out=tmp_path, say=told.append)
    kept = {path.suffix: path.read_text() for path in first.folder.glob("compare-??????.*")}
    assert kept == {".json": before["compare.json"], ".md": before["compare.md"]}
    assert told[-1].startswith("The table that was here, of other arms, settings or seeds, is now compare-")
    assert one.recipes and "best.toml" in (first.folder / "compare.md").read_text()
    compare(two, seeds=1, out=tmp_path)
    texts = {path.name: path.read_text() for path in first.folder.glob("compare*.md")}
    assert len(texts) == 3 and "best.toml" not in "".join(texts.values())  # it is of the table that is there


def test_a_comparison_is_whole_where_its_best_run_cannot_be_given_its_steps(tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text(READS_SIXTY)
    shutil.copy(ROOT / "examples/helpdesk.csv", tmp_path)
    cheap = {"annotator": [], "filter": [{"kind": "form"}], "metric": [{"kind": "pii"}], "student": {"kind": "short.py:Short"}}
    recipe = {k: v for k, v in BASE.items() if k not in ("annotate", "arm")} | cheap | {"sample": {"path": "helpdesk.csv", "rows": 100}}
    told: list[str] = []
    place = tmp_path / "out/side-best"
    with Store(place).held():  # a run is in it
        found = compare(recipes.build(recipe, tmp_path), (), seeds=1, out=tmp_path / "out", say=told.append)
    assert found.recipes and (found.folder / "compare.md").is_file() and not list(place.glob("*-*"))
    assert "were not given to the run" in told[-1] and "in use by another process" in told[-1]
    shutil.rmtree(place)
    place.write_text("mine")
    compare(recipes.build(recipe, tmp_path), (), seeds=1, out=tmp_path / "out", say=told.append)
    assert "cannot be written" in told[-1] and place.read_text() == "mine"
    place.unlink()
    compare(recipes.build(recipe, tmp_path), (), seeds=1, out=tmp_path / "out", say=told.append)
    assert list(place.glob("kept-*")) and "given" not in told[-1]


def test_a_folder_that_toml_cannot_name_is_said_before_the_work(tmp_path: Path) -> None:
    project = tmp_path / os.fsdecode(b"caf\xe9")
    project.mkdir()
    shutil.copy(ROOT / "examples/helpdesk.csv", project)
    made = recipes.build(BASE | {"sample": {"path": "helpdesk.csv", "rows": 100, "hide": True}}, project)
    with pytest.raises(StoreError, match=r"not UTF-8.*Give an --out inside it"):
        compare(made, MODES, seeds=1, out=tmp_path / "out")
    assert not list(tmp_path.glob("out/*/teacher-*"))


def test_tables_that_an_earlier_version_or_another_hand_left_are_shown_and_told_of(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, text in (("compare-of.json", "{}"), ("compare.json", '{"rows": []}')):
        (tmp_path / name).write_text(text)
    (tmp_path / "compare.md").write_bytes(b"| arm caf\xe9 |\n")
    assert "| arm caf" in state_of(tmp_path)["table"]
    with pytest.raises(StoreError, match="The same seedbed compare command writes the recipe of its best arm"):
        export(tmp_path, "jsonl")
    with pytest.raises(StoreError, match="holds a comparison, not a run"):
        open_report(tmp_path)
    assert "compare-before.md" in write_outcome(store, {"rows": [], "of": "a", "recipes": {}}, "new\n")
    assert "arm caf" in (tmp_path / "compare-before.md").read_text()


def test_other_verbs_know_a_comparison(compared: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    folder = compared[0]
    shown = CliRunner().invoke(app, ["show", str(folder), "--json"])
    assert shown.exit_code == 0 and (folder / "compare.md").read_text() in shown.stdout
    assert json.loads(shown.stdout.splitlines()[-1])["rows"] == json.loads((folder / "compare.json").read_text())["rows"]
    for look in (lambda: export(folder, "jsonl"), lambda: export(folder, "peft"), lambda: verify(folder), lambda: rows_of(folder, "kept", 1)):
        with pytest.raises(StoreError, match=r"holds a comparison, not a run; .*: seedbed run .*side-compare/best\.toml --out "):
            look()
    shutil.copy(folder / "compare-of.json", tmp_path)
    with pytest.raises(StoreError, match="no table yet"):
        state_of(tmp_path)


def test_another_sample_is_refused(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    with pytest.raises(StoreError, match="another sample or seed"):
        compare(recipes.build(BASE | {"seed": 4}, ROOT), MODES, seeds=1, out=compared[0].parent)


def test_arms_from_the_command_line_are_the_kinds_with_their_defaults_or_the_recipes_own_settings(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    made = replace(recipes.build({k: v for k, v in BASE.items() if k != "arm"}, ROOT), base=ROOT)
    path.write_text(made.to_toml().replace('path = "examples', f'path = "{ROOT}/examples'))
    loaded = recipes.load(path, [], ["hard", "soft"])
    assert [(a.name, a.recipe.generator.kind) for a in arms_of(loaded, ("generate",))] == [("hard", "hard"), ("soft", "soft")]
    assert loaded.arms[0][1].generator.settings.shots == 8


WRONG: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({"arm": [{"name": "a", "sample": {"rows": 5}}]}, (), r"\[arm a\] cannot override \[sample\]"),
    ({"arm": [{"name": "a"}, {"name": "a"}]}, (), "needs a name of its own"),
    ({"arm": [{"generator": {"kind": "soft"}}]}, (), "needs a name of its own"),
    ({"arm": [{"name": "a", "generator": {"shotz": 2}}]}, (), r"\[arm a\] \[generator\] has no setting 'shotz'"),
    ({"arm": {"name": "a"}}, (), r"must be written \[\[arm\]\]"),
    (
        {
            "sample": {"path": "examples/helpdesk.csv", "rows": 100},
            "annotate": {"path": "examples/helpdesk.csv"},
            "arm": [{"name": "same", "annotate": {"path": "./examples/helpdesk.csv"}}, {"name": "a", "annotate": {"path": "README.md"}}],
        },
        (),
        r"^\[arm a\] annotate.path names another pool",
    ),
    ({}, ("anotate",), "'anotate' is unknown"),
    ({"generate": {"count": 0}}, ("generate",), "needs new rows"),
    ({"generate": {"count": "auto"}}, ("generate",), "Give .generate. count a number"),
]


@pytest.mark.parametrize(("change", "modes", "message"), WRONG)
def test_a_comparison_that_cannot_be_says_why(change: dict[str, Any], modes: tuple[str, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        arms_of(recipes.build(BASE | change, ROOT), modes)


def test_who_names_the_labels_is_the_same_in_every_mode() -> None:
    two = {"annotator": [{"kind": "classifier"}, {"kind": "prompted"}], "annotate": {"count": 50, "by": "prompted"}, "arm": []}
    arms = arms_of(recipes.build(BASE | two | {"generate": BASE["generate"] | {"relabel": True}}, ROOT), ("generate", "annotate"))
    assert [a.recipe.label_by for a in arms] == ["prompted", "prompted"]


def test_a_gain_that_cannot_be_measured_is_a_note_and_no_metric(tmp_path: Path) -> None:
    few = BASE | {"sample": {"path": "examples/helpdesk.csv", "rows": 100, "hide": True, "test_share": 0.1}, "arm": []}
    found = compare(recipes.build(few, ROOT), ("annotate",), seeds=1, out=tmp_path)
    assert all(r["metric"] == "accuracy" and r["note"].startswith("a gain needs at least 100 test rows") for r in found.rows)
    assert "| - accuracy |" in table(found.rows)


def test_seconds_are_those_of_the_recipe_that_is_compared(tmp_path: Path, compared: tuple[Path, list[dict[str, Any]]]) -> None:
    shutil.copytree(compared[0], tmp_path / "side-compare")
    clock = tmp_path / "side-compare/seconds.json"
    clock.write_text(json.dumps(dict.fromkeys(json.loads(clock.read_text()), 1e6)))
    changed = BASE | {"arm": [{"name": "many shots", "filter": [{"kind": "form"}]}]}
    assert compare(recipes.build(changed, ROOT), ("annotate",), seeds=1, out=tmp_path).rows[1]["seconds"] < 1e6


def test_a_mode_that_annotates_needs_the_section() -> None:
    with pytest.raises(RecipeError, match=r"needs \[annotate\]"):
        arms_of(recipes.build({k: v for k, v in BASE.items() if k != "annotate"}, ROOT), ("annotate",))


def test_the_table_prints_no_number_that_is_none(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    text = table(compared[1])
    assert "None" not in text and "nan" not in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1

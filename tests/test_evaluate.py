"""Anybody's rows are measured as rows of a run are, and nothing is generated."""

from __future__ import annotations

import csv
import json
import random
import re
from pathlib import Path

import pytest
from conftest import ROOT
from typer.testing import CliRunner

from seedbed.cli import app
from seedbed.errors import DataError, RecipeError, RunFailed, StoreError
from seedbed.evaluate import Evaluated, evaluate
from seedbed.show import rows_of, state_of

QUICK = ['metric=[{kind="memorisation"}]', "gain.seeds=1", "gain.volumes=[1]"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 real rows of the example, 150 of them (too few for a gain) and the others in other tools' layouts: nothing that a model wrote."""
    folder = tmp_path_factory.mktemp("desk")
    with (ROOT / "examples/helpdesk.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    random.Random(1).shuffle(rows)
    with (folder / "real.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["message", "queue"])
        writer.writeheader()
        writer.writerows(rows[:400])
    alpaca = [{"instruction": "Which queue?", "input": r["message"], "output": r["queue"]} for r in rows[400:500]]
    copies = [{"instruction": "Which queue?", "input": r["message"], "output": r["queue"]} for r in rows[:25]]
    (folder / "their.json").write_text(json.dumps([*alpaca, *copies]), encoding="utf-8")
    with (folder / "few.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["message", "queue"])
        writer.writeheader()
        writer.writerows(rows[:150])
    bad = [*alpaca[:30], {**alpaca[0], "output": "Billing"}, {**alpaca[0], "input": None}, {**alpaca[0], "output": 3}, {**alpaca[0], "output": " "}]
    (folder / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bad), encoding="utf-8")
    (folder / "none.jsonl").write_text(json.dumps({**alpaca[0], "output": "x"}) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def done(desk: Path) -> Evaluated:
    return evaluate(str(desk / "their.json"), str(desk / "real.csv"), out=desk / "runs", sets=QUICK)


def test_what_could_not_be_read_takes_no_folder(tmp_path: Path, desk: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a,b\n" + "".join(f"text {i},{('billing', 'delivery')[i % 2]}\n" for i in range(20)))
    with pytest.raises(DataError, match=r"no column for .*\[evaluate\] columns = \{message = \"\.\.\.\", queue = \"\.\.\.\"\}"):
        evaluate(str(other), str(desk / "real.csv"), out=tmp_path, sets=QUICK)
    said = evaluate(str(other), str(desk / "real.csv"), out=tmp_path, sets=[*QUICK, 'evaluate.columns={message="a", queue="b"}'])
    assert said.scores["counts"]["kept"] == 20


def test_the_folder_of_a_run_is_no_table(tmp_path: Path, done: Evaluated) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match=re.escape(f"Give the rows that it kept: {tmp_path / 'dataset'}.")):
        evaluate(str(tmp_path), "real.csv", out=tmp_path)


def test_scores_report_and_card_without_generation(desk: Path, done: Evaluated) -> None:
    assert done.folder == desk / "runs/evaluate-their"
    rate = next(m for m in done.scores["measures"] if m["name"] == "verbatim_rate")
    assert (rate["value"], rate["n"]) == (25 / 125, 125), "25 real rows stand among 125"
    assert rate["low"] < 0.2 < rate["high"]
    arms = done.scores["gain"]["arms"]
    assert all(arms[name]["low"] <= arms[name]["mean"] <= arms[name]["high"] for name in ("real", "synthetic", "both"))
    assert (arms["synthetic"]["n_train"], arms["both"]["n_train"]) == (125, arms["real"]["n_train"] + 125)
    assert done.scores["gain"]["difference"]["mean"] == pytest.approx(arms["both"]["mean"] - arms["real"]["mean"])
    assert done.scores["counts"] == {"candidates": 125, "kept": 125, "dropped": {}, "failed": {}}
    assert json.loads((done.folder / "scores.json").read_text()) == done.scores
    assert not [p.name for p in done.folder.iterdir() if p.name.startswith(("teacher", "candidates", "dataset"))]
    assert done.data["columns"] == "message from input, queue from output" and len(done.data["sha256"]) == 64
    assert done.data["real"] == "fit 240, dev 60, test 100 rows"


def test_report_and_card_say_whose_rows_these_are(done: Evaluated) -> None:
    page, card = ((done.folder / name).read_text(encoding="utf-8") for name in ("report.html", "card.md"))
    assert "How it was measured" in page and "How it was made" not in page and "message from input" in page
    assert "generator" not in page.split("<pre")[1].split("</pre>")[0]
    assert "pretty_name: their.json\n" in card.split("---")[1] and "Seedbed did not make these rows" in card
    assert "| verbatim_rate | 0.200 share |" in card and "grown" not in card


def test_the_same_again_is_free_and_other_rows_are_not_taken_for_these(desk: Path, done: Evaluated) -> None:
    before = {p: p.stat().st_mtime_ns for p in done.folder.glob("scores-*/*")}
    again = evaluate(str(desk / "their.json"), str(desk / "real.csv"), out=desk / "runs", sets=QUICK)
    assert again.scores == done.scores and before == {p: p.stat().st_mtime_ns for p in done.folder.glob("scores-*/*")}
    with pytest.raises(StoreError, match="--replace"):
        evaluate(str(desk / "their.json"), str(desk / "real.csv"), out=desk / "runs", sets=[*QUICK, "seed=3"])


def test_a_finished_evaluation_can_be_shown(done: Evaluated) -> None:
    assert state_of(done.folder)["scores"] == done.scores
    [row] = rows_of(done.folder, "kept", 1)
    assert row["provenance"]["sources"] == [f"{done.data['from']}, row 1"]


def test_refused_rows_are_counted_and_say_file_and_line(desk: Path) -> None:
    found = evaluate(str(desk / "bad.jsonl"), str(desk / "few.csv"), out=desk / "runs", sets=[*QUICK, "metric=[]"])
    dropped = {"read:empty text": 1, "read:no value": 1, "read:unknown label": 2}
    assert found.scores["counts"] == {"candidates": 34, "kept": 30, "dropped": dropped, "failed": {}}
    said = [row["text"] for row in rows_of(found.folder, "dropped", 9)]
    assert [re.sub(r"^.*bad\.jsonl, ", "", text).split(".")[0] for text in said] == [
        "line 31, column 'queue': unknown label 'Billing'",
        "line 32, column 'message': no value",
        "line 33, column 'queue': unknown label '3'",
        "line 34, column 'queue': the text is empty",
    ]
    assert "Did you mean 'billing'?" in said[0]
    assert "Rows that could not be read" in (found.folder / "report.html").read_text(encoding="utf-8")


def test_a_recipe_says_task_metrics_and_reading_but_not_what_would_be_made(desk: Path) -> None:
    recipe = (ROOT / "recipes/helpdesk.toml").read_text(encoding="utf-8").replace("../examples/helpdesk.csv", "few.csv")
    (desk / "own.toml").write_text(recipe + '\n[evaluate]\ncolumns = {message = "input", queue = "output"}\nlabels = {Billing = "billing"}\n')
    found = evaluate(str(desk / "bad.jsonl"), None, desk / "own.toml", desk / "own", sets=[*QUICK, "metric=[]"])
    assert found.scores["counts"]["dropped"]["read:unknown label"] == 1, "the other one was read"
    assert 'path = "bad.jsonl"' in (found.folder / "recipe.toml").read_text()


def test_a_task_is_guessed_from_the_recipes_sample(desk: Path) -> None:
    (desk / "bare.toml").write_text('metric = []\n[sample]\npath = "few.csv"\n')
    found = evaluate(str(desk / "bad.jsonl"), None, desk / "bare.toml", desk / "bare", sets=QUICK)
    assert 'target = "queue"' in (found.folder / "recipe.toml").read_text()


def test_what_cannot_be_evaluated_is_said(desk: Path) -> None:
    with pytest.raises(RunFailed, match=r"none of its 1 rows can be read as the task's.*\n.*none\.jsonl, line 1, column 'queue': unknown label 'x'"):
        evaluate(str(desk / "none.jsonl"), str(desk / "real.csv"), out=desk / "runs", sets=QUICK)
    with pytest.raises(RecipeError, match="give the real rows"):
        evaluate(str(desk / "bad.jsonl"), None, out=desk / "runs")
    for section in ("sample", "evaluate"):
        (desk / "odd.toml").write_text(f"{section} = 3\n")
        with pytest.raises(RecipeError, match=rf"\[{section}\] must be a section"):
            evaluate(str(desk / "bad.jsonl"), str(desk / "real.csv"), desk / "odd.toml", desk / "runs")
    with pytest.raises(DataError, match="no such file"):
        evaluate("owner/name", str(desk / "real.csv"), out=desk / "runs", sets=QUICK)


def test_the_command_prints_what_it_read_and_ends_with_its_status(desk: Path, done: Evaluated) -> None:
    asked = ["evaluate", str(desk / "their.json"), "--real", str(desk / "real.csv"), "--out", str(desk / "runs"), "--json"]
    asked += [word for text in QUICK for word in ("--set", text)]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0 and "Read message from input, queue from output." in result.output
    assert json.loads(result.output.splitlines()[-1])["folder"] == str(done.folder)
    assert CliRunner().invoke(app, ["evaluate"]).exit_code == 2


def test_the_datasets_of_two_runs_are_measured_in_two_folders(tmp_path: Path, desk: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name / "dataset").mkdir(parents=True)
        (tmp_path / name / "manifest.json").write_text("{}")
        (tmp_path / name / "dataset/rows.csv").write_text("message,queue\nWhere is my parcel?,delivery\n")
    sets = [*QUICK, "metric=[]"]
    found = [evaluate(str(tmp_path / name / "dataset"), str(desk / "few.csv"), out=tmp_path / "runs", sets=sets) for name in ("first", "second")]
    assert [one.folder.name for one in found] == ["evaluate-first", "evaluate-second"]

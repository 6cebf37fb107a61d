"""The command line as a script sees it: exit statuses, the last line of --json, messages without tracebacks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pages
import pytest
from typer.testing import CliRunner

from seedbed import recipe
from seedbed.cli import app
from seedbed.errors import DataError, RecipeError
from seedbed.init import recipe_for

ROOT = Path(__file__).resolve().parent.parent
TOY = [
    "--set", "engine.kind=toy", "--set", "generator.kind=hard", "--set", "generate.max_tokens=200", "--set", "generate.temperature=0.7",
    "--set", "generate.count=80", "--set", "sample.rows=150", "--set", "gain.seeds=1",
]  # fmt: skip
RECIPE = """
name = "t"
seed = 1
[sample]
path = "{data}"
[task]
kind = "classification"
inputs = ["message"]
target = "queue"
[[metric]]
kind = "memorisation"
[student]
kind = "linear"
"""


def seedbed(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """As a process of its own would end; an exception that would be its traceback goes on here."""
    words = list(map(str, args))
    with contextlib.chdir(ROOT):
        return subprocess.CompletedProcess(words, *pages.seedbed(words))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "r.toml").write_text(RECIPE.format(data=ROOT / "examples/helpdesk.csv"))
    return folder, seedbed("run", folder / "r.toml", "--out", folder / "runs", "--json", *TOY)


def test_run_prints_one_json_object_last(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = finished
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert {"folder", "verdict", "measures", "gain", "counts", "gates"} == last.keys()
    assert json.loads((folder / "runs/t/scores.json").read_text())["counts"] == last["counts"]
    assert "report.html" in done.stdout


def test_show_reads_every_step(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    run = finished[0] / "runs/t"
    state = json.loads(seedbed("show", run, "--json").stdout.splitlines()[-1])
    assert {name.split("-")[0] for name in state["steps"]} == {"sample", "teacher", "candidates", "kept", "scores"}
    assert set(state["steps"].values()) == {"whole", "whole, 80 rows in parts"}
    for step in ("sample", "teacher", "candidates", "kept", "dropped", "scores"):
        done = seedbed("show", run, step, "-n", "2", "--json")
        assert done.returncode == 0, done.stderr
        assert all(json.loads(line) for line in done.stdout.splitlines())
    assert seedbed("show", run, "kep").returncode == 1
    assert "Did you mean 'kept'" in seedbed("show", run, "kep").stderr
    assert "is no run folder" in seedbed("show", ROOT / "src").stderr


def _view(run: Path, browser: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the library looks for browsers once. PATH holds none, and there is no display."""
    environ = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")} | {"PATH": "/nowhere", "BROWSER": browser}
    return subprocess.run([sys.executable, "-m", "seedbed", "view", run, "--json"], capture_output=True, text=True, env=environ)


def test_view_opens_the_report_and_always_prints_its_path(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, report = finished[0], finished[0] / "runs/t/report.html"
    browser = folder / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {folder}/opened\n')
    browser.chmod(0o755)
    done = _view(folder / "runs/t", f"{browser} %s")
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "opened").read_text().strip() == report.as_uri()
    assert done.stdout.splitlines() == [str(report), json.dumps({"report": str(report), "opened": True})]
    for none in ("", " ", "false"):
        done = _view(folder / "runs/t", none)
        assert done.returncode == 0 and "No browser" in done.stderr
        assert done.stdout.splitlines() == [str(report), json.dumps({"report": str(report), "opened": False})]
    (folder / "half").mkdir(exist_ok=True)
    (folder / "half/report.html").symlink_to("report.html")
    done = seedbed("view", folder / "half")
    assert done.returncode == 1 and "has no report.html" in done.stderr and "Traceback" not in done.stderr


def test_bad_recipes_exit_2_and_failed_runs_1(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    recipe_file = finished[0] / "r.toml"
    bad = seedbed("check", recipe_file, "--set", "generator.kind=sotf", "--set", "seed=-1")
    assert (bad.returncode, "2 problems." in bad.stderr, "Traceback" in bad.stderr) == (2, True, False)
    assert seedbed("check", recipe_file).returncode == 0
    other = seedbed("run", recipe_file, "--out", finished[0] / "runs", *TOY, "--set", "seed=5")
    assert (other.returncode, "--replace" in other.stderr) == (1, True)
    wrong = seedbed("check", recipe_file, "--set", "task.target=quue")
    assert wrong.returncode == 2
    assert "quue" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert seedbed("run").returncode == 2
    assert seedbed("nonsense").returncode == 2


def test_a_disk_that_takes_no_more_is_said(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    run = finished[0] / "runs/t"
    for out in (finished[0] / "r.toml" / "x", Path("/proc/x")):
        done = seedbed("export", run, "--format", "jsonl", "--out", out)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
        assert "Check the path, its permissions and the disk" in done.stderr
    small = f"ulimit -f 1; exec {sys.executable} -m seedbed export {run} --format jsonl --out {finished[0] / 'big.jsonl'}"
    done = subprocess.run(["bash", "-c", small], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr.startswith("File too large. Check")) == (1, True), done.stderr
    assert not (finished[0] / "big.jsonl").exists()


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.format(data=ROOT / "examples/helpdesk.csv"))
    args = [
        sys.executable,
        "-m",
        "seedbed",
        "run",
        str(tmp_path / "r.toml"),
        "--out",
        str(tmp_path / "runs"),
        *TOY,
        "--set",
        "generate.count=20000",
    ]
    heard: Any = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 (a shell may have its children ignore it)
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=heard)
    journal = None
    while process.poll() is None and not (journal and journal.stat().st_size > 10_000):
        journal = next(tmp_path.glob("runs/t/candidates-*/journal.jsonl"), None)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "go on with the same command" in errors
    assert "Traceback" not in errors
    assert journal is not None
    assert journal.stat().st_size > 10_000


def test_list_explain_env(tmp_path: Path) -> None:
    assert "soft" in json.loads(seedbed("list", "--json").stdout.splitlines()[-1])["generator"]
    explained = json.loads(seedbed("explain", "soft", "--json").stdout.splitlines()[-1])
    assert explained["settings"]["tokens"] == 16
    assert "arXiv" in (ROOT / "src/seedbed/generators/soft.py").read_text()
    assert "Did you mean 'dedup'" in seedbed("explain", "dedpu").stderr
    assert "has the methods of no role" in seedbed("explain", "seedbed.types:Prompt").stderr
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(3)\n")
    assert "fails to load: SystemExit: 3" in seedbed("explain", f"{tmp_path}/ends.py:X").stderr
    (tmp_path / "both.py").write_text(
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass X:\n    def judge(self): ...\n    def measure(self): ...\n"
    )
    assert seedbed("explain", f"{tmp_path}/both.py:X").stdout.startswith("filter, metric ")
    assert "has no class 'Y'. Its classes: X." in seedbed("explain", f"{tmp_path}/both.py:Y").stderr
    (tmp_path / "odd.py").write_text(
        "from dataclasses import dataclass\nclass D(dict): __hash__ = object.__hash__\n"
        "@dataclass(frozen=True)\nclass X:\n    s: D = D({(1, 2): 3})\n    def judge(self): ...\n"
    )
    assert "odd.py:X failed: TypeError" in seedbed("explain", f"{tmp_path}/odd.py:X").stderr
    assert seedbed("--version").stdout == f"seedbed {version('seedbed')}\n"
    assert "torch" in json.loads(seedbed("env", "--json").stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("header", "rows", "kind", "inputs", "target"),
    [
        ("message,queue", ["hello there,a", "good day,b", "how are you,a", "so long,b"], "classification", ["message"], "queue"),
        ("premise,hypothesis,label", ["a b,c,yes", "d,e,no", "f,g,yes", "h,i,no"], "pair", ["premise", "hypothesis"], "label"),
        ("passage,question,label", ["a b,c,yes", "d,e,no", "f,g,yes", "h,i,no"], "qa", ["passage", "question"], "label"),
        ("question,answer", ["one and two?,#### 3", "four?,#### 4"], "math", ["question"], "answer"),
        ("question,answer", ["one and two?,3", "two and two?,4", "one and four?,5", "two and four?,6"], "text2text", ["question"], "answer"),
        ("source,target", ["one two,eins zwei", "three,drei", "four,vier"], "text2text", ["source"], "target"),
        ("text", ["one two", "three"], "plain", ["text"], None),
        ("ticket_no,body,team,vip", ["T-1,a b,x,y", "T-2,c d,x,n", "T-3,e,z,n", "T-4,f,z,y"], "classification", ["body", "vip"], "team"),
    ],
)
def test_init_guesses_and_its_recipe_is_good(tmp_path: Path, header: str, rows: list[str], kind: str, inputs: list[str], target: str | None) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    text = recipe_for(file)
    task = tomllib.loads(text)["task"]
    assert (task["kind"], task["inputs"], task.get("target")) == (kind, inputs, target)
    (tmp_path / "mine.toml").write_text(text)
    assert recipe.load(tmp_path / "mine.toml").name == "mine"


def _labelled(path: Path, rows: int, header: str = "message,queue") -> Path:
    cells = (f"mail {path.stem} {i} about it,{'ab'[i % 2]}" for i in range(rows))
    path.write_text("\n".join([header, *cells]) + "\n")
    return path


def test_init_takes_files_that_are_split_already_and_inputs_to_label(tmp_path: Path) -> None:
    fit, test, pool = _labelled(tmp_path / "fit.csv", 60), _labelled(tmp_path / "test.csv", 120), tmp_path / "pool.csv"
    pool.write_text("message\n" + "".join(f"unlabelled {i}\n" for i in range(30)))
    for asked, sizes in (([], "60 rows in all"), (["--test", test], "test 120 rows"), (["--test", test, "--pool", pool], "test 120 rows")):
        made = seedbed("init", fit, *asked)
        assert made.returncode == 0, made.stderr
        (tmp_path / "r.toml").write_text(made.stdout)
        found = seedbed("check", tmp_path / "r.toml")
        assert found.returncode == 0 and (sizes in found.stdout or not asked), found.stderr + found.stdout
        got = tomllib.loads(made.stdout)
        assert got["sample"].get("test") == (str(test) if asked else None)
        assert got.get("annotate") == ({"path": str(pool)} if pool in asked else None)
    assert got["sample"] == {"fit": str(fit), "test": str(test), "dev_share": 0.2}


def test_init_looks_at_the_columns_of_every_file(tmp_path: Path) -> None:
    fit, other = _labelled(tmp_path / "fit.csv", 60), _labelled(tmp_path / "other.csv", 9, "text,team")
    with pytest.raises(DataError, match=r"other\.csv: no columns \['message', 'queue'\]"):
        recipe_for(fit, test=other)
    with pytest.raises(DataError, match=r"other\.csv: no column 'message'"):
        recipe_for(fit, pool=other)
    with pytest.raises(DataError, match="no such file"):
        recipe_for(fit, test=tmp_path / "tset.csv")
    with pytest.raises(RecipeError, match=r"--pool .*plain"):
        recipe_for(fit, "plain", pool=other)


def test_init_says_what_it_left_out_and_what_else_might_be_the_label(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("ticket_no,body,team,vip\nT-1,a b,x,y\nT-2,c d,x,n\nT-3,e,z,n\nT-4,f,z,y\n")
    said = [line for line in recipe_for(file).splitlines() if line.startswith(("# left out", "# vip", "# body"))]
    assert said == ["# left out: ticket_no", "# vip has 2 values: --target vip would predict it"]
    assert "# left out" not in recipe_for(file, None, ["body"], "team")


def test_init_takes_any_name_and_columns_that_the_first_row_lacks(tmp_path: Path) -> None:
    file = tmp_path / "né\U0001f600 \x7f.jsonl"
    rows = [{"id": 0}, *({"id": i, "m\U0001f600": f"text {i}", "quéue": "ab"[i % 2]} for i in range(1, 9))]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = tomllib.loads(recipe_for(file))
    assert made["task"] == {"kind": "classification", "inputs": ["m\U0001f600"], "target": "quéue"}
    assert made["sample"]["path"] == str(file)


def test_check_says_what_would_let_the_gain_be_measured(tmp_path: Path) -> None:
    rows = [f"mail {i} about {'ab'[i % 2]},{'ab'[i % 2]}" for i in range(400)]
    (tmp_path / "r.toml").write_text(RECIPE.format(data="m.csv"))
    for many, sample, said in (
        (15, [], "There are 15 rows in all: label 5 more, and give sample.folds = 5."),
        (15, ["--set", "sample.folds=3"], "it needs 20 test rows, got 15. Label 5 more."),
        (60, [], "There are 60 rows in all: give sample.folds = 5, and each is tested once, by rows grown without it."),
        (60, ["--set", "sample.folds=3"], ""),
        (400, ["--set", "sample.test_share=0.1"], "Give sample.test_share = 0.25."),
        (90, ["--set", 'sample={fit="m.csv", test="m.csv"}'], "Add 10 to m.csv. Or put all 180 rows into one file and give sample.folds = 5"),
        (400, [], ""),
    ):
        (tmp_path / "m.csv").write_text("\n".join(["message,queue", *rows[:many]]) + "\n")
        found = CliRunner().invoke(app, ["check", str(tmp_path / "r.toml"), *sample])
        assert found.exit_code == 0 and (said in found.stdout if said else "the gain" not in found.stdout), found.output


def test_check_says_that_a_prompt_has_no_decoder_to_start_from(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.format(data="m.csv"))
    (tmp_path / "m.csv").write_text("message,queue\n" + "".join(f"mail {i} about it,{'ab'[i % 2]}\n" for i in range(400)))
    for prompt, decoder, said in (("amortised-lora", "", False), ("amortised", "no.safetensors", True), ("mc", "no.safetensors", False)):
        soft = f'generator={{kind="soft", prompt="{prompt}", decoder="{decoder}"}}'
        found = CliRunner().invoke(app, ["check", str(tmp_path / "r.toml"), "--set", soft])
        assert found.exit_code == 0 and ("seedbed pretrain-prompt" in found.stdout) is said, found.output


def test_check_names_labels_that_no_test_row_has_and_says_all_as_json(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.format(data="m.csv"))
    for part, labels in (("fit", "abc" * 40), ("test", "abz" * 40)):
        (tmp_path / f"{part}.csv").write_text("message,queue\n" + "".join(f"{part} {i} says {c * 9},{c}\n" for i, c in enumerate(labels)))
    asked = ["check", str(tmp_path / "r.toml"), "--json", "--set"]
    found = CliRunner().invoke(app, [*asked, 'sample={fit="fit.csv", test="test.csv"}'])
    said = json.loads(found.stdout.splitlines()[-1])
    assert (said["good"], said["rows"]["test"], said["labels"]) == (True, 120, ["a", "b", "c"])
    assert said["notes"] == [
        "the gain will say nothing of 'c', which no test row has; nobody can be right on test rows of 'z', which no row of fit or dev has."
    ]
    assert f"note: {said['notes'][0]}" in found.stdout
    bad = CliRunner().invoke(app, [*asked, "seed=-1"])
    assert bad.exit_code != 0
    assert "seed" in json.loads(bad.stdout.splitlines()[-1])["problems"][0]


def test_check_says_where_a_student_is_taught_by_its_like(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("message,queue\n" + "".join(f"mail {i} about {'ab'[i % 2]},{'ab'[i % 2]}\n" for i in range(400)))
    written = recipe_for(tmp_path / "m.csv")
    assert tomllib.loads(written)["student"]["features"] == "tfidf"
    (tmp_path / "r.toml").write_text(written)
    for changes, said in (([], False), (["student.features=minilm"], True), (["student.features=minilm", "generate.relabel=false"], False)):
        found = CliRunner().invoke(app, ["check", str(tmp_path / "r.toml"), *(part for change in changes for part in ("--set", change))])
        assert found.exit_code == 0 and ("has nothing to teach it" in " ".join(found.stdout.split())) == said, (changes, found.output)


def test_help_shows_sections_in_brackets_and_cuts_no_summary() -> None:
    assert "recipe's [[arm]]s" in CliRunner().invoke(app, ["compare", "--help"]).stdout
    assert "..." not in CliRunner().invoke(app, ["--help"]).stdout.replace("[ARGS]...", "")


def test_init_takes_no_dates_for_texts_and_of_several_texts_the_longest(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    for day in ("2026-10-{:02d}", "{}.10.2026", "{}/10/26 09:30", "2026-10-{:02d}T09:30:00Z"):
        lines = [f"{day.format(1 + i % 9)},ask {i % 7},a longer mail {i % 13} about it,{'ab'[i % 2]}" for i in range(40)]
        file.write_text("\n".join(["received,subject,email,queue", *lines]) + "\n")
        assert tomllib.loads(recipe_for(file))["task"]["inputs"] == ["subject", "email"]
        assert tomllib.loads(recipe_for(file, "plain"))["task"]["inputs"] == ["email"]


def test_init_names_what_does_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("message,queue\na,b\nc,d\n")
    with pytest.raises(RecipeError) as caught:
        recipe_for(file, "pear", ["mesage"], "q")
    assert len(caught.value.problems) == 3
    with pytest.raises(DataError):
        recipe_for(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("rows", "test", "prompt"),
    [
        (16, 0.25, "amortised-lora"),
        (20, None, "amortised-lora"),
        (199, None, "amortised-lora"),
        (200, 0.5, "amortised-lora"),
        (300, 0.34, "mc"),
        (500, 0.25, "mc"),
    ],
)
def test_init_gives_up_no_row_where_there_are_few_and_tests_on_a_hundred_where_there_are_more(
    tmp_path: Path, rows: int, test: float | None, prompt: str
) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("message,queue\n" + "".join(f"mail {i} about it,{'ab'[i % 2]}\n" for i in range(rows)))
    written = tomllib.loads(recipe_for(file))
    assert written["sample"].get("test_share") == test and written["sample"].get("folds") == (5 if test is None else None)
    assert written["generator"]["prompt"] == prompt
    assert rows < 200 or rows * written["sample"]["test_share"] >= 100


def test_a_recipe_of_init_fails_a_run_that_would_ship_personal_data(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("message,queue\n" + "".join(f"mail {i} about it,{'ab'[i % 2]}\n" for i in range(300)))
    assert {"kind": "pii"} in tomllib.loads(recipe_for(file))["metric"]


@pytest.mark.parametrize(("rows", "epochs"), [(30, 50), (400, 50), (2000, 10), (50_000, 1)])
def test_init_lets_a_prompt_read_twenty_thousand_rows_in_fifty_epochs_at_most_and_one_at_least(tmp_path: Path, rows: int, epochs: int) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("message,queue\n" + "".join(f"mail {i} about it,{'ab'[i % 2]}\n" for i in range(rows)))
    assert tomllib.loads(recipe_for(file))["generator"]["epochs"] == epochs

"""Folds: each row is tested once, by a student and by rows that never saw it; the gain is that of all rows together."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_data import PASSAGES, TICKETS, ids, lines, put, sample_of, tickets
from test_gain import STUDENT, Notebook, Scripted, renamed, rows
from test_run import ROOT, TOY, _snapshot, started

from seedbed import recipe as recipes
from seedbed.compare import compare
from seedbed.data import SampleSpec, load_sample
from seedbed.errors import DataError, RecipeError, StoreError
from seedbed.estimate import estimate
from seedbed.evaluate import evaluate
from seedbed.gain import MIN_FOLDED, measure_gain, uneven
from seedbed.grow import step_names
from seedbed.init import recipe_for
from seedbed.limits import Limits
from seedbed.run import run, sealed
from seedbed.shards import make_shard
from seedbed.show import state_of
from seedbed.store import read_json, read_lines, write_json
from seedbed.task import Task
from seedbed.types import Example, Sample, seed_for
from seedbed.verify import verify

FOLDED: dict[str, Any] = TOY | {"sample": {"path": "desk.csv", "folds": 4}, "generate": TOY["generate"] | {"count": 60}, "metric": []}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 60 rows of the example."""
    folder = tmp_path_factory.mktemp("desk")
    head, *body = (ROOT / "examples/helpdesk.csv").read_text().splitlines()
    (folder / "desk.csv").write_text("\n".join([head, *random.Random(1).sample(body, 60)]) + "\n")
    return folder


@pytest.fixture(scope="module")
def whole(desk: Path) -> Path:
    return run(recipes.build(FOLDED, desk), desk / "runs").folder


# How rows are divided


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("seed", [1, 2])
def test_each_row_is_in_one_test_and_in_no_training_row_of_that_fold(tmp_path: Path, k: int, seed: int) -> None:
    rows = tickets({"a": 31, "b": 20, "c": 6, "lone": 1})
    sample = sample_of(tmp_path, rows, seed=seed, folds=k)
    assert not sample.test and sample.n == len(rows) and len(sample.folds) == k
    every = {e.id for e in (*sample.fit, *sample.dev)}
    for fold in sample.folds:
        train = {e.id for e in (*fold.fit, *fold.dev, *fold.more)}
        assert train | {e.id for e in fold.test} == every and not train & {e.id for e in fold.test}
        assert {e.fields["queue"] for e in fold.test} <= set(fold.task.labels), "a label that no student could learn is not asked for"
    assert Counter(e.id for fold in sample.folds for e in fold.test) == Counter(every - {e.id for e in sample.fit if e.fields["queue"] == "lone"})
    assert {len(fold.test) for fold in sample.folds} <= {57 // k, 57 // k + 1}
    for label, n in (("a", 31), ("b", 20), ("c", 6)):
        assert {sum(e.fields["queue"] == label for e in fold.test) for fold in sample.folds} <= {n // k, n // k + 1}
    assert [ids(f.test) for f in sample.folds] == [ids(f.test) for f in sample_of(tmp_path, rows, seed=seed + 7, folds=k).folds]


@pytest.mark.parametrize("spec", [{}, {"rows": 40}, {"fraction": 0.25}])
def test_a_passage_is_never_on_both_sides_of_a_fold(tmp_path: Path, spec: dict[str, Any]) -> None:
    rows = [{"passage": f"p{i % 23}", "question": f"q{i}", "label": "yes" if i % 3 else "no"} for i in range(160)]
    sample = sample_of(tmp_path, rows, PASSAGES, folds=4, **spec)
    assert sample.n == {"rows": 40, "fraction": 40}.get(next(iter(spec), ""), 160)
    assert sorted(e.id for fold in sample.folds for e in fold.test) == sorted(e.id for e in (*sample.fit, *sample.dev, *sample.more)) or spec
    for fold in sample.folds:
        sides = [{e.fields["passage"] for e in part} for part in (fold.fit, fold.dev, fold.test, fold.more)]
        assert not (sides[0] | sides[1] | sides[3]) & sides[2]
        assert not sides[1] & (sides[0] | sides[3])
        assert fold.n == {"rows": 40, "fraction": round(0.25 * (160 - len(fold.test)))}.get(next(iter(spec), ""), 160 - len(fold.test))


def test_a_row_of_the_dev_file_that_stands_in_the_test_of_a_fold_is_no_dev_row_there(tmp_path: Path) -> None:
    rows = tickets({"a": 20, "b": 20})
    put(tmp_path / "fit.jsonl", lines(rows))
    put(tmp_path / "dev.jsonl", lines(rows[10:30]))
    sample = load_sample(SampleSpec(fit="fit.jsonl", dev="dev.jsonl", folds=4), TICKETS, 1, tmp_path)
    assert len(sample.dev) == 20
    for fold in sample.folds:
        tested = {e.fields["message"] for e in fold.test}
        assert fold.dev and not tested & {e.fields["message"] for e in fold.dev}


def test_canaries_are_planted_in_the_run_and_in_no_fold(tmp_path: Path) -> None:
    sample = sample_of(tmp_path, tickets({"a": 30, "b": 30}), folds=3, canaries=2)
    assert [len(s.canaries) for s in (sample, *sample.folds)] == [2, 0, 0, 0]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"path": "a", "folds": 1}, "greater than or equal to 2"),
        ({"path": "a", "folds": 5, "test_share": 0.25}, "'test_share' has no use when 'folds' makes each row a test row once"),
        ({"fit": "a", "test": "b", "folds": 5}, "'folds' tests on the training rows, each once, and 'test' names a file"),
    ],
)
def test_settings_that_contradict_each_other(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SampleSpec(**spec)


def test_too_few_rows_for_the_folds(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"folds = 9 need .* different 'message'\. Got 6 beside labels' only rows, which are in no test\. Lower 'folds' or add rows",
    ):
        sample_of(tmp_path, tickets({"a": 3, "b": 3, "lone": 1}), folds=9)
    put(tmp_path / "fit.jsonl", lines(tickets({"a": 10, "b": 10})))
    with pytest.raises(DataError, match="'rows' asks for 50 training rows"):
        load_sample(SampleSpec(fit="fit.jsonl", folds=2, rows=50), TICKETS, 1, tmp_path)


def test_rows_that_stay_together_are_dealt_so_that_folds_are_even_and_what_cannot_be_even_is_said(tmp_path: Path) -> None:
    rows = [row | {"author": f"a{i}" if i < 20 else f"b{i % 4}"} for i, row in enumerate(tickets({"a": 60}))]
    rows = [row | {"queue": "ab"[i % 2]} for i, row in enumerate(rows)]  # 20 authors of one row, 4 of ten
    task = Task("classification", ("message",), "queue", group="author")
    even = sample_of(tmp_path, rows, task, folds=4)
    assert sorted(len(f.test) for f in even.folds) == [15] * 4 and uneven(even) == ""
    giant = sample_of(tmp_path, [row | {"author": "b" * (i >= 20) or row["author"]} for i, row in enumerate(rows)], task, folds=4)
    (largest,) = (f for f in giant.folds if len(f.test) >= 40)
    most = max(f.n for f in giant.folds)
    said = f"{len(largest.test)} of 60 test rows are in one of 4, for rows with equal 'message' and 'author' stay together"
    assert said in uneven(giant) and f"know {largest.n} real rows, not {most}, and students of every fold learn from as few" in uneven(giant)
    gain = measure_gain(giant, [], Scripted(), 0, folds=[renamed(f.fit) for f in giant.folds], seeds=1, volumes=())
    assert gain.arms["real"].n_train == len(largest.fit) and uneven(giant) in gain.note


def test_a_fold_that_cannot_be_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"4 rows, 2 of them in a fold's test, give 2 for fit and 0 for dev.* change 'rows', 'fraction', 'folds' or"):
        sample_of(tmp_path, tickets({"a": 2, "b": 2}), folds=2)


# The gain


def folded(n: int = 60, k: int = 4, seed: int = 0, dev: int = 6, task: Task | None = None) -> Sample:
    """n rows in k folds."""
    every = rows(n, seed, "real")
    parts = []
    for i in range(k):
        test, train = every[i::k], [e for j, e in enumerate(every) if j % k != i]
        parts.append(Sample(task or Task("classification", ("text",), "label"), tuple(train[dev:]), tuple(train[:dev]), tuple(test)))
    return Sample(parts[0].task, tuple(every[dev:]), tuple(every[:dev]), (), folds=tuple(parts))


def test_no_student_learns_a_row_that_it_is_tested_on_and_all_learn_from_equally_many() -> None:
    s, student = folded(62), Scripted()
    gain = measure_gain(
        s,
        [],
        student,
        0,
        folds=[rows(20 + i, i, f"new{i}") for i in range(4)],
        seeds=1,
        volumes=(),
    )
    tests = [{e.id for e in fold.test} for fold in s.folds]
    sizes: dict[int, set[tuple[int, int]]] = {}
    for number, (learned, dev, _) in enumerate(student.calls):
        fold = number % 4
        assert not tests[fold] & {*learned, *dev}
        assert {i.split("-")[0] for i in learned if i.startswith("new")} <= {f"new{fold}"}, "the rows that were grown without this fold"
        made = sum(i.startswith("new") for i in learned)
        sizes.setdefault(number // 4, set()).add((len(learned) - made, made))
    assert all(len(found) == 1 for found in sizes.values()), "equal n in every fold"
    assert {arm: entry.n_train for arm, entry in gain.arms.items()} == {"real": 40, "synthetic": 20, "both": 60}


def test_the_score_is_that_of_all_answers_together() -> None:
    """16, 16, 16 and 14 test rows: half right in each fold is half right in all."""
    s, book = folded(62), Notebook()
    gain = measure_gain(s, [], STUDENT, 0, folds=[renamed(f.fit) for f in s.folds], seeds=2, volumes=(), unit=book)
    for arm in ("real", "both"):
        n, right = gain.arms[arm].n_train, list[float]()
        for seed in range(2):
            said = [(json.loads(book.kept[f"{arm}/{n}/{seed}/{i}"]), fold.test) for i, fold in enumerate(s.folds)]
            right.append(sum(p == e.fields["label"] for answers, test in said for p, e in zip(answers, test, strict=True)) / 62)
        assert gain.arms[arm].mean == pytest.approx(100 * sum(right) / 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_sixty_rows_can_show_a_gain_and_copies_show_none(seed: int) -> None:
    s = folded(60, 2, seed, dev=18)
    more = measure_gain(s, [], STUDENT, seed, folds=[rows(240, seed, f"new{i}") for i in range(2)], volumes=())
    assert more.difference is not None and more.difference.low > 0, more.verdict
    copies = measure_gain(s, [], STUDENT, seed, folds=[renamed(f.fit) for f in s.folds], volumes=())
    assert copies.difference is not None and copies.difference.low <= 0 <= copies.difference.high
    assert "over 2 folds" in copies.note
    assert copies.smallest_detectable is not None and copies.smallest_detectable >= 400 / 60


def test_what_cannot_be_measured_says_why() -> None:
    few = folded(MIN_FOLDED - 1)
    assert (
        f"needs at least {MIN_FOLDED} test rows, got {MIN_FOLDED - 1}"
        in measure_gain(few, [], STUDENT, 0, folds=[renamed(f.fit) for f in few.folds]).note
    )
    s = folded(MIN_FOLDED)
    assert measure_gain(s, renamed(s.fit), STUDENT, 0).note.startswith("a limit came before all folds were grown")
    empty: list[list[Example]] = [[], *(renamed(f.fit) for f in s.folds[1:])]
    assert measure_gain(s, [], STUDENT, 0, folds=empty).note == "no synthetic rows were kept in one of the folds"


# Whole runs


def test_a_run_measures_its_gain_on_every_row_with_rows_grown_without_it(whole: Path, desk: Path) -> None:
    recipe = recipes.build(FOLDED, desk)
    sample = load_sample(recipe.sample, recipe.task, recipe.seed, desk)
    scores, manifest = (read_json(whole / name) for name in ("scores.json", "manifest.json"))
    assert scores["gain"]["difference"]["mean"] is not None and manifest["sizes"]["test"] == sum(f["test"] for f in scores["counts"]["folds"])
    kept = [read_lines(path) for path in sorted((whole / "folds").glob("kept-*/kept.jsonl"))]
    assert sorted(map(len, kept)) == sorted(f["kept"] for f in scores["counts"]["folds"])
    tests = [{e.id for e in f.test} for f in sample.folds]
    for grown in kept:
        sources = {s for row in grown for s in row["provenance"]["sources"]}
        assert sum(not sources & test for test in tests) == 1, "a fold's rows are made of its training rows, which are in the tests of the others"
    page = (whole / "report.html").read_text()
    assert "each in one of 4 folds, whose synthetic rows and students knew none of its test rows" in page
    assert "each in one of 4 folds" in (whole / "dataset/README.md").read_text()
    assert [c for c in verify(whole, desk / "desk.toml") if c.passed is False] == []


def test_show_names_the_steps_of_folds_too(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "tiny")
    begun = next((tmp_path / "tiny/folds").glob("candidates-*"))
    begun.rename(begun.with_name(f"{begun.name}.partial"))
    (tmp_path / "tiny/scores.json").unlink()
    steps = state_of(tmp_path / "tiny")["steps"]
    assert Counter(name.split("-")[0] for name in steps if name.startswith("folds/")) == {f"folds/{s}": 4 for s in ("teacher", "candidates", "kept")}
    assert [name for name, what in steps.items() if what.startswith("in the making")] == [f"folds/{begun.name}.partial"]


def _dies(desk: Path, out: Path, where: str, ending: str) -> None:
    """The run, which kills itself where a path with this in it and this ending was to be renamed or removed."""

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event in ("os.rename", "os.remove") and where in str(args[0]) and str(args[0]).endswith(ending):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    run(recipes.build(FOLDED, desk), out)


def test_killed_in_each_step_of_a_fold_and_the_same_bytes(whole: Path, desk: Path, tmp_path: Path) -> None:
    """Where it was to be made whole; of candidates also where all rows stand in parts, and the journal of them beside."""
    for where in (
        "folds/teacher-*.partial",
        "folds/candidates-*/journal.jsonl",
        "folds/candidates-*.partial",
        "folds/kept-*.partial",
        "tiny/scores-*",
    ):
        process = started(_dies, desk, tmp_path, *where.split("*"))
        process.join()
        assert process.exitcode == -signal.SIGKILL, where
    run(recipes.build(FOLDED, desk), tmp_path)
    assert _snapshot(tmp_path / "tiny") == _snapshot(whole)


@pytest.mark.slow
def test_shards_of_the_dataset_and_folds_by_the_last_command_give_the_bytes_of_one_process(whole: Path, desk: Path, tmp_path: Path) -> None:
    recipe = recipes.build(FOLDED, desk)
    assert [make_shard(recipe, tmp_path, number, 2)[1:] for number in (1, 2)] == [(0, 0), (0, 60)]
    run(recipe, tmp_path)
    assert _snapshot(tmp_path / "tiny") == _snapshot(whole)


@pytest.mark.parametrize("step", ["teacher", "candidates", "kept"])
@pytest.mark.parametrize("harm", ["changed", "missing", "truncated", "added"])
def test_verify_names_a_file_of_a_fold_that_is_not_what_the_run_wrote(whole: Path, tmp_path: Path, step: str, harm: str) -> None:
    folder = shutil.copytree(whole, tmp_path / "tiny")
    path = max((p for p in (folder / "folds").glob(f"{step}-*/*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = path.read_bytes()
    if harm == "missing":
        path.unlink()
    elif harm == "added":
        path = path.with_name("more.jsonl")
        path.touch()
    else:
        path.write_bytes(content[:-20] if harm == "truncated" else content.replace(b"a", b"b", 1))
    found = {c.name: c.why for c in verify(folder) if c.passed is False}
    assert path.relative_to(folder).as_posix() in found["files"]


@pytest.mark.slow
def test_what_is_under_way_says_which_fold_it_is_of(
    desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seedbed.progress.PLAIN_EVERY_S", -1)
    two = FOLDED | {"sample": {"path": "desk.csv", "folds": 2}, "gain": {"seeds": 1, "volumes": [1]}}
    run(recipes.build(two, desk), tmp_path)
    first, second, said = re.split(r"^fold [12] of 2, about [\d,]+ s for all that are left\n", capsys.readouterr().err, flags=re.M)
    assert "generate: " in first and "fold" not in first
    assert "fold 1 of 2, generate: " in second and "fold 2 of 2, generate: " in said
    assert re.search("^students: ", said, re.M)


def test_a_damaged_file_of_a_fold_is_named_and_right_after_it_is_removed(whole: Path, desk: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "tiny")
    shutil.rmtree(next(folder.glob("scores-*")))
    path = next((folder / "folds").glob("candidates-*/engine.json"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=rf"{re.escape(str(path))} is missing or damaged: .*\. Remove it and run the recipe again"):
        run(recipes.build(FOLDED, desk), tmp_path)
    path.unlink()
    run(recipes.build(FOLDED, desk), tmp_path)
    assert _snapshot(folder) == _snapshot(whole)


def test_verify_counts_names_and_sifts_the_rows_of_folds_anew(whole: Path, desk: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "tiny")
    recipe = desk / "counted.toml"
    recipe.write_text(recipes.build(FOLDED, desk).to_toml())
    manifest = read_json(folder / "manifest.json")
    first, second = manifest["folds"][:2]
    path = folder / "folds" / second["kept"] / "kept.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    forged = manifest | {"folds": [first | {"teacher": second["teacher"]}, *manifest["folds"][1:]]}
    write_json(folder / "manifest.json", forged | {"files": sealed(folder, forged)})
    found = {c.name: c.why for c in verify(folder, recipe) if c.passed is False}
    assert found.keys() == {"counts", "names", "verdicts"}
    assert "kept.jsonl of fold 2, line 1: " in found["verdicts"]
    assert "kept rows of the folds are" in found["counts"] and f"step teacher of fold 1 should be {first['teacher']}" in found["names"]
    write_json(folder / "manifest.json", forged | {"folds": [first | {"kept": "../kept-1"}]})
    with pytest.raises(StoreError, match="its steps are no names of folders in the run"):
        verify(folder)


@pytest.mark.slow
def test_a_limit_leaves_the_rows_and_no_gain_and_going_on_gives_the_bytes_of_a_run_without_it(whole: Path, desk: Path, tmp_path: Path) -> None:
    recipe = recipes.build(FOLDED, desk)
    limit, seen = Limits(tokens=4000), list[str]()
    for _ in range(20):
        done = run(recipe, tmp_path, limits=limit)
        if "cut" not in done.scores:
            break
        cut = done.scores["cut"]
        if "fold" in cut:
            seen.append(cut["fold"])
            assert (
                done.scores["gain"]["note"].startswith("a limit came before all folds were grown") and f"rows of fold {cut['fold']}" in done.verdict
            )
            newest = max(done.folder.glob("kept-*/kept.jsonl"), key=lambda path: path.stat().st_mtime_ns)  # a cut of the rows left one too
            assert done.scores["counts"]["kept"] == len(read_lines(newest))
    assert len(seen) > 1 and seen == sorted(seen)
    again = _snapshot(tmp_path / "tiny")
    assert {name: again.get(name) for name in _snapshot(whole)} == _snapshot(whole)


@pytest.mark.slow
def test_where_no_gain_can_be_measured_no_fold_is_grown_nor_priced(desk: Path, tmp_path: Path) -> None:
    raw = FOLDED | {"task": {"kind": "plain", "inputs": ["message"]}, "filter": [{"kind": "dedup"}]}
    recipe = recipes.build(raw, desk)
    assert "folds" not in " ".join(estimate(recipe, tmp_path).assumed)
    done = run(recipe, tmp_path)
    assert done.scores["gain"]["note"] == "a plain task has no target to predict" and "folds" not in done.scores["counts"]
    assert not (done.folder / "folds").exists()
    found = compare(recipe, seeds=1, out=tmp_path)
    assert len(list(found.folder.glob("kept-*"))) == 1 and "a plain task has no target to predict" in found.rows[-1]["note"]
    assert "folds" not in recipe_for(desk / "desk.csv", "plain", ["message"])


@pytest.mark.slow
def test_scores_of_a_run_that_a_limit_cut_are_not_those_of_a_whole_run_of_as_many_rows(desk: Path, tmp_path: Path) -> None:
    cut = run(recipes.build(FOLDED, desk), tmp_path, limits=Limits(tokens=2000)).scores
    assert 0 < cut["cut"]["rows"] < 60 and "fold" not in cut["cut"] and cut["gain"]["difference"]["mean"] is None
    fewer = FOLDED | {"generate": FOLDED["generate"] | {"count": cut["cut"]["rows"]}}
    assert run(recipes.build(fewer, desk), tmp_path, replace=True).scores["gain"]["difference"]["mean"] is not None


@pytest.mark.slow
def test_an_estimate_counts_every_fold(whole: Path, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seedbed.estimate.SMALL", 20)  # rows of the trials of filters and student, of which nothing is asked here
    monkeypatch.setattr("seedbed.estimate.LARGE", 40)
    recipe = recipes.build(FOLDED, desk)
    one = estimate(recipes.build(FOLDED | {"sample": {"path": "desk.csv"}}, desk), tmp_path)
    five = estimate(recipe, tmp_path)
    assert 4 < five.steps["candidates"].tokens / one.steps["candidates"].tokens < 6
    assert "4 folds" in " ".join(five.assumed)
    assert five.steps["scores"].note.endswith("students") and int(five.steps["scores"].note.split()[0]) % 4 == 0
    shutil.copytree(whole, tmp_path / "tiny")
    finished = estimate(recipe, tmp_path).steps
    assert {name: c.basis for name, c in finished.items()} == dict.fromkeys(finished, "finished")
    shutil.rmtree(next((tmp_path / "tiny/folds").glob("candidates-*")))
    assert 0 < estimate(recipe, tmp_path).steps["candidates"].tokens < one.steps["candidates"].tokens * 1.5


def test_rows_made_elsewhere_may_have_been_made_of_any_row(whole: Path, desk: Path, tmp_path: Path) -> None:
    path = desk / "desk.toml"
    path.write_text(recipes.build(FOLDED, desk).to_toml())
    with pytest.raises(RecipeError, match=r"may have been made of any of these\. Give real ones with --real"):
        evaluate(str(whole / "dataset"), None, path, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_dataset_of_a_run_with_folds_is_not_tested_on_the_rows_that_it_was_made_of(whole: Path, desk: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"made with folds, of all its real rows; \d+ of \d+ test rows are among them, such as 'desk-"):
        evaluate(str(whole / "dataset"), str(desk / "desk.csv"), out=tmp_path)
    shutil.copy(ROOT / "examples/helpdesk.csv", tmp_path / "others.csv")
    quick = ["metric=[]", "gain.seeds=1", "gain.volumes=[]"]
    assert evaluate(str(whole / "dataset"), str(tmp_path / "others.csv"), out=tmp_path, sets=quick).scores["gain"]["difference"]["mean"] is not None


def test_a_folds_pool_holds_no_input_of_its_test(tmp_path: Path) -> None:
    rows = tickets({"a": 20, "b": 20})
    put(tmp_path / "all.jsonl", lines(rows))
    put(tmp_path / "pool.jsonl", lines([{"message": row["message"]} for row in rows] + [{"message": "another"}]))
    sample = load_sample(SampleSpec(path="all.jsonl", folds=4, pool="pool.jsonl"), TICKETS, 1, tmp_path)
    assert len(sample.pool) == 41
    for fold in sample.folds:
        assert {e.fields["message"] for e in fold.pool} == {r["message"] for r in rows} - {e.fields["message"] for e in fold.test} | {"another"}


@pytest.mark.slow
def test_a_comparison_scores_the_answers_of_all_folds_together_and_goes_on_where_it_stopped(desk: Path, tmp_path: Path) -> None:
    two = {"sample": {"path": "desk.csv", "folds": 2}}
    recipe = recipes.build(FOLDED | two | {"arm": [{"name": "few"}, {"name": "fewer", "generator": {"kind": "hard", "shots": 2}}]}, desk)
    stopped = compare(recipe, seeds=2, out=tmp_path, hours=1e-7)
    assert stopped.unfinished and {r["mean"] for r in stopped.rows} == {None}
    found = compare(recipe, seeds=2, out=tmp_path)
    real, few, fewer = found.rows
    right = []
    for s in range(2):
        sample = load_sample(recipe.sample, recipe.task, seed_for(recipe.seed, "compare", s) if s else recipe.seed, desk)
        for fold in sample.folds:
            student = recipe.student.settings.learn(fold.task, list(fold.fit), fold.dev, seed_for(recipe.seed, "compare", "student", s))
            right += [p == e.fields["queue"] for p, e in zip(student.predict(fold.test), fold.test, strict=True)]
    assert real["mean"] == pytest.approx(100 * sum(right) / len(right)) and len(right) == 2 * len(sample.tested)
    assert few["n_kept"] == fewer["n_kept"] == min(few["kept"] + fewer["kept"]) and few["gain"] is not None and len(few["kept"]) == 2
    lent = [path.relative_to(tmp_path / "tiny-best") for path in (tmp_path / "tiny-best/folds").glob("*/*")]
    assert {path.parts[1].split("-")[0] for path in lent} >= {"teacher", "candidates", "kept"}
    best = recipes.load(found.folder / "best.toml")
    in_folds = load_sample(best.sample, best.task, best.seed, best.base).folds
    assert all((tmp_path / "tiny-best/folds" / step_names(best, fold)["kept"]).is_dir() for fold in in_folds)
    before = (found.folder / "units.jsonl").read_bytes()
    again = compare(recipe, seeds=2, out=tmp_path).rows
    assert [row | {"seconds": 0} for row in again] == [row | {"seconds": 0} for row in found.rows]
    assert (found.folder / "units.jsonl").read_bytes() == before

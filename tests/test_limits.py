"""Limits end a run early with a valid result, cost nothing twice, and leave no trace in the bytes of the run that goes on."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_run import REAL, ROOT, TOY, _snapshot

from seedbed import recipe as recipes
from seedbed import run as runs
from seedbed.candidates import complete, read_candidates
from seedbed.engines.toy import ToySession
from seedbed.errors import RunFailed
from seedbed.fleet import _Worker
from seedbed.generators.hard import Hard
from seedbed.generators.soft import Soft
from seedbed.limits import NEVER, STOPPED, Allowance, Deadline, Limits
from seedbed.lm import loop
from seedbed.run import run
from seedbed.show import rows_of
from seedbed.testing import tiny_sample
from seedbed.types import Completion, Prompt, Sampling


def _ticks(n: int) -> Deadline:
    """Over when its clock has been read n times: each step of a fit reads it once."""
    return Deadline(n, itertools.count(1).__next__)


def test_shares_of_a_deadline() -> None:
    assert Deadline(20.0, lambda: 10.0).share(0.25).at == 12.5
    assert NEVER.share(0.5).at == NEVER.at
    assert not NEVER.over()
    assert Deadline(10.0, lambda: 10.0).over()


@pytest.mark.parametrize("bad", [{"minutes": 0}, {"minutes": float("nan")}, {"tokens": 0}])
def test_limits_are_positive(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Got"):
        Limits(**bad)


def test_what_is_left_of_limits_is_none_where_one_is_used_up() -> None:
    half = Deadline(90.0, lambda: 60.0)
    assert Limits().left(NEVER, 7) == Limits()
    assert Limits(2.0, 10, 1.5).left(half, 9) == Limits(0.5, 1, 1.5)
    assert Limits(2.0, 10).left(half, 10) is None
    assert Limits(2.0).left(Deadline(60.0, lambda: 60.0), 0) is None


def test_an_allowance_is_never_exceeded_and_used_where_it_can_be() -> None:
    allowance = Allowance(10, 25)
    assert [allowance.start() for _ in range(3)] == [True, True, False]
    allowance.end(2)
    assert allowance.start()
    assert not allowance.start()
    assert not Allowance(26, 25).start()


class _Counted(ToySession):
    """The toy engine; adds up what it generates."""

    generated = 0

    def complete(self, prompts: Iterable[tuple[int, Prompt]], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        for key, completion in super().complete(prompts, sampling):
            _Counted.generated += completion.tokens
            yield key, completion


@pytest.mark.parametrize("tokens", [61, 500, 2000])
def test_generated_tokens_stay_under_the_limit_and_going_on_gives_the_same_parts(tmp_path: Path, tokens: int) -> None:
    sample, hard = tiny_sample(), Hard(shots=4)
    (tmp_path / "teacher").mkdir()
    hard.fit(sample, "toy", 0, tmp_path / "teacher")
    teacher = hard.load(tmp_path / "teacher", sample.task, "toy")

    def go(folder: str, limit: int | None = None) -> tuple[int, list[Any], int]:
        (tmp_path / folder).mkdir(exist_ok=True)
        _Counted.generated, how = 0, Sampling(1.0, 1.0, 60)
        session = _Counted(4, 0.01, teacher.model)
        rows, uncut = complete(tmp_path / folder, teacher, session, sample, 53, 1, how, part_rows=7, allowance=Allowance(60, limit))
        return rows, uncut, _Counted.generated

    rows, uncut, all_tokens = go("whole")
    assert (rows, uncut) == (53, [])
    whole = read_candidates(tmp_path / "whole", 53)
    spent, done = 0, 0
    while done < 53:
        rows, uncut, generated = go("cut", tokens)
        assert generated <= tokens
        assert rows == 53 or generated > tokens - 60, "as much as is sure to fit"
        assert [*read_candidates(tmp_path / "cut", rows), *uncut] == whole[:rows]
        assert rows > done
        spent, done = spent + generated, rows
    assert spent == all_tokens, "no token was generated twice"
    assert _snapshot(tmp_path / "cut") == _snapshot(tmp_path / "whole")


def test_a_hand_begins_no_row_after_the_deadline_and_gives_back_those_that_it_did_not_begin(tmp_path: Path) -> None:
    sample, hard = tiny_sample(), Hard(shots=4)
    hard.fit(sample, "toy", 0, tmp_path)
    teacher = hard.load(tmp_path, sample.task, "toy")
    hand, how = _Worker(lambda: (teacher, _Counted(4, 0.01, teacher.model))), Sampling(1.0, 1.0, 60)
    rows, _Counted.generated = list(teacher.rows(sample, 40, 1)), 0
    found = hand.work(rows, how, 0.0)
    assert ([i for i, _ in found], {c.problem for _, c in found}) == ([r.index for r in rows], {STOPPED})
    assert _Counted.generated == 0
    found += hand.work(rows, how)
    while len(found) < 80:
        found += hand.work([], how)
    assert sorted(i for i, c in found[40:] if not c.problem) == [r.index for r in rows]


@pytest.mark.slow
def test_a_run_cut_by_tokens_is_the_run_of_its_rows_and_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    toy = TOY | {"metric": []}
    done = run(recipes.build(toy, ROOT), tmp_path / "cut", limits=Limits(tokens=9000))
    cut = done.scores["cut"]
    rows = cut["rows"]
    assert 20 < rows < 120
    assert cut == {"limits": "--max-tokens 9000", "rows": rows, "of": 120, "fit": {}}
    assert f"{rows} of 120 rows" in done.verdict
    assert json.loads((done.folder / "manifest.json").read_text())["cut"] == cut
    assert done.scores["counts"]["candidates"] == rows
    assert f"{rows} of 120 rows" in (done.folder / "dataset/README.md").read_text()
    assert rows_of(done.folder, "candidates", 1) == [], "no part is cut yet; the rows stand in the journal"
    short = run(recipes.build(toy | {"generate": TOY["generate"] | {"count": rows}}, ROOT), tmp_path / "short")
    assert done.scores == short.scores | {"cut": cut, "verdict": done.verdict}
    assert done.verdict.startswith(short.verdict)
    assert [p.read_bytes() for p in done.folder.glob("dataset/data/*")] == [p.read_bytes() for p in short.folder.glob("dataset/data/*")]
    again = run(recipes.build(toy, ROOT), tmp_path / "cut")
    whole = run(recipes.build(toy, ROOT), tmp_path / "whole")
    assert "cut" not in again.scores
    assert _snapshot(whole.folder).items() <= _snapshot(again.folder).items()


@pytest.mark.slow
def test_a_limit_under_one_row_fails_and_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"no row was finished. Stopped at --max-tokens 199: 0 of 120 rows.*max_tokens = 200"):
        run(recipes.build(TOY, ROOT), tmp_path, limits=Limits(tokens=199))
    assert "cut" not in run(recipes.build(TOY, ROOT), tmp_path).scores


def _fit(soft: Soft, out: Path, deadline: Deadline = NEVER) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "EVERY", 7)
        return soft.fit(tiny_sample(), "seedling", 3, out, deadline)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 7, 9])
def test_a_cut_fit_goes_on_to_the_same_bytes(tmp_path: Path, steps: int) -> None:
    """24 texts in batches of 4: 6 steps an epoch, an evaluation every 7; so cut before, at and between evaluations."""
    torch.set_num_threads(1)
    soft = Soft(prompt="mc", tokens=2, epochs=2, batch=4)
    assert _fit(soft, tmp_path / "whole") == {}
    cut = _fit(soft, tmp_path / "cut", _ticks(1 + steps))  # one more for the share of the only form
    assert cut == {"mc": {"step": steps, "of": 12}}
    training = json.loads((tmp_path / "cut/training.json").read_text())
    assert training["cut"] == cut
    assert training["forms"]["mc"]["dev"] == min(e["dev"] for e in training["forms"]["mc"]["log"])
    soft.load(tmp_path / "cut", tiny_sample().task, "seedling")
    reads = itertools.count(1)
    assert _fit(soft, tmp_path / "cut", Deadline(math.inf, reads.__next__)) == {}
    assert next(reads) - 2 == 12 - steps, "no step is done twice"
    assert _snapshot(tmp_path / "cut") == _snapshot(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_whose_fit_was_cut_keeps_its_teacher_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    raw = REAL | {"generator": REAL["generator"], "generate": {"count": 16, "max_tokens": 12}, "metric": []}
    shares: list[Callable[[float], Deadline]] = [lambda part: _ticks(6), lambda part: NEVER]  # the fit's, then generating's
    monkeypatch.setattr(Limits, "deadline", lambda self: type("Both", (), {"share": lambda _, part: shares.pop(0)(part)})())
    done = run(recipes.build(raw, ROOT), tmp_path / "cut", limits=Limits(minutes=1))
    monkeypatch.undo()
    cut = done.scores["cut"]
    assert (cut["limits"], cut["rows"], cut["of"], cut["fit"]) == ("--max-minutes 1", 16, 16, {"mc": {"step": 5, "of": 10}})
    assert "the fit of mc at step 5 of at most 10" in done.verdict
    early = {p.name for p in done.folder.glob("teacher-*")}
    assert len([name for name in early if not name.endswith(".partial")]) == 1
    again = run(recipes.build(raw, ROOT), tmp_path / "cut")
    whole = run(recipes.build(raw, ROOT), tmp_path / "whole")
    assert "cut" not in again.scores
    assert _snapshot(whole.folder).items() <= _snapshot(again.folder).items()
    names = runs.step_names(recipes.build(raw, ROOT), runs.load_sample(recipes.build(raw, ROOT).sample, recipes.build(raw, ROOT).task, 3, ROOT))
    assert names["teacher"] not in early
    assert (done.folder / names["teacher"]).is_dir()

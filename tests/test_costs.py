"""Money: what completions cost, a budget that is never passed and stops cleanly, and settings that change no result and so no folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")
from servers import Server, cut_short, status
from test_openai import HOW, ROOT, cache, engine, opened, prompts, settings  # noqa: F401 (a fixture)

from seedbed import recipe as recipes
from seedbed.candidates import complete, cost_of, read_candidates, tokens_of
from seedbed.errors import EngineError, RecipeError
from seedbed.estimate import COMPUTED, estimate
from seedbed.generators.hard import Hard
from seedbed.limits import NEVER, Allowance, Deadline, Limits, Purse
from seedbed.paid import paid_now, within
from seedbed.parts import Component
from seedbed.preview import preview
from seedbed.relay import Relay
from seedbed.run import run
from seedbed.testing import tiny_sample
from seedbed.types import ModelRef, Prompt

PRICES = {"price_in": 100.0, "price_out": 5000.0}
EACH = (1 * 100 + 7 * 5000) / 1e6
"""Of one answer: the server counts one token read and seven written."""


@pytest.fixture(autouse=True)
def _few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the trials of filters, metrics and student: what is tested here is money."""
    monkeypatch.setattr("seedbed.estimate.SMALL", 20)
    monkeypatch.setattr("seedbed.estimate.LARGE", 40)


def priced(server: Server, **more: Any) -> dict[str, Any]:
    made = settings(server)
    return made | {"engine": made["engine"] | PRICES | more}


def writer(prompt: str, asked: dict[str, Any]) -> str:
    return f"Queue: delivery\nMessage: the parcel {asked['seed']} is not here yet and I would like to know where it is now"


def test_a_purse_holds_what_can_be_spent_and_counts_what_was() -> None:
    purse = Purse(1.0, spent=3.0)
    assert purse.hold(0.6) and not purse.hold(0.6)
    purse.settle(0.6, 0.1)
    assert purse.hold(0.9) and not purse.hold(0.01)
    assert (purse.spent, purse.money) == (3.1, 1.0)
    allowance = Allowance(10, None, purse=Purse(1.0))
    assert [allowance.start(0.4) for _ in range(3)] == [True, True, False]
    allowance.end(5, 0.4, 0.1)
    assert allowance.start(0.4)


def test_an_answer_costs_its_tokens_and_one_that_was_kept_nothing_more() -> None:
    with Server(writer) as server:
        first = dict(opened(server, **PRICES).complete(prompts(3), HOW))
        again = dict(opened(server, **PRICES).complete(prompts(3), HOW))
    assert [(c.cost, c.again) for c in first.values()] == [(EACH, False)] * 3
    assert [(c.cost, c.again) for c in again.values()] == [(EACH, True)] * 3
    assert [sum(map(paid_now, found.values())) for found in (first, again)] == [pytest.approx(3 * EACH), 0.0]


def test_an_answer_that_was_lost_on_the_way_may_have_been_charged() -> None:
    with Server(writer) as server:
        server.faults = [cut_short, status(429), cut_short]
        session = opened(server, concurrency=1, **PRICES)
        got = next(session.complete(prompts(1), HOW))[1]
        assert got.cost == pytest.approx(EACH + 2 * session.most(prompts(1)[0][1], HOW))
        assert session.most(Prompt("é" * 10, 0), replace(HOW, max_tokens=9)) == pytest.approx((20 + 64) * 1e-4 + 9 * 5e-3)


@pytest.mark.slow
def test_a_run_stops_within_its_money_and_goes_on(tmp_path: Path) -> None:
    """What is paid in all is what an unlimited run pays, and no call pays more than it may."""
    with Server(writer) as server:
        made, spent, rows, calls = recipes.build(priced(server), ROOT), 0.0, 0, 0
        while rows < 30:
            before = server.answered
            done = run(made, tmp_path / "out", limits=Limits(cost=1.5))
            assert (server.answered - before) * EACH <= 1.5
            cut = done.scores.get("cut")
            spent += (server.answered - before) * EACH
            rows = cut["rows"] if cut else 30
            assert rows == server.answered
            assert json.loads((done.folder / "manifest.json").read_text())["cost"] == pytest.approx(spent)
            assert cut is None or (cut["limits"], "--max-cost 1.5: " in done.verdict) == ("--max-cost 1.5", True)
            calls += 1
        assert calls > 1 and server.answered == 30
        candidates = next(done.folder.glob("candidates-*"))
        assert cost_of(candidates) == pytest.approx(30 * EACH)
        assert cost_of(candidates, 10) == pytest.approx(10 * EACH)


def test_a_deadline_waits_out_no_retry_and_sends_no_request_and_the_rows_are_made_later(tmp_path: Path) -> None:
    """The clock is the server's count of requests, so that the deadline is over while the second row's request fails."""
    sample, hard = tiny_sample(), Hard(shots=2)
    for name in ("teacher", "rows"):
        (tmp_path / name).mkdir()
    hard.fit(sample, "tiny", 0, tmp_path / "teacher")
    teacher = hard.load(tmp_path / "teacher", sample.task, "tiny")
    with Server(writer) as server:
        own = opened(server, concurrency=1, retries=9, backoff_s=0.0)
        session = Relay(own)
        server.pick = lambda asked: status(503, headers={"Retry-After": "100"}) if len(server.requests) == 2 else None

        def go(deadline: Deadline) -> int:
            return complete(tmp_path / "rows", teacher, session, sample, 5, 1, HOW, allowance=Allowance(HOW.max_tokens, None, deadline))[0]

        assert go(Deadline(2, lambda: len(server.requests))) == 1
        assert len(server.requests) == 2
        own.pace.opens = 0.0  # a later call is a process of its own, to which the server has said nothing
        assert go(NEVER) == 5
        assert (len(server.requests), server.answered) == (6, 5)
        assert not any(c.problem for c in read_candidates(tmp_path / "rows", 5) if "server" in c.problem or "stopped" in c.problem)


def test_annotators_stop_at_the_same_money(tmp_path: Path) -> None:
    with Server(lambda prompt, asked: "Delivery") as server:
        session, purse = opened(server, concurrency=2, **PRICES), Purse(1.0)
        with pytest.raises(EngineError, match=r"--max-cost 1 is used up: .* is left.*the same command goes on"):
            list(within(purse, session, prompts(100), HOW))
        assert 0 < purse.spent <= 1.0
        answered = server.answered
        assert answered * EACH <= 1.0
        votes = {"kind": "prompted", "votes": 1, "engine": priced(server)["engine"], "model": "judge"}
        toy = settings(server) | {"engine": {"kind": "toy"}, "annotator": [votes]}
        with pytest.raises(EngineError, match=r"--max-cost 0.5 is used up"):
            run(recipes.build(toy, ROOT), tmp_path / "out", limits=Limits(cost=0.5))
        assert (server.answered - answered) * EACH <= 0.5
        server.key = "never"  # what is paid for is kept: whoever asks for it again would be refused
        with pytest.raises(EngineError, match=r"--max-cost|wrong key"):
            run(recipes.build(toy, ROOT), tmp_path / "out", limits=Limits(cost=0.5))


def test_money_without_a_price_is_refused(tmp_path: Path) -> None:
    with Server() as server, pytest.raises(RecipeError, match="no engine of the recipe has a price"):
        run(recipes.build(settings(server), ROOT), tmp_path, limits=Limits(cost=1.0))
    with Server() as server, pytest.raises(RecipeError, match="money is counted where rows are completed"):
        run(recipes.build(priced(server), ROOT), tmp_path, limits=Limits(cost=1.0), on="ray")
    with pytest.raises(ValueError, match="money must be above 0"):
        Limits(cost=0.0)


@pytest.mark.slow
def test_estimate_spends_nothing_unasked_and_prices_what_a_server_will_charge(tmp_path: Path) -> None:
    """Whoever in the recipe asks the server: the engine, an annotator, a generator's later turns."""
    votes = {"kind": "prompted", "votes": 2}
    with Server(writer) as server:
        own = {"engine": priced(server)["engine"], "model": "judge"}
        for more in ({}, {"annotator": [votes]}, {"engine": {"kind": "toy"}, "annotator": [votes | own]}):
            found = estimate(recipes.build(priced(server) | more, ROOT), tmp_path)
            assert found.money and "price_in" in found.money_note
            assert found.to_json()["basis"] == COMPUTED and any("no request is sent" in line for line in found.assumed)
        refined = priced(server) | {"engine": {"kind": "toy"}, "generator": {"kind": "refine", "shots": 3} | own}
        assert estimate(recipes.build(refined, ROOT), tmp_path).steps["candidates"].money > 0
        assert estimate(recipes.build(settings(server), ROOT), tmp_path).money is None
        assert server.requests == []
        found = estimate(recipes.build(priced(server), ROOT), tmp_path, ask=True)
        assert found.money == pytest.approx(30 * EACH)
        assert 0 < len(server.requests) < 80 and found.to_json()["basis"] == "measured"


@pytest.mark.slow
def test_what_is_computed_is_what_a_server_of_such_answers_charges(tmp_path: Path) -> None:
    """One that writes real rows, and counts four characters a token."""

    def counted(prompt: str, asked: dict[str, Any]) -> str:
        return str(prompt.split("---")[1].strip())

    with Server(counted) as server:
        server.count = lambda text: len(text) / 4
        made = recipes.build(priced(server), ROOT)
        found = estimate(made, tmp_path).steps["candidates"]
        candidates = next(run(made, tmp_path).folder.glob("candidates-*"))
    assert found.tokens == pytest.approx(tokens_of(candidates), rel=0.2)
    assert found.money == pytest.approx(cost_of(candidates), rel=0.2)


@pytest.mark.slow
def test_a_preview_asks_for_its_rows_alone_and_says_what_they_cost(tmp_path: Path) -> None:
    with Server(writer) as server:
        made = recipes.build(priced(server), ROOT)
        found = preview(made, 4, tmp_path)
        assert len(server.requests) == len(found.candidates) == 4
        assert f"a server was asked for these 4 rows and no more: {4 * EACH:.4g} by price_in" in found.note
        run(made, tmp_path)
        assert len(server.requests) == 30, "the run's first rows are the preview's, and paid"
        assert preview(recipes.build(settings(server), ROOT), 1, tmp_path / "other").note.count("its price is not known here") == 1


def test_settings_that_change_no_result_are_in_no_fingerprint() -> None:
    def facts(made: Component) -> Any:
        return made.facts(), made.fit_facts(), made.use_facts()

    with Server() as server:
        one = Component("openai", "engine:openai:2:", engine(server))
        other = Component("openai", "engine:openai:2:", engine(server, concurrency=9, timeout_s=3.0, retries=1, backoff_s=0.7, **PRICES))
        assert facts(one) == facts(other) != facts(Component("openai", "engine:openai:2:", engine(server, mode="text")))
        from seedbed.generators.refine import Refine

        inside = [Component("refine", "generator:refine:1:", Refine(engine=c, model="m")) for c in (one, other)]
        assert facts(inside[0]) == facts(inside[1])
        assert list(inside[0].all()) == [inside[0], one]
    assert ModelRef("m")

"""The openai engine against a real server on loopback, with every fault that a server has; keys nowhere; no token paid twice."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Event, Lock, current_thread
from typing import Any

import pytest
from tqdm import TMonitor

pytest.importorskip("openai")
from servers import KINDS, Fault, Server, cut_short, reset, silent, status, text

from seedbed import recipe as recipes
from seedbed.candidates import complete, read_candidates
from seedbed.data import load_sample
from seedbed.engines.openai import GIVE_UP, Openai, OpenaiSession
from seedbed.engines.toy import Toy
from seedbed.errors import EngineError, RecipeError
from seedbed.generators.hard import Hard
from seedbed.generators.refine import Refine
from seedbed.paid import paid
from seedbed.parts import Component
from seedbed.relay import Relay
from seedbed.run import run
from seedbed.store import Journal
from seedbed.testing import NOBODY, check_engine, tiny_sample
from seedbed.types import Candidate, Completion, ModelRef, Prompt, Sampling, SoftRef

ROOT = Path(__file__).resolve().parent.parent
SECRET = "sk-never-written-73519"
HOW = Sampling(1.0, 0.9, 40)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Paid completions of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache/seedbed/completions.sqlite"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


def engine(server: Server, **settings: Any) -> Openai:
    return Openai(**{"base_url": server.url, "backoff_s": 0.001, "concurrency": 4, "timeout_s": 20.0} | settings)


def opened(server: Server, **settings: Any) -> OpenaiSession:
    return engine(server, **settings).open(ModelRef("tiny"))


def prompts(n: int, start: int = 0) -> list[tuple[int, Prompt]]:
    return [(i, Prompt(f"play song {i}\n---\nturn it {i} up\n---\n", seed=i, stop="\n---")) for i in range(start, start + n)]


def test_it_conforms_in_both_modes(server: Server) -> None:
    for mode in ("chat", "text"):
        check_engine(engine(server, mode=mode))
    assert {r["path"] for r in server.requests} == {"/v1/chat/completions", "/v1/completions"}


def test_what_is_asked_is_the_prompt_the_sampling_and_the_seed(server: Server) -> None:
    one = Prompt("hello\n---\n", seed=2**62 + 5, stop="\n---")
    list(opened(server, system="be brief").complete([(0, one)], Sampling(0.5, 0.8, 9)))
    list(opened(server, mode="text").complete([(0, one)], Sampling(0.5, 0.8, 9)))
    chat, plain = server.requests
    how = {"model": "tiny", "temperature": 0.5, "top_p": 0.8, "max_tokens": 9, "seed": 5, "stop": ["\n---"]}
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": one.text}]
    assert chat == how | {"messages": messages, "path": "/v1/chat/completions", "authorization": "Bearer none"}
    assert plain == how | {"prompt": one.text, "path": "/v1/completions", "authorization": "Bearer none"}


def test_a_cut_answer_is_unfinished_and_a_stop_string_that_was_sent_is_taken_off() -> None:
    with Server(write=lambda prompt, asked: "one\n---\ntwo") as server:
        assert next(opened(server).complete(prompts(1), HOW))[1] == Completion("one", 7, True)
    with Server() as server:
        got = next(opened(server).complete([(0, Prompt("abcabc" * 30, 1))], Sampling(1.0, 1.0, 3)))[1]
        assert (len(got.text), got.tokens, got.finished) == (3, 3, False)


def test_prompts_are_read_as_they_are_needed_and_so_many_are_under_way() -> None:
    """The server answers when three requests stand there, and never sees a fourth beside them."""
    three, lock = Barrier(3, timeout=60), Lock()
    read = done = here = most = 0

    def stream() -> Iterator[tuple[int, Prompt]]:
        nonlocal read
        for read, pair in enumerate(prompts(30), 1):
            assert read - done <= 3
            yield pair

    def write(prompt: str, asked: dict[str, Any]) -> str:
        nonlocal here, most
        with lock:
            here += 1
            most = max(most, here)
        three.wait()
        with lock:
            here -= 1
        return "text"

    with Server(write) as server:
        for _ in opened(server, concurrency=3, timeout_s=60.0).complete(stream(), HOW):
            done += 1
    assert (read, done, most) == (30, 30, 3)


FAULTS: dict[str, list[Fault]] = {
    "busy": [status(429, headers={"Retry-After": "0.002"})],
    "broken": [status(500), status(503)],
    "slow to answer": [status(408)],
    "reset": [reset],
    "cut short": [cut_short],
    "not JSON": [text('{"choices": [{"mess')],
    "other JSON": [text('{"hello": 1}')],
    "no choice": [text('{"choices": [], "usage": null}')],
    "wrong type": [text('{"choices": [{"message": {"content": [1]}, "finish_reason": "stop"}]}')],
    **{kind: [fault] for kind, fault in KINDS.items() if fault is not silent},
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_asked_again_and_changes_no_answer(server: Server, name: str) -> None:
    server.faults = FAULTS[name] * 2
    got = dict(opened(server).complete(prompts(6), HOW))
    assert not server.faults
    assert server.answered == 6
    with Server() as fresh:  # another address: nothing of it is kept yet
        assert got == dict(opened(fresh).complete(prompts(6), HOW))


def patient(kept: Callable[[float], object], least: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of at least so many seconds are told to `kept` and not waited; tqdm's own thread, which waits too, is left alone."""
    real = Event.wait

    def wait(self: Event, seconds: float | None = None) -> bool:
        if seconds is None or seconds < least or isinstance(current_thread(), TMonitor):
            return real(self, seconds)
        kept(seconds)
        return real(self, 0.0)

    monkeypatch.setattr(Event, "wait", wait)


def test_retry_after_is_honoured_and_its_wait_is_not_endless(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    patient(waited.append, 1.1, monkeypatch)
    server.faults = [status(429, headers={"Retry-After": "7"}), status(429, headers={"retry-after-ms": "2500"})]
    session = opened(server)
    session.pace.clock = lambda: sum(waited)  # so much has passed, and the pace waits no second time
    assert not next(session.complete(prompts(1), HOW))[1].problem
    assert waited == [7.0, 2.5]
    server.faults = [status(429, headers={"Retry-After": "3600"})]
    assert next(opened(server).complete(prompts(1, 1), HOW))[1].problem == "server answers 429: no"
    assert waited == [7.0, 2.5]


def test_the_wait_doubles_and_its_jitter_comes_from_the_seed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[list[float]] = []
    patient(lambda seconds: runs[-1].append(seconds), 2, monkeypatch)
    server.always = status(500)
    for seed in (1, 1, 2):
        runs.append([])
        list(opened(server, backoff_s=4.0, retries=4).complete([(0, Prompt("x", seed))], HOW))
    assert runs[0] == runs[1] != runs[2]
    assert [round(delay / 4.0 / 2**i, 9) for i, delay in enumerate(runs[0])] == [pytest.approx(0.75, abs=0.25)] * 4
    assert len(server.requests) == 15


def test_a_server_that_does_not_answer_in_time_is_asked_again(server: Server) -> None:
    server.faults = [silent]
    assert not next(opened(server, timeout_s=0.2).complete(prompts(1), HOW))[1].problem
    assert (len(server.requests), server.answered) == (2, 1)


def test_an_empty_answer_is_one_where_the_model_ended(server: Server) -> None:
    """Where it wrote no token, nothing was answered."""
    empty = '{{"choices": [{{"message": {{"content": ""}}, "finish_reason": "stop"}}], "usage": {{"prompt_tokens": 9, "completion_tokens": {}}}}}'
    server.always = text(empty.format(1))
    assert next(opened(server).complete(prompts(1), HOW))[1] == Completion("", 1, True)
    server.always = text(empty.format(0))
    assert "the answer is empty" in next(opened(server, retries=1).complete(prompts(1, 5), HOW))[1].problem
    assert len(server.requests) == 3


def test_fewer_requests_are_under_way_when_the_server_is_busy(server: Server) -> None:
    session = opened(server, concurrency=64)
    server.faults = [status(429)] * 3
    list(session.complete(prompts(20), HOW))
    assert 1 <= session.pace.limit < 8 and session.pace.cuts >= 1
    assert session.pace.under_way == 0


def test_a_request_that_fails_for_good_costs_its_row_alone(server: Server, cache: Path) -> None:
    session = opened(server, concurrency=1, retries=2)
    server.faults = [status(400, "too long"), status(500), status(500), status(500)]
    got = dict(session.complete(prompts(3), HOW))
    assert got[0] == Completion("", 0, False, "server answers 400: too long")
    assert got[1] == Completion("", 0, False, "server answers 500: no")
    assert got[2].text
    assert sqlite3.connect(cache).execute("SELECT count(*) FROM completions").fetchone() == (1,)
    assert not any(c.problem for c in dict(session.complete(prompts(3), HOW)).values())  # a failure is not kept


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (status(401, "bad key"), "Set OPENAI_API_KEY"),
        (status(403, "not yours"), "may not use this model"),
        (status(404, "no model tiny"), r"Model 'tiny' at http://127.*no model tiny.*Check \[model\] name"),
        (status(429, "quota", reason="insufficient_quota"), "The account is used up"),
    ],
)
def test_what_every_request_would_meet_stops_the_run_and_says_what_to_do(server: Server, fault: Fault, words: str) -> None:
    server.always = fault
    with pytest.raises(EngineError, match=words):
        list(opened(server).complete(prompts(50), HOW))
    assert len(server.requests) <= 8


def test_a_server_that_is_gone_stops_the_run_and_no_row_is_given_up(server: Server) -> None:
    server.always = status(503)
    got = []
    with pytest.raises(EngineError, match=f"{GIVE_UP} requests in a row failed, the last one so: server answers 503"):
        got += list(opened(server, retries=0).complete(prompts(100), HOW))
    assert got == []
    closed = Openai(base_url="http://127.0.0.1:9/v1", backoff_s=0.0, retries=1).open(ModelRef("tiny"))
    with pytest.raises(EngineError, match=r"no answer: .*[Cc]onnection refused"):
        list(closed.complete(prompts(100), HOW))


def test_no_token_is_paid_twice_whoever_asks(server: Server, cache: Path) -> None:
    first = dict(opened(server).complete(prompts(8), HOW))
    assert server.answered == 8
    assert dict(opened(server, concurrency=2, timeout_s=9.0).complete(prompts(12), HOW)) | first == dict(opened(server).complete(prompts(12), HOW))
    assert server.answered == 12
    for other in (replace(HOW, temperature=0.5), replace(HOW, max_tokens=39), replace(HOW, top_p=0.8)):
        list(opened(server).complete(prompts(1), other))
    list(opened(server).complete([(0, replace(prompts(1)[0][1], seed=2**40))], HOW))  # the same 31 bits are sent
    list(opened(server, mode="text").complete(prompts(1), HOW))
    list(opened(server, system="s").complete(prompts(1), HOW))
    list(engine(server).open(ModelRef("other")).complete(prompts(1), HOW))
    assert server.answered == 19
    assert sqlite3.connect(cache).execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_completion_is_kept_before_it_is_used(server: Server, cache: Path) -> None:
    """What is under way when the run is stopped is kept too."""
    stream = opened(server, concurrency=4).complete(prompts(40), HOW)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    paid = sqlite3.connect(cache).execute("SELECT count(*) FROM completions").fetchone()[0]
    assert server.answered == paid >= 1
    list(opened(server).complete(prompts(40), HOW))
    assert server.answered == 40


def test_a_cache_of_an_older_version_is_read(server: Server, cache: Path) -> None:
    list(opened(server).complete(prompts(3), HOW))
    paid.cache_clear()
    with sqlite3.connect(cache) as db:
        db.execute("ALTER TABLE completions DROP COLUMN read")
    got = dict(opened(server).complete(prompts(4), HOW))
    assert server.answered == 4
    assert [got[i].again for i in range(4)] == [True, True, True, False]


def test_a_cache_that_cannot_be_used_is_an_error(server: Server, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"no database at all, but long enough to be looked at" * 40)
    with pytest.raises(EngineError, match="keeps paid completions and cannot be used"):
        opened(server)
    assert cache.read_bytes().startswith(b"no database")


def test_what_it_does_not_do_is_refused(server: Server) -> None:
    with pytest.raises(EngineError, match="does not score"):
        opened(server).score(Prompt("a", 0), ["b"])
    for prompt in (Prompt("", 0, soft=SoftRef(("a",), (1.0,))), Prompt("", 0, adapter="folder")):
        with pytest.raises(EngineError, match="takes text prompts alone"):
            list(opened(server).complete([(0, prompt)], HOW))
    assert server.requests == []
    with pytest.raises(EngineError, match="needs a key: set OPENAI_API_KEY"):
        Openai().open(ModelRef("m"))
    for url in ("localhost:8000", "http://me:pw@host/v1", "http://host/v1?key=a", "ftp://host"):
        with pytest.raises(ValueError, match="base_url must be"):
            Openai(base_url=url)


def test_without_the_library_it_says_how_to_get_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(EngineError, match=r"pip install 'seedbed\[openai\]'"):
        opened(server)


def test_it_is_imported_in_one_file() -> None:
    users = [p.name for p in (ROOT / "src").rglob("*.py") if re.search(r"^\s*(import openai|from openai)\b", p.read_text(), re.M)]
    assert users == ["openai.py"]


def settings(server: Server) -> dict[str, Any]:
    return {
        "name": "served",
        "seed": 3,
        "sample": {"path": "examples/helpdesk.csv", "rows": 40, "test_share": 0.15},
        "task": {"kind": "classification", "inputs": ["message"], "target": "queue"},
        "model": {"name": "tiny"},
        "engine": {"kind": "openai", "base_url": server.url, "backoff_s": 0.001},
        "generator": {"kind": "hard", "shots": 3},
        "generate": {"count": 30, "max_tokens": 150},
        "filter": [{"kind": "form"}],
        "metric": [],
        "gain": {"seeds": 1, "volumes": [0.5]},
    }


@pytest.mark.slow
def test_the_key_comes_from_the_environment_and_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    for name in ("openai", "httpx2", "httpcore2"):
        caplog.set_level("DEBUG", name)
    with Server(key=SECRET) as server:
        server.faults = [status(400, f"you said {SECRET}"), status(429), reset]
        made = run(recipes.build(settings(server), ROOT), tmp_path / "out")
        assert {r["authorization"] for r in server.requests} == {f"Bearer {SECRET}"}
        assert made.scores["counts"]["dropped"]["form:server answers 400: you said [key]"] == 1
        assert json.loads((made.folder / "manifest.json").read_text())["engine"]["base_url"] == server.url + "/"
        asked = len(server.requests)
        monkeypatch.setenv("OPENAI_API_KEY", SECRET + "0")
        with pytest.raises(EngineError) as wrong:
            list(opened(server).complete(prompts(1), HOW))
        assert len(server.requests) > asked
        assert SECRET not in f"{wrong.value!r} {wrong.value.__cause__!r} {wrong.value} {engine(server).open(ModelRef('m'))!r}"
        assert "wrong key: Bearer [key]" in str(wrong.value)
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert any(p.name == "completions.sqlite" for p in written)
    assert not [p for p in written if SECRET.encode() in p.read_bytes()]
    assert SECRET not in caplog.text + "".join(capfd.readouterr())


def test_a_stopped_run_goes_on_and_pays_for_nothing_twice(server: Server, tmp_path: Path) -> None:
    """Its journal is lost with the machine's disk cache; the completions are not."""
    sample = tiny_sample()
    Hard(shots=2).fit(sample, "tiny", 0, tmp_path)
    teacher = Hard(shots=2).load(tmp_path, sample.task, "tiny")
    (tmp_path / "a").mkdir()
    server.faults = [status(400), *[status(500)] * 3]
    complete(tmp_path / "a", teacher, opened(server), sample, 20, 1, HOW)
    answered = server.answered
    (tmp_path / "b").mkdir()
    Journal(tmp_path / "b/journal.jsonl").close()
    complete(tmp_path / "b", teacher, opened(server), sample, 20, 1, HOW)
    assert server.answered == answered + 1  # the row whose request was refused
    a, b = (read_candidates(tmp_path / name, 20) for name in "ab")
    assert sum(x == y for x, y in zip(a, b, strict=True)) == 19


def test_a_recipe_may_not_hold_a_key() -> None:
    with pytest.raises(RecipeError, match="has no setting 'api_key'"):
        recipes.build(
            {"sample": {"path": "examples/helpdesk.csv"}, "task": {"kind": "plain", "inputs": ["message"]}}
            | {"engine": {"kind": "openai", "api_key": "x"}, "generator": {"kind": "hard"}},
            ROOT,
        )


def test_an_annotator_asks_a_server_of_its_own(tmp_path: Path) -> None:
    """The rows come from the toy engine, the votes from the server, which always says the same."""
    with Server(write=lambda prompt, asked: " Delivery") as server:
        asks = {"kind": "prompted", "votes": 2, "engine": {"kind": "openai", "base_url": server.url}, "model": "judge"}
        made = recipes.build(settings(server) | {"engine": {"kind": "toy"}, "annotator": [asks]}, ROOT)
        sample = load_sample(made.sample, made.task, made.seed, ROOT)
        real = [Candidate(e.id, i, "", e.fields, True) for i, e in enumerate(sample.dev[:5])]
        found = made.annotators[0].settings.annotate(real, sample, 0, NOBODY)
        assert {r["model"] for r in server.requests} == {"judge"} and len(server.requests) == 10
        label = next(x for x in sample.task.labels if x.lower() == "delivery")
        assert found.rows == [{label: 1.0}] * 5 and found.facts == {"votes": 10, "invalid": 0}


def test_drafts_from_here_are_refined_by_a_server(server: Server, tmp_path: Path) -> None:
    """With faults on the way; each later turn is asked once, and a rerun asks for none."""
    sample = tiny_sample()
    asks = Refine(engine=Component("openai", "engine:openai:1:", engine(server)), model="judge")
    asks.fit(sample, "toy", 0, tmp_path)
    teacher = asks.load(tmp_path, sample.task, "toy")
    server.faults = [status(429), reset, status(500)]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        session = Relay(Toy().open(ModelRef("toy")))
        complete(tmp_path / name, teacher, session, sample, 10, 1, Sampling(0.8, 1.0, 120))
        assert server.answered == 20
        assert session.describe()["others"][0]["model"] == "judge"
    assert {r["model"] for r in server.requests} == {"judge"}
    assert read_candidates(tmp_path / "a", 10) == read_candidates(tmp_path / "b", 10)


def test_soft_prompts_go_to_a_server_that_answers_as_transformers_does(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This one knows nothing of vectors, and no log-probabilities: it is refused before the first row, and no error holds the key."""
    from seedbed.generators.soft import Soft

    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    Soft(prompt="nsp", tokens=2, epochs=1).fit(tiny_sample(), "seedling", 0, tmp_path)
    soft = ModelRef("seedling", soft=tmp_path)
    with pytest.raises(EngineError, match=r"does not take whole prompts as vectors.*--enable-prompt-embeds"):
        engine(server, mode="text", retries=0).open(soft)
    server.always = status(401, f"bad key {SECRET}")
    with pytest.raises(EngineError, match=r"Set OPENAI_API_KEY") as wrong:
        engine(server, mode="text").open(soft)
    assert SECRET not in str(wrong.value)
    assert "soft" in engine(server, mode="text").can and "soft" not in engine(server).can

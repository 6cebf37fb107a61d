"""The vllm engine, for real: vLLM on this machine's CPU, with seedling. `make test-vllm` builds the environment; elsewhere these tests skip.

vLLM takes half a minute to start, so a session of each kind is opened once and serves many tests.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed here: make test-vllm")
from safetensors.torch import load_file, save_file

from seedbed.engines.local import Local
from seedbed.engines.openai import Openai
from seedbed.engines.vllm import RERUNS, Vllm, VllmSession
from seedbed.errors import EngineError
from seedbed.generators.finetune import Finetune
from seedbed.generators.soft import Soft
from seedbed.lm.embeds import Embeds, parity
from seedbed.lm.load import load, locate
from seedbed.testing import check_engine, tiny_sample
from seedbed.types import ModelRef, Prompt, Sampling, SoftRef

HOW = Sampling(1.0, 0.95, 24)
ENGINE = Vllm(precision="fp32", enforce_eager=True, max_num_seqs=16, stall_s=900.0)


@pytest.fixture(scope="module", autouse=True)
def small() -> None:
    """Room for keys and values in GiB; vLLM would take most of the machine's memory."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A soft prompt whose contexts lead to different texts."""
    folder = tmp_path_factory.mktemp("soft")
    Soft(prompt="mc", tokens=8, epochs=4, hidden=32, rank=8).fit(tiny_sample(), "seedling", 3, folder)
    return folder


@pytest.fixture(scope="module")
def session(fitted: Path) -> Iterator[VllmSession]:
    opened = ENGINE.open(ModelRef("seedling", soft=fitted))
    yield opened
    opened.worker.close()


def soft_prompts(fitted: Path, count: int, text: str = "") -> list[tuple[int, Prompt]]:
    sources = [line.split('"')[3] for line in (fitted / "sources.jsonl").read_text().splitlines()]
    return [(i, Prompt(text, i, soft=SoftRef((sources[i % len(sources)],), (1.0,)))) for i in range(count)]


def texts(count: int) -> list[tuple[int, Prompt]]:
    openings = ["Once upon a time", "The cat", "Question: what is", "", "To make bread you"]
    return [(i, Prompt(openings[i % len(openings)], seed=i)) for i in range(count)]


def test_it_conforms_and_was_compared_with_transformers(session: VllmSession, fitted: Path) -> None:
    check_engine(ENGINE, session=session)
    facts = session.describe()
    assert facts["parity"]["probes"] == 9 and facts["parity"]["worst_nats"] < 0.01
    assert facts["score"] == {"score:text": "", "score:soft": ""}
    assert facts["reruns"]["rows"] == RERUNS and facts["reruns"]["differ"] <= RERUNS // 4
    assert facts["model_hash"] == load("seedling").hash


def test_greedy_completions_are_those_of_the_local_engine(session: VllmSession, fitted: Path) -> None:
    local, how = Local(slots=4, cache=128).open(ModelRef("seedling", soft=fitted)), Sampling(0.0, 1.0, 16)
    asked = [*texts(5), *((100 + key, p) for key, p in soft_prompts(fitted, 6)), *((200 + key, p) for key, p in soft_prompts(fitted, 3, "play"))]
    mine, theirs = dict(session.complete(iter(asked), how)), dict(local.complete(iter(asked), how))
    assert mine == theirs
    assert len({mine[100 + i].text for i in range(6)}) > 1, "contexts must lead to different texts"


def test_scores_are_those_of_the_local_engine(session: VllmSession, fitted: Path) -> None:
    local, words = Local().open(ModelRef("seedling", soft=fitted)), ["music", "weather", " play it again", ""]
    for _, prompt in (*texts(2), *soft_prompts(fitted, 2), *soft_prompts(fitted, 1, "Label: ")):
        for ended in (False, True):
            for (a, n), (b, m) in zip(session.score(prompt, words, ended), local.score(prompt, words, ended), strict=True):
                assert (a, n) == (pytest.approx(b, abs=1e-2), m)


def test_a_stop_string_a_cut_and_a_prompt_that_is_too_long(session: VllmSession, fitted: Path) -> None:
    free = dict(session.complete(iter([(0, Prompt("Once upon a time", 1))]), Sampling(1.0, 0.9, 40)))[0]
    mark = free.text.split()[4]
    cut = dict(session.complete(iter([(0, Prompt("Once upon a time", 1, stop=mark))]), Sampling(1.0, 0.9, 40)))[0]
    assert (cut.text, cut.finished) == (free.text.split(mark)[0], True)
    long = [(0, Prompt("the " * 700, 0)), (1, Prompt("the " * 500, 1)), (2, Prompt("A", 2))]
    got = dict(session.complete(iter(long), Sampling(1.0, 1.0, 600)))
    assert got[0].problem == "prompt longer than engine.max_model_len = 512"
    assert not got[1].problem and not got[1].finished and got[1].tokens < 512
    assert got[2].tokens > 0


def test_seeds_make_the_rows(session: VllmSession, fitted: Path) -> None:
    one, other = (soft_prompts(fitted, 1)[0][1] for _ in range(2))
    many = [(i, replace(one, seed=i)) for i in range(12)]
    assert len({c.text for c in dict(session.complete(iter(many), HOW)).values()}) > 6
    assert dict(session.complete(iter([(0, one)]), HOW)) == dict(session.complete(iter([(0, other)]), HOW))


def test_what_it_was_not_opened_with_is_refused(session: VllmSession, fitted: Path) -> None:
    with pytest.raises(EngineError, match="asks for the adapter some/folder, and the engine was opened with none"):
        list(session.complete(iter([(0, Prompt("a", 0, adapter="some/folder"))]), HOW))
    with pytest.raises(EngineError, match="has no source 'nobody'"):
        list(session.complete(iter([(0, Prompt("", 0, soft=SoftRef(("nobody",), (1.0,))))]), HOW))


def test_other_numbers_than_those_of_transformers_are_refused(session: VllmSession, fitted: Path, tmp_path: Path) -> None:
    """The files have changed since vLLM read them: one layer's rows stand one further down."""
    folder = tmp_path / "model"
    shutil.copytree(locate("seedling"), folder)
    weights = load_file(folder / "model.safetensors")
    rolled = {name: torch.roll(w, 1, 0) if "layers.5.mlp.down" in name else w for name, w in weights.items()}
    save_file(rolled, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(EngineError, match=r"vLLM is not the model that transformers loads.*nats.*at most 0.01 apart is allowed"):
        parity(Embeds(load(str(folder))), session.likeliest, 0.01, "vLLM")


def test_a_worker_that_falls_silent_or_is_killed_costs_no_row(session: VllmSession, fitted: Path) -> None:
    asked = soft_prompts(fitted, 40)
    whole = dict(session.complete(iter(asked), HOW))
    session.worker.stall_s = 30.0
    got = []
    for pair in session.complete(iter(asked), HOW):
        got.append(pair)
        if len(got) == 5:
            os.kill(session.worker.process.pid, signal.SIGSTOP)
    assert sorted(key for key, _ in got) == list(range(40)), "each row once"
    assert sum(whole[key] != c for key, c in got) <= 4
    assert session.describe()["restarts"] == 1
    session.settings = replace(session.settings, restarts=0)
    stream = session.complete(iter(asked), HOW)
    next(stream)
    os.kill(session.worker.process.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match=r"died 1 times.*status -9.*What is finished is kept"):
        list(stream)


def test_an_adapter(tmp_path: Path) -> None:
    Finetune(rank=4, epochs=2, lr=3e-3).fit(tiny_sample(), "seedling", 0, tmp_path)
    model = ModelRef("seedling", adapter=tmp_path / "adapter")
    session, local = ENGINE.open(model), Local(slots=4, cache=128).open(model)
    try:
        asked = [(i, replace(p, adapter=str(tmp_path / "adapter"))) for i, p in texts(4)]
        how = Sampling(0.0, 1.0, 12)
        assert dict(session.complete(iter(asked), how)) == dict(local.complete(iter(asked), how))
        assert session.describe()["score"] == {"score:adapter": ""}
        words = ["music", "musical", " play it again", ""]
        for _, prompt in asked:
            for (a, n), (b, m) in zip(session.score(prompt, words, ended=True), local.score(prompt, words, ended=True), strict=True):
                assert (a, n) == (pytest.approx(b, abs=1e-2), m)
        assert session.describe()["restarts"] == 0
        with pytest.raises(EngineError, match="opened with"):
            list(session.complete(iter(texts(1)), how))
    finally:
        session.worker.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM's own server on loopback, with seedling."""
    import socket
    import time
    import urllib.request

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", locate("seedling"), "--served-model-name", "small"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "16", "--enable-prompt-embeds"]
    log = (tmp_path_factory.mktemp("server") / "log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=os.environ | {"VLLM_NO_USAGE_STATS": "1"})
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2.0)
                break
            except OSError:
                time.sleep(0.5)
        assert process.poll() is None, Path(log.name).read_text()[-2000:]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def test_its_server_takes_the_same_soft_prompts_over_http(server: str, fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    engine = Openai(base_url=server, mode="text", served_model_name="small", concurrency=8)
    model = ModelRef("seedling", soft=fitted)
    opened, local = engine.open(model), Local(slots=4, cache=128).open(model)
    check_engine(engine, session=opened)
    assert opened.describe()["parity"]["worst_nats"] < 0.01
    asked, how = [*soft_prompts(fitted, 4), *((10 + key, p) for key, p in soft_prompts(fitted, 2, "play"))], Sampling(0.0, 1.0, 12)
    mine, theirs = dict(opened.complete(iter(asked), how)), dict(local.complete(iter(asked), how))
    assert {key: c.text for key, c in mine.items()} == {key: c.text for key, c in theirs.items()}
    assert all(c.again for c in dict(engine.open(model).complete(iter(asked), how)).values()), "soft prompts are kept too"
    check_engine(engine)
    other = Openai(base_url=server, mode="text", served_model_name="nobody")
    with pytest.raises(EngineError, match=r"answers 404.*Check \[model\] name"):
        other.open(model)

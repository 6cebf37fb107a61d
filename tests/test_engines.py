"""Laws of the engines: reruns are byte-equal whatever shares the batch; greedy text is the model's own; scores are its likelihoods."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from seedbed.engines.local import Local
from seedbed.engines.toy import Toy
from seedbed.errors import EngineError, TooLong
from seedbed.lm.load import load, locate, stored_hash
from seedbed.testing import check_engine
from seedbed.types import ModelRef, Prompt, Sampling, SoftRef

OPENINGS = ["Once upon a time", "The cat", "Question: what is", "In 1850 the town", "", "A", "To make bread you", "She said that"]


def _prompts(count: int) -> list[tuple[int, Prompt]]:
    return [(i, Prompt(OPENINGS[i % len(OPENINGS)], seed=i)) for i in range(count)]


@pytest.mark.slow
def test_local_bytes_do_not_depend_on_neighbours_order_or_refills() -> None:
    session = Local(slots=8, cache=64).open(ModelRef("seedling"))
    sampling = Sampling(1.0, 0.95, 24)
    prompts = _prompts(40)
    reference = dict(session.complete(iter(prompts), sampling))
    for trial in range(3):
        shuffled = random.Random(trial).sample(prompts, len(prompts) - 7 * trial)
        assert dict(session.complete(iter(shuffled), sampling)) == {key: reference[key] for key, _ in shuffled}
    assert len({c.text for c in reference.values()}) > 30, "different seeds must give different texts"


def test_local_is_lazy() -> None:
    """A prompt is asked for only when a slot is free."""
    asked = []

    def stream() -> Any:
        for key, prompt in _prompts(12):
            asked.append(key)
            yield key, prompt

    completions = Local(slots=4, cache=64).open(ModelRef("seedling")).complete(stream(), Sampling(1.0, 1.0, 8))
    next(completions)
    assert len(asked) < 12
    assert len(list(completions)) == 11


def test_scores_are_sums_of_log_probabilities() -> None:
    lm = load("seedling")
    session = Local(cache=64).open(ModelRef("seedling"))
    prompt = Prompt("The capital of France", 0)
    for text, (value, tokens) in zip(["is", " is Paris.", ""], session.score(prompt, ["is", " is Paris.", ""]), strict=True):
        ids, extra = [lm.bos, *lm.encode(prompt.text)], lm.encode(text)
        logs = torch.log_softmax(lm.model(torch.tensor([ids + extra])).logits[0].float(), dim=-1)
        brute = sum(float(logs[len(ids) + i - 1, token]) for i, token in enumerate(extra))
        assert (value, tokens) == (pytest.approx(brute, abs=1e-3), len(extra))


def test_stop_string_ends_a_row() -> None:
    session = Local(slots=2, cache=128).open(ModelRef("seedling"))
    free = dict(session.complete(iter([(0, Prompt("Once upon a time", 1))]), Sampling(1.0, 0.9, 60)))[0]
    mark = free.text.split()[4]
    cut = dict(session.complete(iter([(0, Prompt("Once upon a time", 1, stop=mark))]), Sampling(1.0, 0.9, 60)))[0]
    assert cut.text == free.text.split(mark)[0]
    assert cut.finished


def test_a_prompt_without_room_is_answered_with_its_problem_and_stops_nobody() -> None:
    prompts = [(0, Prompt("word " * 30, 0)), (1, Prompt("a", 1)), (2, Prompt("word " * 30, 2))]
    answers = dict(Local(cache=8).open(ModelRef("seedling")).complete(iter(prompts), Sampling(max_tokens=3)))
    assert set(answers) == {0, 1, 2}
    assert [answers[i].problem for i in (0, 2)] == ["prompt longer than engine.cache = 8"] * 2
    assert answers[1].tokens and not answers[1].problem


def test_a_label_too_long_to_score_is_refused() -> None:
    with pytest.raises(TooLong, match="Give shorter texts"):
        Local(cache=8).open(ModelRef("seedling")).score(Prompt("a", 0), ["word " * 600])


def test_soft_needs_an_opened_prompt() -> None:
    with pytest.raises(EngineError, match="opened without one"):
        list(Local(cache=32).open(ModelRef("seedling")).complete(iter([(0, Prompt("", 0, SoftRef(("a",), (1.0,))))]), Sampling()))


@pytest.mark.parametrize("engine", [Toy(), Local(slots=2, cache=64)])
def test_conformance(engine: Any) -> None:
    check_engine(engine)


def test_toy_knows_only_what_its_prompt_names(tmp_path: Path) -> None:
    sources = [{"id": "a", "text": "aaaa bbbb", "given": {}}, {"id": "b", "text": "cccc dddd", "given": {}}]
    (tmp_path / "sources.jsonl").write_text("".join(json.dumps(s) + "\n" for s in sources))
    (tmp_path / "tuned/adapter").mkdir(parents=True)
    (tmp_path / "tuned/sources.jsonl").write_text(json.dumps({"id": "c", "texts": ["xyxyxy"]}) + "\n")
    session = Toy(order=2).open(ModelRef("toy", soft=tmp_path))
    prompts = [
        (0, Prompt("", 1, SoftRef(("a",), (1.0,)))),
        (1, Prompt("", 1, SoftRef(("b",), (1.0,)))),
        (2, Prompt("", 1, adapter=str(tmp_path / "tuned/adapter"))),
    ]
    found = dict(session.complete(iter(prompts), Sampling(1.0, 1.0, 30)))
    assert [set(found[i].text) <= set(allowed) for i, allowed in enumerate(["ab ", "cd ", "xy"])] == [True] * 3
    soft = session.score(prompts[0][1], ["aaaa", "cccc"])
    assert soft[0][0] > soft[1][0]


def test_the_weights_that_lie_in_a_shipped_folder_are_the_models() -> None:
    """vLLM reads all that lie there, and a decoder is none."""
    place = Path(locate("seedling"))
    assert [p.name for p in place.glob("*.safetensors")] == ["model.safetensors"]
    assert stored_hash(str(place)) == load("seedling").hash

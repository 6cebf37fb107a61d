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
from seedbed.errors import EngineError
from seedbed.lm.load import LM, load, weights_hash
from seedbed.testing import check_engine
from seedbed.types import ModelRef, Prompt, Sampling, SoftRef

OPENINGS = ["Once upon a time", "The cat", "Question: what is", "In 1850 the town", "", "A", "To make bread you", "She said that"]


def _prompts(count: int) -> list[tuple[int, Prompt]]:
    return [(i, Prompt(OPENINGS[i % len(OPENINGS)], seed=i)) for i in range(count)]


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


def _random_model(kind: str) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(3)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(vocab_size=4096, max_position_embeddings=64, initializer_range=0.5, **small))
    if kind == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(vocab_size=4096, max_position_embeddings=64, initializer_range=0.5, head_dim=8, **small))
    return GPT2LMHeadModel(GPT2Config(vocab_size=4096, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.5))


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2", "seedling"])
def test_greedy_equals_generate(kind: str) -> None:
    from seedbed.engines.local import LocalSession

    lm = load("seedling")
    if kind != "seedling":
        model = _random_model(kind).eval().requires_grad_(False)
        lm = LM(kind, model, lm.tokenizer, weights_hash(model), 64, lm.eos, lm.bos, 32)
    session = LocalSession(lm, None, slots=3, cache=64)
    found = dict(session.complete(iter(_prompts(7)), Sampling(0.0, 1.0, 20)))
    for key, prompt in _prompts(7):
        ids = torch.tensor([[lm.bos, *lm.encode(prompt.text)]])
        out = lm.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20, eos_token_id=lm.eos, pad_token_id=lm.eos
        )
        assert found[key].text == lm.decode(out[0, ids.shape[1] :].tolist())


def test_top_p_leaves_the_tail_out_and_uniforms_choose() -> None:
    session = Local(slots=1, cache=64).open(ModelRef("seedling"))

    class _Slot:
        ids: tuple[int, ...] = ()

        def __init__(self, uniform: float) -> None:
            self.uniforms = [uniform]

    logits = torch.log(torch.tensor([[0.1, 0.5, 0.15, 0.25]]))
    draws = [session._draw(logits, [_Slot(u)], Sampling(1.0, 0.7, 1))[0] for u in (0.0, 0.6, 0.67, 0.99)]  # type: ignore[list-item]
    assert draws == [1, 1, 3, 3], "top-p 0.7 keeps 0.5 and 0.25, renormalised to 2/3 and 1/3"
    draws = [session._draw(logits, [_Slot(u)], Sampling(1.0, 1.0, 1))[0] for u in (0.49, 0.51, 0.76, 0.91)]  # type: ignore[list-item]
    assert draws == [1, 3, 2, 0]


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


def test_a_prompt_without_room_is_refused() -> None:
    with pytest.raises(EngineError, match=r"Raise engine\.cache"):
        list(Local(cache=8).open(ModelRef("seedling")).complete(iter([(0, Prompt("word " * 30, 0))]), Sampling()))


def test_soft_needs_an_opened_prompt() -> None:
    with pytest.raises(EngineError, match="opened without one"):
        list(Local(cache=32).open(ModelRef("seedling")).complete(iter([(0, Prompt("", 0, SoftRef(("a",), (1.0,))))]), Sampling()))


@pytest.mark.parametrize("engine", [Toy(), Local(slots=2, cache=64)])
def test_conformance(engine: Any) -> None:
    check_engine(engine)


def test_toy_knows_only_what_its_prompt_names(tmp_path: Path) -> None:
    sources = [{"id": "a", "text": "aaaa bbbb", "given": {}}, {"id": "b", "text": "cccc dddd", "given": {}}]
    (tmp_path / "sources.jsonl").write_text("".join(json.dumps(s) + "\n" for s in sources))
    (tmp_path / "corpus.txt").write_text("xyxyxy")
    session = Toy(order=2).open(ModelRef("toy", soft=tmp_path))
    prompts = [(0, Prompt("", 1, SoftRef(("a",), (1.0,)))), (1, Prompt("", 1, SoftRef(("b",), (1.0,)))), (2, Prompt("", 1, adapter=str(tmp_path)))]
    found = dict(session.complete(iter(prompts), Sampling(1.0, 1.0, 30)))
    assert [set(found[i].text) <= set(allowed) for i, allowed in enumerate(["ab ", "cd ", "xy"])] == [True] * 3
    soft = session.score(prompts[0][1], ["aaaa", "cccc"])
    assert soft[0][0] > soft[1][0]

"""The quick training path against the plain one: the whole padded batch through transformers in fp32, every logit in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seedbed.lm import llama, loss, states, train
from seedbed.lm.batches import Text, batches, passes, steps_of
from seedbed.lm.load import LM, load, weights_hash
from seedbed.lm.prompts import Form, SoftPrompt

CONTEXT = 96


def plain_nll(lm: LM, soft: torch.Tensor, texts: Sequence[Text]) -> torch.Tensor:
    """(B,) summed losses of the targets: what `train.nll` must equal."""
    width = max(len(x) for x in texts)
    ids = torch.tensor([[*x.given, *x.target] + [lm.eos] * (width - len(x)) for x in texts])
    labels = torch.tensor([[-100] * len(x.given) + [*x.target] + [-100] * (width - len(x)) for x in texts])
    inputs = torch.cat([soft.expand(len(texts), -1, -1).to(lm.model.dtype), lm.vectors(ids)], dim=1)
    logits = lm.model(inputs_embeds=inputs).logits[:, soft.shape[1] - 1 : -1].float()
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(dim=1)


def model(kind: str, **changes: Any) -> LM:
    """A small model with random weights, frozen."""
    import transformers as tf

    small = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2}
    common: dict[str, Any] = {"vocab_size": 300, "max_position_embeddings": CONTEXT, "initializer_range": 0.3}
    torch.manual_seed(3)
    if kind == "llama":
        made: Any = tf.LlamaForCausalLM(tf.LlamaConfig(**small, **common | changes))
    elif kind == "qwen3":
        made = tf.Qwen3ForCausalLM(tf.Qwen3Config(**small, **common | changes))
    elif kind == "gemma2":
        made = tf.Gemma2ForCausalLM(tf.Gemma2Config(**small, head_dim=8, **common | changes))
    else:
        made = tf.GPT2LMHeadModel(tf.GPT2Config(vocab_size=300, n_positions=CONTEXT, n_embd=48, n_layer=2, n_head=4, initializer_range=0.3))
    made.eval().requires_grad_(False)
    return LM(kind, made, None, weights_hash(made), CONTEXT, 0, 0, 48)


def some_texts(count: int, seed: int = 0, longest: int = 60) -> list[Text]:
    rng = np.random.default_rng(seed)
    ids = [rng.integers(1, 300, int(n)).tolist() for n in rng.integers(1, longest, count)]
    return [Text(tuple(x[: len(x) // 3 * (i % 2)]), (*x[len(x) // 3 * (i % 2) :], 0)) for i, x in enumerate(ids)]


def both(lm: LM, prompts: int, texts: Sequence[Text]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(losses, gradient of the prompt) by the plain and by the quick path."""
    found = []
    for path in (plain_nll, train.nll):
        soft = torch.randn(prompts, 5, 48, generator=torch.Generator().manual_seed(1)).requires_grad_()
        losses = path(lm, soft, texts)
        (slope,) = torch.autograd.grad(losses.sum(), soft)
        found.append((losses.detach(), slope))
    return found


ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True}),
    ("llama", {"rope_parameters": ROPE}),
    ("llama", {"head_dim": 12}),
    ("llama", {"attention_bias": True}),
    ("qwen3", {}),
    ("gemma2", {}),
    ("gpt2", {}),
]


@pytest.mark.parametrize(("kind", "changes"), KINDS, ids=str)
@pytest.mark.parametrize("prompts", [1, 9])
def test_losses_and_gradients_are_those_of_the_plain_path(kind: str, changes: dict[str, Any], prompts: int) -> None:
    lm = model(kind, **changes)
    (losses, slope), (quick_losses, quick_slope) = both(lm, prompts, some_texts(9))
    assert torch.allclose(quick_losses, losses, rtol=1e-5, atol=1e-4)
    assert torch.allclose(quick_slope, slope, rtol=1e-4, atol=1e-5 * float(slope.abs().max()))


def test_which_models_take_which_path() -> None:
    assert llama.fits(load("seedling").model)
    assert not llama.fits(model("llama", attention_bias=True).model)
    assert not llama.fits(model("qwen3").model)
    assert model("qwen3").states.head is not None
    assert model("gemma2").states.head is None, "capped logits are no linear map of the states"


@pytest.mark.parametrize("change", ["library attention", "recompute", "one logit row"])
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_every_variant_gives_the_same(kind: str, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = some_texts(9)
    (losses, slope), _ = both(model(kind), 9, texts)
    if change == "library attention":
        monkeypatch.setattr(llama, "PLAIN_ATTENTION", 0)
    if change == "recompute":
        monkeypatch.setattr(states, "memory", lambda device: 1)
    if change == "one logit row":
        monkeypatch.setattr(loss, "LOGITS", 1)
    lm = model(kind)
    assert lm.states.recompute == (change == "recompute")
    _, (quick_losses, quick_slope) = both(lm, 9, texts)
    assert torch.allclose(quick_losses, losses, rtol=1e-5, atol=1e-4)
    assert torch.allclose(quick_slope, slope, rtol=1e-4, atol=1e-5 * float(slope.abs().max()))
    assert not any(m.training for m in lm.model.modules())


CALM = {"initializer_range": 0.1}
"""Of weights, so that rounding does not grow into another curve."""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "form"), [("llama", "nsp"), ("llama", "mp"), ("llama", "mc"), ("seedling", "mc")])
def test_loss_curves_are_those_of_the_plain_path(kind: str, form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 steps over the same batches, nats a token at every evaluation: within 0.001 of the plain path in fp32."""
    lm = load("seedling") if kind == "seedling" else model(kind, **CALM)
    ours = curve(lm, form, tmp_path / "ours")
    monkeypatch.setattr(train, "nll", plain_nll)
    plain = curve(lm, form, tmp_path / "plain")
    assert plain[2] + 0.1 < plain[0], "it must have learned"
    assert np.abs(ours - plain).max() < 0.001


def test_a_loss_curve_in_bf16_is_near_that_of_the_plain_path_in_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 0.02, on a small model: a processor without bf16 multiplies at a hundredth of its speed."""
    rough = model("llama", **CALM)
    rough.model.to(torch.bfloat16)
    ours = curve(rough, "mc", tmp_path / "ours")
    monkeypatch.setattr(train, "nll", plain_nll)
    plain = curve(model("llama", **CALM), "mc", tmp_path / "plain")
    assert plain[2] + 0.1 < plain[0], "it must have learned"
    assert 0 < np.abs(ours - plain).max() < 0.02


def curve(lm: LM, form: Form, checkpoint: Path) -> np.ndarray:
    """Train and dev losses of each evaluation over 40 steps; a fifth of 20 rows is dev."""
    texts = [Text(x.given, tuple(1 + i % 20 for i in x.target)) for x in some_texts(20, longest=20)]
    torch.manual_seed(0)
    z, net = torch.randn(20, 12), SoftPrompt(form, torch.randn(3 if form == "mp" else 1, 4, lm.dim), 0.5, 12)
    how = train.Fitting(epochs=10, patience=9, batch=4, prompt_lr=0.1, network_lr=0.01, weight_decay=0.01)
    log = train.fit(lm, net, texts[:16], z[:16], texts[16:], z[16:], how, 0, checkpoint)
    assert [entry["step"] for entry in log] == [20, 40]
    return np.array([[entry["train"], entry["dev"]] for entry in log]).ravel()


def test_a_batch_larger_than_a_pass_gives_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, texts = model("llama"), some_texts(9)
    z, net = torch.randn(9, 12), SoftPrompt("mc", torch.randn(1, 4, 48), 0.5, 12, dropout=0.0)
    torch.nn.init.normal_(net.head.weight)
    found = []
    for room in (4096, 1):
        monkeypatch.setattr(lm.states, "room", room)
        net.zero_grad()
        total = train._gradients(lm, net, texts, z, list(range(9)), 100, torch.Generator())
        found.append((total, [p.grad.clone() for p in net.parameters() if p.grad is not None]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_an_epoch_reads_each_text_once_in_steps_of_like_cost() -> None:
    rng = np.random.default_rng(0)
    texts = [Text((), (0,) * int(n)) for n in rng.lognormal(3.7, 0.8, 1000).clip(1, 256)]
    found = batches(texts, 16, 1, 16)
    assert sorted(i for batch in found for i in batch) == list(range(1000))
    assert len(found) == steps_of(1000, 16) == 63
    assert found != batches(texts, 16, 2, 16)
    costs = [sum(len(texts[i]) + 16 for i in batch) for batch in found]
    padded = [(max(len(texts[i]) for i in batch) + 16) * len(batch) for batch in found]
    assert max(costs) < 1.5 * np.mean(costs)
    assert sum(padded) < 1.12 * sum(costs)


@pytest.mark.parametrize("lengths", [[1], [500, 1, 1, 1, 1], [3] * 33, [900] * 2 + [1] * 31])
def test_no_batch_is_empty_whatever_the_lengths(lengths: list[int]) -> None:
    texts = [Text((), (0,) * n) for n in lengths]
    for size in (1, 2, 5, 64):
        found = batches(texts, size, 0, 4)
        assert all(found) and len(found) == steps_of(len(texts), size)
        assert sorted(i for batch in found for i in batch) == list(range(len(texts)))


def test_passes_keep_to_the_room() -> None:
    texts = some_texts(50)
    found = list(passes(texts, range(50), 4, 200))
    assert sorted(i for part in found for i in part) == list(range(50))
    assert all(len(part) * (max(len(texts[i]) for i in part) + 4) <= 200 or len(part) == 1 for part in found)
    assert len(found) < 25

"""Soft-prompt training by seedbed and by PEFT with the HF Trainer: the same frozen model, the same texts, 16 soft tokens, batches of 16.

Texts have lognormal lengths (median 40 tokens, at most 256), cut from the example's messages. Seedbed fits `nsp`, one prompt for all texts, as
PEFT's P-tuning does (PromptEncoderConfig, MLP); facts say what the contextual `mc` takes. Units are the texts' own tokens: no padding, no soft token.
"""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import quick, race

from seedbed.lm import train
from seedbed.lm.batches import Text
from seedbed.lm.load import LM, load, quick_dtype
from seedbed.lm.prompts import SoftPrompt

TOKENS, BATCH, CONTEXT_WIDTH = 16, 16, 384
SMOLLM2 = {"hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152}


def lm_of(size: str, layers: int, dtype: torch.dtype) -> LM:
    """seedling, or a Llama of SmolLM2's shape with random weights (30 layers: 135 M parameters)."""
    small = load("seedling", dtype)
    if size == "seedling":
        return small
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SMOLLM2, num_hidden_layers=layers, tie_word_embeddings=True, max_position_embeddings=2048))
    return replace(small, name=size, model=model.to(dtype).eval().requires_grad_(False), dim=576, context=2048)


def texts_of(lm: LM, count: int) -> list[Text]:
    """Messages of the example one after another, cut at lognormal lengths; each ends with end-of-text."""
    with (Path(__file__).resolve().parent.parent / "examples/helpdesk.csv").open(newline="", encoding="utf-8") as file:
        messages = [lm.encode(row["message"] + " ") for row in csv.DictReader(file)]
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(np.log(40), 0.8, count).clip(2, 256).astype(int).tolist()
    orders = [rng.permutation(len(messages))[:60].tolist() for _ in range(count)]
    streams = [[token for i in order for token in messages[i]] for order in orders]
    return [Text((), (*stream[: n - 1], lm.eos)) for stream, n in zip(streams, lengths, strict=True)]


def seedbed(lm: LM, texts: list[Text], epochs: int, form: Any = "nsp") -> SoftPrompt:
    """One fit of `epochs`, contexts drawn at random."""
    torch.manual_seed(0)
    z = torch.randn(len(texts), CONTEXT_WIDTH)
    starts = lm.vectors(torch.arange(100, 100 + TOKENS)).float()[None]
    net = SoftPrompt(form, starts, float(starts.pow(2).mean().sqrt()), CONTEXT_WIDTH)
    how = train.Fitting(epochs, patience=99, batch=BATCH, prompt_lr=0.1, network_lr=0.01, weight_decay=0.01, warmup=4)
    with tempfile.TemporaryDirectory() as folder:
        train.fit(lm, net, texts, z, texts[:1], z[:1], how, 0, Path(folder) / "checkpoint")
    return net


def peft(lm: LM, texts: list[Text], epochs: int, expert: bool) -> tuple[Any, Callable[[], Any]]:
    """The model with P-tuning on it, and what trains it by `epochs`. expert: batches grouped by length."""
    from peft import PromptEncoderConfig, TaskType, get_peft_model
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.manual_seed(0)
    config = PromptEncoderConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=TOKENS, encoder_hidden_size=lm.dim)
    model = get_peft_model(lm.model, config)
    rows = [{"input_ids": [*x.target], "attention_mask": [1] * len(x), "labels": [*x.target]} for x in texts]
    args = TrainingArguments(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH, num_train_epochs=epochs, learning_rate=1e-2, use_cpu=True, report_to=[],
        save_strategy="no", logging_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
        train_sampling_strategy="group_by_length" if expert else "random",
    )  # fmt: skip
    trainer = Trainer(model=model, args=args, train_dataset=rows, data_collator=DataCollatorForSeq2Seq(lm.tokenizer))
    return model, trainer.train


def same_gradients(lm: LM, model: Any, texts: list[Text]) -> float:
    """The relative error of theta's gradient by our path against PEFT's own, of one padded batch; raises where it or the loss is off.

    Both start from the same vectors: PEFT's encoder gives them, and each path's gradient runs back through it.
    """
    encoder = model.prompt_encoder["default"]
    width = max(len(x) for x in texts)
    ids = torch.tensor([[*x.target] + [lm.eos] * (width - len(x)) for x in texts])
    mask = torch.tensor([[1] * len(x) + [0] * (width - len(x)) for x in texts])
    found = []
    for side in ("peft", "ours"):
        model.zero_grad()
        if side == "peft":
            loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
        else:
            loss = train.nll(lm, encoder(torch.arange(TOKENS))[None], texts).sum() / sum(len(x) for x in texts)
        loss.backward()
        found.append((float(loss.detach()), torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None])))
    model.zero_grad()
    (theirs, their_slope), (ours, our_slope) = found
    error = float((our_slope - their_slope).norm() / their_slope.norm())
    exact = lm.model.dtype == torch.float32
    assert abs(ours - theirs) < (1e-4 if exact else 0.02), f"losses {ours} and {theirs}"
    assert error < (1e-3 if exact else 0.1), f"gradients differ by {error}"
    return error


def claim(name: str, size: str, *, expert: bool, goal: float, rounds: int) -> None:
    """Races one fit of ours against the Trainer's of as many epochs."""
    small = quick()
    count, epochs, layers = {"seedling": (96 if small else 192, 1 if small else 2, 0), "135m": (16 if small else 48, 1, 6 if small else 30)}[size]
    dtypes = [torch.float32, torch.bfloat16] if expert else [torch.float32]
    texts = texts_of(lm_of(size, layers, torch.float32), count)
    tokens = epochs * sum(len(x) for x in texts)
    sides = {}
    for dtype in dtypes:
        model, work = peft(lm_of(size, layers, dtype), texts, epochs, expert)
        start = time.perf_counter()
        work()
        took = time.perf_counter() - start
        # Each later call trains on; the vectors to compare with are those after as many epochs as ours.
        sides[dtype] = (took, model, work, model.prompt_encoder["default"](torch.arange(TOKENS)).detach()[None])
    chosen = min(sides, key=lambda dtype: sides[dtype][0])
    _, model, work, theirs = sides[chosen]
    print(f"{name}: {count} texts, {tokens} tokens; PEFT's seconds by type: { ({str(k): round(v[0], 2) for k, v in sides.items()}) }", flush=True)
    ours = lm_of(size, layers, quick_dtype())

    def check(net: SoftPrompt, _: Any) -> str:
        pick = texts[:8]
        error = same_gradients(replace(ours, model=model.base_model), model, pick)
        if size != "seedling":
            return f"gradients differ by {error:.1e}"
        with torch.inference_mode():
            losses = [
                sum(float(train.nll(ours, soft, [x])) for x in texts) * epochs / tokens for soft in (net(torch.zeros(1, CONTEXT_WIDTH)), theirs)
            ]
        assert losses[0] < losses[1] + 0.02, f"ours ends at {losses[0]} nats a token, PEFT at {losses[1]}"
        return f"gradients differ by {error:.1e}; nats a token after the fit {losses[0]:.3f}, PEFT {losses[1]:.3f}"

    start = time.perf_counter()
    seedbed(ours, texts, epochs, "mc")
    contextual = time.perf_counter() - start
    race(
        name, lambda: seedbed(ours, texts, epochs), work, check, goal=goal, rounds=rounds, units=lambda _: tokens,
        precision={"ours": str(ours.model.dtype), "peer": str(chosen)}, real_tokens=tokens, mc_tokens_a_second=tokens / contextual,
    )  # fmt: skip

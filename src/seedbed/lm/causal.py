"""A causal language model that learns to answer: all of its weights, or those of its first blocks; greedy answers by continuous batching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from seedbed.errors import ComponentError, ModelError
from seedbed.lm import finetune
from seedbed.lm.batches import Text
from seedbed.lm.batching import Batch
from seedbed.lm.forward import forward_of
from seedbed.lm.load import LM
from seedbed.lm.prefill import Job, Prefill
from seedbed.lm.shapes import all_shapes
from seedbed.lm.writing import Writer, answer, lesson, question
from seedbed.types import Example, Prompt, Sampling

if TYPE_CHECKING:
    from seedbed.task import Task

SLOTS = 64
"""Rows that are answered together."""


def learn(
    name: str,
    layers: int | None,
    how: finetune.Tuning,
    max_tokens: int,
    where: str,
    task: Task,
    examples: Sequence[Example],
    dev: Sequence[Example],
    seed: int,
) -> Writer:
    """Fine-tunes the named model on the answers to the examples' questions; dev chooses the epoch, without dev rows the examples do.

    layers: keeps so many blocks, the first ones. Rows that are longer than the context are left out, and counted in the facts.
    Raises ComponentError: nothing to learn from; ModelError: a model that cannot be loaded or cut, a loss that is not finite.
    """
    rows = lesson(where, task, examples)
    lm = finetune.own(name, "full")
    if layers is not None:
        lm = shorten(lm, layers, where)
    encoded, chosen_by = _encode(lm, task, rows), _encode(lm, task, dev)
    if not encoded:
        raise ComponentError(
            f"{where} none of {len(rows)} training rows fits into the {lm.context} tokens that {name!r} reads. Use a model that reads more."
        )
    tuned = finetune.tune_lm(lm, encoded, chosen_by or encoded, how, seed)
    best = min(tuned.log, key=lambda entry: entry["dev"])
    facts = {
        "epoch": best["epoch"],
        "dev_nll": best["dev"] if chosen_by else None,
        "before_nll": tuned.before if chosen_by else None,
        "parameters": tuned.parameters,
        "too_long": {"fit": len(rows) - len(encoded), "dev": len(dev) - len(chosen_by)},
    }
    return Writer(task, lambda asked: write(tuned.lm, asked, max_tokens), lambda text: _start(tuned.lm, text) < lm.context, facts)


def shorten(lm: LM, layers: int, where: str) -> LM:
    """The model with its first `layers` blocks alone; changes the model that is given. Raises ModelError: it has fewer, or they cannot be told."""
    config = lm.model.config.get_text_config()
    depth = int(config.num_hidden_layers)
    if layers > depth:
        raise ModelError(f"{where} layers = {layers}: {lm.name!r} has {depth} blocks. Allowed: 1 to {depth}.")
    stacks = [(m, name) for m in lm.model.modules() for name, part in m.named_children() if isinstance(part, nn.ModuleList) and len(part) == depth]
    if len(stacks) != 1:
        raise ModelError(f"{where} layers = {layers}: which modules of {lm.name!r} are its {depth} blocks cannot be told. Leave layers out.")
    (owner, name) = stacks[0]
    setattr(owner, name, getattr(owner, name)[:layers])
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    return replace(lm)  # what was cached of the whole model is not taken along


@torch.inference_mode()
def write(lm: LM, questions: Sequence[str], max_tokens: int) -> list[str]:
    """Greedy answers, each to its end-of-text, to `max_tokens` tokens or to the end of the context. Questions leave room for a token."""
    starts = [[lm.bos, *lm.encode(text)] for text in questions]
    cache = min(lm.context, max(map(len, starts)) + max_tokens)
    forward, sampling = forward_of(lm, cache), Sampling(0.0, 1.0, max_tokens)
    shapes = all_shapes(min(SLOTS, len(starts)), cache)
    batch = Batch(lm, forward, Prefill(lm, None, forward, shapes), shapes, sampling)
    jobs = (Job(i, Prompt(questions[i], 0), ids, min(max_tokens, cache - len(ids))) for i, ids in enumerate(starts))
    found = {key: done.text for key, done in batch.complete(jobs)}
    return [found[i] for i in range(len(starts))]


def _start(lm: LM, text: str) -> int:
    return 1 + len(lm.encode(text))


def _encode(lm: LM, task: Task, rows: Sequence[Example]) -> list[Text]:
    """The rows that the context holds, begin-of-text and end-of-text counted."""
    both = [Text(tuple(lm.encode(question(task, e))), (*lm.encode(f" {answer(task, e)}"), lm.eos)) for e in rows]
    return [text for text in both if 1 + len(text) <= lm.context]

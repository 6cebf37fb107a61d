"""Fine-tunes a text encoder with a classification head: a plain loop, the best epoch on dev, the same weights for the same seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from seedbed.errors import ModelError
from seedbed.lm.batches import batches
from seedbed.lm.classify import Learned, Learner, Lesson, known_targets
from seedbed.lm.load import UNLOADABLE, layers_of, need_whole, why
from seedbed.lm.loop import seeded
from seedbed.progress import bar
from seedbed.types import Example, seed_for

if TYPE_CHECKING:
    from seedbed.task import Task

WEIGHT_DECAY = 0.01
CLIP = 1.0
ROWS_READ = 64
"""Rows of one batch where no gradient is kept."""


@dataclass(frozen=True)
class _Ids:
    """One text, or pair of texts, as the model reads it. cut: it was longer than the model's limit."""

    ids: tuple[int, ...]
    types: tuple[int, ...]
    cut: bool

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class _Reader:
    """Examples -> token ids. pair and qa tasks: the first input and the rest of them, as the tokenizer's pair."""

    task: Task
    tokenizer: Any
    limit: int

    def __call__(self, examples: Sequence[Example]) -> list[_Ids]:
        return [self._one(*self._texts(e)) for e in examples]

    def _texts(self, example: Example) -> tuple[str, ...]:
        first, *rest = (str(example.fields[name]) for name in self.task.inputs)
        return (first, "\n".join(rest)) if self.task.kind in ("pair", "qa") else ("\n".join([first, *rest]),)

    def _one(self, *texts: str) -> _Ids:
        whole = self.tokenizer(*texts, verbose=False)
        cut = len(whole["input_ids"]) > self.limit
        if cut:
            whole = self.tokenizer(*texts, truncation="longest_first", max_length=self.limit)
        ids = tuple(whole["input_ids"])
        return _Ids(ids, tuple(whole.get("token_type_ids") or [0] * len(ids)), cut)


def tune(how: Learner, where: str, task: Task, lesson: Lesson, dev: Sequence[Example], seed: int) -> Learned:
    """Trains all weights on cross-entropy against the rows' distributions, weighted; keeps the epoch with the best log-likelihood on dev.

    Without a dev row that counts, the last epoch. AdamW (Loshchilov and Hutter 2019), linear warm-up and decay, batches of like length.
    Equal seeds give equal bytes on one machine with the same number of threads. Raises ModelError: not loadable, or a loss that is not finite.
    """
    model, reader = _load(how.model, where, task, len(lesson.labels), seed)
    texts, weights = reader(lesson.rows), torch.tensor(lesson.weights / lesson.weights.sum(1).mean(), dtype=torch.float32, device=model.device)
    known, right = known_targets(task, lesson.labels, dev)
    dev_texts = reader(known)
    optimiser = torch.optim.AdamW(_groups(model), lr=how.lr)
    steps = how.epochs * math.ceil(len(texts) / how.batch)
    best: dict[str, torch.Tensor] = {}
    best_fit, best_epoch, step = -math.inf, how.epochs, 0
    with bar("fine-tune", steps) as update:
        for epoch in range(1, how.epochs + 1):
            for picked in batches(texts, how.batch, seed_for(seed, "epoch", epoch)):
                for group in optimiser.param_groups:
                    group["lr"] = how.lr * _rate(step, steps, how.warmup)
                _step(model, optimiser, [texts[i] for i in picked], weights[picked], where, seed_for(seed, "dropout", step))
                step += 1
                update(step, f"dev {best_fit:.3f}" if best else "")
            if not known:
                continue
            fit = float(_log_probabilities(model, dev_texts)[range(len(known)), right].mean())
            if fit > best_fit:
                best_fit, best_epoch = fit, epoch
                best = {name: value.detach().clone() for name, value in model.state_dict().items()}
            elif epoch - best_epoch >= how.patience:
                break
    if best:
        model.load_state_dict(best)
    return Learned(
        lesson.labels,
        model,
        lambda examples: np.exp(_log_probabilities(model, reader(examples))),
        lambda examples: sum(x.cut for x in reader(examples)),
        {"epoch": best_epoch, "dev_log_likelihood": best_fit if best else None, "rows_cut": sum(x.cut for x in (*texts, *dev_texts))},
    )


def _load(name: str, where: str, task: Task, labels: int, seed: int) -> tuple[Any, _Reader]:
    """A model with a fresh head drawn from the seed, and its reader."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    from seedbed.lm.embed import minilm_folder

    place = str(minilm_folder()) if name == "minilm" else name
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # that the head is new is the purpose
    try:
        with seeded(seed_for(seed, "head"), "cpu"):
            # A head for other labels, as a model tuned on another task has one, is drawn anew too.
            how = {"dtype": torch.float32, "use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
            model, said = AutoModelForSequenceClassification.from_pretrained(place, num_labels=labels, **how)
        need_whole(f"{where} model = {name!r}", layers_of(said["missing_keys"]))
        tokenizer = AutoTokenizer.from_pretrained(place)
    except UNLOADABLE as error:
        raise ModelError(
            f'{where} model = {name!r} cannot be loaded: {why(error)} Allowed: "minilm", a folder or a hub name of an encoder.'
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    limit = min(int(tokenizer.model_max_length), int(getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)), *_places(model))
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), _Reader(task, tokenizer, limit)


def _places(model: Any) -> list[int]:
    """Tokens for which a table of positions has a row each; RoBERTa's positions begin behind that of padding."""
    tables = [m for name, m in model.named_modules() if name.endswith("position_embeddings") and isinstance(m, torch.nn.Embedding)]
    return [t.num_embeddings - (0 if t.padding_idx is None else t.padding_idx + 1) for t in tables]


def _groups(model: Any) -> list[dict[str, Any]]:
    """No decay on biases and norms."""
    weights = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _rate(step: int, steps: int, warmup: float) -> float:
    """The share of the peak rate at a step: up in a straight line over the warm-up, then down to 0."""
    up = warmup * steps
    return (step + 1) / up if step + 1 < up else (steps - step) / (steps - up)


def _step(model: Any, optimiser: torch.optim.Optimizer, texts: Sequence[_Ids], weights: torch.Tensor, where: str, seed: int) -> None:
    model.train()
    with seeded(seed, model.device.type):
        loss = -(weights * torch.log_softmax(_logits(model, texts), dim=1)).sum() / len(texts)
    if not torch.isfinite(loss):
        raise ModelError(f"{where} fine-tuning: the loss is not finite. Lower lr, or choose another model.")
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def _logits(model: Any, texts: Sequence[_Ids]) -> torch.Tensor:
    """float32 (n, labels). Padding stands on the right."""
    width, pad = max(map(len, texts)), model.config.pad_token_id
    ids = torch.tensor([[*x.ids, *[pad] * (width - len(x))] for x in texts])
    inputs = {"input_ids": ids, "attention_mask": torch.tensor([[1] * len(x) + [0] * (width - len(x)) for x in texts])}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = torch.tensor([[*x.types, *[0] * (width - len(x))] for x in texts])
    # bf16 only where the hardware multiplies it and fp32 master weights stay: on a CPU it would change answers for little speed.
    half = model.device.type == "cuda" and torch.cuda.is_bf16_supported()
    with torch.autocast("cuda", torch.bfloat16) if half else nullcontext():
        logits: torch.Tensor = model(**{k: v.to(model.device) for k, v in inputs.items()}).logits
    return logits.float()


@torch.inference_mode()
def _log_probabilities(model: Any, texts: Sequence[_Ids]) -> np.ndarray:
    """float64 (n, labels)."""
    model.eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found = np.zeros((len(texts), model.config.num_labels))
    for start in range(0, len(order), ROWS_READ):
        picked = order[start : start + ROWS_READ]
        found[picked] = torch.log_softmax(_logits(model, [texts[i] for i in picked]).double(), dim=1).cpu().numpy()
    return found

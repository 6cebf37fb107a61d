"""An encoder-decoder that learns to answer: all weights by the loop of lm/loop.py, answers by transformers' own generate."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from seedbed.errors import ComponentError, ModelError
from seedbed.lm import loop
from seedbed.lm.batches import Text, passes
from seedbed.lm.load import UNLOADABLE, need_whole, usual_device, why
from seedbed.lm.states import PASS_TOKENS
from seedbed.lm.writing import Writer, answer, lesson, question
from seedbed.types import Example

if TYPE_CHECKING:
    from seedbed.task import Task

WEIGHT_DECAY = 0.01
ROWS_READ = 32
"""Questions answered together."""


@dataclass(frozen=True)
class Pair:
    """An encoder-decoder with its tokenizer. limit: tokens that either side reads."""

    name: str
    model: Any
    tokenizer: Any
    limit: int

    def encode(self, text: str, target: bool = False) -> tuple[int, ...]:
        """Ids with end-of-text, as the model was trained with it."""
        ids = self.tokenizer(**{"text_target" if target else "text": text}, verbose=False)["input_ids"]
        end = self.tokenizer.eos_token_id
        return (*ids,) if ids and ids[-1] == end else (*ids, end)

    def ask(self, texts: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """What the encoder reads, padded on the right."""
        width = max(map(len, texts))
        ids = torch.tensor([[*x, *[self.tokenizer.pad_token_id] * (width - len(x))] for x in texts])
        mask = torch.tensor([[1] * len(x) + [0] * (width - len(x)) for x in texts])
        return {"input_ids": ids.to(self.model.device), "attention_mask": mask.to(self.model.device)}


def load(name: str, where: str) -> Pair:
    """Raises ModelError: not to be had, no encoder-decoder of transformers, or without an end-of-text."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model, said = AutoModelForSeq2SeqLM.from_pretrained(name, dtype=torch.float32, use_safetensors=True, output_loading_info=True)
        need_whole(f"{where} model = {name!r}", said["missing_keys"])
        tokenizer = AutoTokenizer.from_pretrained(name)
    except UNLOADABLE as error:
        raise ModelError(
            f"{where} model = {name!r} cannot be loaded: {why(error)} Allowed: a folder with config.json, tokenizer and "
            'safetensors of an encoder-decoder, or a hub name that this machine can reach ("facebook/bart-large").'
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{where} model = {name!r}: its tokenizer has no end-of-text token, so no text could ever end. Use another model.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    limit = min(int(tokenizer.model_max_length), int(getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)))
    return Pair(name, model.to(usual_device()), tokenizer, limit)


@dataclass(frozen=True, kw_only=True)
class Tuning(loop.Schedule):
    lr: float


def learn(
    name: str, how: Tuning, beams: int, max_tokens: int, where: str, task: Task, examples: Sequence[Example], dev: Sequence[Example], seed: int
) -> Writer:
    """Fine-tunes the named model on the answers to the examples' questions; dev chooses the epoch, without dev rows the examples do.

    Rows of which a side is longer than the limit are left out, and counted in the facts. Raises ComponentError: nothing to learn from;
    ModelError: a model that cannot be loaded, a loss that is not finite.
    """
    rows = lesson(where, task, examples)
    pair = load(name, where)
    texts, chosen_by = _encode(pair, task, rows), _encode(pair, task, dev)
    if not texts:
        raise ComponentError(
            f"{where} none of {len(rows)} training rows fits into the {pair.limit} tokens that {name!r} reads. Use a model that reads more."
        )
    log = loop.fit(_Trainee(pair, texts, chosen_by or texts, how.lr), how, seed)
    pair.model.eval().requires_grad_(False)
    best = min(log, key=lambda entry: entry["dev"])
    facts = {
        "epoch": best["epoch"],
        "dev_nll": best["dev"] if chosen_by else None,
        "parameters": sum(p.numel() for p in pair.model.parameters()),
        "too_long": {"fit": len(rows) - len(texts), "dev": len(dev) - len(chosen_by)},
    }
    return Writer(task, lambda asked: write(pair, asked, beams, max_tokens), lambda text: len(pair.encode(text)) <= pair.limit, facts)


@torch.inference_mode()
def write(pair: Pair, questions: Sequence[str], beams: int, max_tokens: int) -> list[str]:
    """The likeliest answers, greedy with one beam; else as the model's own generation settings have it."""
    asked = [pair.encode(text) for text in questions]
    order = sorted(range(len(asked)), key=lambda i: len(asked[i]))
    found = [""] * len(asked)
    room = min(max_tokens, pair.limit - 1)  # the decoder starts with a token of its own
    for start in range(0, len(order), ROWS_READ):
        picked = order[start : start + ROWS_READ]
        ids = pair.model.generate(**pair.ask([asked[i] for i in picked]), max_new_tokens=room, num_beams=beams, do_sample=False)
        for i, text in zip(picked, pair.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False), strict=True):
            found[i] = text
    return found


def _encode(pair: Pair, task: Task, rows: Sequence[Example]) -> list[Text]:
    both = [Text(pair.encode(question(task, e)), pair.encode(answer(task, e), target=True)) for e in rows]
    return [text for text in both if max(len(text.given), len(text.target)) <= pair.limit]


@dataclass(frozen=True)
class _Trainee:
    """An encoder-decoder as `loop.fit` trains it."""

    pair: Pair
    texts: Sequence[Text]
    dev_texts: Sequence[Text]
    lr: float
    name: str = "seq2seq"
    prompt: int = 1  # the decoder's own first token

    @property
    def remedy(self) -> str:
        return f"Lower lr (now {self.lr})."

    @cached_property
    def _learning(self) -> dict[str, torch.nn.Parameter]:
        return dict(self.pair.model.named_parameters())

    def groups(self) -> list[dict[str, Any]]:
        """No decay on biases and norms."""
        both = [[p for p in self._learning.values() if (p.ndim > 1) == decays] for decays in (True, False)]
        return [{"params": ps, "lr": self.lr, "weight_decay": decay} for ps, decay in zip(both, (WEIGHT_DECAY, 0.0), strict=True)]

    def gradients(self, picked: list[int], count: int, seed: int) -> float:
        total = 0.0
        self.pair.model.train()
        with loop.seeded(seed, self.pair.model.device.type):
            for part in self._passes(self.texts, picked):
                loss = self._loss(part)
                (loss / count).backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
        return total

    @torch.inference_mode()
    def dev(self) -> float:
        self.pair.model.eval()
        total = sum(float(self._loss(part)) for part in self._passes(self.dev_texts, range(len(self.dev_texts))))
        return total / sum(len(x.target) for x in self.dev_texts)

    def weights(self) -> dict[str, torch.Tensor]:
        return dict(self._learning)

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, p in self._learning.items():
                p.copy_(weights[name])

    def _passes(self, texts: Sequence[Text], picked: Sequence[int]) -> list[list[Text]]:
        room = PASS_TOKENS.get(self.pair.model.device.type, PASS_TOKENS["cuda"])
        return [[texts[i] for i in part] for part in passes(texts, picked, self.prompt, room)]

    def _loss(self, part: Sequence[Text]) -> torch.Tensor:
        """Nats, summed over the targets."""
        width = max(len(x.target) for x in part)
        labels = torch.tensor([[*x.target, *[-100] * (width - len(x.target))] for x in part], device=self.pair.model.device)
        # bf16 where the hardware multiplies it; the weights that learn stay in fp32.
        half = self.pair.model.device.type == "cuda" and torch.cuda.is_bf16_supported()
        with torch.autocast("cuda", torch.bfloat16) if half else nullcontext():
            mean: torch.Tensor = self.pair.model(**self.pair.ask([x.given for x in part]), labels=labels).loss
        return mean * sum(len(x.target) for x in part)

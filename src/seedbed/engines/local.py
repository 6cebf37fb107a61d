"""Completes prompts on this machine with a transformers model: slots that are refilled as rows finish.

A row's tokens depend on its prompt and its seed alone. Each row is prefilled by itself; decoding always runs the same number of slots
(empty ones padded) over a cache of fixed length, so that no neighbour changes the order of a sum; the row's own seed gives one uniform
a token, drawn by inverse CDF. In fp32 that makes reruns byte-equal whatever shares the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from seedbed.errors import EngineError
from seedbed.types import Completion, ModelRef, Prompt, Sampling

if TYPE_CHECKING:
    import torch

    from seedbed.lm.decode import SoftVectors
    from seedbed.lm.load import LM
    from seedbed.lm.slots import SlotCache


@dataclass(frozen=True)
class Local:
    """A causal language model of transformers, run here.

    slots: rows decoded together. cache: tokens of prompt and completion together that a slot holds. precision: fp32 (reruns are byte-equal)
    or bf16. device: "cpu", "cuda", ...; None takes a GPU where there is one.
    """

    version: ClassVar[int] = 1
    can: ClassVar[frozenset[str]] = frozenset({"text", "soft", "score:text", "score:soft"})

    slots: Annotated[int, Field(ge=1, le=4096)] = 32
    cache: Annotated[int, Field(ge=8)] = 512
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str | None = None

    def open(self, model: ModelRef) -> LocalSession:
        import torch

        from seedbed.lm.decode import load_soft
        from seedbed.lm.load import load

        lm = load(model.name, torch.float32 if self.precision == "fp32" else torch.bfloat16, self.device)
        reference = lm if self.precision == "fp32" or not model.soft else load(model.name, torch.float32, self.device)
        soft = load_soft(model.soft, reference.hash, lm.device) if model.soft else None
        return LocalSession(lm, soft, self.slots, min(self.cache, lm.context))


@dataclass
class _Slot:
    """A row in the making. room: tokens it may still draw."""

    key: int
    prompt: Prompt
    uniforms: np.ndarray
    ids: list[int]
    room: int


@dataclass(frozen=True)
class LocalSession:
    lm: LM
    soft: SoftVectors | None
    slots: int
    cache: int

    def describe(self) -> Mapping[str, Any]:
        dtype = str(next(self.lm.model.parameters()).dtype).removeprefix("torch.")
        return {"engine": "local", "model": self.lm.name, "model_hash": self.lm.hash, "device": str(self.lm.device), "precision": dtype}

    def complete(self, prompts: Iterable[tuple[int, Prompt]], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        import torch

        with torch.inference_mode():
            yield from self._complete(iter(prompts), sampling)

    def _complete(self, waiting: Iterator[tuple[int, Prompt]], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        import torch

        from seedbed.lm.slots import SlotCache

        device = self.lm.device
        store = SlotCache(self.lm, self.slots, self.cache)
        live: list[_Slot | None] = [None] * self.slots
        tokens = torch.full((self.slots,), self.lm.eos, device=device)
        columns = torch.arange(self.cache, device=device)
        exhausted = False
        while True:
            for i in range(self.slots):
                while live[i] is None and not exhausted:
                    found = next(waiting, None)
                    if found is None:
                        exhausted = True
                        break
                    first, logits = self._prefill(*found, sampling, store, i)
                    done = self._push(first, self._draw(logits, [first], sampling)[0])
                    if done:
                        yield first.key, done
                    else:
                        live[i], tokens[i] = first, first.ids[-1]
            if all(slot is None for slot in live):
                return
            mask = (columns[None] <= store.positions[:, None])[:, None, None, :]
            logits = self.lm.model(
                input_ids=tokens[:, None], position_ids=store.positions[:, None], attention_mask=mask, past_key_values=store.cache, use_cache=True
            ).logits[:, -1]
            drawn = self._draw(logits, live, sampling)
            active = torch.tensor([slot is not None for slot in live], device=device)
            store.positions += active
            for i, slot in enumerate(live):
                if slot is not None:
                    done = self._push(slot, drawn[i])
                    if done:
                        yield slot.key, done
                        live[i] = None
                        store.positions[i] = 0
                    else:
                        tokens[i] = drawn[i]

    def _inputs(self, prompt: Prompt) -> torch.Tensor:
        """(1, n, d) vectors of one prompt: its soft prefix, or begin-of-text, then its text."""
        import torch

        if prompt.adapter:
            raise EngineError("the local engine cannot load adapters in this version. Allowed prompts: text, soft.")
        if prompt.soft and not self.soft:
            raise EngineError("a soft prompt was asked for, but the engine was opened without one (ModelRef.soft).")
        ids = self.lm.encode(prompt.text) if prompt.text else []
        if not prompt.soft:
            ids = [self.lm.bos, *ids]
        dtype = next(self.lm.model.parameters()).dtype
        pieces = [self.soft.resolve([prompt.soft]).to(dtype)] if prompt.soft and self.soft else []
        if ids:
            pieces.append(self.lm.vectors(torch.tensor([ids], device=self.lm.device)))
        return torch.cat(pieces, dim=1)

    def _prefill(self, key: int, prompt: Prompt, sampling: Sampling, store: SlotCache, i: int) -> tuple[_Slot, torch.Tensor]:
        """Fills slot i with the prompt's keys and values; the slot, and logits (1, V) of its first token."""
        from transformers import DynamicCache

        inputs = self._inputs(prompt)
        length = inputs.shape[1]
        if length >= self.cache:
            raise EngineError(
                f"a prompt of {length} tokens leaves no room in a slot of {self.cache} (the model reads {self.lm.context}). "
                "Raise engine.cache, or give shorter texts."
            )
        cache = DynamicCache(config=self.lm.model.config)
        logits = self.lm.model(inputs_embeds=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
        store.fill(i, cache, length)
        room = min(sampling.max_tokens, self.cache - length)
        uniforms = np.random.Generator(np.random.PCG64(prompt.seed)).random(room, dtype=np.float64)
        return _Slot(key, prompt, uniforms, [], room), logits

    def _draw(self, logits: torch.Tensor, live: Sequence[_Slot | None], sampling: Sampling) -> list[int]:
        """One token for each of (B, V) logits: greedy at temperature 0, else by inverse CDF within the top-p set."""
        import torch

        logits = logits.float()
        if sampling.temperature == 0:
            greedy: list[int] = logits.argmax(dim=-1).tolist()
            return greedy
        probs, order = torch.sort(torch.softmax(logits / sampling.temperature, dim=-1), dim=-1, descending=True, stable=True)
        total = probs.double().cumsum(dim=-1)
        inside = total - probs < sampling.top_p
        mass = torch.where(inside, probs.double(), 0.0).cumsum(dim=-1)
        uniforms = [slot.uniforms[len(slot.ids)] if slot is not None else 0.0 for slot in live]
        wanted = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)[:, None] * mass[:, -1:]
        place = (mass <= wanted).sum(dim=-1, keepdim=True).clamp(max=logits.shape[-1] - 1)
        drawn: list[int] = order.gather(1, place)[:, 0].tolist()
        return drawn

    def _push(self, slot: _Slot, token: int) -> Completion | None:
        """Appends a drawn token; the completion when the row ends with it."""
        if token == self.lm.eos:
            return Completion(self.lm.decode(slot.ids), len(slot.ids), True)
        slot.ids.append(token)
        if slot.prompt.stop:
            text = self.lm.decode(slot.ids)
            if slot.prompt.stop in text:
                return Completion(text.split(slot.prompt.stop)[0], len(slot.ids), True)
        if len(slot.ids) >= slot.room:
            return Completion(self.lm.decode(slot.ids), len(slot.ids), False)
        return None

    def score(self, prompt: Prompt, continuations: Sequence[str]) -> list[tuple[float, int]]:
        import torch

        with torch.inference_mode():
            prefix = self._inputs(prompt)
            scores = []
            for text in continuations:
                ids = self.lm.encode(text)
                if not ids:
                    scores.append((0.0, 0))
                    continue
                vectors = torch.cat([prefix, self.lm.vectors(torch.tensor([ids], device=self.lm.device))], dim=1)
                if vectors.shape[1] > self.lm.context:
                    raise EngineError(
                        f"prompt and continuation have {vectors.shape[1]} tokens; the model reads {self.lm.context}. Give shorter texts."
                    )
                logits = self.lm.model(inputs_embeds=vectors, use_cache=False, logits_to_keep=len(ids) + 1).logits[0, :-1]
                picked = torch.log_softmax(logits.float(), dim=-1).gather(1, torch.tensor(ids, device=logits.device)[:, None])
                scores.append((float(picked.double().sum()), len(ids)))
            return scores

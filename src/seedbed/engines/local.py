"""Completes prompts on this machine with a transformers model: slots that are refilled as rows finish.

A row's tokens depend on its prompt and its seed alone: the row's own seed gives one uniform a token, drawn by inverse CDF, and in fp32 on
a CPU every call of the model has a shape whose bits were found to be those of the full batch (lm/shapes.py). So reruns are byte-equal
whatever shares the batch. What a prompt says it shares with others is a part of the prompt: alone, it is read in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from seedbed.errors import EngineError, TooLong
from seedbed.store import file_hash
from seedbed.text import alike
from seedbed.types import Completion, ModelRef, Prompt, Sampling

if TYPE_CHECKING:
    from seedbed.lm.decode import SoftVectors
    from seedbed.lm.forward import Forward
    from seedbed.lm.load import LM
    from seedbed.lm.prefill import Job
    from seedbed.lm.shapes import Shapes


@dataclass(frozen=True)
class Local:
    """A causal language model of transformers, run here.

    slots: rows decoded together. cache: tokens of prompt and completion together that a slot holds. precision: fp32 (reruns are byte-equal)
    or bf16. device: "cpu", "cuda", ...; None takes a GPU where there is one.
    """

    version: ClassVar[int] = 4
    can: ClassVar[frozenset[str]] = frozenset({"text", "soft", "adapter", "score:text", "score:soft", "score:adapter"})

    slots: Annotated[int, Field(ge=1, le=4096)] = 64
    cache: Annotated[int, Field(ge=8)] = 512
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str | None = None

    def open(self, model: ModelRef) -> LocalSession:
        import torch

        from seedbed.lm.decode import load_soft
        from seedbed.lm.finetune import merged
        from seedbed.lm.load import load, usual_device

        dtype = torch.float32 if self.precision == "fp32" else torch.bfloat16
        lm = merged(model.name, model.adapter, dtype, self.device or usual_device()) if model.adapter else load(model.name, dtype, self.device)
        soft = load_soft(model.soft, lm.hash, lm.device) if model.soft else None
        return LocalSession(lm, soft, self.slots, min(self.cache, lm.context), model.adapter)


@dataclass(frozen=True)
class LocalSession:
    lm: LM
    soft: SoftVectors | None
    slots: int
    cache: int
    adapter: Path | None = None

    def describe(self) -> Mapping[str, Any]:
        dtype, kv = (str(d).removeprefix("torch.") for d in (self._forward.dtype, self._forward.kv(1, 1).dtype))
        name = Path(self.lm.name).name if Path(self.lm.name).is_absolute() else self.lm.name  # a run folder may move, and others may read it
        facts = {"engine": "local", "model": name, "model_hash": self.lm.hash, "device": str(self.lm.device)}
        facts |= {"adapter_hash": file_hash(self.adapter / "adapter_model.safetensors")} if self.adapter else {}
        return facts | {"precision": dtype, "kv_precision": kv, "path": type(self._forward).__name__.lower()}

    def complete(self, prompts: Iterable[tuple[int, Prompt]], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        import torch

        from seedbed.lm.batching import Batch
        from seedbed.lm.prefill import Prefill

        with torch.inference_mode():
            prefill = Prefill(self.lm, self.soft, self._forward, self._shapes)
            batch = Batch(self.lm, self._forward, prefill, self._shapes, sampling)
            refused: list[tuple[int, Completion]] = []

            def jobs() -> Iterator[Job]:
                for key, prompt in prompts:
                    try:
                        yield self._job(key, prompt, sampling)
                    except TooLong:
                        refused.append((key, Completion("", 0, False, f"prompt longer than engine.cache = {self.cache}")))

            for answer in batch.complete(jobs()):
                yield answer
                yield from refused
                refused.clear()
            yield from refused

    def score(self, prompt: Prompt, continuations: Sequence[str], ended: bool = False) -> list[tuple[float, int]]:
        import torch

        from seedbed.lm.prefill import resolve
        from seedbed.lm.scoring import score

        with torch.inference_mode():
            ids = self._ids(prompt)
            pieces = [resolve(self.soft, [prompt.soft]).to(self._forward.dtype)] if prompt.soft and self.soft else []
            if ids:
                pieces.append(self.lm.vectors(torch.tensor([ids], device=self.lm.device)))
            prefix = torch.cat(pieces, dim=1)
            encoded = [self.lm.encode(text) + [self.lm.eos] * ended for text in continuations]
            longest = prefix.shape[1] + max(map(len, encoded), default=0)
            if longest > self.lm.context:
                raise TooLong(f"prompt and continuation have {longest} tokens; the model reads {self.lm.context}. Give shorter texts.")
            values = iter(score(self.lm, prefix, [e for e in encoded if e]))
            return [(next(values), len(e)) if e else (0.0, 0) for e in encoded]

    @cached_property
    def _forward(self) -> Forward:
        from seedbed.lm.forward import forward_of

        return forward_of(self.lm, self.cache)

    @cached_property
    def _shapes(self) -> Shapes:
        import torch

        from seedbed.lm.shapes import all_shapes, equal_shapes

        if self.lm.device.type == "cpu" and self._forward.dtype == torch.float32:
            return equal_shapes(self._forward, self.lm.dim, self.slots, self.cache)
        return all_shapes(self.slots, self.cache)

    def _ids(self, prompt: Prompt) -> list[int]:
        """The prompt's tokens, after its soft prompt or begin-of-text."""
        if (Path(prompt.adapter) if prompt.adapter else None) != self.adapter:
            asked, has = ("/".join(Path(a).parts[-2:]) if a else "none" for a in (prompt.adapter, self.adapter))
            raise EngineError(f"a prompt asks for the adapter {asked}, and the engine was opened with {has} (ModelRef.adapter). Open one for each.")
        if prompt.soft and not self.soft:
            raise EngineError("a soft prompt was asked for, but the engine was opened without one (ModelRef.soft).")
        ids = self.lm.encode(prompt.text) if prompt.text else []
        return ids if prompt.soft else [self.lm.bos, *ids]

    def _job(self, key: int, prompt: Prompt, sampling: Sampling) -> Job:
        from seedbed.lm.prefill import Job

        ids = self._ids(prompt)
        length = len(ids) + (self.soft.net.t if prompt.soft and self.soft else 0)
        if length >= self.cache:
            raise TooLong(
                f"a prompt of {length} tokens leaves no room in a slot of {self.cache} (the model reads {self.lm.context}). "
                "Raise engine.cache, or give shorter texts."
            )
        return Job(key, prompt, ids, min(sampling.max_tokens, self.cache - length), self._shared(prompt, ids))

    def _shared(self, prompt: Prompt, ids: list[int]) -> int:
        """Tokens that the prompt says it shares; the last of that text may be joined with what follows."""
        if not prompt.shared or prompt.soft:
            return 0
        return alike([self.lm.bos, *self.lm.encode(prompt.text[: prompt.shared])], ids)

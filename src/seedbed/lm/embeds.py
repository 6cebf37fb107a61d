"""Whole prompts as vectors, for engines that are not ours and take `prompt_embeds`; and whether such an engine's numbers are the model's own.

A prompt is vectors from its first position to its last, or token ids from first to last, and never a mixture: engines that keep what prompts
begin with (prefix caching) have keyed mixtures wrongly (vLLM issue 56655).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from seedbed.errors import EngineError
from seedbed.lm.decode import SoftVectors
from seedbed.lm.load import LM
from seedbed.types import Prompt, SoftRef

PROBES = ("Once upon a time", "Question: what is", "\u00c9t\u00e9, 12:30 \u2014 ")
"""Texts on which engines are compared."""
Logs = Mapping[int, float]
"""Token -> log-probability, in nats."""


class _Vectors(torch.nn.Module):
    """What is left of a model without its layers."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.table, self.device = model.get_input_embeddings(), model.device

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.table  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Embeds:
    """A model's token vectors, with a fitted prompt or without one. adapter: the folder that its prompts name, merged into the model's weights."""

    lm: LM
    soft: SoftVectors | None = None
    adapter: str | None = None

    def without_layers(self) -> Embeds:
        """With the token vectors alone: enough to make prompts of, and a fraction of the memory."""
        return replace(self, lm=replace(self.lm, model=_Vectors(self.lm.model)))

    def ids(self, prompt: Prompt) -> list[int]:
        """The prompt's tokens, behind begin-of-text or its soft prompt: as the local engine reads them."""
        ids = self.lm.encode(prompt.text) if prompt.text else []
        return ids if prompt.soft else [self.lm.bos, *ids]

    @torch.inference_mode()
    def vectors(self, prompt: Prompt) -> torch.Tensor:
        """float32 (n, d) on the CPU: the soft prompt, then the text's token vectors. Raises EngineError where no soft prompt was loaded."""
        pieces = []
        if prompt.soft:
            if self.soft is None:
                raise EngineError("a soft prompt was asked for, but the engine was opened without one (ModelRef.soft).")
            pieces.append(self.soft.resolve([prompt.soft])[0])
        if ids := self.ids(prompt):
            pieces.append(self.lm.vectors(torch.tensor(ids, device=self.lm.device)))
        return torch.cat(pieces).float().cpu()

    def probes(self) -> list[Prompt]:
        """Prompts to compare engines on: words, and soft prompts of three contexts before the same words, which a wrong key would mix up."""
        sources = list(self.soft.place)[:: max(1, len(self.soft.place) // 3)][:3] if self.soft else []
        soft = [Prompt(text, 0, soft=SoftRef((s,), (1.0,)), adapter=self.adapter) for s in sources for text in ("", PROBES[0])]
        return [Prompt(text, 0, adapter=self.adapter) for text in PROBES] + soft

    @torch.inference_mode()
    def scores(self, prompt: Prompt, continuations: Sequence[str]) -> list[float]:
        """Log-likelihoods in nats of texts after the prompt, by transformers."""
        from seedbed.lm.scoring import score

        return score(self.lm, self.vectors(prompt).to(self.lm.model.dtype)[None], [self.lm.encode(text) for text in continuations])

    @torch.inference_mode()
    def next_logs(self, prompt: Prompt) -> torch.Tensor:
        """float32 (V,): log-probabilities of the token after the prompt, by transformers."""
        model = self.lm.model
        vectors = self.vectors(prompt).to(model.device, model.dtype)
        found: torch.Tensor = torch.log_softmax(model(inputs_embeds=vectors[None], use_cache=False).logits[0, -1].float(), dim=-1).cpu()
        return found


def parity(embeds: Embeds, ask: Callable[[Sequence[Prompt]], Sequence[Logs]], allowed: float, who: str) -> dict[str, Any]:
    """Compares an engine's likeliest next tokens with transformers' log-probabilities of them: {"probes": n, "tokens": n, "worst": nats}.

    ask: prompts -> of each, the likeliest next tokens with their log-probabilities. Raises EngineError where one differs by more than `allowed`.
    """
    prompts, worst, tokens = embeds.probes(), 0.0, 0
    for prompt, logs in zip(prompts, ask(prompts), strict=True):
        own = embeds.next_logs(prompt)
        if not logs:
            raise EngineError(f"{who} gives no log-probabilities, so its answers cannot be compared with transformers'.")
        gaps = {token: abs(value - float(own[token])) for token, value in logs.items()}
        token = max(gaps, key=lambda token: math.inf if math.isnan(gaps[token]) else gaps[token])
        if not gaps[token] <= allowed:
            what = "a soft prompt" if prompt.soft else f"{prompt.text!r}"
            raise EngineError(
                f"{who} is not the model that transformers loads from {embeds.lm.name!r}: after {what} its log-probability of token {token} is "
                f"{logs[token]:.3f} nats, and transformers' {float(own[token]):.3f}; at most {allowed:g} apart is allowed. Other weights, another "
                'precision, or a version that does not take prompts as vectors; see the manifest\'s versions, and try precision = "fp32".'
            )
        worst, tokens = max(worst, gaps[token]), tokens + len(gaps)
    return {"probes": len(prompts), "tokens": tokens, "worst_nats": round(worst, 5)}

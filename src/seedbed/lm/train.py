"""Fits a soft prompt to texts by the frozen model's likelihood (SoftSRV, arXiv 2410.16534, equation 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seedbed.limits import NEVER, Deadline
from seedbed.lm import loop
from seedbed.lm.batches import Text, passes
from seedbed.lm.load import LM
from seedbed.lm.prompts import SoftPrompt


@dataclass(frozen=True, kw_only=True)
class Fitting(loop.Schedule):
    """How theta is trained; rates are relative to RMS 1."""

    prompt_lr: float
    network_lr: float
    weight_decay: float


def encode(lm: LM, split: tuple[str, str]) -> Text:
    """`Task.split` -> ids, with end-of-text at the end."""
    given, target = split
    return Text(tuple(lm.encode(given)) if given else (), (*lm.encode(target), lm.eos))


def nll(lm: LM, soft: torch.Tensor | None, texts: Sequence[Text]) -> torch.Tensor:
    """(B,) summed negative log-likelihood in nats of each text's target. soft: (B, t, d), or (1, t, d) for all; None: begin-of-text stands there."""
    width = max(len(x) for x in texts)
    ids = torch.full((len(texts), width), lm.eos, dtype=torch.long)
    scored = torch.zeros(len(texts), width, dtype=torch.bool)
    for i, x in enumerate(texts):
        ids[i, : len(x)] = torch.tensor([*x.given, *x.target])
        scored[i, len(x.given) : len(x)] = True
    ids, scored = ids.to(lm.device), scored.to(lm.device)
    if soft is None:
        soft = lm.vectors(torch.full((1, 1), lm.bos, device=lm.device))
    # Padding stands on the right and attention is causal: no mask is needed for what is scored.
    return lm.states.losses(soft.to(lm.model.dtype), lm.vectors(ids[:, :-1]), ids, scored).sum(dim=1)


def _soft(net: SoftPrompt, z: torch.Tensor, dropout: torch.Generator | None = None) -> torch.Tensor:
    """(B, t, d), or (1, t, d) where the context is ignored."""
    return net(z[:1] if net.form == "nsp" else z, dropout)  # type: ignore[no-any-return]


@torch.inference_mode()
def mean_nll(lm: LM, net: SoftPrompt | None, z: torch.Tensor | None, texts: Sequence[Text]) -> float:
    """Nats a token over all targets. net None: no prompt. z: (n, e), one context a text."""
    total, tokens = 0.0, 0
    for picked in passes(texts, range(len(texts)), net.t if net is not None else 1, lm.states.room):
        soft = _soft(net, z[picked].to(lm.device)) if net is not None and z is not None else None
        batch = [texts[i] for i in picked]
        total += float(nll(lm, soft, batch).double().sum())
        tokens += sum(len(x.target) for x in batch)
    return total / tokens


def fit(
    lm: LM,
    net: SoftPrompt,
    texts: Sequence[Text],
    z: torch.Tensor,
    dev: Sequence[Text],
    dev_z: torch.Tensor,
    how: Fitting,
    seed: int,
    checkpoint: Path | None,
    deadline: Deadline = NEVER,
) -> list[dict[str, float]]:
    """Trains `net` in place to its best dev loss and returns the log, one entry an evaluation.

    z: (n, e), dev_z: (m, e). What is evaluated when, and how a fit is stopped and goes on: see `loop.fit`.
    """
    return loop.fit(_Fit(lm, net, texts, z, dev, dev_z, how), how, seed, checkpoint, deadline)


@dataclass(frozen=True)
class _Fit:
    """A soft prompt as `loop.fit` trains it."""

    lm: LM
    net: SoftPrompt
    texts: Sequence[Text]
    z: torch.Tensor
    dev_texts: Sequence[Text]
    dev_z: torch.Tensor
    how: Fitting

    @property
    def name(self) -> str:
        return self.net.name

    @property
    def remedy(self) -> str:
        return f"Lower generator.prompt_lr (now {self.how.prompt_lr}) or network_lr."

    @property
    def prompt(self) -> int:
        return self.net.t

    def groups(self) -> list[dict[str, Any]]:
        return self.net.groups(self.how.prompt_lr, self.how.network_lr, self.how.weight_decay)

    def gradients(self, picked: list[int], count: int, seed: int) -> float:
        return _gradients(self.lm, self.net, self.texts, self.z, picked, count, torch.Generator().manual_seed(seed))

    def dev(self) -> float:
        return mean_nll(self.lm, self.net, self.dev_z, self.dev_texts)

    def weights(self) -> dict[str, torch.Tensor]:
        return self.net.state_dict()

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        self.net.load_state_dict(weights)


def _gradients(lm: LM, net: SoftPrompt, texts: Sequence[Text], z: torch.Tensor, picked: list[int], count: int, dropout: torch.Generator) -> float:
    """Adds to theta's gradients those of one batch's loss over its `count` targets, in as many passes as memory asks; returns the summed loss."""
    total = 0.0
    for part in passes(texts, picked, net.t, lm.states.room):
        loss = nll(lm, _soft(net, z[part].to(lm.device), dropout), [texts[i] for i in part]).sum()
        (loss / count).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total

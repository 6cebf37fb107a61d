"""Adapts an embedding decoder to a few rows of a target: as much of it as they bear, chosen by cross-validation.

Every change is merged into the decoder's own weights, so that what comes out is a contextual soft prompt of form mc like any other, and no
change gives back the decoder itself.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from seedbed.limits import NEVER, Deadline
from seedbed.lm import train
from seedbed.lm.batches import Text
from seedbed.lm.finetune import Steering, Tuned, Tuning, tune_lm
from seedbed.lm.load import LM
from seedbed.lm.prompts import SoftPrompt
from seedbed.store import read_json, write_json
from seedbed.types import seed_for

Level = Literal["none", "affine", "lowrank", "full"]
LEVELS: tuple[Level, ...] = ("none", "affine", "lowrank", "full")
"""From the fewest parameters to all: nothing; the base prompt and a shift and scale of z; a low-rank change of the head (LoRA, Hu et al. 2021,
arXiv:2106.09685) as well; everything."""
SLOWER: dict[Level, tuple[float, float]] = {"lowrank": (0.3, 0.3), "full": (0.3, 0.1)}
"""Shares of the rates of the base prompt and of the network: what has been learned is not to be thrown away by the first steps."""
RANK = 8
FOLDS = 3
FOLDED = 256
"""Rows of fit and dev together up to which levels are cross-validated; with more, dev alone judges them."""


class Adapted(SoftPrompt):
    """A decoder with what a level trains. It computes what `merged` does."""

    def __init__(self, decoder: SoftPrompt, level: Level, seed: int) -> None:
        nn.Module.__init__(self)
        self.form, self.t, self.d, self.dropout, self.level = decoder.form, decoder.t, decoder.d, decoder.dropout, level
        for name, child in decoder.named_children():
            setattr(self, name, copy.deepcopy(child))
        for name, buffer in decoder.named_buffers():
            self.register_buffer(name, buffer.clone())
        self.prompts, self.scale = (nn.Parameter(p.detach().clone()) for p in (decoder.prompts, decoder.scale))
        e, rank = len(decoder.z_mean), decoder.head.in_features  # type: ignore[arg-type]
        self.gain, self.shift = nn.Parameter(torch.ones(e)), nn.Parameter(torch.zeros(e))
        draw = torch.randn(RANK, int(rank), generator=torch.Generator().manual_seed(seed)) / int(rank) ** 0.5
        self.down, self.up = nn.Parameter(draw), nn.Parameter(torch.zeros(self.t * self.d, RANK))
        self.to(decoder.prompts.device)

    @property
    def name(self) -> str:
        return f"amortised prompt, {self.level}"

    def forward(self, z: torch.Tensor, generator: torch.Generator | None = None, first: int | None = None) -> torch.Tensor:
        z = (z - self.z_mean) / self.z_std * self.gain + self.shift  # type: ignore[operator]
        h = self.trunk(self.dropped(z, generator))
        residual = self.head(h) + h @ self.down.T @ self.up.T
        found: torch.Tensor = (self.prompts + self.scale * residual.view(len(z), self.t, self.d)) * self.rms
        return found

    def groups(self, prompt_lr: float, network_lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Nothing is pulled to zero by decay: it would be pulled away from the decoder."""
        of_level = {"affine": [self.gain, self.shift], "lowrank": [self.gain, self.shift, self.down, self.up]}
        network = of_level.get(self.level) or [*self.trunk.parameters(), *self.head.parameters(), self.scale]
        slower, slow = SLOWER.get(self.level, (1.0, 1.0))
        base = {"params": [self.prompts], "lr": slower * prompt_lr, "weight_decay": 0.0}
        return [base, {"params": network, "lr": slow * network_lr, "weight_decay": 0.0}]

    @torch.no_grad()
    def merged(self, decoder: SoftPrompt) -> SoftPrompt:
        """The same map as a plain soft prompt; `decoder`: the one it was made from."""
        net = copy.deepcopy(decoder)
        mine = self.state_dict()
        net.load_state_dict({name: mine[name] for name in net.state_dict()})
        net.head.weight += self.up @ self.down
        std = mine["z_std"] / torch.where(self.gain.abs() < 1e-6, 1e-6, self.gain)
        net.z_mean.copy_(mine["z_mean"] - self.shift * std)  # type: ignore[operator]
        net.z_std.copy_(std)  # type: ignore[operator]
        return net


@dataclass(frozen=True)
class Rows:
    """Encoded texts and their contexts (n, e)."""

    texts: Sequence[Text]
    z: torch.Tensor

    def pick(self, places: Sequence[int]) -> Rows:
        return Rows([self.texts[i] for i in places], self.z[list(places)])


def adapt(
    lm: LM, decoder: SoftPrompt, fit: Rows, dev: Rows, how: train.Fitting, seed: int, out: Path, deadline: Deadline = NEVER
) -> tuple[SoftPrompt, dict[str, Any]]:
    """The decoder at its best level, trained on `fit` and stopped by `dev`; {"level", "levels": mean loss of each, "log"}.

    Levels are judged in nats a token on rows they were not trained on: by FOLDS-fold cross-validation over fit and dev up to FOLDED rows, else
    on dev; where the time was up before they were, "levels" is empty and the level "affine". `out` holds what a stopped call has measured; it goes
    on to the same bytes.
    """
    losses = _losses(lm, decoder, fit, dev, how, seed, out, deadline.share(0.7))
    means = {level: float(np.average([v for v, _ in found], weights=[n for _, n in found])) for level, found in losses.items() if found}
    level: Level = min(means, key=lambda name: (means[name], LEVELS.index(name))) if means else "affine"
    if level == "none":
        return decoder, {"level": level, "levels": means, "log": []}
    net, log = _train(lm, decoder, level, fit, dev, how, seed, _checkpoint(out, level), deadline)
    return net, {"level": level, "levels": means, "log": log}


def adapt_with_lora(
    lm: LM,
    decoder: SoftPrompt,
    fit: Rows,
    dev: Rows,
    how: train.Fitting,
    tuning: Tuning,
    seed: int,
    checkpoint: Path | None,
    deadline: Deadline = NEVER,
) -> tuple[SoftPrompt, Tuned]:
    """All of the decoder, and LoRA on `lm`, which must be the caller's own, trained together: (the prompt, the
    model that it stands before)."""
    net = Adapted(decoder, "full", seed)
    tuned = tune_lm(lm, fit.texts, dev.texts, tuning, seed, checkpoint, deadline, Steering(net, fit.z, dev.z, how.prompt_lr, how.network_lr))
    return net.merged(decoder).eval().requires_grad_(False), tuned


def _losses(
    lm: LM, decoder: SoftPrompt, fit: Rows, dev: Rows, how: train.Fitting, seed: int, out: Path, deadline: Deadline
) -> dict[Level, list[tuple[float, int]]]:
    """Level -> (nats a token, tokens) of each fold; only folds that every level was measured on, which may be none.

    A fit on `fit` itself leaves its checkpoint, so that the chosen level's is not made again.
    """
    folds = _folds(fit, dev, seed)
    alone = len(folds) == 1
    path = out / "checkpoint-levels.json"
    known: dict[str, float] = read_json(path) if path.exists() else {}
    found: dict[Level, list[tuple[float, int]]] = {level: [] for level in LEVELS}
    for number, (train_on, judged) in enumerate(folds):
        tokens = sum(len(x.target) for x in judged.texts)
        row: dict[Level, float] = {}
        for level in LEVELS:
            name = f"{level}/{number}"
            if name not in known:
                if level == "none":
                    known[name] = train.mean_nll(lm, decoder, judged.z, judged.texts)
                elif deadline.over():
                    break
                else:
                    drawn, kept = (seed, _checkpoint(out, level)) if alone else (seed_for(seed, "fold", number), None)
                    log = _train(lm, decoder, level, train_on, judged, how, drawn, kept, deadline)[1]
                    if "cut" in log[-1]:
                        break
                    known[name] = min(entry["dev"] for entry in log)
                write_json(path, known)
            row[level] = known[name]
        if len(row) == len(LEVELS):
            for level, value in row.items():
                found[level].append((value, tokens))
    return found


def _checkpoint(out: Path, level: Level) -> Path:
    return out / f"checkpoint-amortised-{level}.safetensors"


def _folds(fit: Rows, dev: Rows, seed: int) -> list[tuple[Rows, Rows]]:
    if len(fit.texts) + len(dev.texts) > FOLDED:
        return [(fit, dev)]
    both = Rows([*fit.texts, *dev.texts], torch.cat([fit.z, dev.z]))
    order = np.random.default_rng(seed_for(seed, "folds")).permutation(len(both.texts)).tolist()
    parts = [order[i::FOLDS] for i in range(min(FOLDS, len(order)))]
    return [(both.pick([i for other in parts if other is not part for i in other]), both.pick(part)) for part in parts]


def _train(
    lm: LM, decoder: SoftPrompt, level: Level, fit: Rows, dev: Rows, how: train.Fitting, seed: int, checkpoint: Path | None, deadline: Deadline
) -> tuple[SoftPrompt, list[dict[str, float]]]:
    net = Adapted(decoder, level, seed_for(seed, "adapt", level))
    log = train.fit(lm, net, fit.texts, fit.z, dev.texts, dev.z, how, seed, checkpoint, deadline)
    return net.merged(decoder).eval().requires_grad_(False), log

"""The loop that fits a soft prompt, an adapter or a whole model to texts by likelihood; resumable to the same bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from seedbed.errors import ModelError
from seedbed.limits import NEVER, Deadline
from seedbed.lm.batches import Text, batches, steps_of
from seedbed.progress import bar
from seedbed.types import seed_for

EVERY = 20
"""Steps between two evaluations at least: epochs of few rows would be mostly evaluation."""


@dataclass(frozen=True)
class Schedule:
    """epochs: at most; patience: evaluations on dev without a new best before stopping; batch: texts a step, about; warmup: steps; clip: of the
    gradient's norm."""

    epochs: int
    patience: int
    batch: int
    warmup: int = 30
    clip: float = 1.0


class Trainee(Protocol):
    """What `fit` trains. remedy: what to do when the loss is not finite. prompt: tokens that stand before each text."""

    @property
    def name(self) -> str: ...

    @property
    def remedy(self) -> str: ...

    @property
    def texts(self) -> Sequence[Text]: ...

    @property
    def prompt(self) -> int: ...

    def groups(self) -> list[dict[str, Any]]:
        """AdamW's parameter groups."""
        ...

    def gradients(self, picked: list[int], count: int, seed: int) -> float:
        """Adds the gradients of one batch's loss over its `count` targets, and returns the summed loss; seed: of dropout."""
        ...

    def dev(self) -> float:
        """Nats a token on dev."""
        ...

    def weights(self) -> dict[str, torch.Tensor]:
        """All that training changes, by name; no copies."""
        ...

    def load(self, weights: dict[str, torch.Tensor]) -> None: ...


@dataclass
class _State:
    """What a checkpoint holds beside tensors. losses, tokens: of the training texts since the last evaluation."""

    step: int = 0
    best: float = math.inf
    waited: int = 0
    log: list[dict[str, float]] = field(default_factory=list)
    losses: float = 0.0
    tokens: int = 0


def fit(trainee: Trainee, how: Schedule, seed: int, checkpoint: Path | None = None, deadline: Deadline = NEVER) -> list[dict[str, float]]:
    """Trains in place to the best dev loss and returns the log, one entry an evaluation.

    Evaluates once an epoch, at least every 20 steps; each evaluation is a checkpoint from which a stopped fit goes on to the same result.
    A fit that the deadline cuts does one step at least, leaves such a checkpoint, and its last log entry has "cut": the steps it would
    have gone on to. Without a checkpoint's path it cannot go on. Raises ModelError when the loss is not finite.
    """
    texts = trainee.texts
    optimiser = torch.optim.AdamW(trainee.groups(), betas=(0.9, 0.98))
    peaks = [group["lr"] for group in optimiser.param_groups]
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    best = _copies(trainee)
    state = _restore(checkpoint, trainee, optimiser, best) if checkpoint and checkpoint.exists() else _State()
    epoch_steps = steps_of(len(texts), how.batch)
    every = max(epoch_steps, EVERY)
    last = epoch_steps * how.epochs
    with bar(f"fit {trainee.name}", last) as update:
        for picked in _stream(trainee, how, seed, state.step, last):
            if state.waited >= how.patience:
                break
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * min(1.0, (state.step + 1) / how.warmup) if how.warmup else peak
            count = sum(len(texts[i].target) for i in picked)
            state.losses += trainee.gradients(picked, count, seed_for(seed, "dropout", state.step))
            torch.nn.utils.clip_grad_norm_(trained, how.clip)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            state.tokens, state.step = state.tokens + count, state.step + 1
            if not math.isfinite(state.losses):
                raise ModelError(f"fit {trainee.name}: the loss is not finite at step {state.step}. {trainee.remedy}")
            if state.step % every == 0 or state.step == last:
                _note(state, best, trainee, epoch_steps)
                _save(checkpoint, trainee, optimiser, best, state)
            update(state.step, f"dev {state.best:.3f} nats" if state.log else "")
            if deadline.over() and state.step < last and state.waited < how.patience:
                _save(checkpoint, trainee, optimiser, best, state)
                if state.tokens:  # the last step was no evaluation; what follows is not in the checkpoint
                    _note(state, best, trainee, epoch_steps)
                state.log[-1]["cut"] = last
                break
    trainee.load(best)
    return state.log


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """The global generators of torch hold the seed inside, and what they held before afterwards: dropout and new weights read no other."""
    with torch.random.fork_rng([torch.cuda.current_device()] if device == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _copies(trainee: Trainee) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainee.weights().items()}


def _note(state: _State, best: dict[str, torch.Tensor], trainee: Trainee, epoch_steps: int) -> None:
    """One evaluation: an entry of the log, and the weights in `best` where it is a new one."""
    dev = trainee.dev()
    entry = {"step": state.step, "epoch": round(state.step / epoch_steps, 2), "train": state.losses / state.tokens, "dev": dev}
    state.log.append(entry)
    state.losses, state.tokens = 0.0, 0
    if dev < state.best:
        state.best, state.waited = dev, 0
        best.update(_copies(trainee))
    else:
        state.waited += 1


def _stream(trainee: Trainee, how: Schedule, seed: int, start: int, last: int) -> Iterator[list[int]]:
    """The batch of step `start`, the next, ...; a function of the step alone."""
    step, epoch_steps = start, steps_of(len(trainee.texts), how.batch)
    while step < last:
        epoch, offset = divmod(step, epoch_steps)
        for picked in batches(trainee.texts, how.batch, seed_for(seed, "epoch", epoch), trainee.prompt)[offset:]:
            yield picked
            step += 1


def _save(path: Path | None, trainee: Trainee, optimiser: torch.optim.Optimizer, best: dict[str, torch.Tensor], state: _State) -> None:
    if path is None:
        return
    tensors = {f"now/{k}": v.detach().contiguous() for k, v in trainee.weights().items()} | {f"best/{k}": v.contiguous() for k, v in best.items()}
    for i, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{i}/{k}": torch.as_tensor(v).contiguous() for k, v in values.items()}
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata={"state": json.dumps(asdict(state))})
    partial.replace(path)


def _restore(path: Path, trainee: Trainee, optimiser: torch.optim.Optimizer, best: dict[str, torch.Tensor]) -> _State:
    with safe_open(path, "pt") as file:
        facts: dict[str, Any] = json.loads(file.metadata()["state"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    trainee.load({k.removeprefix("now/"): v for k, v in tensors.items() if k.startswith("now/")})
    best.update({k.removeprefix("best/"): v for k, v in tensors.items() if k.startswith("best/")})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser/"):
            _, i, field = name.split("/")
            moments.setdefault(int(i), {})[field] = value
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    facts.pop("best_step", None)  # of an older checkpoint
    return _State(**facts)

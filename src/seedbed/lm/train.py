"""Fits a soft prompt to texts by the frozen model's likelihood (SoftSRV, arXiv 2410.16534, equation 2); resumable to the same bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from seedbed.errors import ModelError
from seedbed.limits import NEVER, Deadline
from seedbed.lm.batches import Text, batches, passes, steps_of
from seedbed.lm.load import LM
from seedbed.lm.prompts import SoftPrompt
from seedbed.progress import bar
from seedbed.types import seed_for


@dataclass(frozen=True)
class Fitting:
    """How theta is trained. epochs: at most; patience: evaluations on dev without a new best before stopping; rates are relative to RMS 1."""

    epochs: int
    patience: int
    batch: int
    prompt_lr: float
    network_lr: float
    weight_decay: float
    warmup: int = 30
    clip: float = 1.0


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


@dataclass
class _State:
    """What a checkpoint holds beside tensors. losses, tokens: of the training texts since the last evaluation."""

    step: int = 0
    best: float = math.inf
    best_step: int = 0
    waited: int = 0
    log: list[dict[str, float]] = field(default_factory=list)
    losses: float = 0.0
    tokens: int = 0


def fit(
    lm: LM,
    net: SoftPrompt,
    texts: Sequence[Text],
    z: torch.Tensor,
    dev: Sequence[Text],
    dev_z: torch.Tensor,
    how: Fitting,
    seed: int,
    checkpoint: Path,
    deadline: Deadline = NEVER,
) -> list[dict[str, float]]:
    """Trains `net` in place to its best dev loss and returns the log, one entry an evaluation.

    z: (n, e), dev_z: (m, e). Evaluates once an epoch, at least every 20 steps; each evaluation is a checkpoint from which a
    stopped fit goes on to the same result. A fit that the deadline cuts does one step at least, leaves such a checkpoint, and its
    last log entry has "cut": the steps it would have gone on to. Raises ModelError when the loss is not finite.
    """
    optimiser = torch.optim.AdamW(net.groups(how.prompt_lr, how.network_lr, how.weight_decay), betas=(0.9, 0.98))
    peaks = [group["lr"] for group in optimiser.param_groups]
    best = {name: value.detach().clone() for name, value in net.state_dict().items()}
    state = _restore(checkpoint, net, optimiser, best) if checkpoint.exists() else _State()
    epoch_steps = steps_of(len(texts), how.batch)
    every = max(epoch_steps, 20)
    last = epoch_steps * how.epochs
    with bar(f"fit {net.form}", last) as update:
        for picked in _stream(texts, how, net.t, seed, state.step, last):
            if state.waited >= how.patience:
                break
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * min(1.0, (state.step + 1) / how.warmup)
            count = sum(len(texts[i].target) for i in picked)
            dropout = torch.Generator().manual_seed(seed_for(seed, "dropout", state.step))
            state.losses += _gradients(lm, net, texts, z, picked, count, dropout)
            torch.nn.utils.clip_grad_norm_(net.parameters(), how.clip)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            state.tokens, state.step = state.tokens + count, state.step + 1
            if not math.isfinite(state.losses):
                raise ModelError(
                    f"fit {net.form}: the loss is not finite at step {state.step}. Lower generator.prompt_lr (now {how.prompt_lr}) or network_lr."
                )
            if state.step % every == 0 or state.step == last:
                _note(state, best, net, mean_nll(lm, net, dev_z, dev), epoch_steps)
                _save(checkpoint, net, optimiser, best, state)
            update(state.step, f"dev {state.best:.3f} nats" if state.log else "")
            if deadline.over() and state.step < last and state.waited < how.patience:
                _save(checkpoint, net, optimiser, best, state)
                if state.tokens:  # the last step was no evaluation; what follows is not in the checkpoint
                    _note(state, best, net, mean_nll(lm, net, dev_z, dev), epoch_steps)
                state.log[-1]["cut"] = last
                break
    net.load_state_dict(best)
    return state.log


def _note(state: _State, best: dict[str, torch.Tensor], net: SoftPrompt, dev: float, epoch_steps: int) -> None:
    """One evaluation: an entry of the log, and the parameters in `best` where it is a new one."""
    entry = {"step": state.step, "epoch": round(state.step / epoch_steps, 2), "train": state.losses / state.tokens, "dev": dev}
    state.log.append(entry)
    state.losses, state.tokens = 0.0, 0
    if dev < state.best:
        state.best, state.best_step, state.waited = dev, state.step, 0
        best.update({name: value.detach().clone() for name, value in net.state_dict().items()})
    else:
        state.waited += 1


def _gradients(lm: LM, net: SoftPrompt, texts: Sequence[Text], z: torch.Tensor, picked: list[int], count: int, dropout: torch.Generator) -> float:
    """Adds to theta's gradients those of one batch's loss over its `count` targets, in as many passes as memory asks; returns the summed loss."""
    total = 0.0
    for part in passes(texts, picked, net.t, lm.states.room):
        loss = nll(lm, _soft(net, z[part].to(lm.device), dropout), [texts[i] for i in part]).sum()
        (loss / count).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def _stream(texts: Sequence[Text], how: Fitting, prompt: int, seed: int, start: int, last: int) -> Iterator[list[int]]:
    """The batch of step `start`, the next, ...; a function of the step alone."""
    step, epoch_steps = start, steps_of(len(texts), how.batch)
    while step < last:
        epoch, offset = divmod(step, epoch_steps)
        for picked in batches(texts, how.batch, seed_for(seed, "epoch", epoch), prompt)[offset:]:
            yield picked
            step += 1


def _save(path: Path, net: SoftPrompt, optimiser: torch.optim.Optimizer, best: dict[str, torch.Tensor], state: _State) -> None:
    tensors = {f"now/{k}": v.detach().contiguous() for k, v in net.state_dict().items()} | {f"best/{k}": v.contiguous() for k, v in best.items()}
    for i, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{i}/{k}": torch.as_tensor(v).contiguous() for k, v in values.items()}
    partial = path.with_name(path.name + ".partial")
    save_file({k: v.clone() for k, v in tensors.items()}, partial, metadata={"state": json.dumps(asdict(state))})
    partial.replace(path)


def _restore(path: Path, net: SoftPrompt, optimiser: torch.optim.Optimizer, best: dict[str, torch.Tensor]) -> _State:
    with safe_open(path, "pt") as file:
        facts: dict[str, Any] = json.loads(file.metadata()["state"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    net.load_state_dict({k.removeprefix("now/"): v for k, v in tensors.items() if k.startswith("now/")})
    best.update({k.removeprefix("best/"): v for k, v in tensors.items() if k.startswith("best/")})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser/"):
            _, i, field = name.split("/")
            moments.setdefault(int(i), {})[field] = value
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return _State(**facts)

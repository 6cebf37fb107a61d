"""Trains an embedding decoder: the frozen model reconstructs sentences and short passages from their noisy embeddings.

SoftSRV's loss (arXiv 2410.16534, equation 2) on general text instead of a target's. Each step draws how many vectors it uses, so that the
first t are meaningful alone (nested dropout, Rippel et al. 2014, arXiv:1402.0915); what is kept is the power-law average of the weights over
steps (Karras et al. 2024, arXiv:2312.02696, section 3.1), which at a constant learning rate is good at any time: a run may be stopped whenever.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from seedbed.errors import ModelError, StoreError
from seedbed.lm.batches import Text, batches, passes, steps_of
from seedbed.lm.decoder import FEWEST, save_decoder, shortened
from seedbed.lm.embed import embed_fresh, embedder_hash
from seedbed.lm.load import LM, load, quick_dtype
from seedbed.lm.passages import Passage, passages
from seedbed.lm.prompts import SoftPrompt, starts_from
from seedbed.lm.reconstruction import quality
from seedbed.lm.train import encode, mean_nll, nll
from seedbed.progress import bar
from seedbed.store import Store, fingerprint
from seedbed.types import seed_for

SHARD = 4096
"""Passages embedded together, and drawn from together: training starts when the first are embedded."""
HELD_OUT = 512
WATCHED = 128
"""Held-out passages that the log's loss is of."""
GAMMA = 6.94
"""Of the power-law average: its width is a tenth of the training so far."""
CLIP = 1.0
WARMUP = 50
SAVE_EVERY_S = 180.0
CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Pretraining:
    """passages: at most. tokens: soft tokens at most. hidden, rank: of the network. batch: passages a step, about. noise: added to half of the
    contexts, of their own deviation at most. lr: of the network, prompt_lr: of the base prompt, both relative to embeddings of RMS 1."""

    passages: int = 32_768
    tokens: int = 64
    hidden: int = 512
    rank: int = 256
    batch: int = 32
    noise: float = 0.7
    lr: float = 0.003
    prompt_lr: float = 0.02
    weight_decay: float = 0.01
    embedder: str = "minilm"


def pretrain(
    model: str,
    corpus: Sequence[Path],
    out: Path,
    minutes: float = math.inf,
    how: Pretraining = Pretraining(),
    seed: int = 0,
    steps: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Trains for so many minutes more, or up to so many steps in all, and writes `out` for `load_decoder`; gives decoder.json's content.

    A call goes on where the last one stopped, to the same bytes at the same step; `out/work` holds its checkpoint and the embeddings. Raises
    ModelError where the folder holds other training, DataError where the corpus is too small, StoreError where a file of `out/work` is damaged or
    another process is at it.
    """
    lm = load(model, quick_dtype())
    train, held_out = passages(corpus, how.passages, HELD_OUT, seed)
    fits = [p for p in train if len(encode(lm, p.split)) + how.tokens <= lm.context]
    with Store(out / "work").held():
        run = _Run(lm, fits, [p for p in held_out if len(encode(lm, p.split)) + how.tokens <= lm.context], how, seed, out, say)
        return run.train(minutes, steps)


@dataclass
class _Run:
    lm: LM
    train_on: list[Passage]
    held_out: list[Passage]
    how: Pretraining
    seed: int
    out: Path
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.work = self.out / "work"
        self.step = 0
        self.seconds = 0.0
        self.log: list[dict[str, float]] = []
        self.net = self._start()
        self.average = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.optimiser = torch.optim.AdamW(self.net.groups(self.how.prompt_lr, self.how.lr, self.how.weight_decay), betas=(0.9, 0.98))
        self.peaks = [group["lr"] for group in self.optimiser.param_groups]

    @cached_property
    def key(self) -> str:
        """What the folder's training is of."""
        texts = fingerprint([asdict(p) for p in self.train_on])
        return fingerprint(asdict(self.how), self.seed, self.lm.hash, embedder_hash(self.how.embedder), texts)

    @cached_property
    def held_z(self) -> torch.Tensor:
        return self._embedded("held-out", self.held_out).float()

    def train(self, minutes: float, steps: int | None) -> dict[str, Any]:
        self._restore()
        until, saved = time.monotonic() + 60 * minutes, time.monotonic()
        total, tokens, began = 0.0, 0, time.monotonic()
        with bar("pretrain-prompt", steps if steps is not None else 60 * minutes) as update:
            for texts, z in self._stream(self.step):
                if time.monotonic() >= until or (steps is not None and self.step >= steps):
                    break
                loss, count = self._learn(texts, z)
                total, tokens = total + loss, tokens + count
                if not math.isfinite(loss):
                    raise ModelError(f"pretrain-prompt: the loss is not finite at step {self.step}. Lower the learning rate, now {self.how.lr}.")
                done = self.step if steps is not None else time.monotonic() - until + 60 * minutes
                update(done, f"step {self.step}, {total / tokens:.3f} nats")
                if time.monotonic() - saved > SAVE_EVERY_S:
                    self.seconds, began = self.seconds + time.monotonic() - began, time.monotonic()
                    self._note(total / tokens)
                    total, tokens, saved = 0.0, 0, time.monotonic()
        self.seconds += time.monotonic() - began
        if tokens:
            self._note(total / tokens)
        self._save()
        return self._write(quality(self.lm, self._averaged(), self.held_out, self.held_z, self.how.embedder))

    def _start(self) -> SoftPrompt:
        """The base prompt from the embeddings of tokens of the passages, the residual 0."""
        how, generator = self.how, torch.Generator().manual_seed(seed_for(self.seed, "start"))
        embeddings = self.lm.model.get_input_embeddings().weight
        ids = [i for p in self.train_on[:1000] for i in self.lm.encode(p.text)]
        z = self._embedded("shard-000", self.train_on[:SHARD]).float()
        with torch.random.fork_rng():
            torch.manual_seed(seed_for(self.seed, "network"))
            rms = float(embeddings[ids].float().pow(2).mean().sqrt())
            net = SoftPrompt("mc", starts_from(embeddings, ids, 1, how.tokens, generator), rms, z.shape[1], how.hidden, how.rank, 0.0)
        net.z_mean.copy_(z.mean(0))  # type: ignore[operator]
        net.z_std.copy_(z.std(0).clamp(min=1e-4))  # type: ignore[operator]
        return net.to(self.lm.device)

    def _embedded(self, name: str, texts: Sequence[Passage]) -> torch.Tensor:
        """float16 (n, e): a file's worth of embeddings, made at most once."""
        path = self.work / f"{name}-{fingerprint([p.text for p in texts], embedder_hash(self.how.embedder))}.npy"
        if not path.exists():
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.save(file, embed_fresh([p.text for p in texts], self.how.embedder).astype(np.float16))
            partial.replace(path)
        try:
            return torch.from_numpy(np.load(path))
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(path, error) from error

    def _stream(self, start: int) -> Iterator[tuple[list[Text], torch.Tensor]]:
        """The batch of step `start`, the next, ...: epochs go over the shards, the first in order, so that each is embedded when it is come to."""
        shards = [range(i, min(i + SHARD, len(self.train_on))) for i in range(0, len(self.train_on), SHARD)]
        step, epoch = 0, 0
        while True:
            order = np.random.default_rng(seed_for(self.seed, "shards", epoch)).permutation(len(shards)) if epoch else range(len(shards))
            for number in order:
                many = steps_of(len(shards[number]), self.how.batch)
                if step + many > start:
                    some = self.train_on[shards[number].start : shards[number].stop]
                    texts, z = [encode(self.lm, p.split) for p in some], self._embedded(f"shard-{number:03d}", some)
                    for picked in batches(texts, self.how.batch, seed_for(self.seed, "epoch", epoch, int(number)), 24)[max(0, start - step) :]:
                        yield [texts[i] for i in picked], z[picked].float()
                step += many
            epoch += 1

    def _learn(self, texts: list[Text], z: torch.Tensor) -> tuple[float, int]:
        """One step; (summed loss, target tokens)."""
        rng = torch.Generator().manual_seed(seed_for(self.seed, "step", self.step))
        t = round(FEWEST * (self.how.tokens / FEWEST) ** float(torch.rand((), generator=rng)))
        level = self.how.noise * torch.rand(len(z), 1, generator=rng) * (torch.rand(len(z), 1, generator=rng) < 0.5)
        noise = torch.randn(z.shape, generator=rng) * self.net.z_std.cpu()  # type: ignore[operator]
        z = torch.nn.functional.normalize(z + level * noise, dim=1).to(self.lm.device)
        count, total = sum(len(x.target) for x in texts), 0.0
        for group, peak in zip(self.optimiser.param_groups, self.peaks, strict=True):
            group["lr"] = peak * min(1.0, (self.step + 1) / WARMUP)
        for part in passes(texts, range(len(texts)), t, self.lm.states.room):
            loss = nll(self.lm, self.net(z[part], first=t), [texts[i] for i in part]).sum()
            (loss / count).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), CLIP)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        keep = (1 - 1 / self.step) ** (GAMMA + 1)
        with torch.no_grad():
            for name, value in self.net.named_parameters():
                self.average[name].lerp_(value, 1 - keep)
        return total, count

    def _averaged(self) -> SoftPrompt:
        net = copy.deepcopy(self.net)
        net.load_state_dict({name: value.half().float() for name, value in self.average.items()})  # as the file holds it
        return net.eval().requires_grad_(False)

    def _note(self, train: float) -> None:
        """A line of the log; the file can be used from here on."""
        texts = [encode(self.lm, p.split) for p in self.held_out[:WATCHED]]
        dev = mean_nll(self.lm, shortened(self._averaged(), min(16, self.how.tokens)), self.held_z, texts)
        self.log.append({"step": self.step, "seconds": round(self.seconds), "train": round(train, 4), "held_out": round(dev, 4)})
        self.say(f"step {self.step}, {self.seconds / 60:.1f} min: train {train:.3f}, held out {dev:.3f} nats a token")
        self._save()
        self._write({"held_out": dev})

    def _write(self, numbers: dict[str, Any]) -> dict[str, Any]:
        facts = {
            "model": Path(self.lm.name).name, "model_hash": self.lm.hash, "embedder": self.how.embedder,
            "embedder_hash": embedder_hash(self.how.embedder), "tokens": self.how.tokens, "hidden": self.how.hidden, "rank": self.how.rank,
            "passages": len(self.train_on), "steps": self.step, "minutes": round(self.seconds / 60, 1), "seed": self.seed,
            "settings": asdict(self.how), "quality": numbers, "log": self.log,
        }  # fmt: skip
        save_decoder(self.out, self.average, facts)
        return facts

    def _save(self) -> None:
        tensors = {f"now/{k}": v.detach().contiguous() for k, v in self.net.state_dict().items()}
        tensors |= {f"average/{k}": v.contiguous() for k, v in self.average.items()}
        for i, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{i}/{k}": torch.as_tensor(v).contiguous() for k, v in values.items()}
        state = {"key": self.key, "step": self.step, "seconds": self.seconds, "log": self.log}
        partial = self.work / "checkpoint.partial"
        save_file(tensors, partial, metadata={"state": json.dumps(state)})
        partial.replace(self.work / CHECKPOINT)

    def _restore(self) -> None:
        path = self.work / CHECKPOINT
        if not path.exists():
            return
        try:
            with safe_open(path, "pt") as file:
                state = json.loads((file.metadata() or {})["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise _damaged(path, error) from error
        if state["key"] != self.key:
            raise ModelError(f"--out {self.out} holds the training of another model, embedder, corpus or setting. Give another folder, or remove it.")
        self.net.load_state_dict({k.removeprefix("now/"): v for k, v in tensors.items() if k.startswith("now/")})
        self.average = {k.removeprefix("average/"): v for k, v in tensors.items() if k.startswith("average/")}
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser/"):
                _, i, field = name.split("/")
                moments.setdefault(int(i), {})[field] = value
        self.optimiser.load_state_dict({"state": moments, "param_groups": self.optimiser.state_dict()["param_groups"]})
        self.step, self.seconds, self.log = state["step"], state["seconds"], state["log"]


def _damaged(path: Path, error: Exception) -> StoreError:
    lost = "what was trained so far is lost" if path.name == CHECKPOINT else "it is made again"
    return StoreError(f"{path} is damaged: {error}. Remove it and run again; {lost}.")

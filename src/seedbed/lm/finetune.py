"""Fine-tunes a causal language model on texts: LoRA (Hu et al. 2021, arXiv:2106.09685) through PEFT and in its format, or all weights.

A text's loss is on its target alone, so the same function serves a teacher, whose whole text is target, and a student, whose input is given.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from seedbed.errors import ModelError
from seedbed.flops import COPIES
from seedbed.limits import NEVER, Deadline
from seedbed.lm import loop, train
from seedbed.lm.batches import Text, passes
from seedbed.lm.load import LM, LoadIn, fresh, quick_dtype, usual_device, weights_hash, without_bars
from seedbed.lm.prompts import SoftPrompt
from seedbed.types import seed_for

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
PROMPT = "prompt/"
"""Before the names of a steering prompt's tensors in a checkpoint."""
Method = Literal["lora", "full"]


@dataclass(frozen=True, kw_only=True)
class Tuning(loop.Schedule):
    """method: "lora" or "full". rank, alpha, dropout, targets: of LoRA alone; the update is alpha / rank * B A; targets names modules, ("auto",)
    stands for all linear layers of the blocks."""

    method: Method = "lora"
    lr: float
    weight_decay: float = 0.0
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("auto",)


@dataclass(frozen=True)
class Steering:
    """A soft prompt that learns together with the weights. z: (n, e), dev_z: (m, e), a context for each text; rates as in `train.Fitting`."""

    net: SoftPrompt
    z: torch.Tensor
    dev_z: torch.Tensor
    prompt_lr: float
    network_lr: float


@dataclass(frozen=True)
class Tuned:
    """A model that was tuned. peft: its PeftModel, None where all weights were. log: of `loop.fit`. before: nats a token on dev before it."""

    lm: LM
    peft: Any
    log: list[dict[str, float]]
    before: float
    parameters: int

    def whole(self) -> LM:
        """The model without adapter layers, LoRA added to its weights; this object is of no use afterwards."""
        return replace(self.lm, model=self.peft.merge_and_unload().requires_grad_(False)) if self.peft else self.lm

    def save(self, folder: Path, name: str) -> None:
        """PEFT's two files, which name `name` as their base, or a whole model with its tokenizer; equal weights, equal bytes."""
        if self.peft is None:
            with without_bars():
                self.lm.model.save_pretrained(folder)
            self.lm.tokenizer.save_pretrained(folder)
            return
        self.peft.peft_config["default"].base_model_name_or_path = name
        self.peft.save_pretrained(folder, save_embedding_layers=False)
        for path in folder.iterdir():
            if path.name not in ADAPTER_FILES:
                path.unlink()  # a card without content
        path = folder / ADAPTER_FILES[0]
        facts = {k: sorted(v) if k == "target_modules" and isinstance(v, list) else v for k, v in json.loads(path.read_text()).items()}
        path.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


def own(name: str, method: Method, load_in: LoadIn | None = None) -> LM:
    """A model that `tune_lm` may change: in fp32 where all weights learn, else in the type that this machine reads fastest."""
    full = method == "full"
    return fresh(name, torch.float32 if full else quick_dtype(), usual_device(), load_in, COPIES if full else 1)


def tune_lm(
    lm: LM,
    texts: Sequence[Text],
    dev: Sequence[Text],
    how: Tuning,
    seed: int,
    checkpoint: Path | None = None,
    deadline: Deadline = NEVER,
    steering: Steering | None = None,
) -> Tuned:
    """Trains `lm`, which must be the caller's own (`own`), to its best dev loss; equal seeds give equal bytes on one machine.

    texts, dev: at least one each, none longer than the context. steering: a soft prompt before each text, trained in place with the weights.
    Raises ModelError: a loss that is not finite, targets that the model lacks; ComponentError: PEFT is not installed.
    """
    before = train.mean_nll(lm, None, None, dev)
    peft = _with_lora(lm, how, seed) if how.method == "lora" else None
    if peft is None:
        lm.model.requires_grad_(True)
    tuned = replace(lm, model=peft.get_base_model() if peft else lm.model)
    trainee = _Tuned(tuned, peft, texts, dev, how, steering)
    frozen = weights_hash(_Frozen(peft)) if peft else ""
    log = loop.fit(trainee, how, seed, checkpoint, deadline)
    if peft and weights_hash(_Frozen(peft)) != frozen:
        raise ModelError(f"the weights of {lm.name!r} changed while its adapter was fitted; they are frozen and must not.")
    tuned.model.eval().requires_grad_(False)
    return Tuned(replace(tuned), peft, log, before, sum(p.numel() for group in trainee.groups() for p in group["params"]))


def merged(name: str, adapter: Path, dtype: torch.dtype, device: str) -> LM:
    """The model with the adapter's LoRA added to its weights. Raises ModelError when it was made for other weights, or is none."""
    import peft

    base = fresh(name, dtype, device)
    try:
        made_for = json.loads((adapter.parent / "finetune.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"the adapter {adapter.name!r} has no readable finetune.json beside it: {error}. Fit the teacher again.") from error
    if made_for["model_hash"] != base.hash:
        raise ModelError(
            f"the adapter {adapter.name!r} was made for {made_for['model']!r} with weights {made_for['model_hash'][:12]}; the loaded model is "
            f"{name!r} with {base.hash[:12]}. Load that model, or fit the teacher again."
        )
    if not (adapter / ADAPTER_FILES[1]).is_file():
        raise ModelError(f"the adapter {adapter.name!r} has no {ADAPTER_FILES[1]}. Fit the teacher again.")
    try:
        with _by_old_names():
            joined = peft.PeftModel.from_pretrained(base.model, adapter, torch_device=device).merge_and_unload()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"the adapter {adapter.name!r} cannot be loaded: {str(error).splitlines()[0]} Fit the teacher again.") from error
    return replace(base, model=joined.eval().requires_grad_(False))


@contextmanager
def _by_old_names() -> Iterator[None]:
    """peft asks transformers by a name of old, which is nothing that a user could change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing.", FutureWarning)
        yield


def _with_lora(lm: LM, how: Tuning, seed: int) -> Any:
    """The model inside a PeftModel; A is drawn from the seed and B is zero, so that nothing has changed yet."""
    import peft

    targets: Any = "all-linear" if how.targets == ("auto",) else list(how.targets)
    config = peft.LoraConfig(r=how.rank, lora_alpha=how.alpha, lora_dropout=how.dropout, target_modules=targets, task_type="CAUSAL_LM")
    try:
        with loop.seeded(seed, lm.device.type), _by_old_names():
            return peft.get_peft_model(lm.model, config).eval()
    except ValueError as error:
        linear = sorted({name.rpartition(".")[2] for name, m in lm.model.named_modules() if isinstance(m, torch.nn.Linear)})
        raise ModelError(
            f"LoRA on {lm.name!r}, targets = {list(how.targets)}: {str(error).splitlines()[0]} Linear layers: {', '.join(linear)}."
        ) from error


@dataclass(frozen=True)
class _Frozen:
    """The weights of a PeftModel that do not learn, as `weights_hash` reads a model."""

    peft: Any

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {name: p for name, p in self.peft.named_parameters() if not p.requires_grad}


@dataclass(frozen=True)
class _Tuned:
    """A model, or an adapter in it, as `loop.fit` trains it."""

    lm: LM
    peft: Any
    texts: Sequence[Text]
    dev_texts: Sequence[Text]
    how: Tuning
    steering: Steering | None = None

    @property
    def name(self) -> str:
        return f"{self.steering.net.name} and {self.how.method}" if self.steering else self.how.method

    @property
    def remedy(self) -> str:
        if self.steering:
            return f"Lower generator.prompt_lr (now {self.steering.prompt_lr}), network_lr or lora_lr (now {self.how.lr})."
        return f"Lower lr (now {self.how.lr})."

    @property
    def prompt(self) -> int:
        return self.steering.net.t if self.steering else 1  # begin-of-text

    @cached_property
    def _learning(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self.lm.model.named_parameters() if p.requires_grad}

    def groups(self) -> list[dict[str, Any]]:
        """No decay on biases and norms."""
        both = [[p for p in self._learning.values() if (p.ndim > 1) == decays] for decays in (True, False)]
        rates = [{"params": ps, "lr": self.how.lr, "weight_decay": decay} for ps, decay in zip(both, (self.how.weight_decay, 0.0), strict=True)]
        steering = self.steering.net.groups(self.steering.prompt_lr, self.steering.network_lr, 0.0) if self.steering else []
        return [*(group for group in rates if group["params"]), *steering]

    def gradients(self, picked: list[int], count: int, seed: int) -> float:
        total, room = 0.0, self.lm.states.room  # made before dropout is on: it tries the model
        with loop.seeded(seed, self.lm.device.type), self._dropout():
            for part in passes(self.texts, picked, self.prompt, room):
                with self._half():
                    loss = train.nll(self.lm, self._soft(part, seed), [self.texts[i] for i in part]).sum()
                (loss / count).backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
        return total

    def dev(self) -> float:
        net, z = (self.steering.net, self.steering.dev_z) if self.steering else (None, None)
        with self._half():
            return train.mean_nll(self.lm, net, z, self.dev_texts)

    def _soft(self, picked: list[int], seed: int) -> torch.Tensor | None:
        if self.steering is None:
            return None
        generator = torch.Generator().manual_seed(seed_for(seed, picked[0]))
        found: torch.Tensor = self.steering.net(self.steering.z[picked].to(self.lm.device), generator)
        return found

    def weights(self) -> dict[str, torch.Tensor]:
        prompt = self.steering.net.state_dict() if self.steering else {}
        return dict(self._learning) | {f"{PROMPT}{name}": value for name, value in prompt.items()}

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        if self.steering:
            self.steering.net.load_state_dict({name.removeprefix(PROMPT): v for name, v in weights.items() if name.startswith(PROMPT)})
        with torch.no_grad():
            for name, p in self._learning.items():
                p.copy_(weights[name])

    def _half(self) -> Any:
        """16 bits for the products where the machine is fast at them; the weights that learn stay in fp32."""
        half = self.how.method == "full" and quick_dtype() == torch.bfloat16
        return torch.autocast(self.lm.device.type, torch.bfloat16) if half else nullcontext()

    @contextmanager
    def _dropout(self) -> Iterator[None]:
        """LoRA's own dropout; the model's stays off."""
        layers = [m for name, m in self.lm.model.named_modules() if name.endswith("lora_dropout")]
        for layer in layers:
            layer.train()
        yield
        for layer in layers:
            layer.eval()

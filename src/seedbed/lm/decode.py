"""From a folder that `generators/soft.py` wrote to vectors: what an engine needs to resolve soft references."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from seedbed.errors import EngineError, ModelError
from seedbed.lm.density import Density
from seedbed.lm.prompts import SoftPrompt
from seedbed.store import read_lines
from seedbed.types import SoftRef


@dataclass(frozen=True)
class SoftVectors:
    """A fitted P_theta with the contexts of its sources. contexts: (n, e); place: source id -> row of contexts; model_hash: of its LM; labels:
    one a source, "" without."""

    net: SoftPrompt
    contexts: torch.Tensor
    place: dict[str, int]
    model_hash: str
    labels: tuple[str, ...]

    @cached_property
    def _density(self) -> Density:
        return Density.of(self.contexts, self.labels)

    @torch.inference_mode()
    def resolve(self, refs: Sequence[SoftRef]) -> torch.Tensor:
        """(B, t, d): P_theta of each reference's weighted mean context. Raises EngineError for a source that was not fitted."""
        unknown = sorted({s for r in refs for s in r.sources} - self.place.keys())
        if unknown:
            raise EngineError(f"the soft prompt has no source {unknown[0]!r}. Allowed: ids in its sources.jsonl.")
        rows = []
        for ref in refs:
            weights = torch.tensor(ref.weights, dtype=torch.float32)
            mixed = (weights[:, None] * self.contexts[[self.place[s] for s in ref.sources]]).sum(0)
            if ref.noise_seed is not None:
                mixed = self._density.draw(self.place[ref.sources[0]], mixed, 1 - ref.noise, ref.noise_seed)
            rows.append(torch.nn.functional.normalize(mixed, dim=0) if len(ref.sources) > 1 or ref.noise_seed is not None else mixed)
        return self.net(torch.stack(rows).to(self.net.prompts.device))  # type: ignore[no-any-return]


def load_soft(folder: Path, model_hash: str, device: torch.device) -> SoftVectors:
    """Raises ModelError when the prompt was fitted on other weights than those of the loaded model."""
    facts = json.loads((folder / "prompt.json").read_text())
    if facts["model_hash"] != model_hash:
        raise ModelError(
            f"the soft prompt in {folder.name} was fitted on {facts['model']!r} with weights {facts['model_hash'][:12]}; "
            f"the loaded model has {model_hash[:12]}. Load that model, or fit the prompt again."
        )
    tensors = load_file(folder / "prompt.safetensors")
    contexts = tensors.pop("contexts")
    theta = {name.removeprefix("theta/"): value for name, value in tensors.items()}
    form: Any = "mc" if facts["form"].startswith("amortised") else facts["form"]
    net = SoftPrompt(form, torch.ones_like(theta["prompts"]), 1.0, contexts.shape[1], facts.get("hidden", 1), facts.get("rank", 1))
    net.load_state_dict(theta)
    sources = read_lines(folder / "sources.jsonl")
    place, labels = {entry["id"]: i for i, entry in enumerate(sources)}, tuple(str(entry.get("label") or "") for entry in sources)
    return SoftVectors(net.to(device).eval().requires_grad_(False), contexts, place, model_hash, labels)


@torch.inference_mode()
def average_prompt(folder: Path) -> torch.Tensor:
    """float32 (t, d): the mean of P_theta over the contexts of all sources; for `nsp` the prompt itself. Needs no language model."""
    soft = load_soft(folder, json.loads((folder / "prompt.json").read_text())["model_hash"], torch.device("cpu"))
    found: torch.Tensor = soft.net(soft.contexts).mean(0)
    return found

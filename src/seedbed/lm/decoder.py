"""An embedding decoder: P_theta trained once on general text, so that the frozen model writes the text whose embedding it is given.

One file, decoder.safetensors: theta in half precision and, in its header, the hashes of the language model and the embedder that it belongs to.
The first t of its vectors are a decoder by themselves, for every t from 4 on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from seedbed.errors import ModelError
from seedbed.lm.load import LM
from seedbed.lm.prompts import SoftPrompt
from seedbed.store import write_json

HEADER = ("model", "model_hash", "embedder", "embedder_hash", "tokens")
FEWEST = 4
"""Soft tokens that a decoder is trained for, at least."""


def save_decoder(folder: Path, theta: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    """The file, which is whole by itself, and its facts once more for people."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "decoder.partial"
    halves = {name: value.detach().half().contiguous() for name, value in theta.items()}
    save_file(halves, partial, metadata={"decoder": json.dumps({name: facts[name] for name in HEADER})})
    partial.replace(folder / "decoder.safetensors")
    write_json(folder / "decoder.json", facts)


def gives(path: Path, t: int) -> bool:
    """Whether the file can make a prompt of t vectors."""
    with safe_open(path, "pt") as file:
        most: int = json.loads((file.metadata() or {}).get("decoder", "{}")).get("tokens", 0)
    return FEWEST <= t <= most


def load_decoder(path: Path, lm: LM, embedder: str, embedder_hash: str, t: int | None = None, dropout: float = 0.0) -> SoftPrompt:
    """P_theta of form mc whose first t vectors it was asked for (None: all). Raises ModelError: no such file, made for other weights, too few
    or too many vectors."""
    advice = f"Make one: seedbed pretrain-prompt --model {lm.name} --out FOLDER"
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["decoder"])
            theta = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"{path.name} is no embedding decoder that can be read: {str(error).splitlines()[0]}. {advice}") from error
    for what, name, found, needed in (
        ("language model", lm.name, facts["model_hash"], lm.hash),
        ("embedder", embedder, facts["embedder_hash"], embedder_hash),
    ):
        if found != needed:
            made = facts["model" if what == "language model" else "embedder"]
            raise ModelError(
                f"{path.name} was made for the {what} {made!r} with weights {found[:12]}; {name!r} has {needed[:12]}. Use that {what}, or another "
                f"decoder. {advice}"
            )
    most = facts["tokens"]
    t = most if t is None else t
    if not FEWEST <= t <= most:
        raise ModelError(f"[generator] tokens must be {FEWEST} to {most} with {path.name}. Got {t}.")
    return _built(theta, t, dropout).to(lm.device)


def shortened(net: SoftPrompt, t: int) -> SoftPrompt:
    """A copy with the first t vectors alone, not to be trained."""
    return _built(net.state_dict(), t, net.dropout).to(net.prompts.device).eval().requires_grad_(False)


def _built(theta: dict[str, torch.Tensor], t: int, dropout: float) -> SoftPrompt:
    (hidden, e), rank, d = theta["trunk.0.weight"].shape, len(theta["trunk.2.weight"]), theta["prompts"].shape[2]
    net = SoftPrompt("mc", torch.ones(1, t, d), 1.0, e, hidden, rank, dropout)
    first = {"prompts": theta["prompts"][:, :t], "head.weight": theta["head.weight"][: t * d], "head.bias": theta["head.bias"][: t * d]}
    net.load_state_dict(theta | first)
    return net

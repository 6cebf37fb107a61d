"""Loads a frozen causal language model: the shipped `seedling`, a folder, or a hub name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from seedbed.errors import ModelError

SHIPPED = Path(__file__).resolve().parent.parent / "models"


@dataclass(frozen=True)
class LM:
    """A causal LM whose weights are frozen. hash: SHA-256 of all weights; context: tokens it can read; dim: width of an embedding."""

    name: str
    model: Any
    tokenizer: Any
    hash: str
    context: int
    eos: int
    bos: int
    dim: int

    def encode(self, text: str) -> list[int]:
        """Token ids; a special token spelt out in the text is text."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return ids

    def decode(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def vectors(self, ids: torch.Tensor) -> torch.Tensor:
        """Token embeddings (..., d) of ids (...)."""
        found: torch.Tensor = self.model.get_input_embeddings()(ids)
        return found

    @property
    def device(self) -> torch.device:
        found: torch.device = self.model.device
        return found


def locate(name: str) -> str:
    """A shipped model's folder for its name; any other name unchanged."""
    shipped = SHIPPED / name
    return str(shipped) if shipped.is_dir() else name


def weights_hash(model: Any) -> str:
    """SHA-256 over every weight's name, shape and bytes, in name order."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load(name: str, dtype: torch.dtype = torch.float32, device: str | None = None) -> LM:
    """Loads a model once a process. Raises ModelError when it cannot be found or is no causal LM of transformers."""
    return _load(name, dtype, device or ("cuda" if torch.cuda.is_available() else "cpu"))


@cache
def _load(name: str, dtype: torch.dtype, device: str) -> LM:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        place = locate(name)
        model = AutoModelForCausalLM.from_pretrained(place, dtype=dtype, use_safetensors=True).to(device)
        tokenizer = AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"[model] name = {name!r} cannot be loaded: {str(error).splitlines()[0]} "
            'Allowed: "seedling" (shipped), a folder with config.json, tokenizer and safetensors, or a hub name that this machine can reach.'
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    model.eval().requires_grad_(False)
    eos = tokenizer.eos_token_id
    if eos is None:
        raise ModelError(f"[model] name = {name!r}: its tokenizer has no end-of-text token, so no text could ever end. Use another model.")
    bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else eos
    context = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or tokenizer.model_max_length)
    dim = int(model.get_input_embeddings().embedding_dim)
    return LM(name, model, tokenizer, weights_hash(model), context, int(eos), int(bos), dim)

"""Loads a frozen causal language model: the shipped `seedling`, a folder, or a hub name."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch

from seedbed.errors import ModelError
from seedbed.lm.states import States

SHIPPED = Path(__file__).resolve().parent.parent / "models"


@dataclass(frozen=True)
class LM:
    """A causal LM whose weights are frozen. hash: SHA-256 of the stored weights, whatever type they were loaded in; context: tokens it can
    read; dim: width of an embedding."""

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

    @cached_property
    def states(self) -> States:
        """The losses of texts under this model."""
        return States(self.model)

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


def stored_hash(place: str) -> str:
    """SHA-256 of the weight files of a folder or hub name: the same in every type that they are loaded in. Raises OSError where there are none."""
    from transformers.utils import cached_file

    index = cached_file(place, "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False)
    names = sorted(set(json.loads(Path(index).read_text())["weight_map"].values())) if index else ["model.safetensors"]
    digest = hashlib.sha256()
    for name in names:
        with Path(cached_file(place, name)).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def quick_dtype() -> torch.dtype:
    """The type in which a frozen model is read fastest: bf16 where the processor multiplies it faster than fp32, else fp32.

    By its features, not by a timing, so that a stopped fit goes on in the same type. AMX does it 8 times, AVX512-BF16 on AMD (Zen 4) twice as fast;
    Intel's AVX512-BF16 without AMX (hidden by a hypervisor, say) was measured at half the speed of fp32, and without either it is emulated.
    """
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    amd = "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    return torch.bfloat16 if torch.cpu._is_amx_tile_supported() or (amd and torch.cpu._is_avx512_bf16_supported()) else torch.float32


def load(name: str, dtype: torch.dtype = torch.float32, device: str | None = None) -> LM:
    """Loads a model once a process. Raises ModelError when it cannot be found or is no causal LM of transformers."""
    return _load(name, dtype, device or ("cuda" if torch.cuda.is_available() else "cpu"))


@cache
def fast_bf16(device: str) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32.

    A CPU needs AMX, or avx512_bf16 as AMD builds it: there 2.1 times faster (Zen 4), on Intel without AMX half as fast (156 against 83
    GFLOP/s a core with torch 2.13).
    """
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    cpuinfo = Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
    return "amx_bf16" in words or {"avx512_bf16", "AuthenticAMD"} <= words


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
        identity = stored_hash(place)
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
    return LM(name, model, tokenizer, identity, context, int(eos), int(bos), dim)

"""Loads a causal language model, frozen: the shipped `seedling`, a folder, or a hub name."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from seedbed.errors import ModelError
from seedbed.flops import WIDTHS
from seedbed.lm.states import States, memory

SHIPPED = Path(__file__).resolve().parent.parent / "models"


LoadIn = Literal["4bit", "8bit"]
UNLOADABLE = (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError, StrictDataclassError)
"""What transformers raises where the files of a model are damaged, of no such model, or too large."""


@dataclass(frozen=True)
class LM:
    """A causal LM whose weights are frozen. hash: SHA-256 of the stored weights, whatever type they were loaded in; context: tokens it can
    read; dim: width of an embedding; ends: tokens beside eos at which the model ends a text."""

    name: str
    model: Any
    tokenizer: Any
    hash: str
    context: int
    eos: int
    bos: int
    dim: int
    ends: tuple[int, ...] = ()

    def encode(self, text: str) -> list[int]:
        """Token ids; a special token spelt out in the text is text."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
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


def why(error: BaseException) -> str:
    """An error's text as one line, of 300 characters at most."""
    return f"{' '.join(str(error).split()):.300}"


def locate(name: str) -> str:
    """A shipped model's folder for its name; any other name unchanged."""
    shipped = SHIPPED / name
    return str(shipped) if (shipped / "config.json").is_file() else name


def chat_template(name: str) -> str:
    """How a model's tokenizer writes a chat; "" where it does not. Reads no weights."""
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(locate(name)).chat_template
    return str(found or "")


def weights_hash(model: Any) -> str:
    """SHA-256 over every weight's name, shape and bytes, in name order."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def stored_hash(place: str) -> str:
    """SHA-256 of the weight files of a folder or hub name: the same in every type that they are loaded in. Raises OSError where there are none."""
    digest = hashlib.sha256()
    for path in _stored(place):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _stored(place: str) -> list[Path]:
    """The weight files of a folder or hub name."""
    from transformers.utils import cached_file

    index = cached_file(place, "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False)
    names = sorted(set(json.loads(Path(index).read_text())["weight_map"].values())) if index else ["model.safetensors"]
    return [Path(cached_file(place, name)) for name in names]


def _need_room(name: str, place: str, width: float, copies: int, device: str) -> None:
    """Raises ModelError, before anything is read, when so many copies of the weights, `width` bytes each, are more than the memory."""
    from safetensors import safe_open

    count = 0
    for path in _stored(place):
        with safe_open(path, "pt") as file:
            count += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118 (not a dict)
    have, need = memory(device), count * width * copies
    if need <= have:
        return
    ways = [('method = "lora"', width)] if copies > 1 else []
    ways += [('load_in = "4bit" with method = "lora", on CUDA', WIDTHS["4bit"])]
    fitting = [way for way, each in ways if count * each <= have] + [f"a model of at most {have / width / copies:,.0f} weights"]
    what = f"{copies} copies of its {count:,} weights (gradients, AdamW's moments, the best so far)" if copies > 1 else f"its {count:,} weights"
    raise ModelError(
        f"[model] name = {name!r}: {what} take {need / 1e9:.2f} GB, and this machine's {device} memory is {have / 1e9:.2f} GB. "
        f"What fits: {'; '.join(fitting)}."
    )


@cache
def quick_dtype(device: str | None = None) -> torch.dtype:
    """The type in which a frozen model is read fastest: bf16 where the device multiplies it faster than fp32, else fp32. None: as `load`.

    By its features, not by a timing, so that a stopped fit goes on in the same type. AMX does it 8 times, AVX512-BF16 on AMD (Zen 4) 2.1 times
    as fast; on Intel without AMX (hidden by a hypervisor, say) it was half as fast (156 against 83 GFLOP/s a core, torch 2.13).
    """
    if (device or usual_device()) == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    cpuinfo = Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
    return torch.bfloat16 if "amx_bf16" in words or {"avx512_bf16", "AuthenticAMD"} <= words else torch.float32


def load(name: str, dtype: torch.dtype = torch.float32, device: str | None = None) -> LM:
    """Loads a model once a process, and again where its folder's weights were changed. Raises ModelError when it cannot be found or is no causal
    LM of transformers."""
    return _load(name, dtype, device or usual_device(), _stamp(Path(locate(name))))


def usual_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@cache
def _load(name: str, dtype: torch.dtype, device: str, stamp: tuple[Any, ...]) -> LM:
    return fresh(name, dtype, device)


def _stamp(folder: Path) -> tuple[Any, ...]:
    """Name, size and time of change of its weight files; nothing of a hub name, whose files stay as they are."""
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.safetensors")))


@contextmanager
def without_bars() -> Iterator[None]:
    """transformers draws no bars inside: the run draws its own."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


def fresh(name: str, dtype: torch.dtype, device: str, load_in: LoadIn | None = None, copies: int = 1) -> LM:
    """A model of one's own, to be changed. copies: of the weights that the work will hold; load_in: bitsandbytes' 4 or 8 bits, on CUDA alone.

    Raises ModelError as `load` does, and where the memory is too small or bits cannot be had."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with without_bars():
            place = locate(name)
            _need_room(name, place, WIDTHS[load_in] if load_in else dtype.itemsize, copies, device)
            how = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True, **_bits(load_in, device)}
            model, said = AutoModelForCausalLM.from_pretrained(place, **how)
            need_whole(f"[model] name = {name!r}", said["missing_keys"])
            model = model if load_in else model.to(device)
            tokenizer = AutoTokenizer.from_pretrained(place)
            identity = stored_hash(place)
    except UNLOADABLE as error:
        raise ModelError(
            f"[model] name = {name!r} cannot be loaded: {why(error)} "
            'Allowed: "seedling" (shipped), a folder with config.json, tokenizer and safetensors, or a hub name that this machine can reach.'
        ) from error
    model.eval().requires_grad_(False)
    eos = tokenizer.eos_token_id
    if eos is None:
        raise ModelError(f"[model] name = {name!r}: its tokenizer has no end-of-text token, so no text could ever end. Use another model.")
    bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else eos
    context = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or tokenizer.model_max_length)
    dim = int(model.get_input_embeddings().embedding_dim)
    return LM(name, model, tokenizer, identity, context, int(eos), int(bos), dim, _ends(model, tokenizer, int(eos)))


def need_whole(what: str, missing: Iterable[str]) -> None:
    """Raises ModelError where files lack weights that the configuration asks for, which transformers draws at random. missing: names of these."""
    if first := sorted(missing):
        raise ModelError(
            f"{what}: its files lack {len(first)} weights that its configuration asks for, such as {first[0]}. "
            "Give a folder that is whole: copy it again, or correct config.json (such as the number of its layers)."
        )


def layers_of(names: Iterable[str]) -> list[str]:
    """Those of numbered layers: not a head or a pooler, which may be new or of no use."""
    return [name for name in names if any(part.isdigit() for part in name.split("."))]


def _ends(model: Any, tokenizer: Any, eos: int) -> tuple[int, ...]:
    """Special tokens beside eos at which its generation settings end a text: of instruct models there is one for a turn and one for a text."""
    named = getattr(model.generation_config, "eos_token_id", None)
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} - {eos}
    return tuple(sorted(i for i in special if i in (named if isinstance(named, list) else [named])))


def _bits(load_in: LoadIn | None, device: str) -> dict[str, Any]:
    """What `from_pretrained` needs to load in few bits."""
    if load_in is None:
        return {}
    if not device.startswith("cuda"):
        raise ModelError(f'load_in = "{load_in}" needs a CUDA device, and this machine has none. Leave load_in out; weights are then loaded whole.')
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"load_in = \"{load_in}\" needs bitsandbytes, which is not installed. Install it: pip install 'seedbed[bitsandbytes]'.")
    from transformers import BitsAndBytesConfig

    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": quick_dtype()}  # QLoRA, Dettmers et al. 2023
    return {"quantization_config": BitsAndBytesConfig(**(four if load_in == "4bit" else {"load_in_8bit": True})), "device_map": {"": device}}

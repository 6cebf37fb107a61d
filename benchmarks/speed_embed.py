"""Sentence vectors of 640 short and middling texts, nothing kept: ours against sentence-transformers in float32. Equal: cosine >= 0.999."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from common import ceilings, quick, race

from seedbed.lm import cache
from seedbed.lm.embed import embed, minilm_folder
from seedbed.lm.load import quick_dtype

FLOPS = 2 * 6 * 12 * 384**2
"""Of a token in MiniLM's matrix products: 6 layers of 12 d^2 weights."""


def messages() -> list[str]:
    with (Path(__file__).parent.parent / "examples/helpdesk.csv").open(newline="", encoding="utf-8") as file:
        return [row["message"] for row in csv.DictReader(file)]


def peer() -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    reader = Transformer(str(minilm_folder()), max_seq_length=256)
    return SentenceTransformer(modules=[reader, Pooling(reader.get_embedding_dimension()), Normalize()], device="cpu")


def ours(texts: list[str]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder, patch.object(cache, "place", lambda: Path(folder) / "new.sqlite"):
        return embed(texts)


def check(a: np.ndarray, b: np.ndarray) -> str:
    least = float((a * b).sum(1).min())
    assert least >= 0.999, least
    return f"least cosine {least:.6f} of {len(a)}"


def main() -> None:
    texts = messages()[:: 4 if quick() else 1]
    model = peer()
    tokens = sum(len(ids) for ids in model.tokenizer(texts)["input_ids"])
    best = max(rate for name, rate in ceilings((torch.get_num_threads(),)).items() if "GFLOP" in name)
    facts = {"texts": len(texts), "tokens": tokens, "precision": str(quick_dtype("cpu")), "threads": torch.get_num_threads()}
    print(json.dumps(facts | {"seconds if only matrix products took time": tokens * FLOPS / best / 1e9}))
    rounds = 5 if quick() else 9
    race("embed", lambda: ours(texts), lambda: model.encode(texts, show_progress_bar=False), check, goal=2.5, rounds=rounds, **facts, ceiling=best)


if __name__ == "__main__":
    main()

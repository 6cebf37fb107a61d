"""A BERT encoder read without padding: the tokens of many texts as the rows of one matrix that always has the same number of rows.

So a text's vector does not depend on what stands beside it, bit by bit: a matrix product of one shape on one thread adds up each row in
the same order wherever it stands, and attention is computed for each text alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch.nn import functional

TOKENS = 512
"""Rows of the matrix, and so the most tokens of one text. More are hardly faster, and a call with few texts pays for all rows."""


class Packed:
    """The weights of a transformers BertModel in one precision, query, key and value side by side."""

    def __init__(self, encoder: Any, dtype: torch.dtype) -> None:
        def parts(*modules: Any) -> tuple[torch.Tensor, torch.Tensor]:
            return tuple(torch.cat([getattr(m, name).detach() for m in modules]).to(dtype) for name in ("weight", "bias"))  # type: ignore[return-value]

        table, config = encoder.embeddings, encoder.config
        self.heads, self.width, self.eps = config.num_attention_heads, config.hidden_size, config.layer_norm_eps
        self.words = table.word_embeddings.weight.detach().to(dtype)
        self.places = (table.position_embeddings.weight + table.token_type_embeddings.weight[0]).detach().to(dtype)
        self.norm = parts(table.LayerNorm)
        self.layers = []
        for layer in encoder.encoder.layer:
            own, out = layer.attention.self, layer.attention.output
            dense = (parts(own.query, own.key, own.value), parts(out.dense), parts(layer.intermediate.dense), parts(layer.output.dense))
            self.layers.append((dense, parts(out.LayerNorm), parts(layer.output.LayerNorm)))

    @staticmethod
    def can(config: Any) -> bool:
        """Whether a model of this configuration is one that this file reads."""
        kind = (config.model_type, getattr(config, "hidden_act", ""), getattr(config, "position_embedding_type", "absolute"))
        return kind == ("bert", "gelu", "absolute")

    def __call__(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """float32 (n, width): the mean over each text's tokens. texts: ids, the shorter before the longer, TOKENS in all at most."""
        runs = [(length, len(list(run))) for length, run in groupby(map(len, texts))]
        x = self._start([i for ids in texts for i in ids], [p for ids in texts for p in range(len(ids))])
        for (attention, out, inner, outer), after_attention, after in self.layers:
            mixed = self._attend(functional.linear(x, *attention), runs)
            x = self._normalised(functional.linear(mixed, *out).add_(x), after_attention)
            x = self._normalised(functional.linear(functional.gelu(functional.linear(x, *inner)), *outer).add_(x), after)
        means, at = [], 0
        for length, count in runs:
            means.append(x[at : at + count * length].view(count, length, self.width).float().mean(1))
            at += count * length
        return torch.cat(means)

    def _start(self, ids: list[int], places: list[int]) -> torch.Tensor:
        rows = torch.zeros((2, TOKENS), dtype=torch.long)
        rows[:, : len(ids)] = torch.tensor([ids, places])
        rows = rows.to(self.words.device)
        return self._normalised(self.words[rows[0]] + self.places[rows[1]], self.norm)

    def _normalised(self, x: torch.Tensor, norm: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return functional.layer_norm(x, (self.width,), *norm, self.eps)

    def _attend(self, joint: torch.Tensor, runs: Sequence[tuple[int, int]]) -> torch.Tensor:
        """joint: (TOKENS, 3 width). Texts of one length are one batch, so none needs a mask."""
        mixed, at = joint.new_zeros((TOKENS, self.width)), 0
        for length, count in runs:
            rows = slice(at, at + count * length)
            q, k, v = joint[rows].view(count, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            mixed[rows] = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(count * length, self.width)
            at += count * length
        return mixed

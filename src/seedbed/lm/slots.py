"""A static key-value cache whose rows stand at different positions: what continuous batching needs of a transformers model."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from seedbed.lm.load import LM


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values (slots, heads, length, width) of one layer; slot i writes its next token at positions[i]."""

    is_sliding = False

    def __init__(self, positions: torch.Tensor, length: int) -> None:
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None
        self.is_initialized = True
        self.positions, self.length = positions, length
        self.every = torch.arange(len(positions), device=positions.device)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: `fill` comes first."""

    def fill(self, i: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Slot i gets a prefilled row's keys and values (heads, n, width)."""
        if self.keys is None or self.values is None:
            self.keys = keys.new_zeros(len(self.positions), keys.shape[0], self.length, keys.shape[-1])
            self.values = values.new_zeros(len(self.positions), values.shape[0], self.length, values.shape[-1])
        self.keys[i, :, : keys.shape[1]], self.values[i, :, : keys.shape[1]] = keys, values

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """One new token a slot: (slots, heads, 1, width)."""
        assert self.keys is not None and self.values is not None  # the first prefill made them
        self.keys[self.every, :, self.positions] = key_states[:, :, 0]
        self.values[self.every, :, self.positions] = value_states[:, :, 0]
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return self.length


class SlotCache:
    """All layers. positions: (slots,) where each slot's next token goes; an empty slot stands at 0."""

    def __init__(self, lm: LM, slots: int, length: int) -> None:
        self.positions = torch.zeros(slots, dtype=torch.long, device=lm.device)
        count = lm.model.config.get_text_config().num_hidden_layers
        self.layers = [SlotLayer(self.positions, length) for _ in range(count)]
        self.cache = Cache(layers=self.layers)

    def fill(self, i: int, prefilled: Any, length: int) -> None:
        """Copies a prefilled row (a cache of batch 1) into slot i."""
        for layer, source in zip(self.layers, prefilled.layers, strict=True):
            layer.fill(i, source.keys[0], source.values[0])
        self.positions[i] = length

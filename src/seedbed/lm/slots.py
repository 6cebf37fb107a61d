"""Keys and values of rows that stand at different positions: what continuous batching needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

Span = tuple[int, int, int]
"""Rows start to stop attend to columns 0 to extent: (start, stop, extent)."""


class KV:
    """Keys and values of every layer, each (rows, length, heads * width), made at the first write."""

    def __init__(self, layers: int, rows: int, length: int, dtype: torch.dtype, device: torch.device) -> None:
        self.rows, self.length, self.dtype, self.device = rows, length, dtype, device
        self.keys: list[torch.Tensor | None] = [None] * layers
        self.values: list[torch.Tensor | None] = [None] * layers

    def write(self, layer: int, where: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """keys, values: (n, heads * width), to places `where` (n,) = row * length + position."""
        for store, new in ((self.keys, keys), (self.values, values)):
            if store[layer] is None:  # pages of zeros cost no memory until they are written
                store[layer] = torch.zeros(self.rows, self.length, new.shape[-1], dtype=self.dtype, device=self.device)
            store[layer].view(self.rows * self.length, -1).index_copy_(0, where, new.to(self.dtype))  # type: ignore[union-attr]

    def read(self, layer: int, span: Span, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (rows, heads, extent, width) of a span of rows; views."""
        start, stop, extent = span
        keys, values = self.keys[layer], self.values[layer]
        assert keys is not None and values is not None  # a layer writes before it reads
        shape = (stop - start, extent, heads, -1)
        return keys[start:stop, :extent].view(shape).transpose(1, 2), values[start:stop, :extent].view(shape).transpose(1, 2)

    def lead(self, layer: int, start: int, values: torch.Tensor) -> None:
        """Zero keys and these values (n, g, heads * width) into the first g columns of n rows from `start`."""
        keys, mine = self.keys[layer], self.values[layer]
        assert keys is not None and mine is not None  # a layer writes before it reads
        rows, columns = slice(start, start + len(values)), slice(values.shape[1])
        keys[rows, columns] = 0
        mine[rows, columns] = values

    def copy(self, to: torch.Tensor, source: KV, rows: torch.Tensor, extent: int, first: int = 0, at: int = 0) -> None:
        """Rows `rows` of the source, columns `first` to `extent`, into own rows `to` from column `at` on. The source may be this cache."""
        for mine, theirs in ((self.keys, source.keys), (self.values, source.values)):
            for layer, found in enumerate(theirs):
                if found is not None:
                    if mine[layer] is None:
                        mine[layer] = torch.zeros(self.rows, self.length, found.shape[-1], dtype=self.dtype, device=self.device)
                    mine[layer][to, at : at + extent - first] = found[rows, first:extent]  # type: ignore[index]


@dataclass(frozen=True)
class Shared:
    """A beginning outside the slots, which rows `start` to `stop` attend to together, filled up to `size` rows. kv: of one row, whole."""

    start: int
    stop: int
    size: int
    kv: KV

    def inside(self, spans: Sequence[Span]) -> list[int]:
        """Which spans are of these rows."""
        return [i for i, (start, stop, _) in enumerate(spans) if self.start <= start and stop <= self.stop]


@dataclass(frozen=True)
class Step:
    """One call of a model: B rows (0 to B - 1 of a cache), T tokens each.

    positions: (B, T) of the tokens. spans: cover the rows. keep: (B,) the token of each row whose logits are wanted, or None for no logits.
    columns: (B, T) where the tokens stand in the cache, None: at their positions. shared: of steps of one token, each a few whole spans.
    """

    positions: torch.Tensor
    spans: Sequence[Span]
    keep: torch.Tensor | None
    columns: torch.Tensor | None = None
    shared: Sequence[Shared] = ()

    @property
    def _columns(self) -> torch.Tensor:
        return self.positions if self.columns is None else self.columns

    def where(self, kv: KV) -> torch.Tensor:
        """(B * T,) places of the tokens in the cache."""
        rows = torch.arange(len(self.positions), device=self.positions.device)
        return (rows[:, None] * kv.length + self._columns).flatten()

    def masks(self, window: int | None = None) -> list[torch.Tensor]:
        """For each span (rows, 1, T, extent): 0 where a token may look, -inf elsewhere. window: columns that it looks at, at most, its own
        and those before; of steps without a shared beginning."""
        found = []
        for start, stop, extent in self.spans:
            columns = torch.arange(extent, device=self.positions.device)
            here = self._columns[start:stop, None, :, None]
            hidden = columns > here
            if window is not None:  # a token beyond the extent fills up a shape; it sees the last column, for a row that sees none is no number
                hidden |= columns <= (here - window).clamp(max=extent - 2)
            found.append(torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, -torch.inf))
        return found

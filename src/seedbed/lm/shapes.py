"""Which shapes of a batch give the same bits: found by trying, so that a batch may follow its rows without changing them.

A matrix product sums in an order that its library chooses by the shapes, never by the numbers. So where random numbers give the same bits
in two shapes, all numbers do. A row that is always computed in shapes that agree does not depend on how many rows are beside it. Nor does it on its
place among them, where equal rows get equal bits: over several threads some numbers of rows give the last ones another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import torch

from seedbed.lm.forward import Forward, together
from seedbed.lm.slots import KV, Step

ROWS = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
EXTENTS = (32, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1536, 2048, 3072, 4096)
PIECES = (16, 32, 64)
GROUP = 16
"""Prompts read at once."""


@dataclass(frozen=True)
class Shapes:
    """Allowed sizes, each ascending. rows: that decode together; extents: columns that a row looks at; pieces: tokens of a prompt in one
    call; groups: prompts in one call. The last of rows, extents and groups and the first of pieces are always allowed. exact: whether the
    sizes were tried, and others have to be before they are used."""

    rows: tuple[int, ...]
    extents: tuple[int, ...]
    pieces: tuple[int, ...]
    groups: tuple[int, ...]
    exact: bool


def at_least(sizes: tuple[int, ...], wanted: int) -> int:
    """The smallest size that holds `wanted`, or the largest."""
    return next((size for size in sizes if size >= wanted), sizes[-1])


def all_shapes(slots: int, length: int) -> Shapes:
    """Every size, for where bytes are not promised. length: columns of a slot."""
    group = at_least(ROWS, min(GROUP, slots))

    def upto(sizes: tuple[int, ...], last: int) -> tuple[int, ...]:
        return (*(s for s in sizes if s < last), last)

    return Shapes(upto(ROWS, slots), upto(EXTENTS, length), PIECES, upto(ROWS, group), False)


@cache
def sharing_sizes(slots: int, sharing: tuple[int, int, int], length: int, exact: bool) -> tuple[int, ...]:
    """Numbers of rows that may attend to a shared beginning of `length` tokens together; where exact, with the bits of the largest, which may be
    more than the slots. sharing: `Forward.sharing`."""
    if not exact:
        return (*(n for n in ROWS if n < slots), slots)
    heads, group, width = sharing
    random = torch.Generator().manual_seed(0)
    q = torch.randn(max(slots, ROWS[-1]), heads, group, width, generator=random)
    keys, values = torch.randn(2, length, heads, width, generator=random).transpose(1, 2)  # laid out as a cache is

    def placed(n: int) -> bool:
        return _all_alike(together(q[:1].expand(n, -1, -1, -1), keys, values))

    slots = _filled_up(slots, placed)
    full = together(q[:slots], keys, values)

    def agrees(n: int) -> bool:
        return placed(n) and all(torch.equal(some, all_[:n]) for some, all_ in zip(together(q[:n], keys, values), full, strict=True))

    return (*(n for n in ROWS if n < slots and agrees(n)), slots)


def _filled_up(rows: int, placed: Callable[[int], bool]) -> int:
    """The smallest number of rows that holds these and whose places are alike; the rows as they are where none is."""
    return next((n for n in (rows, *ROWS) if n >= rows and placed(n)), rows)


def _all_alike(found: Iterable[torch.Tensor | None]) -> bool:
    """Whether all rows of each have the same bits."""
    return all(torch.equal(t, t[:1].expand_as(t)) for t in found if t is not None)


@torch.inference_mode()
def equal_shapes(forward: Forward, dim: int, slots: int, length: int) -> Shapes:
    """Those of `all_shapes` whose bits are those of the largest, and the same in every place. dim: width of an embedding. The rows are more than the
    slots where so many have no such bits."""
    forward, random = forward.shallow(), torch.Generator().manual_seed(0)
    every = all_shapes(_filled_up(slots, lambda n: _placed(forward, dim, n, 1, min(EXTENTS[0], length), length)), length)
    extents = tuple(e for e in every.extents if _extent_agrees(forward, dim, every, e, random))
    rows = _agreeing_rows(forward, dim, every.rows, extents, random)
    pieces, groups = _agreeing_pieces(forward, dim, every, random)
    return Shapes(rows, extents, pieces, groups, True)


def _random(shape: tuple[int, ...], generator: torch.Generator, forward: Forward) -> torch.Tensor:
    kv = forward.kv(1, 1)
    return torch.randn(shape, generator=generator).to(kv.device, forward.dtype)


def _filled(forward: Forward, dim: int, rows: int, length: int, generator: torch.Generator) -> KV:
    """A cache of random keys and values."""
    kv = forward.kv(rows, length)
    forward(_random((rows, 1, dim), generator, forward), Step(torch.zeros(rows, 1, dtype=torch.long), [(0, rows, min(32, length))], None), kv)
    for store in (kv.keys, kv.values):
        for i, layer in enumerate(store):
            if layer is not None:
                store[i] = torch.randn(layer.shape, generator=generator).to(layer)
    return kv


def _extent_agrees(forward: Forward, dim: int, every: Shapes, extent: int, generator: torch.Generator) -> bool:
    """Whether tokens and pieces that end at the extent get the same bits as when they look at the whole cache."""
    length, rows = every.extents[-1], 2
    if extent == length:
        return True
    kv = _filled(forward, dim, rows, length, generator)

    def run(piece: int, columns: int) -> torch.Tensor:
        vectors = _random((rows, piece, dim), torch.Generator().manual_seed(piece), forward)
        positions = torch.arange(extent - piece, extent).expand(rows, -1)
        return _logits(forward, vectors, positions, columns, kv)

    return all(torch.equal(run(piece, length), run(piece, extent)) for piece in (1, *every.pieces) if piece <= extent)


def _logits(forward: Forward, vectors: torch.Tensor, positions: torch.Tensor, extent: int, kv: KV) -> torch.Tensor:
    """(B, V) of each row's last token."""
    rows, tokens = vectors.shape[:2]
    logits = forward(vectors, Step(positions, [(0, rows, extent)], torch.full((rows,), tokens - 1)), kv)
    assert logits is not None  # a step that keeps tokens gives logits
    return logits


def _placed(forward: Forward, dim: int, rows: int, tokens: int, extent: int, length: int) -> bool:
    """Whether equal rows get equal bits in every place."""
    generator = torch.Generator().manual_seed(rows)
    kv = _filled(forward, dim, rows, length, generator)
    for layer in (*kv.keys, *kv.values):
        if layer is not None:
            layer[:] = layer[:1].clone()
    vectors = _random((1, tokens, dim), generator, forward).expand(rows, -1, -1)
    logits = _logits(forward, vectors, torch.arange(extent - tokens, extent).expand(rows, -1), extent, kv)
    return _all_alike((logits, *kv.keys, *kv.values))


def _agreeing_rows(forward: Forward, dim: int, sizes: tuple[int, ...], extents: tuple[int, ...], generator: torch.Generator) -> tuple[int, ...]:
    slots, extent = sizes[-1], extents[0]
    kv, vectors = _filled(forward, dim, slots, extent, generator), _random((slots, 1, dim), generator, forward)
    positions = torch.randint(extent, (slots, 1), generator=generator)

    def run(n: int) -> torch.Tensor:
        return _logits(forward, vectors[:n], positions[:n], extent, kv)

    full = run(slots)
    return tuple(n for n in sizes if n == slots or (_placed(forward, dim, n, 1, extent, extent) and torch.equal(run(n), full[:n])))


def _agreeing_pieces(forward: Forward, dim: int, every: Shapes, generator: torch.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Prompts of one length read in pieces of every size by groups of every size, against the smallest piece and the largest group."""
    group, tokens = every.groups[-1], max(every.pieces)
    vectors = _random((group, tokens, dim), generator, forward)
    length = max(tokens, every.extents[-1])

    def read(n: int, piece: int) -> list[torch.Tensor]:
        """Logits after the last piece; keys and values of all."""
        kv = forward.kv(n, length)
        for start in range(0, tokens, piece):
            positions = torch.arange(start, start + piece).expand(n, -1)
            logits = _logits(forward, vectors[:n, start : start + piece], positions, length, kv)
        return [logits, *(t[:, :tokens] for store in (kv.keys, kv.values) for t in store if t is not None)]

    wanted = read(group, every.pieces[0])

    def agrees(n: int, piece: int) -> bool:
        same = all(torch.equal(mine, theirs[:n]) for mine, theirs in zip(read(n, piece), wanted, strict=True))
        return same and _placed(forward, dim, n, piece, length, length)

    groups = tuple(n for n in every.groups if n == group or agrees(n, every.pieces[0]))
    pieces = tuple(p for p in every.pieces if p == every.pieces[0] or all(agrees(n, p) for n in groups))
    return pieces, groups

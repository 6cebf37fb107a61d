"""Likelihoods of many continuations of one prompt in one pass: the prompt is read once, and so is what several continuations begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from seedbed.lm.forward import by_window
from seedbed.lm.load import LM

TOKENS_A_PASS = 2048
"""Continuation tokens scored together: bounds the mask and the logits."""


def score(lm: LM, prefix: torch.Tensor, continuations: Sequence[Sequence[int]]) -> list[float]:
    """Log-likelihood in nats of each continuation (token ids, at least one) after prefix (1, n, d); n + its tokens fit the context."""
    found: list[float] = []
    start = 0
    while start < len(continuations):
        stop, tokens = start + 1, len(continuations[start])
        while stop < len(continuations) and tokens + len(continuations[stop]) <= TOKENS_A_PASS:
            tokens += len(continuations[stop])
            stop += 1
        found += _pass(lm, prefix, continuations[start:stop])
        start = stop
    return found


@dataclass(frozen=True)
class _Trie:
    """Continuations as paths of a tree, so that what several begin with is read once.

    tokens: (nodes,); parents: (nodes,), where each is predicted: 0 is the prompt's end, j + 1 the j-th node that is read. Read are the nodes with
    children, `read` (m,), at `depths` (m,) after the prompt; sees: (m, m), itself and the nodes above it. steps: pairs (node, continuation), (2, p).
    """

    tokens: torch.Tensor
    parents: torch.Tensor
    read: torch.Tensor
    depths: torch.Tensor
    sees: torch.Tensor
    steps: torch.Tensor


@lru_cache(maxsize=8)
def _trie(continuations: tuple[tuple[int, ...], ...]) -> _Trie:
    nodes: dict[tuple[int, ...], int] = {}
    steps = []
    for owner, ids in enumerate(continuations):
        for stop in range(1, len(ids) + 1):
            steps.append((nodes.setdefault(ids[:stop], len(nodes)), owner))
    paths = list(nodes)
    inner = sorted({nodes[path[:-1]] for path in paths if len(path) > 1})
    row = {node: j for j, node in enumerate(inner)}
    sees = torch.zeros(len(inner), len(inner), dtype=torch.bool)
    for j, node in enumerate(inner):
        sees[j, [row[nodes[paths[node][:stop]]] for stop in range(1, len(paths[node]) + 1)]] = True
    return _Trie(
        torch.tensor([path[-1] for path in paths]),
        torch.tensor([row[nodes[path[:-1]]] + 1 if len(path) > 1 else 0 for path in paths]),
        torch.tensor(inner, dtype=torch.long),
        torch.tensor([len(paths[node]) - 1 for node in inner], dtype=torch.long),
        sees,
        torch.tensor(steps).T,
    )


def _pass(lm: LM, prefix: torch.Tensor, continuations: Sequence[Sequence[int]]) -> list[float]:
    n, device, tree = prefix.shape[1], lm.device, _trie(tuple(map(tuple, continuations)))
    positions = torch.cat([torch.arange(n), n + tree.depths])
    seen = torch.ones(len(positions), len(positions), dtype=torch.bool).tril()
    seen[n:, n:] = tree.sees
    vectors = torch.cat([prefix, lm.vectors(tree.tokens[tree.read].to(device))[None]], dim=1)
    behind = positions[:, None] - positions[None]

    def mask(window: int | None) -> torch.Tensor:
        near = seen if window is None else seen & (behind < window)
        return torch.zeros(near.shape, dtype=vectors.dtype).masked_fill_(~near, torch.finfo(vectors.dtype).min).to(device)[None, None]

    kept = torch.arange(n - 1, vectors.shape[1], device=device)
    masks = by_window(lm.model, len(positions), mask)
    found = lm.model(inputs_embeds=vectors, position_ids=positions[None].to(device), attention_mask=masks, use_cache=False, logits_to_keep=kept)
    logits = found.logits[0].float()
    source = tree.parents.to(device)
    logs = logits[source, tree.tokens.to(device)] - torch.logsumexp(logits, dim=-1)[source]
    node, owner = tree.steps.to(device)
    totals = torch.zeros(len(continuations), dtype=torch.float64, device=device).index_add_(0, owner, logs.double()[node])
    return totals.tolist()

"""Likelihoods of many continuations of one prompt in one pass: the prompt is read once, and each continuation sees it and itself alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

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


def _pass(lm: LM, prefix: torch.Tensor, continuations: Sequence[Sequence[int]]) -> list[float]:
    n, device = prefix.shape[1], lm.device
    lengths = torch.tensor([len(ids) for ids in continuations], device=device)
    ids = torch.tensor([i for c in continuations for i in c], device=device)
    owner = torch.repeat_interleave(torch.arange(len(continuations), device=device), lengths)
    firsts = lengths.cumsum(0) - lengths
    offset = torch.arange(len(ids), device=device) - firsts[owner]
    # A continuation's last token predicts nothing that is asked for.
    read = offset < lengths[owner] - 1
    positions = torch.cat([torch.arange(n, device=device), n + offset[read]])
    owners = torch.cat([torch.full((n,), -1, device=device), owner[read]])
    seen = (positions[:, None] >= positions[None]) & ((owners[None] == -1) | (owners[:, None] == owners[None]))
    vectors = torch.cat([prefix, lm.vectors(ids[read])[None]], dim=1)
    mask = torch.zeros(seen.shape, dtype=vectors.dtype, device=device).masked_fill_(~seen, torch.finfo(vectors.dtype).min)
    kept = torch.arange(n - 1, vectors.shape[1], device=device)
    logits = (
        lm.model(inputs_embeds=vectors, position_ids=positions[None], attention_mask=mask[None, None], use_cache=False, logits_to_keep=kept)
        .logits[0]
        .float()
    )
    # Row 0 is the prompt's last token, which predicts every first token; row j + 1 is the j-th token read.
    source = torch.zeros(len(ids), dtype=torch.long, device=device)
    source[1:] = read[:-1].long().cumsum(0)
    source[offset == 0] = 0
    logs = logits[source, ids] - torch.logsumexp(logits, dim=-1)[source]
    totals = torch.zeros(len(continuations), dtype=torch.float64, device=device).index_add_(0, owner, logs.double())
    return totals.tolist()

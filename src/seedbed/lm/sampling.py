"""Draws one token a row by inverse CDF: the row's own uniform decides, so that a row's tokens do not depend on what shares its batch."""

from __future__ import annotations

import numpy as np
import torch

from seedbed.errors import EngineError
from seedbed.types import Sampling

BLOCK = 64
"""Probabilities summed at once: the place of a uniform is found among block sums first, then inside one block."""


def draw(logits: torch.Tensor, uniforms: np.ndarray, sampling: Sampling) -> np.ndarray:
    """int64 (n,): one token for each row of logits (n, V). uniforms: float64 (n,) in [0, 1).

    Temperature 0 is greedy. Otherwise tokens stand in the order of the vocabulary and the first whose cumulated probability exceeds
    u times the total is drawn. top_p keeps the fewest most probable tokens whose mass reaches it (Holtzman et al., arXiv 1904.09751), and
    tokens as probable as the least probable of those. Raises EngineError for logits that are no numbers.
    """
    if not logits.amax(dim=-1).isfinite().all():
        raise EngineError(
            "the model's logits are not finite, so no token can be drawn: its weights are damaged, or the precision is too small for it. "
            'Try [engine] precision = "fp32", or load the model anew.'
        )
    if sampling.temperature == 0:
        greedy: np.ndarray = logits.argmax(dim=-1).cpu().numpy()
        return greedy
    probs = torch.softmax(logits.float() / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        ascending = _sorted(probs)
        place = _place(ascending, torch.full((len(probs),), 1.0 - sampling.top_p, dtype=torch.float64, device=probs.device))
        probs *= probs >= ascending.gather(1, place[:, None])
    drawn: np.ndarray = _place(probs, torch.from_numpy(uniforms).to(probs.device)).cpu().numpy()
    return drawn


def _sorted(probs: torch.Tensor) -> torch.Tensor:
    """Each row in ascending order. numpy's vectorised sort is about 20 times as fast as torch's on a CPU, and lets other threads run."""
    if probs.device.type != "cpu":
        return probs.sort(dim=-1).values
    return torch.from_numpy(np.sort(probs.numpy(), axis=-1))


def _place(masses: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """(n,): the first place in each row of masses (n, V) where the running sum exceeds shares (n,) times the row's total."""
    width = masses.shape[-1]
    padded = torch.nn.functional.pad(masses, (0, -width % BLOCK)).view(len(masses), -1, BLOCK)
    running = padded.sum(dim=-1).double().cumsum(dim=-1)
    wanted = shares[:, None] * running[:, -1:]
    block = (running <= wanted).sum(dim=-1, keepdim=True).clamp(max=running.shape[-1] - 1)
    before = torch.nn.functional.pad(running, (1, 0)).gather(1, block)
    inside = padded.gather(1, block[:, :, None].expand(-1, -1, BLOCK))[:, 0]
    # The sum of a block and the running sum inside it may differ in the last bit: the last token with any mass is the limit.
    last = BLOCK - 1 - (inside > 0).flip(-1).int().argmax(dim=-1)
    offset = (inside.double().cumsum(dim=-1) + before <= wanted).sum(dim=-1)
    return block[:, 0] * BLOCK + torch.minimum(offset, last)

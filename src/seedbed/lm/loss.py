"""Cross-entropy through a frozen output layer, a few tokens at a time: the logits of a large vocabulary are never whole in memory."""

from __future__ import annotations

from typing import Any

import torch

LOGITS = 1 << 24
"""Logits in memory at once."""


def token_losses(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor) -> torch.Tensor:
    """(n,) negative log-likelihoods in nats, fp32, of `targets` (n,) under logits hidden @ weight.T + bias. hidden: (n, d), weight: (V, d),
    bias: (V,). Gradients go to `hidden` alone; they are made in the same pass as the losses, so that no logit is made twice."""
    found: torch.Tensor = _Losses.apply(hidden, weight, bias, targets)  # type: ignore[no-untyped-call]
    return found


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor) -> torch.Tensor:
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        slope = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        step = max(1, LOGITS // len(weight))
        for start in range(0, len(hidden), step):
            part = slice(start, start + step)
            logs = torch.log_softmax(torch.nn.functional.linear(hidden[part], weight, bias), dim=-1, dtype=torch.float32)
            wanted = targets[part, None]
            losses[part] = -logs.gather(1, wanted)[:, 0]
            if slope is not None:  # of one token's loss: (softmax - one-hot) @ weight
                probs = logs.exp_()
                probs.scatter_add_(1, wanted, probs.new_full((1, 1), -1.0).expand_as(wanted))
                torch.mm(probs.to(weight.dtype), weight, out=slope[part])
        if slope is not None:
            ctx.save_for_backward(slope)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * gradients[0][:, None].to(slope.dtype), None, None, None

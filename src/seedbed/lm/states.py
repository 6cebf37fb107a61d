"""What a model's output layer reads: by the model's own layers, or for a frozen Llama by quicker ones; and its losses, in chunks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from seedbed.lm import llama
from seedbed.lm.loss import token_losses

PASS_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Tokens, padding and prompts counted, that one forward pass holds; more rows take several. A CPU gains nothing from more."""


class States:
    """Losses of a model given vectors. room: tokens of one pass. Of a model that is not all frozen each weight that learns has its gradient."""

    def __init__(self, model: Any) -> None:
        self.model, device = model, model.device.type
        self.room = PASS_TOKENS.get(device, PASS_TOKENS["cuda"])
        self.recompute = _activations(model, self.room) > memory(device) / 4
        frozen = not any(p.requires_grad for p in model.parameters())
        self.quick = llama.Llama(model, self.recompute) if frozen and llama.fits(model) else None
        self.head = _head(model)

    def losses(self, prompt: torch.Tensor, text: torch.Tensor, targets: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
        """(B, T) negative log-likelihoods in nats, fp32, 0 where not `scored`. prompt: (B, t, d), or (1, t, d) for all rows; text: (B, T - 1, d),
        the inputs after it; targets, scored: (B, T), the first predicted by the prompt's last position."""
        found = torch.zeros(targets.shape, dtype=torch.float32, device=targets.device)
        if self.head is None:
            inputs = torch.cat([prompt.expand(len(text), -1, -1), text], dim=1)
            with self._recomputing():
                logits = self.model(inputs_embeds=inputs, use_cache=False, logits_to_keep=targets.shape[1]).logits[scored]
            picked = torch.nn.functional.cross_entropy(logits.float(), targets[scored], reduction="none")
        else:
            hidden = self.quick(prompt, text) if self.quick else self._hidden(prompt, text)
            picked = token_losses(hidden[scored], *self.head, targets[scored])
        return found.masked_scatter(scored, picked)

    def _hidden(self, prompt: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        inputs = torch.cat([prompt.expand(len(text), -1, -1), text], dim=1)
        with self._recomputing():
            hidden: torch.Tensor = self.model.base_model(inputs_embeds=inputs, use_cache=False).last_hidden_state[:, prompt.shape[1] - 1 :]
        return hidden

    @contextmanager
    def _recomputing(self) -> Iterator[None]:
        """Where memory asks for it, layers keep only their input for the backward pass."""
        layers = [m for m in self.model.modules() if hasattr(m, "gradient_checkpointing")] if self.recompute and torch.is_grad_enabled() else []
        for layer in layers:  # transformers checkpoints a layer in training alone; its parts stay as they are, so nothing is dropped out
            layer.training = layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        try:
            yield
        finally:
            for layer in layers:
                layer.training = layer.gradient_checkpointing = False


def _head(model: Any) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """Weight and bias of the output layer, or None where it learns or the logits are not a linear map of the last hidden states (scaled, capped)."""
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.weight.requires_grad:
        return None
    with torch.inference_mode():
        inputs = model.get_input_embeddings()(torch.arange(8, device=model.device)[None])
        hidden = model.base_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
        same = torch.equal(head(hidden), model(inputs_embeds=inputs, use_cache=False).logits)
    return (head.weight, head.bias) if same else None


def _activations(model: Any, tokens: int) -> int:
    """Bytes that a forward pass of `tokens` keeps for the backward one, roughly."""
    config = model.config.get_text_config()
    width = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * width
    return int(tokens * config.num_hidden_layers * (12 * width + 5 * inner) * model.dtype.itemsize)


def memory(device: str) -> int:
    """Bytes of the device's memory."""
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

"""A language model's sizes without its weights, and what working with it costs on a known device: computed, not measured.

Sources: FLOPs a token, Kaplan et al. 2020 (arXiv:2001.08361, table 1): 2 N + 2 layers * context * d_attention forward, and twice that
backward, half of it for the weights' gradients, which a frozen model does not need. Memory of activations: Korthikanti et al. 2022
(arXiv:2205.05198, equation 1), bytes in 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Size = Annotated[int, Field(ge=1)]
UTILISATION = 0.4
"""Of a device's peak FLOP/s that training and prefill reach. PaLM, 540 B, reached 0.46 (Chowdhery et al. 2022, arXiv:2204.02311, table 3)."""
BANDWIDTH = 0.6
"""Of a device's peak memory bandwidth that decoding reaches."""
CHARACTERS_A_TOKEN = 4.0
"""Of English, about; neither a shape nor a server has a tokenizer here."""
WIDTHS = {"4bit": 0.6, "8bit": 1.1}
"""Bytes of a weight that bitsandbytes holds in few bits, with its scales and the layers that stay whole."""
COPIES = 5
"""Of the weights, while all of them learn: themselves, gradients, AdamW's two moments, the best so far."""


class Shape(BaseModel):
    """A decoder of Llama's parts: grouped attention without biases, a gated MLP of three matrices, two norms a layer and one at the end.

    hidden: width of an embedding. layers. heads. kv_heads: heads when not given. head_dim: hidden / heads when not given. intermediate:
    width of the MLP. vocab: entries. tied: one matrix for input and output. context: tokens it can read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: Size
    layers: Size
    heads: Size
    intermediate: Size
    vocab: Size
    kv_heads: Size | None = None
    head_dim: Size | None = None
    tied: bool = True
    context: Size = 2048

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.head_dim is None and self.hidden % self.heads:
            raise ValueError(f"hidden = {self.hidden} must be a multiple of heads = {self.heads}, or give head_dim")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"heads = {self.heads} must be a multiple of kv_heads = {self.kv_heads}")
        return self

    @property
    def attention(self) -> int:
        """Width of the queries: heads * head_dim."""
        return self.heads * (self.head_dim or self.hidden // self.heads)

    @property
    def keys(self) -> int:
        """Width of the keys, and of the values: kv_heads * head_dim."""
        return self.attention * (self.kv_heads or self.heads) // self.heads

    @property
    def multiplied(self) -> int:
        """N: weights of the matrices that each token is multiplied by, the output's included."""
        layer = self.hidden * (2 * self.attention + 2 * self.keys) + 3 * self.hidden * self.intermediate
        return self.layers * layer + self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.multiplied + (0 if self.tied else self.vocab * self.hidden) + (2 * self.layers + 1) * self.hidden

    def forward(self, tokens: float, context: float) -> float:
        """FLOPs of reading so many tokens in texts of `context` tokens."""
        return tokens * (2 * self.multiplied + 2 * self.layers * context * self.attention)

    def fit(self, tokens: float, context: float, frozen: bool) -> float:
        """FLOPs of forward and backward: 4 N a token where the weights are frozen (a soft prompt, LoRA), else 6 N, and the attention's."""
        return (2 if frozen else 3) * self.forward(tokens, context)

    def lora(self, rank: int) -> int:
        """Weights of an adapter on all linear layers of the blocks: A and B of each."""
        layer = 4 * self.hidden + 2 * self.attention + 2 * self.keys + 3 * (self.hidden + self.intermediate)
        return self.layers * rank * layer

    def cache_bytes(self, tokens: float, width: int) -> float:
        """Keys and values of so many tokens, `width` bytes a number."""
        return tokens * 2 * self.layers * self.keys * width

    def activation_bytes(self, tokens: float, context: float, width: int) -> float:
        """What a backward pass keeps of so many tokens, logits and their gradient included."""
        layer = tokens * self.hidden * (34 + 5 * self.heads * context / self.hidden) * width / 2
        return self.layers * layer + 2 * tokens * self.vocab * 4


@dataclass(frozen=True)
class Device:
    """Peaks by the maker's data sheet: dense FLOP/s in 16 bits and in fp32 (no TF32), memory bytes a second, bytes of memory. bf16: whether it
    computes in it; frozen weights are then held in it."""

    half: float
    single: float
    bandwidth: float
    memory: float
    bf16: bool = True

    def seconds(self, flops: float, read: float, width: int) -> float:
        """The slower of computing and of reading so many bytes; width: bytes a number, 2 or 4."""
        return max(flops / (UTILISATION * (self.half if width == 2 else self.single)), read / (BANDWIDTH * self.bandwidth))


DeviceName = Literal["a100", "h100", "h200", "l4", "t4"]
DEVICES: dict[DeviceName, Device] = {
    "a100": Device(312e12, 19.5e12, 2.039e12, 80e9),  # SXM, 80 GB
    "h100": Device(989e12, 67e12, 3.35e12, 80e9),  # SXM
    "h200": Device(989e12, 67e12, 4.8e12, 141e9),  # SXM
    "l4": Device(121e12, 30.3e12, 0.3e12, 24e9),
    "t4": Device(65e12, 8.1e12, 0.3e12, 16e9, bf16=False),
}

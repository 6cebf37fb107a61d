"""Llama's layers with frozen weights: the same numbers as transformers', a backward pass written out that goes to the inputs alone.

Nothing is computed or kept for the weights; a norm, a rotation and a gate take the fewest passes over memory; the attention of short texts is
plain matrix products in fp32; and one prompt that all texts share is read once. Every function holds rows as (rows, tokens, width).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear, scaled_dot_product_attention, silu
from torch.utils.checkpoint import checkpoint

PLAIN_ATTENTION = 256
"""Keys up to which attention on a CPU is plain matrix products; beyond, the library's kernel that never holds the scores is as fast."""


def fits(model: Any) -> bool:
    """Whether a transformers model is a Llama that these layers compute (SmolLM, TinyLlama, Llama 2 and 3 and seedling are)."""
    config = model.config
    return (
        type(model).__name__ == "LlamaForCausalLM"
        and config.hidden_act == "silu"
        and not (config.attention_bias or config.mlp_bias)
        and all(type(m) is torch.nn.Linear for name, m in model.model.layers.named_modules() if name.endswith("_proj"))
        and config.rope_parameters.get("rope_type", "default") in ("default", "linear", "llama3", "yarn")
    )


class Llama:
    """The layers of a LlamaForCausalLM. recompute: keep only each layer's input for the backward pass."""

    def __init__(self, model: Any, recompute: bool) -> None:
        self.base, self.recompute = model.model, recompute

    def __call__(self, prompt: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """(B, T + 1, d) last hidden states, from the prompt's last position on. prompt: (B, t, d), or (1, t, d) for all; text: (B, T, d)."""
        t, total = prompt.shape[1], prompt.shape[1] + text.shape[1]
        shared = len(prompt) < len(text) and text.shape[1] > 0
        streams = [prompt, text] if shared else [torch.cat([prompt.expand(len(text), -1, -1), text], dim=1)]
        first = [t - 1, 0] if shared else [t - 1]
        where = _Where.of(self.base, total, streams[0])
        depth = len(self.base.layers)
        for i, layer in enumerate(self.base.layers):
            cut = first if i == depth - 1 else [0] * len(streams)  # of the last layer's prompt only the end is read
            if self.recompute and torch.is_grad_enabled():
                streams = checkpoint(_layer, layer, streams, where, cut, use_reentrant=False)
            else:
                streams = _layer(layer, streams, where, cut)
        ends = [streams[0].expand(len(text), -1, -1), streams[1]] if shared else streams
        norm = self.base.norm
        found: torch.Tensor = _Norm.apply(torch.cat(ends, dim=1), norm.weight, norm.variance_epsilon)  # type: ignore[no-untyped-call]
        return found


@dataclass(frozen=True)
class _Where:
    """Positions. cos, sin: (S, width of a head / 2) in fp32; mask: (S, S), 0 where a query (row) sees a key, else -inf."""

    cos: torch.Tensor
    sin: torch.Tensor
    mask: torch.Tensor

    @staticmethod
    def of(base: Any, total: int, like: torch.Tensor) -> _Where:
        cos, sin = base.rotary_emb(like.float(), torch.arange(total, device=like.device)[None])
        half = cos.shape[-1] // 2
        mask = torch.full((total, total), float("-inf"), device=like.device).triu(1)
        return _Where(cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous(), mask)


def _layer(layer: Any, streams: list[torch.Tensor], where: _Where, first: list[int]) -> list[torch.Tensor]:
    """One layer of streams that stand one after another; a stream sees itself and those before it. first: the first position that each goes on
    with."""
    attention, mlp, before, after = layer.self_attn, layer.mlp, layer.input_layernorm, layer.post_attention_layernorm
    keys: torch.Tensor | None = None
    values: torch.Tensor | None = None
    outs = []
    for x, cut in zip(streams, first, strict=True):
        seen = 0 if keys is None else keys.shape[2]
        span = slice(seen, seen + x.shape[1])
        weights = (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight)
        q, k, v = _Project.apply(x, before.weight, before.variance_epsilon, *weights, attention.head_dim, where.cos[span], where.sin[span])  # type: ignore[no-untyped-call]
        if keys is not None and values is not None:
            k = torch.cat([keys.expand(len(x), -1, -1, -1), k], dim=2)
            v = torch.cat([values.expand(len(x), -1, -1, -1), v], dim=2)
        keys, values = k, v
        mixed = _attend(q[:, :, cut:], k, v, where.mask[seen + cut : span.stop, : span.stop], attention.scaling, x.dtype)
        outs.append(
            _Rest.apply(  # type: ignore[no-untyped-call]
                x[:, cut:],
                mixed,
                attention.o_proj.weight,
                after.weight,
                after.variance_epsilon,
                mlp.gate_proj.weight,
                mlp.up_proj.weight,
                mlp.down_proj.weight,
            )
        )
    return outs


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    """(B, T, H * w) in `dtype`. q: (B, H, T, w), k and v: (B, K, S, w) in fp32, mask: (T, S)."""
    b, _, length, _ = q.shape
    if q.device.type == "cpu" and k.shape[2] <= PLAIN_ATTENTION:
        out = _Attend.apply(q, k, v, mask, scale)  # type: ignore[no-untyped-call]
    else:
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask.to(dtype), scale=scale, enable_gqa=True)
    found: torch.Tensor = out.transpose(1, 2).to(dtype).reshape(b, length, -1)
    return found


def _norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """RMS-normalised rows of x (n, d) times weight; and the factors 1 / RMS (n, 1) in fp32."""
    square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square_()
    scale = square.div_(x.shape[-1]).add_(eps).rsqrt_()
    return (x * scale).to(x.dtype).mul_(weight), scale


def _norm_slope(slope: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The gradient of x (n, d) in fp32, from that of its normalised rows."""
    slope = slope.float() * weight
    along = (slope * x).sum(dim=-1, keepdim=True).mul_(scale.pow(3) / x.shape[-1])
    return slope.mul_(scale).addcmul_(x.float(), along, value=-1)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Rotary positions: x (B, H, T, w) into `out` of the same shape; with -sin the way back."""
    (a, b), (left, right) = x.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(a, cos, out=left).addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=right).addcmul_(a, sin)
    return out


def _gate(g: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    return silu(g).mul_(u)


def _gate_slopes(slope: torch.Tensor, g: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of g and of u; `slope` is used up."""
    to_u = silu(g).mul_(slope)
    return torch.ops.aten.silu_backward(slope.mul_(u), g), to_u


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        flat = x.flatten(0, 1)
        out, scale = _norm(flat, weight, eps)
        ctx.save_for_backward(flat, weight, scale)
        return out.view_as(x)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        flat, weight, scale = ctx.saved_tensors
        return _norm_slope(slopes[0].flatten(0, 1), flat, scale, weight).to(flat.dtype).view_as(slopes[0]), None, None


class _Project(torch.autograd.Function):
    """x (B, T, d) -> norm -> q (B, H, T, w), k, v (B, K, T, w) in fp32, q and k rotated."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, norm: torch.Tensor, eps: float, wq: torch.Tensor, wk: torch.Tensor, wv: torch.Tensor, width: int,
        cos: torch.Tensor, sin: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
        flat = x.flatten(0, 1)
        normed, scale = _norm(flat, norm, eps)
        q, k, v = (linear(normed, w).float().view(*x.shape[:2], -1, width).transpose(1, 2) for w in (wq, wk, wv))
        ctx.save_for_backward(flat, norm, scale, wq, wk, wv, cos, sin)
        ctx.shape = x.shape
        q, k = (_rotate(part, cos, sin, torch.empty(part.shape, device=x.device)) for part in (q, k))
        return q, k, v.contiguous()

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, norm, scale, wq, wk, wv, cos, sin = ctx.saved_tensors
        b, length, _ = ctx.shape
        total: torch.Tensor | None = None
        for slope, weight, turned in zip(slopes, (wq, wk, wv), (True, True, False), strict=True):
            flipped = torch.empty(b, length, slope.shape[1], slope.shape[3], device=slope.device)
            _ = _rotate(slope, cos, -sin, flipped.transpose(1, 2)) if turned else flipped.copy_(slope.transpose(1, 2))
            rows = flipped.view(b * length, -1).to(weight.dtype)
            total = rows @ weight if total is None else total.addmm_(rows, weight)
        assert total is not None
        return _norm_slope(total, flat, scale, norm).to(flat.dtype).view(ctx.shape), *[None] * 8


class _Attend(torch.autograd.Function):
    """Softmax attention of short texts as plain matrix products. q: (B, H, T, w), k, v: (B, K, S, w) -> (B, H, T, w)."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        groups = q.shape[1] // k.shape[1]
        q3, k3, v3 = _grouped(q, k), k.flatten(0, 1), v.flatten(0, 1)
        scores = torch.baddbmm(mask.repeat(groups, 1), q3, k3.mT, alpha=scale)
        probs = torch.softmax(scores, dim=-1)
        ctx.save_for_backward(q3, k3, v3, probs)
        ctx.shapes, ctx.scale = (q.shape, k.shape), scale
        return torch.bmm(probs, v3).view(q.shape)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q3, k3, v3, probs = ctx.saved_tensors
        q_shape, k_shape = ctx.shapes
        slope = slopes[0].reshape(q3.shape)
        to_v = torch.bmm(probs.mT, slope)
        to_scores = torch._softmax_backward_data(torch.bmm(slope, v3.mT), probs, -1, torch.float32).mul_(ctx.scale)
        to_q = torch.bmm(to_scores, k3).view(q_shape) if ctx.needs_input_grad[0] else None
        return to_q, torch.bmm(to_scores.mT, q3).view(k_shape), to_v.view(k_shape), None, None


def _grouped(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """(B * K, H / K * T, w): the queries that share a key head, one after another."""
    b, heads, length, width = q.shape
    return q.reshape(b * k.shape[1], heads // k.shape[1] * length, width)


class _Rest(torch.autograd.Function):
    """x + out(mixed), then + the gated network of its norm. x: (B, T, d), mixed: (B, T, H * w)."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, mixed: torch.Tensor, out: torch.Tensor, norm: torch.Tensor, eps: float, gate: torch.Tensor, up: torch.Tensor,
        down: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        middle = torch.addmm(x.flatten(0, 1), mixed.flatten(0, 1), out.mT)
        normed, scale = _norm(middle, norm, eps)
        g, u = linear(normed, gate), linear(normed, up)
        ctx.save_for_backward(middle, out, norm, scale, g, u, gate, up, down)
        return torch.addmm(middle, _gate(g, u), down.mT).view(x.shape)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        middle, out, norm, scale, g, u, gate, up, down = ctx.saved_tensors
        b, length, _ = slopes[0].shape
        slope = slopes[0].flatten(0, 1)
        to_g, to_u = _gate_slopes(slope @ down, g, u)
        to_normed = (to_u @ up).addmm_(to_g, gate)
        total = _norm_slope(to_normed, middle, scale, norm).add_(slope).to(middle.dtype)
        return total.view(b, length, -1), (total @ out).view(b, length, -1), *[None] * 6

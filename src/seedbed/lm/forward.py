"""One call of a causal language model over cached rows: through its own transformers modules, or, for the plain Llama family, through
the same arithmetic with a fraction of the calls. At 5 M parameters most of the time of a transformers step is Python.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from inspect import signature
from typing import Any, Protocol

import torch
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)
from torch.overrides import TorchFunctionMode
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from seedbed.errors import ModelError
from seedbed.lm.load import LM
from seedbed.lm.slots import KV, Shared, Step

HEAD_ROWS = 16
"""Logits are computed for at least so many rows: matrix products of fewer rows take another order of summation."""
PLAIN = {"llama", "mistral", "qwen2", "qwen3"}
ROPE = {"default", "linear", "llama3", "yarn"}
"""Rotary embeddings that are a function of the position alone."""


class Forward(Protocol):
    """vectors: (B, T, d) of token or soft embeddings; returns logits (B, V) of the kept tokens, or None, and writes keys and values."""

    def __call__(self, vectors: torch.Tensor, step: Step, kv: KV) -> torch.Tensor | None: ...

    dtype: torch.dtype
    sharing: tuple[int, int, int] | None
    """Heads of keys, heads of queries to each, and their width, where rows can attend to a shared beginning together."""

    def kv(self, rows: int, length: int) -> KV: ...

    def shallow(self) -> Forward:
        """The same shapes with as few layers as they need, to try them out."""
        ...


def forward_of(lm: LM, length: int) -> Forward:
    """The fastest way through the model for rows of at most `length` tokens."""
    return Llama(lm, length) if plain(lm.model) else Modules(lm)


def plain(model: Any) -> bool:
    """Whether the model is a Llama, Mistral, Qwen2 or Qwen3 without sliding windows, changing rotary embeddings or adapters."""
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in PLAIN
        and type(model).__name__.endswith("ForCausalLM")
        and all(type(m) is torch.nn.Linear for name, m in model.model.layers.named_modules() if name.endswith("_proj"))
        and config.hidden_act == "silu"
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and (config.model_type != "mistral" or config.sliding_window is None)
        and rope.get("rope_type", "default") in ROPE
    )


def by_window(model: Any, columns: int, mask: Callable[[int | None], torch.Tensor]) -> torch.Tensor | dict[str, torch.Tensor]:
    """The mask in the form that the model's layers take it, as transformers' `create_masks_for_generate` does: a mask that is given to a model
    is taken as it is, whatever its windows are. columns: S; mask: how far a token looks back, itself counted, or None -> (B, 1, T, S).

    Raises ModelError for a model with layers that read no such mask (convolutions, recurrent states, chunks), no positions, or a window of none."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    window = None if config.model_type == "llama" else getattr(config, "sliding_window", None)  # some name one, and a Llama reads none
    strange = sorted(kinds - {"full_attention", "sliding_attention"})
    if strange or "position_ids" not in signature(model.forward).parameters:
        reads = f"has layers of the kind {strange[0]!r}" if strange else "reads no positions"
        raise ModelError(
            f"a model of the kind {config.model_type!r} {reads}, which is not computed here. Use [engine] kind = 'vllm', or another model."
        )
    # GPT-Neo's own masks count from the last column, whatever the rows' positions are.
    if "local" in getattr(config, "attention_layers", ()) and columns > config.window_size:
        raise ModelError(
            f"a model of the kind {config.model_type!r} can read {config.window_size} tokens here: set engine.cache to that, or to less."
        )
    if ("sliding_attention" in kinds or (not kinds and window is not None)) and (window or 0) < 1:
        raise ModelError(
            f"a model of the kind {config.model_type!r} has sliding_window = {window} in its config.json, so that its tokens see nothing. It must be "
            "1 or more: correct the file, or use another model."
        )
    if "sliding_attention" in kinds:
        return {kind: mask(window if kind == "sliding_attention" else None) for kind in sorted(kinds)}
    return mask(None if kinds else window)


def _kv_dtype(lm: LM) -> torch.dtype:
    """fp32 on a CPU, whatever the weights are: attention of one token over bf16 keys is slower there (LOG, 24 November)."""
    found: torch.dtype = torch.float32 if lm.device.type == "cpu" else next(lm.model.parameters()).dtype
    return found


class Modules:
    """Any causal model of transformers, through its own modules. Rows attend as far as the longest of them, or as the layers' windows reach."""

    sharing: tuple[int, int, int] | None = None

    def __init__(self, lm: LM) -> None:
        self.lm, self.dtype = lm, next(lm.model.parameters()).dtype

    def kv(self, rows: int, length: int) -> KV:
        return KV(self.lm.model.config.get_text_config().num_hidden_layers, rows, length, self.dtype, self.lm.device)

    def shallow(self) -> Modules:
        return self

    def __call__(self, vectors: torch.Tensor, step: Step, kv: KV) -> torch.Tensor | None:
        extent = max(span[2] for span in step.spans)
        whole = Step(step.positions, [(0, len(vectors), extent)], step.keep)
        layers = [_Layer(kv, i, whole) for i in range(len(kv.keys))]
        with _Attention():
            out = self.lm.model(
                inputs_embeds=vectors,
                position_ids=step.positions.clamp(max=self.lm.context - 1),
                attention_mask=by_window(self.lm.model, extent, lambda window: whole.masks(window)[0].to(vectors.dtype)),
                past_key_values=Cache(layers=layers),
                use_cache=True,
                logits_to_keep=1 if step.keep is None else 0,
            )
        if step.keep is None:
            return None
        rows = torch.arange(len(vectors), device=vectors.device)
        found: torch.Tensor = out.logits[rows, step.keep]
        return found


def attention(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, attn_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
    """torch's own, of (B, heads, T, width), where on a CPU the bits of a row do not depend on its place among the others.

    There each thread has a buffer of T * (S + width + 2) numbers, and the library's sums depend on how it is aligned: T is filled up until buffers
    are of whole 16 bytes. A single head of a single row is computed by all threads together, in another order: it gets a second one.
    """
    if q.device.type != "cpu" or kwargs.get("is_causal"):
        return F.scaled_dot_product_attention(q, keys, values, attn_mask, **kwargs)
    rows, heads, tokens = q.shape[:3]
    more = -tokens % (2 if (keys.shape[2] + q.shape[3]) % 2 == 0 else 4)
    q = F.pad(q, (0, 0, 0, more))
    if attn_mask is not None and attn_mask.shape[-2] == tokens:
        attn_mask = F.pad(attn_mask, (0, 0, 0, more))
    if rows * heads == 1:
        q, keys, values = (part.expand(2, -1, -1, -1) for part in (q, keys, values))
    return F.scaled_dot_product_attention(q, keys, values, attn_mask, **kwargs)[:rows, :, :tokens]


class _Attention(TorchFunctionMode):
    """Within it, models of transformers attend by `attention`."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return (attention if func is F.scaled_dot_product_attention else func)(*args, **(kwargs or {}))


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """What a transformers layer sees of one layer of a KV."""

    is_sliding = False

    def __init__(self, kv: KV, index: int, step: Step) -> None:
        self.kv, self.index, self.step, self.is_initialized = kv, index, step, True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: a KV makes its tensors at the first write."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, heads, T, width) each."""
        heads = key_states.shape[1]
        keys, values = (s.transpose(1, 2).flatten(0, 1).flatten(1) for s in (key_states, value_states))
        self.kv.write(self.index, self.step.where(self.kv), keys, values)
        return self.kv.read(self.index, self.step.spans[0], heads)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.step.spans[0][2], 0

    def get_seq_length(self) -> int:
        return self.step.spans[0][2]

    def get_max_length(self) -> int:
        return self.kv.length


@dataclass(frozen=True)
class _Weights:
    """One layer of a Llama; biases and norms that the family lacks are None."""

    norm: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    out: torch.Tensor
    out_bias: torch.Tensor | None
    norm2: torch.Tensor
    gate_up: torch.Tensor
    gate_up_bias: torch.Tensor | None
    down: torch.Tensor
    down_bias: torch.Tensor | None


class Llama:
    """The plain Llama family: joined projections, attention by span of rows, tables of rotary embeddings for `length` positions."""

    def __init__(self, lm: LM, length: int) -> None:
        model, config = lm.model, lm.model.config
        self.dtype, self.kv_dtype, self.device = next(model.parameters()).dtype, _kv_dtype(lm), lm.device
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.group = self.heads // self.kv_heads
        # In bf16 the logarithm of a sum, which a mask has to hold, would be a percent off.
        self.sharing = (self.kv_heads, self.group, self.width) if self.kv_dtype == torch.float32 else None
        self.eps = config.rms_norm_eps
        self.layers = [_weights(layer) for layer in model.model.layers]
        self.norm, self.head, self.head_bias = model.model.norm.weight, model.lm_head.weight, model.lm_head.bias
        with torch.no_grad():
            cos, sin = model.model.rotary_emb(model.model.norm.weight[None, None], torch.arange(length, device=lm.device)[None])
        half = self.width // 2
        self.cos, self.sin = cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)  # the sign of rotate_half is in the table

    def kv(self, rows: int, length: int) -> KV:
        return KV(len(self.layers), rows, length, self.kv_dtype, self.device)

    def shallow(self) -> Llama:
        other = copy(self)
        other.layers = self.layers[:1]
        return other

    def __call__(self, vectors: torch.Tensor, step: Step, kv: KV) -> torch.Tensor | None:
        rows, tokens = vectors.shape[:2]
        x = vectors.flatten(0, 1)
        places = step.positions.flatten().clamp(max=len(self.cos) - 1)
        cos, sin = self.cos[places][:, None], self.sin[places][:, None]
        where, masks = step.where(kv), self._masks(step)
        for i, w in enumerate(self.layers):
            q, k, v = self._qkv(w, F.rms_norm(x, x.shape[-1:], w.norm, self.eps), cos, sin)
            kv.write(i, where, k, v)
            x = x + F.linear(self._attend(q, i, step, masks, kv, rows, tokens), w.out, w.out_bias)
            gate, up = F.linear(F.rms_norm(x, x.shape[-1:], w.norm2, self.eps), w.gate_up, w.gate_up_bias).chunk(2, dim=-1)
            x = x + F.linear(F.silu(gate) * up, w.down, w.down_bias)
        if step.keep is None:
            return None
        kept = x.view(rows, tokens, -1)[torch.arange(rows, device=x.device), step.keep]
        kept = F.pad(kept, (0, 0, 0, max(0, HEAD_ROWS - rows)))
        return F.linear(F.rms_norm(kept, x.shape[-1:], self.norm, self.eps), self.head, self.head_bias)[:rows]

    def _qkv(self, w: _Weights, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x (N, d) -> queries (N, heads, width), keys and values (N, kv_heads * width); queries and keys rotated."""
        found = F.linear(x, w.qkv, w.qkv_bias).view(len(x), -1, self.width)
        both = found[:, : self.heads + self.kv_heads]
        if w.q_norm is not None and w.k_norm is not None:
            q, k = both[:, : self.heads], both[:, self.heads :]
            both = torch.cat([F.rms_norm(q, q.shape[-1:], w.q_norm, self.eps), F.rms_norm(k, k.shape[-1:], w.k_norm, self.eps)], dim=1)
        turned = torch.addcmul(both * cos, both.roll(self.width // 2, dims=-1), sin)
        return turned[:, : self.heads], turned[:, self.heads :].flatten(1), found[:, self.heads + self.kv_heads :].flatten(1)

    def _attend(self, q: torch.Tensor, layer: int, step: Step, masks: list[torch.Tensor], kv: KV, rows: int, tokens: int) -> torch.Tensor:
        """(N, heads * width). A single token's heads that share keys stand as the tokens of one head: keys are read once."""
        single = tokens == 1
        q = (q.reshape(rows, self.kv_heads, -1, self.width) if single else q.view(rows, tokens, self.heads, self.width).transpose(1, 2)).to(kv.dtype)
        for shared in step.shared:
            self._lead(q[shared.start : shared.stop], layer, shared, step, masks, kv)
        found = []
        for span, mask in zip(step.spans, masks, strict=True):
            keys, values = kv.read(layer, span, self.kv_heads)
            part = attention(q[span[0] : span[1]], keys, values, mask, enable_gqa=not single)
            found.append(part if single else part.transpose(1, 2))
        joined = found[0] if len(found) == 1 else torch.cat(found)
        return joined.reshape(rows * tokens, -1).to(self.dtype)

    def _masks(self, step: Step) -> list[torch.Tensor]:
        """Those of rows with a shared beginning (rows, kv_heads, g, extent), their first g columns hidden until the beginning has been read."""
        masks = [mask.to(self.kv_dtype) for mask in step.masks()]
        for part in step.shared:
            for i in part.inside(step.spans):
                masks[i] = masks[i].repeat(1, self.kv_heads, self.group, 1)
                masks[i][..., : self.group] = -torch.inf
        return masks

    def _lead(self, q: torch.Tensor, layer: int, part: Shared, step: Step, masks: list[torch.Tensor], kv: KV) -> None:
        """What q (n, kv_heads, g, width) finds in a shared beginning, as one column more for each of the g heads that share keys."""
        n, (keys, values) = len(q), part.kv.read(layer, (0, 1, part.kv.length), self.kv_heads)
        found, logs = together(F.pad(q, (0, 0) * 3 + (0, part.size - n)), keys[0], values[0])
        kv.lead(layer, part.start, found[:n])
        for i in part.inside(step.spans):
            first, last = step.spans[i][0] - part.start, step.spans[i][1] - part.start
            masks[i][..., : self.group].diagonal(dim1=-2, dim2=-1).copy_(logs[first:last])


def together(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of n rows' single tokens to the same keys and values (heads, P, width) by one matrix product a head; q (n, heads, g, width).

    Returns the results (n, g, heads * width) and the logarithms of the sums of exponentials (n, heads, g). With both, the beginning stands
    for a single column of that value and that score in the softmax over the rest (Hydragen, Juravsky et al., arXiv 2402.05099, section 3.1).
    """
    n, heads, g, width = q.shape
    scores = torch.bmm((q.transpose(0, 1) * width**-0.5).reshape(heads, n * g, width), keys.transpose(1, 2))
    top = scores.amax(-1, keepdim=True)
    weights = scores.sub_(top).exp_()
    total = weights.sum(-1, keepdim=True)
    found = torch.bmm(weights, values).div_(total).view(heads, n, g, width)
    return found.permute(1, 2, 0, 3).flatten(2), (top + total.log()).view(heads, n, g).transpose(0, 1)


def _weights(layer: Any) -> _Weights:
    attention, mlp = layer.self_attn, layer.mlp
    q, k, v = attention.q_proj, attention.k_proj, attention.v_proj
    norms = [getattr(getattr(attention, name, None), "weight", None) for name in ("q_norm", "k_norm")]
    qkv_bias = None if q.bias is None else torch.cat([q.bias, k.bias, v.bias])
    gate_up_bias = None if mlp.gate_proj.bias is None else torch.cat([mlp.gate_proj.bias, mlp.up_proj.bias])
    return _Weights(
        layer.input_layernorm.weight,
        torch.cat([q.weight, k.weight, v.weight]),
        qkv_bias,
        norms[0],
        norms[1],
        attention.o_proj.weight,
        attention.o_proj.bias,
        layer.post_attention_layernorm.weight,
        torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
        gate_up_bias,
        mlp.down_proj.weight,
        mlp.down_proj.bias,
    )

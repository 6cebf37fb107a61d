"""How well an embedding decoder gives back texts that it has not seen: likelihood, words and meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from seedbed.lm.decoder import shortened
from seedbed.lm.embed import embed_fresh
from seedbed.lm.load import LM
from seedbed.lm.passages import Passage
from seedbed.lm.prompts import SoftPrompt
from seedbed.lm.train import encode, mean_nll

DECODED = 128
"""Held-out passages that are written out to be compared."""
LENGTHS = (4, 8, 16, 32, 64)


@torch.inference_mode()
def quality(lm: LM, net: SoftPrompt, held_out: Sequence[Passage], z: torch.Tensor, embedder: str) -> dict[str, Any]:
    """Nats a token of held-out passages: by soft tokens, without a prompt, with the contexts shuffled; of the first passages written out greedily
    from 16 soft tokens, without fields before them: token F1 with the original, cosine of its embedding with z and with another passage's z."""
    texts = [encode(lm, p.split) for p in held_out]
    apart = torch.randperm(len(z), generator=torch.Generator().manual_seed(0)).roll(1)
    found: dict[str, Any] = {
        "n": len(texts),
        "no_prompt": mean_nll(lm, None, None, texts),
        "held_out": {str(t): mean_nll(lm, shortened(net, t), z, texts) for t in LENGTHS if t <= net.t},
        "shuffled": mean_nll(lm, net, z[apart], texts),
    }
    few = z[:DECODED]
    written = greedy(lm, shortened(net, min(16, net.t))(few.to(lm.device)))
    said = torch.from_numpy(embed_fresh([text or "." for text in written], embedder))
    f1 = [_token_f1(lm.encode(p.text), lm.encode(text)) for p, text in zip(held_out, written, strict=False)]
    cosines = said @ few.T
    found |= {"written": len(written), "token_f1": float(np.mean(f1)), "cosine": float(cosines.diagonal().mean())}
    others = cosines[~torch.eye(len(few), dtype=torch.bool)]
    examples = [{"text": p.text, "written": text} for p, text in zip(held_out[:8], written, strict=False)]
    return found | {"cosine_shuffled": float(others.mean()), "examples": examples}


@torch.inference_mode()
def greedy(lm: LM, soft: torch.Tensor, most: int = 64) -> list[str]:
    """What the model writes from (B, t, d), the likeliest token each time."""
    ids = lm.model.generate(
        inputs_embeds=soft.to(lm.model.dtype),
        attention_mask=torch.ones(soft.shape[:2], dtype=torch.long, device=lm.device),
        do_sample=False,
        max_new_tokens=most,
        pad_token_id=lm.eos,
    )
    return [lm.decode(row.tolist()).strip() for row in ids]


def _token_f1(real: Sequence[int], written: Sequence[int]) -> float:
    """Of two bags of tokens, in [0, 1] (Rajpurkar et al. 2016, arXiv:1606.05250)."""
    both = sum(min(real.count(i), written.count(i)) for i in set(real))
    return 2 * both / (len(real) + len(written)) if real or written else 0.0

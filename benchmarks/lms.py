"""What the speed benchmarks of the local engine share: two models, lengths of texts, and both ways to complete rows of fixed lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from seedbed.engines.local import LocalSession
from seedbed.lm.batching import Batch
from seedbed.lm.load import LM, load, weights_hash
from seedbed.lm.prefill import Job, Prefill
from seedbed.types import Prompt, Sampling

GREEDY = Sampling(0.0, 1.0, 256)
NEAR = 1e-4
"""Two tokens whose greatest logits differ by less, relative to the greatest, may change places with the order of a sum."""


def seedling(context: int = 512, dtype: torch.dtype = torch.float32) -> LM:
    """The shipped model; no token ends a text, so that lengths are the benchmark's. A longer context than trained costs what it would."""
    return replace(load("seedling", dtype, "cpu"), eos=-1, context=context)


def smollm_shape(dtype: torch.dtype = torch.float32) -> LM:
    """A Llama of SmolLM2-135M's shape (hidden 576, 30 layers, 9 heads, 3 key-value heads, 49,152 entries, tied), random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=49152, tie_word_embeddings=True, max_position_embeddings=2048, initializer_range=0.05, **shape))
    model = model.eval().requires_grad_(False)
    small = seedling()
    return LM("smollm-shape", model.to(dtype), small.tokenizer, weights_hash(model), 2048, -1, small.bos, 576)


def lengths(n: int, cap: int = 256) -> np.ndarray:
    """Lognormal, median 40 tokens, sigma 0.75, at most `cap`."""
    return np.clip(np.round(np.exp(np.random.default_rng(0).normal(np.log(40), 0.75, n))), 1, cap).astype(int)


def by_generate(lm: LM, prompts: Sequence[Sequence[int]], rooms: Sequence[int], sampling: Sampling, batch: int) -> list[list[int]]:
    """`model.generate` in static batches, in order; each row stops at its own length, its batch at the longest. Prompts of one length."""
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Rooms(StoppingCriteria):  # type: ignore[misc]
        def __init__(self, ends: torch.Tensor) -> None:
            self.ends = ends

        def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
            return input_ids.shape[1] >= self.ends

    how: dict[str, Any] = {"do_sample": sampling.temperature > 0, "pad_token_id": 0, "eos_token_id": None, "bos_token_id": None}
    if how["do_sample"]:
        how |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    found = []
    for start in range(0, len(prompts), batch):
        ids, room = torch.tensor([list(p) for p in prompts[start : start + batch]]), torch.tensor(list(rooms[start : start + batch]))
        criteria = StoppingCriteriaList([Rooms(ids.shape[1] + room)])
        out = lm.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=int(room.max()), stopping_criteria=criteria, **how, use_cache=True
        )
        found += [row[: int(n)].tolist() for row, n in zip(out[:, ids.shape[1] :], room, strict=True)]
    return found


class Kept(Batch):
    """The engine's own batch, which also keeps the drawn ids."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.drawn: dict[int, list[int]] = {}
        finish = self.rows._finish

        def keep(slot: int, text: str, finished: bool) -> Any:
            self.drawn[int(self.rows.key[slot])] = self.rows.ids[slot, : self.rows.count[slot]].tolist()
            return finish(slot, text, finished)

        self.rows._finish = keep  # type: ignore[method-assign]


def by_local(session: LocalSession, prompts: Sequence[Sequence[int]], rooms: Sequence[int], sampling: Sampling, shared: int = 0) -> list[list[int]]:
    """The local engine, each row with its own room; a new batch and no known beginnings each time. shared: tokens that the prompts say they share."""
    jobs = [Job(i, Prompt("", i), list(p), int(room), shared) for i, (p, room) in enumerate(zip(prompts, rooms, strict=True))]
    with torch.inference_mode():
        prefill = Prefill(session.lm, None, session._forward, session._shapes)
        batch = Kept(session.lm, session._forward, prefill, session._shapes, sampling)
        for _ in batch.complete(iter(jobs)):
            pass
    return [batch.drawn[i] for i in range(len(jobs))]


def same_tokens(lm: LM, prompts: Sequence[Sequence[int]], ours: list[list[int]], theirs: list[list[int]]) -> str:
    """Raises AssertionError where greedy tokens differ and the two tokens were not as good as equally likely."""
    near = 0
    for prompt, a, b in zip(prompts, ours, theirs, strict=True):
        assert len(a) == len(b)
        at = next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), None)
        if at is not None:
            logits = lm.model(torch.tensor([[*prompt, *a[:at]]]), logits_to_keep=1).logits[0, -1]
            gap = abs(float(logits[a[at]] - logits[b[at]])) / float(logits.abs().max())
            assert gap < NEAR, f"token {at}: {a[at]} against {b[at]}, logits {gap:.2g} apart"
            near += 1
    return f"{sum(map(len, ours))} greedy tokens in {len(ours)} rows are generate's ({near} rows part at a tie within {NEAR:g})"


def best_batch(
    lms: dict[str, LM], prompts: Sequence[Sequence[int]], rooms: Sequence[int], sampling: Sampling, sizes: Sequence[int]
) -> tuple[str, int]:
    """(precision, batch size) at which `generate` needs least time for these rows; each tried once on as many rows as the largest batch."""
    import time

    n = min(len(prompts), max(sizes))
    seconds: dict[tuple[str, int], float] = {}
    for precision, lm in lms.items():
        for size in sizes:
            start = time.perf_counter()
            by_generate(lm, list(islice(prompts, n)), list(islice(rooms, n)), sampling, size)
            seconds[precision, size] = time.perf_counter() - start
            print(f"generate, {precision}, batches of {size}: {seconds[precision, size]:.1f} s for {n} rows", flush=True)
    return min(seconds, key=lambda k: seconds[k])

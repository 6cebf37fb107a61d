"""Sampling from 135 M (a random Llama of SmolLM2's shape): the local engine against `model.generate` at its best static batch size and precision.

Output lengths lognormal (median 40, cap 256), the same rows and lengths on both sides, temperature 1 without top-p; goal 5 times. Equal:
greedy tokens of 16 rows in fp32. 512 rows in one batch take `generate` an hour on two cores, so 128 are asked for; bf16 only where the
processor is fast in it.
"""

from __future__ import annotations

from typing import Any

import torch
from common import ceilings, quick, race
from lms import GREEDY, best_batch, by_generate, by_local, lengths, same_tokens, smollm_shape

from seedbed.engines.local import LocalSession
from seedbed.lm.load import quick_dtype
from seedbed.types import Sampling

SAMPLED = Sampling(1.0, 1.0, 256)


def main() -> None:
    small = quick()
    n, rounds = (16, 1) if small else (128, 3)
    rooms = lengths(n, 64 if small else 256)
    lms = {"fp32": smollm_shape()} | ({"bf16": smollm_shape(torch.bfloat16)} if quick_dtype() == torch.bfloat16 else {})
    lm = lms["fp32"]
    prompts = [[lm.bos, *lm.encode("Once upon a time there was a man who lived in a")]] * n
    session = LocalSession(lm, None, 16 if small else 64, 320)
    some, few = prompts[:16], rooms[:16]
    greedy = same_tokens(lm, some, by_local(session, some, few, GREEDY), by_generate(lm, some, few, GREEDY, 16))
    precision, size = ("fp32", 16) if small else best_batch(lms, prompts, rooms, SAMPLED, (32, 64, 128))
    facts: dict[str, Any] = {"rows": n, "tokens": int(rooms.sum()), "against": f"generate, {precision}, batches of {size}"}
    race(
        "sampling, 135 M",
        lambda: by_local(session, prompts, rooms, SAMPLED),
        lambda: by_generate(lms[precision], prompts, rooms, SAMPLED, size),
        lambda ours, theirs: f"{greedy}; {sum(map(len, ours))} and {sum(map(len, theirs))} sampled" * (len(ours) == len(theirs)),
        goal=5.0,
        rounds=rounds,
        **facts,
        **(ceilings((torch.get_num_threads(),))),
    )


if __name__ == "__main__":
    main()

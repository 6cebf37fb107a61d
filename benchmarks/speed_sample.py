"""Sampling: the local engine against `model.generate` at its best static batch size and precision.

512 rows, output lengths lognormal (median 40, cap 256), the same rows and lengths on both sides; goal 5 times. Equal: greedy tokens in
fp32. Timed: sampling at temperature 1 without top-p, where `generate` is fastest; the ratio with top-p 0.95 is told beside it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from common import ceilings, quick, race
from lms import GREEDY, best_batch, by_generate, by_local, lengths, same_tokens, seedling

from seedbed.engines.local import LocalSession
from seedbed.lm.load import LM
from seedbed.types import Sampling

SAMPLED = Sampling(1.0, 1.0, 256)


def once(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ratio(
    lms: dict[str, LM], session: LocalSession, prompts: Any, rooms: Any, sampling: Sampling, choice: tuple[str, int], rounds: int
) -> list[float]:
    """Times faster, one number a round."""
    found = []
    for _ in range(rounds):
        ours = once(lambda: by_local(session, prompts, rooms, sampling))
        found.append(once(lambda: by_generate(lms[choice[0]], prompts, rooms, sampling, choice[1])) / ours)
        print(f"{session.lm.name}, top_p {sampling.top_p}: ours {ours:.3g} s, {found[-1]:.3g} times", flush=True)
    return found


def main() -> None:
    small = quick()
    n, slots, rounds = (96, 64, 2) if small else (512, 128, 3)
    rooms = lengths(n)
    lms = {"fp32": seedling(), "bf16": seedling(dtype=torch.bfloat16)}
    lm = lms["fp32"]
    prompts = [[lm.bos, *lm.encode("Once upon a time there was a man who lived in a")]] * n
    session = LocalSession(lm, None, slots, 320)
    start = time.perf_counter()
    _ = session._shapes
    facts: dict[str, Any] = {"rows": n, "tokens": int(rooms.sum()), "proof_seconds": time.perf_counter() - start}
    choice = ("fp32", 96) if small else best_batch(lms, prompts, rooms, SAMPLED, (64, 128, 256, 512))
    facts["against"] = f"generate, {choice[0]}, batches of {choice[1]}"
    greedy = same_tokens(lm, prompts, by_local(session, prompts, rooms, GREEDY), by_generate(lm, prompts, rooms, GREEDY, choice[1]))
    if not small:
        facts["ratios_top_p_0.95"] = ratio(lms, session, prompts, rooms, replace(SAMPLED, top_p=0.95), choice, 3)
        facts["ceilings"] = ceilings()
    race(
        "speed_sample",
        lambda: by_local(session, prompts, rooms, SAMPLED),
        lambda: by_generate(lms[choice[0]], prompts, rooms, SAMPLED, choice[1]),
        lambda ours, theirs: f"{greedy}; {sum(map(len, ours))} and {sum(map(len, theirs))} sampled" * (len(ours) == len(theirs)),
        goal=5.0,
        rounds=rounds,
        **facts,
    )


if __name__ == "__main__":
    main()

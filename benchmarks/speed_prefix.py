"""A shared few-shot beginning: the local engine against `model.generate` on prompts that start with the same 500 tokens.

256 rows of seedling's shape at a longer context, output lengths lognormal (median 40, cap 256); goal 8 times. Equal: greedy tokens in
fp32. Timed: sampling at temperature 1 without top-p. `generate` reads every prompt whole; its best of several batch sizes. Ours is told
that the prompts share their first 500 tokens.
"""

from __future__ import annotations

from typing import Any

from common import quick, race
from lms import GREEDY, best_batch, by_generate, by_local, lengths, same_tokens, seedling

from seedbed.engines.local import LocalSession
from seedbed.types import Sampling

SAMPLED = Sampling(1.0, 1.0, 256)
SHARED = 500
SHOT = "Tom had a small red ball. He threw it over the wall and ran to find it.\n---\n"
OWN = ["The cat", "A dog", "My aunt", "Two men", "The town", "This book", "The river", "Your cake"]


def main() -> None:
    small = quick()
    n, slots, rounds = (24, 32, 2) if small else (256, 96, 3)
    rooms = lengths(n, 64 if small else 256)
    lm = seedling(context=1024)
    shots = [lm.bos, *lm.encode(SHOT * 40)][:SHARED]
    prompts = [[*shots, *lm.encode(OWN[i % len(OWN)])[:2]] for i in range(n)]
    session = LocalSession(lm, None, slots, 768)
    _ = session._shapes
    size = 24 if small else best_batch({"fp32": lm}, prompts, rooms, SAMPLED, (16, 32))[1]
    greedy = same_tokens(lm, prompts, by_local(session, prompts, rooms, GREEDY, SHARED), by_generate(lm, prompts, rooms, GREEDY, size))

    def check(ours: Any, theirs: Any) -> str:
        assert list(map(len, ours)) == list(map(len, theirs))
        return greedy

    race(
        "speed_prefix",
        lambda: by_local(session, prompts, rooms, SAMPLED, SHARED),
        lambda: by_generate(lm, prompts, rooms, SAMPLED, size),
        check,
        goal=8.0,
        rounds=rounds,
        rows=n,
        tokens=int(rooms.sum()),
        against=f"generate, fp32, batches of {size}",
    )


if __name__ == "__main__":
    main()

"""Scoring labels: 60 label strings under one prompt in one pass, against one forward a label, batched.

Prompts are help-desk messages behind three worked examples; goal 5 times. Equal: every score within 1e-4 of its size. Seconds a prompt.
The full size also times a random Llama of SmolLM2-135M's shape.
"""

from __future__ import annotations

import csv
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from common import quick, race
from lms import seedling, smollm_shape

from seedbed.engines.local import LocalSession
from seedbed.lm.load import LM
from seedbed.types import Prompt

AREAS = [
    "billing",
    "account access",
    "late delivery",
    "damaged goods",
    "returns",
    "technical fault",
    "subscription",
    "gift cards",
    "privacy",
    "store visit",
]
WISHES = ["question", "complaint", "request for a refund", "cancellation", "praise", "change of details"]
LABELS = [f" {area}: {wish}" for area in AREAS for wish in WISHES]


def prompts(n: int) -> list[Prompt]:
    with (Path(__file__).resolve().parent.parent / "examples/helpdesk.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shots = "".join(f"Message: {r['message']}\nQueue: {r['queue']}\n---\n" for r in rows[:3])
    return [Prompt(f"{shots}Message: {r['message']}\nQueue:", i) for i, r in enumerate(rows[3 : 3 + n])]


@torch.inference_mode()
def one_forward_a_label(lm: LM, prompt: Prompt, labels: list[str], batch: int) -> list[float]:
    """Each row reads the prompt and its label; rows are padded on the right, which causal attention never sees."""
    start, found = [lm.bos, *lm.encode(prompt.text)], []
    for first in range(0, len(labels), batch):
        extra = [lm.encode(label) for label in labels[first : first + batch]]
        width = max(map(len, extra))
        ids = torch.tensor([[*start, *e, *[0] * (width - len(e))] for e in extra])
        logs = torch.log_softmax(lm.model(ids, use_cache=False, logits_to_keep=width + 1).logits.float(), dim=-1)
        found += [float(logs[i, range(len(e)), e].double().sum()) for i, e in enumerate(extra)]
    return found


def sides(lm: LM, asked: list[Prompt]) -> tuple[Any, Any, str]:
    """Ours, the peer at its best batch size, and which that is."""
    session = LocalSession(lm, None, 64, 512)
    seconds = {}
    for batch in (10, 20, 30, 60):
        one_forward_a_label(lm, asked[0], LABELS, batch)
        start = time.perf_counter()
        one_forward_a_label(lm, asked[0], LABELS, batch)
        seconds[batch] = time.perf_counter() - start
    best = min(seconds, key=lambda k: seconds[k])
    return (
        lambda: [[value for value, _ in session.score(p, LABELS)] for p in asked],
        lambda: [one_forward_a_label(lm, p, LABELS, best) for p in asked],
        f"one forward a label, fp32, batches of {best}",
    )


def check(ours: list[list[float]], theirs: list[list[float]]) -> str:
    worst = max(abs(a - b) / max(1.0, abs(b)) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True))
    assert worst < 1e-4, f"scores differ by {worst:.2g}"
    return f"{len(ours)} x {len(LABELS)} scores, at most {worst:.1g} apart"


def main() -> None:
    small = quick()
    facts: dict[str, Any] = {}
    if not small:
        ours, peer, facts["against_135M"] = sides(smollm_shape(), prompts(4))
        print(check(ours(), peer()))
        found = []
        for _ in range(3):
            marks = [time.perf_counter()]
            for work in (ours, peer):
                work()
                marks.append(time.perf_counter())
            found.append((marks[2] - marks[1]) / (marks[1] - marks[0]))
        facts |= {"ratio_135M": statistics.median(found), "ratios_135M": found}
    asked = prompts(6 if small else 40)
    ours, peer, facts["against"] = sides(seedling(), asked)
    race("speed_labels", ours, peer, check, goal=5.0, rounds=3 if small else 7, units=len, labels=len(LABELS), **facts)


if __name__ == "__main__":
    main()

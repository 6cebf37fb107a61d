"""Peak memory of soft-prompt training on 135 M parameters: ours against PEFT (P-tuning, HF Trainer, fp32, batches of 16), a process each.

python benchmarks/memory_train.py [--quick]
"""

from __future__ import annotations

import json
import sys

import torch
from common import child, interval, peak_bytes, quick, report

GOAL = 2.0


def side(which: str, layers: int, count: int) -> None:
    """Trains one epoch and prints the most memory that this process held."""
    from training import lm_of, peft, quick_dtype, seedbed, texts_of

    lm = lm_of("135m", layers, torch.float32 if which == "peer" else quick_dtype())
    texts = texts_of(lm, count)
    if which == "peer":
        peft(lm, texts, 1, expert=False)[1]()
    else:
        seedbed(lm, texts, 1, which)
    print(json.dumps({"bytes": peak_bytes()}))


def equal(layers: int) -> str:
    """Ours and PEFT's losses and gradients of one batch, found equal."""
    from training import lm_of, peft, same_gradients, texts_of

    lm = lm_of("135m", layers, torch.float32)
    model, _ = peft(lm, texts_of(lm, 16), 1, expert=False)
    return f"gradients differ by {same_gradients(lm, model, texts_of(lm, 4)):.1e}"


def main() -> None:
    small = quick()
    layers, count, rounds = (6, 16, 2) if small else (30, 32, 3)
    name = "soft-prompt training, 135 M, peak memory, PEFT"
    print(f"{name}: equal: {equal(layers)}", flush=True)
    found: dict[str, list[float]] = {"nsp": [], "peer": [], "mc": []}
    for done in range(rounds):
        for which, values in found.items():
            values.append(child(__file__, which, str(layers), str(count))["bytes"])
        print(f"round {done + 1}: { ({k: f'{v[-1] / 2**30:.2f} GiB' for k, v in found.items()}) }", flush=True)
    ratio, low, high = interval([b / a for a, b in zip(found["nsp"], found["peer"], strict=True)])
    report(name, ratio, GOAL, rounds, low, high, layers=layers, **{f"{k}_gib": max(v) / 2**30 for k, v in found.items()})


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("nsp", "mc", "peer"):
        side(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()

"""What fitting and generating of a model that is only sizes will cost: computed from FLOPs and bytes for the device in [where]."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedbed.flops import BANDWIDTH, CHARACTERS_A_TOKEN, COPIES, DEVICES, UTILISATION, WIDTHS, Shape
from seedbed.generators.soft import FITS, FORMS
from seedbed.recipe import Recipe
from seedbed.task import Task
from seedbed.types import Example, Sample

COMPUTED = "computed, not measured"


@dataclass
class Cost:
    """One step. seconds; tokens: trained on or generated; disk: bytes that stay; note: what was assumed or found; money: that a server charges."""

    seconds: float = 0.0
    tokens: int = 0
    disk: int = 0
    basis: str = "measured"
    note: str = ""
    money: float = 0.0


BUSY = "the machine was busy"


def busy() -> list[str]:
    """Says so where other programs ran in the minute before the measuring: its times are then longer than on a quiet machine, up to four times."""
    load, processors = os.getloadavg()[0], len(os.sched_getaffinity(0))
    ran = f"{BUSY} (load {load:.1f} on {processors} processors): what is measured beside other programs takes longer than alone"
    return [ran] if load >= processors / 2 else []


def seconds_each(few: tuple[float, int], more: tuple[float, int]) -> float:
    """Seconds a unit, by two trials of (seconds, units); of the second alone where another program made the first the slower one."""
    (a, n), (b, m) = few, more
    return (b - a) / (m - n) if m > n and b > a else b / max(1, m)


def computed(recipe: Recipe, sample: Sample, fitted: Path | None, work: Path, assumed: list[str]) -> tuple[dict[str, Cost], int, Path | None]:
    """Teacher and candidates of a model that is a shape, by flops.py; (costs, bytes of the device's memory at the peak)."""
    shape, device, how = recipe.model.shape, DEVICES[recipe.where.device], recipe.generate
    assert shape is not None  # the caller looked
    generator, engine = recipe.generator.settings, recipe.engine.settings
    texts = [texts_of(generator, sample.task, e) for e in sample.fit]
    given, target = (sum(len(row[0][i]) for row in texts) / len(texts) / CHARACTERS_A_TOKEN for i in (0, 1))
    learned = [len(given) + len(target) for row in texts for given, target in row]
    soft, epochs = getattr(generator, "tokens", 0), getattr(generator, "epochs", 0)
    forms = fits_of(generator)
    read, made = soft + given, min(target + 1, how.max_tokens)
    length, batch = soft + sum(learned) / len(learned) / CHARACTERS_A_TOKEN + 1, getattr(generator, "batch", 1)
    width = 2 if getattr(engine, "precision", "") == "bf16" else 4
    steps = forms * epochs * math.ceil(len(learned) / batch)
    frozen, products = getattr(generator, "method", "") != "full", 2 if device.bf16 else 4
    weights, disk = _learning(shape, generator, products if frozen else 4)
    fit = steps * device.seconds(shape.fit(batch * length, length, frozen), 2 * weights, products)
    fit += forms * epochs * device.seconds(shape.forward(len(sample.dev) * length, length), weights, products)
    slots = getattr(engine, "slots", getattr(engine, "max_num_seqs", 1))
    prefill = how.count * device.seconds(shape.forward(read, read), width * shape.parameters, width)
    held = width * shape.parameters + shape.cache_bytes(slots * (read + made / 2), width)
    decode = math.ceil(how.count * made / slots) * device.seconds(shape.forward(slots, read + made / 2), held, width)
    memory = max(
        weights + shape.activation_bytes(batch * length, length, products) if epochs else 0,
        width * shape.parameters + shape.cache_bytes(slots * getattr(engine, "cache", read + made), width),
    )
    assumed += [
        f"device {recipe.where.device}: {UTILISATION:.0%} of its peak FLOP/s, {BANDWIDTH:.0%} of its memory bandwidth",
        f"{CHARACTERS_A_TOKEN:g} characters a token; candidates are as long as the fit rows' texts, and at most generate.max_tokens",
    ]
    if epochs:
        assumed.append(all_epochs(generator))
    if memory > device.memory:
        assumed.append(f"{memory / 1e9:.0f} GB do not fit the {device.memory / 1e9:.0f} GB of one {recipe.where.device}")
    return (
        {
            "teacher": Cost(fit, round(steps * batch * length), disk, COMPUTED, f"{shape.parameters:,} parameters"),
            "candidates": Cost(prefill + decode, round(how.count * made), round(2 * how.count * (given + target) * CHARACTERS_A_TOKEN), COMPUTED),
        },
        round(memory),
        None,
    )


def _learning(shape: Shape, generator: Any, width: int) -> tuple[float, int]:
    """Bytes of the model while it, or what is beside it, learns, and bytes of what is kept of that. width: bytes of a weight."""
    if not hasattr(generator, "method"):
        theta = 4 * getattr(generator, "tokens", 0) * shape.hidden * (getattr(generator, "rank", 1) + 1)
        lora = 4 * shape.lora(generator.lora_rank) if getattr(generator, "prompt", "") == "amortised-lora" else 0
        return width * shape.parameters + COPIES * lora, theta + lora
    if generator.method == "full":
        return COPIES * width * shape.parameters, 4 * shape.parameters
    adapter = 4 * shape.lora(generator.rank)
    return WIDTHS.get(generator.load_in, width) * shape.parameters + COPIES * adapter, adapter


def fits_of(generator: Any) -> int:
    """Prompts that are fitted one after the other."""
    form = getattr(generator, "prompt", "")
    return sum(FITS.get(name, 1) for name in (FORMS if form == "auto" else (form,)))


def texts_of(generator: Any, task: Task, example: Example) -> list[tuple[str, str]]:
    """(what is given, what is learned) of each text that a row is learned as; the first is what is generated."""
    splits = generator.splits(task, example.fields) if hasattr(generator, "splits") else [task.split(example.fields)]
    return [(given, "".join(rest)) for given, *rest in splits]


def all_epochs(generator: Any) -> str:
    of = f" of each of {fits_of(generator)} fits" if hasattr(generator, "prompt") else ""
    return f"all {generator.epochs} epochs{of} are trained; early stopping may end sooner"

"""How well a small language model that read the kept rows, and no others, foresees real text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from seedbed.stats import equal_draw, percentile_interval
from seedbed.text import body
from seedbed.types import Example, Measure, Sample, seed_for

if TYPE_CHECKING:
    from seedbed.lm.batches import Text
    from seedbed.lm.load import LM

ROWS = 512
"""Real rows that the loss is read on, at most."""
DRAWS = 2000
LOOKED_AT = 50_000
"""Kept rows that the training rows are drawn from, at most."""


@dataclass(frozen=True)
class Heldout:
    """`heldout_nll`: nats a token of real test text (of dev, where there is no test) under a language model fine-tuned on kept text alone; real:
    the same of one tuned on as many fit rows. Train on synthetic, test on real: low where kept text says what real text says.

    Text is what was generated and is no label (`Task.body`). n: the smaller of kept and fit, at most `rows`. The interval is a bootstrap over
    test rows; it does not hold the chance of the training. model: "seedling", a folder or a hub name. epochs, lr, batch: of LoRA; nothing is
    chosen on dev, which would be real rows' help. rows: that are learned at most, 2 or more.
    """

    version: ClassVar[int] = 2

    model: str = "seedling"
    epochs: Annotated[int, Field(ge=1)] = 3
    lr: Annotated[float, Field(gt=0)] = 0.002
    batch: Annotated[int, Field(ge=1)] = 16
    rows: Annotated[int, Field(ge=2)] = 500

    def measure(self, sample: Sample, kept: Sequence[Example], seed: int) -> list[Measure]:
        from seedbed.lm.load import load, quick_dtype

        lm = load(self.model, quick_dtype())
        told = sample.test or sample.dev
        looked = equal_draw(kept, min(LOOKED_AT, len(kept)), seed_for(seed, "heldout", "looked at"))
        sides = {"kept": looked, "fit": sample.fit, "told": told}
        texts = {name: self._texts(lm, sample, rows) for name, rows in sides.items()}
        long = ", ".join(f"{len(rows) - len(texts[name])} of {len(rows)} {name}" for name, rows in sides.items() if len(texts[name]) < len(rows))
        n = min(len(texts["kept"]), len(texts["fit"]), self.rows)
        real = equal_draw(texts["told"], min(ROWS, len(texts["told"])), seed_for(seed, "heldout", "rows"))
        if n < 2 or not real:
            got = ", ".join(f"{len(found)} {name}" for name, found in texts.items())
            return [
                Measure(
                    "heldout_nll", None, "nats a token", "lower", n, note=f"needs 2 kept and 2 fit rows and one to tell, got {got} that fit the model"
                )
            ]
        drawn = {side: tuple(equal_draw(texts[side], n, seed_for(seed, "heldout", side))) for side in ("kept", "fit")}
        losses = {side: _losses(self, lm.hash, drawn[side], tuple(real), seed_for(seed, "heldout", "tune")) for side in drawn}
        tokens = np.array([len(t.target) for t in real])
        picks = np.random.default_rng(seed_for(seed, "heldout", "bootstrap")).integers(len(real), size=(DRAWS, len(real)))
        low, high = percentile_interval(losses["kept"][picks].sum(1) / tokens[picks].sum(1))
        value, same = (float(losses[side].sum() / tokens.sum()) for side in ("kept", "fit"))
        note = f"rows longer than the model's context are left out: {long}" if long else ""
        return [Measure("heldout_nll", value, "nats a token", "lower", n, low, high, same, note)]

    def _texts(self, lm: LM, sample: Sample, rows: Sequence[Example]) -> list[Text]:
        """Those that fit the model's context."""
        from seedbed.lm.train import encode

        found = [encode(lm, ("", body(sample.task, e.fields))) for e in rows]
        return [text for text in found if len(text) < lm.context]


@lru_cache(maxsize=32)
def _losses(how: Heldout, weights: str, texts: tuple[Text, ...], real: tuple[Text, ...], seed: int) -> np.ndarray:
    """float64 (rows,): nats of each real text. Kept for the arms of a comparison, which all stand beside the same fit rows. weights: the
    hash of the model's, for one whose folder has changed is another."""
    import torch

    from seedbed.lm.batches import passes
    from seedbed.lm.finetune import Tuning, own, tune_lm
    from seedbed.lm.train import nll

    tuning = Tuning(epochs=how.epochs, patience=how.epochs, batch=how.batch, warmup=10, lr=how.lr, dropout=0.0)
    # Its own training text stands in for dev, so that the last epoch is kept and no real row helps.
    lm = tune_lm(own(how.model, "lora"), texts, texts[:64], tuning, seed).whole()
    found = np.zeros(len(real))
    with torch.inference_mode():
        for picked in passes(real, range(len(real)), 1, lm.states.room):
            found[picked] = nll(lm, None, [real[i] for i in picked]).double().cpu().numpy()
    return found

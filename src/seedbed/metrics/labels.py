"""Whether the labels of kept rows are those that their texts would get: disagreement with a classifier that did not see the row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from seedbed.metrics.coverage import FOLDS, out_of_fold
from seedbed.metrics.draws import equal_sides
from seedbed.stats import wilson
from seedbed.types import Example, Measure, Sample, seed_for

LEAST = 20
"""Rows a side below which a classifier says nothing."""


@dataclass(frozen=True)
class Labels:
    """`label_disagreement`: share of kept rows whose label is not the one that a classifier reads which was fitted on the other folds of kept
    and of dev + test rows together; real: the same share of the dev + test rows. Above real by about the share of wrong labels.

    Both at equal n, the size of the smallest of kept, dev + test and fit, at most `rows`. p: Fisher's exact test of more wrong kept than real rows,
    of the first draw: who is kept is nothing that the classifier knows. Noise of this kind: Northcutt et al. 2021, arXiv:1911.00068.

    embedder: gives the features ("minilm", a folder or hub name). draws: how many, 1 to 100. rows: of a draw at most, 20 or more.
    """

    version: ClassVar[int] = 1

    embedder: str = "minilm"
    draws: Annotated[int, Field(ge=1, le=100)] = 5
    rows: Annotated[int, Field(ge=LEAST)] = 500

    def measure(self, sample: Sample, kept: Sequence[Example], seed: int) -> list[Measure]:
        from seedbed.lm.classify import Sentences

        task = sample.task
        if not task.has_labels:
            return [Measure("label_disagreement", None, "share", "lower", note=f"a task of kind {task.kind} has no labels")]
        sides = equal_sides(sample, kept, self.draws, seed, self.rows)
        if few := sides.few(LEAST):
            return [Measure("label_disagreement", None, "share", "lower", sides.n, note=few)]
        wrong = []
        for i, rows in enumerate(sides.draws):
            both = [*rows[0], *rows[1]]
            wrong.append(
                disagreement(Sentences(task, self.embedder)(both), [str(e.fields[str(task.target)]) for e in both], seed_for(seed, "folds", i))
            )
        return [_measure(np.array(wrong), sides.n)]


def disagreement(features: np.ndarray, labels: Sequence[str], seed: int) -> np.ndarray:
    """bool (n,): whether a row's label is not the likeliest of one logistic regression a label, fitted on the rows (n, d) of the other folds."""
    names = sorted(set(labels))
    if len(names) == 1:
        return np.zeros(len(labels), dtype=bool)
    place = np.array([names.index(label) for label in labels])
    folds = np.random.default_rng(seed).permutation(len(labels)) % FOLDS
    signs = np.where(place[:, None] == np.arange(len(names)), 1.0, -1.0)
    return np.asarray(out_of_fold(features, signs, folds).argmax(1) != place)


def _measure(wrong: np.ndarray, n: int) -> Measure:
    """wrong: bool (draws, 2 n), kept rows first."""
    from scipy.stats import hypergeom

    value, real = float(wrong[:, :n].mean()), float(wrong[:, n:].mean())
    low, high = wilson(round(value * n), n)
    first = wrong[0]
    p = float(hypergeom.sf(first[:n].sum() - 1, 2 * n, first.sum(), n))
    note = f"mean of {len(wrong)} draws of n rows a side, {FOLDS} folds; Wilson interval; real: the dev + test rows in the same folds"
    return Measure(
        "label_disagreement", value, "share", "lower", n, min(low, value), max(high, value), real, f"{note}; p: Fisher's exact test of the first", p
    )

"""How often to write from each fit row, so that what is written is together where the fit rows are.

Texts written from a row lie somewhere else than the row, and texts of many rows lie on top of one another: where real rows are and few texts,
contexts must be drawn oftener. The draws' shares v minimise the squared maximum mean discrepancy (Gretton et al., JMLR 2012) between the fit rows
and a mixture of what each row's context writes, |sum_i v_i m_i - m_real|^2 in the space of the kernel, where m_i is the mean of a few texts that were
written from row i. A row of c texts adds its variance over c times v_i^2, so the fewer texts there are, the nearer the shares stay to equal ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seedbed.stats import squared_distances

STEPS = 2000
"""Of exponentiated gradient descent (Kivinen and Warmuth 1997); 1 is the longest step that is sure to descend, as a kernel is at most 1."""


def shares(real: np.ndarray, texts: np.ndarray, source: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """(n,), above or equal 0 and 1 together: how often to draw each row. Rows of a label have together as much as their number says.

    real: (n, e), unit embeddings of the fit rows; texts: (m, e), of texts; source: (m,), which row each was written from; labels: of the rows, equal
    ones where there are none. A row without a text is not drawn; where no row of a label has one, they are drawn equally.
    """
    n, place = len(real), np.unique(np.array(labels), return_inverse=True)[1]
    counts = np.bincount(source, minlength=n)
    usable = counts > 0
    usable |= ~np.isin(place, place[usable])
    of_label = np.bincount(place) / n

    def scaled(v: np.ndarray) -> np.ndarray:
        return v * (of_label / np.bincount(place, v))[place]

    v = scaled(usable.astype(float))
    if not len(texts):
        return v
    squares = squared_distances(real, real)
    gamma = 1 / max(float(np.median(squares[~np.eye(n, dtype=bool)])), 1e-9)
    mean = np.zeros((n, len(texts)))
    mean[source, np.arange(len(texts))] = 1 / counts[source]
    among = mean @ np.exp(-gamma * squared_distances(texts, texts)) @ mean.T
    towards = mean @ np.exp(-gamma * squared_distances(texts, real)).mean(1)
    for _ in range(STEPS):
        v = scaled(v * np.exp(towards - among @ v))
    return scaled(v / np.maximum(counts, 1))  # a row whose texts failed more often is asked more often

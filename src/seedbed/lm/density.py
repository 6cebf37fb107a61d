"""Contexts near those of few rows: a smoothed bootstrap with shrinkage (Silverman and Young 1987, Biometrika 74), by label.

A draw from row i is z = a z_i + (1 - a) m + sqrt(1 - a^2) e, e ~ N(0, S): it keeps mean and covariance of the rows, for every a. m is the mean of
the row's label, drawn towards the mean of all as far as their variances say (empirical Bayes; Efron and Morris 1975), so that a rare label borrows
from the others; S is the covariance within labels, pooled, shrunk towards a multiple of the identity (Ledoit and Wolf 2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

FEWEST = 2
"""Rows more than labels from which labels are told apart."""


@dataclass(frozen=True)
class Density:
    """centres: (n, e), each row's m; factor: (e, e), factor @ factor.T = S."""

    centres: torch.Tensor
    factor: torch.Tensor

    @staticmethod
    def of(contexts: torch.Tensor, labels: Sequence[str]) -> Density:
        """contexts: (n, e), n at least 2; labels: one each, equal ones where there are none."""
        from sklearn.covariance import LedoitWolf

        z = contexts.double().numpy()
        kinds, place = np.unique(np.array(labels), return_inverse=True)
        if len(kinds) > 1 and len(z) - len(kinds) < FEWEST:
            kinds, place = kinds[:1], np.zeros(len(z), dtype=int)
        counts, freedom = np.bincount(place), len(z) - len(kinds)
        means = np.stack([z[place == i].mean(0) for i in range(len(kinds))])
        within = ((z - means[place]) ** 2).sum() / freedom
        if len(kinds) > 1:  # one-way analysis of variance
            spread = (counts[:, None] * (means - z.mean(0)) ** 2).sum() - (len(kinds) - 1) * within
            between = max(spread / (len(z) - (counts**2).sum() / len(z)), 1e-9)
            means = (counts[:, None] * means + within / between * z.mean(0)) / (counts[:, None] + within / between)
        centres = means[place]
        apart = z - centres
        apart *= np.sqrt(within * len(z) / max((apart**2).sum(), 1e-12))  # the shape of the residuals, the unbiased variance
        covariance = LedoitWolf(assume_centered=True).fit(apart).covariance_
        factor = np.linalg.cholesky(covariance + 1e-9 * np.eye(z.shape[1]))
        return Density(torch.from_numpy(centres).float(), torch.from_numpy(factor).float())

    def draw(self, row: int, z: torch.Tensor, share: float, seed: int) -> torch.Tensor:
        """(e,) from row number `row`, whose context is z, which keeps `share` (a above) of its place."""
        noise = self.factor @ torch.randn(len(self.factor), generator=torch.Generator().manual_seed(seed))
        found: torch.Tensor = share * z + (1 - share) * self.centres[row] + (1 - share**2) ** 0.5 * noise
        return found

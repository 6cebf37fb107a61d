"""MAUVE of features that are given: ours against mauve-text with its defaults. Equal: the mean over seeds, within one seed's spread."""

from __future__ import annotations

import statistics
import warnings
from itertools import count
from typing import Any

import numpy as np
from common import quick, race

from seedbed.metrics.mauve import mauve

SMALL = 2_000
SEEDS = 8


def features(n: int, side: int, shift: float) -> np.ndarray:
    """float32 (n, 384): draws from 400 overlapping clusters along axes of falling variance, as sentence vectors are; shift: other shares."""
    rng = np.random.default_rng(1)
    centres, first, second = rng.normal(size=(400, 384)), rng.dirichlet(np.full(400, 0.7)), rng.dirichlet(np.full(400, 0.7))
    rng = np.random.default_rng(10 + side)
    cluster = rng.choice(400, n, p=(1 - shift) * first + shift * second)
    spread = 1 / np.sqrt(1 + np.arange(384) / 60)
    return ((centres[cluster] + 1.1 * rng.normal(size=(n, 384))) * spread).astype(np.float32)


def peer(p: np.ndarray, q: np.ndarray, seed: int) -> float:
    from mauve import compute_mauve

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(compute_mauve(p_features=p, q_features=q, seed=seed, verbose=False).mauve)


def ours(p: np.ndarray, q: np.ndarray, seed: int) -> float:
    return mauve(p, q, seed=seed).value


def spreads() -> list[dict[str, Any]]:
    """Both over SEEDS seeds at SMALL rows a side, near and far."""
    found = []
    for shift in (0.2, 0.6, 0.9):
        p, q = features(SMALL, 0, 0.0), features(SMALL, 1, shift)
        values = {name: [side(p, q, 100 + s) for s in range(SEEDS)] for name, side in (("ours", ours), ("peer", peer))}
        found.append({f"{name} {what}": f(v) for name, v in values.items() for what, f in (("mean", statistics.fmean), ("sd", statistics.stdev))})
    return found


def main() -> None:
    n = SMALL if quick() else 20_000
    p, q, seeds = features(n, 0, 0.0), features(n, 1, 0.4), count()
    small = spreads()

    def check(a: float, b: float) -> str:
        one = [max(s["ours sd"], s["peer sd"]) for s in small]
        apart = [abs(s["ours mean"] - s["peer mean"]) for s in small]
        assert all(d <= sd for d, sd in zip(apart, one, strict=True)), small
        assert abs(a - b) <= 3 * max(one), (a, b)
        return f"{a:.4f} and {b:.4f} at {n} rows a side; over {SEEDS} seeds at {SMALL}: {small}"

    race("mauve", lambda: ours(p, q, next(seeds)), lambda: peer(p, q, next(seeds)), check, goal=5, rounds=7 if n == SMALL else 3, rows=n, seeds=small)


if __name__ == "__main__":
    main()

"""What the page shows of single rows: a map of real and synthetic texts, and kept rows beside the real row that is nearest to each.

Numbers are rounded: the last bits of a sentence embedding depend on what else was in its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from seedbed.stats import equal_draw
from seedbed.types import Candidate, Example, Sample, seed_for

VERSION = 1
"""Raised when what is written changes: old results are then not taken for new ones."""
SHOWN = 20
"""Kept rows that are shown beside their nearest real row."""
MAP_ROWS = 1000
"""Points of the map at most, on each side."""
SEARCHED = 5000
"""Real rows at most that a nearest one is looked for among: beyond, embedding them would cost more than the page is worth."""
FEWEST = 3


def closeup(sample: Sample, kept: Sequence[Candidate], seed: int) -> dict[str, Any]:
    """{"map": {"real", "synthetic": [[x, y], ...], "share", "note"}, "nearest": [{"id", "real", "split", "text", "cosine"}], "searched"}.

    Texts are compared by their MiniLM features (`task.body`: no label, no given column). map: n points a side on the first two principal
    components of the real rows drawn; share: of these rows' variance that lies in the plane, in [0, 1]; None with `note` where there is
    nothing to draw. nearest: of each shown kept row, the real one of highest cosine among the `searched` rows of fit, dev and test.
    """
    from seedbed.lm.embed import embed

    body = sample.task.body
    rows = [(split, example) for split in ("fit", "dev", "test") for example in getattr(sample, split)]
    real = equal_draw(rows, min(SEARCHED, len(rows)), seed_for(seed, "closeup", "real"))
    shown = equal_draw(kept, min(SHOWN, len(kept)), seed_for(seed, "closeup", "kept"))
    n = min(MAP_ROWS, len(real), len(kept))
    drawn = equal_draw(kept, n, seed_for(seed, "closeup", "map"))
    vectors = embed([body(example.fields) for _, example in real])
    points = equal_draw(list(vectors), n, seed_for(seed, "closeup", "map"))
    others = embed([body(c.fields or {}) for c in drawn])
    return {
        "map": plane(np.array(points), others),
        "nearest": _nearest(sample, shown, embed([body(c.fields or {}) for c in shown]), real, vectors),
        "searched": len(real),
    }


def plane(real: np.ndarray, synthetic: np.ndarray) -> dict[str, Any]:
    """Both sides, float (n, d) each, on the first two principal components of the real one."""
    centre = real.mean(0) if len(real) else real
    centred = (real - centre).astype(np.float64)
    if len(real) < FEWEST:
        return {"real": [], "synthetic": [], "share": None, "note": f"a map needs at least {FEWEST} rows on each side, got {len(real)}"}
    if not (centred**2).sum() > 1e-9:
        return {"real": [], "synthetic": [], "share": None, "note": "all real rows drawn have the same text"}
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(1)])[:, None]  # a component's sign is free: fixed here
    share = float((sizes[:2] ** 2).sum() / (sizes**2).sum())
    sides = ((side - centre) @ axes.T for side in (real, synthetic))
    return dict(zip(("real", "synthetic"), (np.round(side, 3).tolist() for side in sides), strict=True)) | {"share": round(share, 3), "note": ""}


def _nearest(
    sample: Sample, shown: Sequence[Candidate], features: np.ndarray, real: Sequence[tuple[str, Example]], vectors: np.ndarray
) -> list[dict[str, Any]]:
    cosines = np.round(features @ vectors.T, 3)
    found = []
    for candidate, row in zip(shown, cosines, strict=True):
        split, example = real[int(row.argmax())]  # the first of equals
        text = sample.task.render(example.fields)
        found.append({"id": candidate.id, "real": example.id, "split": split, "text": text, "cosine": float(row.max())})
    return found

"""The table of a comparison: which of several ways is the best, and which of the others are shown to be behind it.

The intervals of two ways overlap long before they cannot be told apart, as both answer the same test rows. So each is compared with the best in
pairs. The best was chosen by the same numbers, so the intervals are wide enough for all pairs of ways together (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np

from seedbed.gain import Ruler
from seedbed.scores import nothing_right

HEAD = (
    "arm", "mode", "student", "real", "kept", "seeds", "score", "95 %", "gain", "95 %", "behind", "95 %", "detectable", "all kept", "95 %", "MAUVE",
    "copies", "tokens", "s",
)  # fmt: skip
LEGEND = """arm, mode, student: what made the rows, how, and who learns from them. real, kept: rows that it learns from. seeds: redraws of fit and
dev. score: of the student on the test, mean of the seeds. 95 %: interval of the column before it. gain: points over real rows alone. behind:
points that the best arm of the student is ahead; these intervals hold for all pairs of arms. detectable: the smallest true gain that is seen 4
times of 5. all kept: the gain with all n rows that the arm kept of each seed, where these are over 5 % more. MAUVE, copies: of the kept rows,
likeness to real text (at most 1) and share that is copied from it. tokens, s: generated and spent to grow the rows, all seeds together; the
seconds of a step that arms share stand at the arm that made it first, its tokens at each."""
"""Of the columns, for who reads the table alone."""
K = TypeVar("K", bound=Hashable)
NO_RANK: dict[str, Any] = {"best": False, "behind": None, "behind_low": None, "behind_high": None}


def unmeasured(arm: str, mode: str, student: str, n_real: int, n_kept: int, metric: str) -> dict[str, Any]:
    """A row of the table that nothing was measured of yet."""
    return {
        "arm": arm, "mode": mode, "student": student, "seeds": 0, "n_real": n_real, "n_kept": n_kept, "metric": metric, "mean": None, "low": None,
        "high": None, "gain": None, "gain_low": None, "gain_high": None, "smallest_detectable": None, "mauve": None, "copies": None,
        "measures": {}, "tokens": 0, "seconds": 0.0, "note": "",
    } | NO_RANK  # fmt: skip


def ranked(ruler: Ruler, runs: Mapping[K, Sequence[Sequence[str]]]) -> dict[K, dict[str, Any]]:
    """way -> best; behind: points that the best scores more, with behind_low and behind_high, which hold for all pairs together in 95 of 100 cases.

    runs: of each way its answers to the test under the same seeds, in their order. The best of equals is the first. Fewer than two ways: no rank.
    """
    if len(runs) < 2:
        return dict.fromkeys(runs, NO_RANK)
    scorers, seeds = {way: ruler.scorer(found) for way, found in runs.items()}, len(next(iter(runs.values())))
    every = np.arange(ruler.blocks)[None]
    best = max(scorers, key=lambda way: sum(float(scorers[way](s, every)[0]) for s in range(seeds)))
    z = NormalDist().inv_cdf(1 - 0.025 / math.comb(len(runs), 2))
    found = {best: NO_RANK | {"best": True}}
    for way in [way for way in runs if way != best]:
        d = ruler.difference(scorers[way], scorers[best], seeds, paired=True)
        found[way] = {"best": False, "behind": d.mean, "behind_low": d.mean - z * d.se, "behind_high": d.mean + z * d.se}
    return found


def sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the best of the ranked rows is shown to beat, and what not; "" where none was ranked."""
    best = next((r for r in rows if r["best"]), None)
    if best is None:
        return ""
    others = [r for r in rows if r["behind"] is not None]
    groups = {
        "shown to beat": [r for r in others if r["behind_low"] > 0],
        "not shown to beat": [r for r in others if r["behind_low"] <= 0 < r["behind"]],
        "as high as": [r for r in others if r["behind"] == 0],
    }
    parts = [f"{verb} {', '.join(map(_said, found))}" for verb, found in groups.items() if found]
    over = f"{best['gain']:z.1f} points over real rows alone ({best['gain_low']:z.1f} to {best['gain_high']:z.1f})"
    over += ", which score higher" * (round(best["gain"], 1) < 0) + ": no gain is shown" * (best["gain_low"] <= 0 <= best["gain_high"])
    head = f"Highest {best['metric']} of student {best['student']} with {best['n_kept']} rows: {best['arm']}, {best['mode']}, {over}"
    return f"{'; '.join([head, *parts])}."


def tell_nothing(rows: Sequence[dict[str, Any]]) -> None:
    """Where no student of these rows got a test row right, says so in the notes of those that were measured, in place. rows: of one student."""
    means = {i: row["mean"] for i, row in enumerate(rows) if row["mean"] is not None}
    said = nothing_right(rows[0]["metric"], [*means.values(), *(row.get("all_mean") for row in rows)])
    for row in [rows[i] for i in means] if said else []:
        row["note"] = "; ".join(filter(None, [said, row["note"]]))


def _said(row: Mapping[str, Any]) -> str:
    return f"{row['arm']}, {row['mode']} ({row['behind']:z.1f} points, {row['behind_low']:z.1f} to {row['behind_high']:z.1f})"


def table(rows: Sequence[Mapping[str, Any]], best: Sequence[str] = ()) -> str:
    """The rows as a Markdown table; below it which way is the best, and what could not be measured and why."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for r in rows:
        spread = [_spread(r, name) for name in ("", "gain_", "behind_", "all_gain_")]
        kept = r.get("all_kept")
        n = ", ".join(map(str, kept)) if isinstance(kept, list) else kept
        whole = f"{_number(r['all_gain'])} (n = {n})" if r.get("all_gain") is not None else "-"
        cells = [r["arm"], r["mode"], r["student"], r["n_real"], r["n_kept"], r["seeds"], f"{_number(r['mean'])} {r['metric']}", spread[0]]
        cells += [_number(r["gain"]), spread[1], "best" if r["best"] else _number(r["behind"]), spread[2], _number(r["smallest_detectable"])]
        cells += [whole, spread[3], _number(r["mauve"], 3), _number(r["copies"], 3), f"{r['tokens']:,}", f"{r['seconds']:,.0f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    notes = dict.fromkeys(f"- {r['arm']}, {r['mode']}, {r['student']}: {r['note']}" for r in rows if r["note"])
    return "\n".join([*lines, "", *(f"- {said}" for said in best), *notes]).rstrip() + "\n"


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:z.{digits}f}"


def _spread(row: Mapping[str, Any], of: str) -> str:
    return "-" if row.get(f"{of}low") is None else f"{row[f'{of}low']:z.1f} to {row[f'{of}high']:z.1f}"

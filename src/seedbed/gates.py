"""What must hold before rows may be used: gates over the measures of scores.json. One that could not be measured has not passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seedbed.pii import POOLED
from seedbed.stats import ALARM

AUDITS = {
    "pii": ("pii_leak_rate", "pii_rate"),
    "membership": ("membership_auc", "membership_tpr", "canary_exposure"),
    "bias": ("group_skew", "bias_amplification", "amplification"),
}
"""Gate -> the names of its measures; the first must have a number. What stands behind a colon is a group's name."""


def gates(measures: Sequence[Mapping[str, Any]], sensitive: bool) -> list[dict[str, Any]]:
    """[{"name", "passed", "why"}]. Always `pii`: no personal data of a real row; passed is None where it could not be measured. sensitive: all of
    AUDITS, and what could not be measured is False.

    An audit fails on an alarm. Of m tests one must have p <= ALARM / m (Bonferroni), so that rows no different from real ones fail a gate
    at most once in 1 / ALARM times, however many groups there are.
    """
    found = []
    for name, names in AUDITS.items():
        mine = [m for m in measures if m["name"].partition(":")[0] in names]
        if sensitive or (mine and name == "pii"):
            missing = _missing(name, mine)
            why = missing or _why(name, mine, sensitive)
            passed = not why if sensitive or not missing else None
            found.append({"name": name, "passed": passed, "why": why or _aside(mine)})
    return found


def failed(found: Sequence[Mapping[str, Any]]) -> str:
    """The gates that did not pass, in words; "" where all did."""
    return ", and ".join(f"gate {g['name']}: {g['why']}" for g in found if g["passed"] is False)


def _aside(measures: Sequence[Mapping[str, Any]]) -> str:
    """What a passed gate of personal data did not judge: real inputs that were given a label."""
    return next((part for m in measures for part in m["note"].split("; ") if POOLED in part and not part.startswith("0 ")), "")


def _missing(name: str, measures: Sequence[Mapping[str, Any]]) -> str:
    first = AUDITS[name][0]
    needed = next((m for m in measures if m["name"] == first), None)
    if needed is None or needed["value"] is None:
        return f"{first} was not measured: {needed['note'] if needed else 'the recipe has no such metric'}"
    return ""


def _why(name: str, measures: Sequence[Mapping[str, Any]], sensitive: bool) -> str:
    needed = next(m for m in measures if m["name"] == AUDITS[name][0])
    if needed["name"] == "pii_leak_rate" and needed["value"] > 0:
        return str(needed["note"].partition(";")[0])
    tested = [m for m in measures if m["p"] is not None and m["value"] is not None] if sensitive else []
    alarms = [m for m in tested if m["p"] <= ALARM / len(tested)]
    return ", ".join(f"{m['name']} is {m['value']:.3g}, p = {m['p']:.2g}" for m in alarms)

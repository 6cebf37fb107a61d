"""The verdict of a run: one sentence in plain words, from its gain, its copies, its diversity and its alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from seedbed.stats import ALARM

Tone = Literal["better", "worse", "open", "unknown"]
DIVERSITY = ("vendi", "knn_coverage")
"""Measures of diversity, the first that was measured decides; higher is more diverse."""


def verdict(gain: str, measures: Sequence[Mapping[str, Any]], failed: str = "") -> str:
    """gain: the clause on the gain (`Gain.verdict`). measures: those of scores.json. failed: the gates that did not pass, in words."""
    known = {m["name"]: m for m in measures if m["value"] is not None}
    first = f"do not use these rows: {failed}" if failed else ""
    return "; ".join(part for part in (first, gain, _copies(known.get("verbatim_rate")), _diversity(known), _alarms(known)) if part)


def tone(gain: Mapping[str, Any] | None) -> Tone:
    """What the interval of the difference says: above 0, below 0, around 0, or nothing."""
    low, high = (gain["difference"]["low"], gain["difference"]["high"]) if gain else (None, None)
    if low is None or high is None:
        return "unknown"
    return "better" if low > 0 else "worse" if high < 0 else "open"


def _copies(rate: Mapping[str, Any] | None) -> str:
    if rate is None:
        return "copies of real rows were not counted"
    copies = round(rate["value"] * rate["n"])
    return f"{copies} {'copy' if copies == 1 else 'copies'} of real rows among {rate['n']}"


def _diversity(known: Mapping[str, Mapping[str, Any]]) -> str:
    """Against the same number of real text; "" where no such measure was taken with an interval."""
    for name in DIVERSITY:
        m = known.get(name)
        if m and m["real"] is not None and m["low"] is not None and m["high"] is not None:
            if m["low"] <= m["real"] <= m["high"] or (m.get("p") or 0) > ALARM:  # where an exact test was made, it must agree
                return ""  # no difference was shown, which is no proof of none
            return "less diverse than real text" if m["high"] < m["real"] else "more diverse than real text, which garbled text is too"
    return ""


def _alarms(known: Mapping[str, Mapping[str, Any]]) -> str:
    """How many of the exact tests tell the kept rows from real ones; "" where none was made."""
    tested = {name: m["p"] for name, m in known.items() if m.get("p") is not None}
    alarms = sum(p <= ALARM for p in tested.values())
    if tested.keys() <= {"pii_rate"}:  # alone it tells nothing of likeness
        return ""
    return (
        f"unlike real text by {alarms} of {len(tested)} tests (p <= {ALARM})" if alarms else f"none of {len(tested)} tests tells them from real text"
    )

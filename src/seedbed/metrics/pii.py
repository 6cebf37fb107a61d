"""Personal data in the kept rows: how much there is, and how much of it stood in real rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from seedbed.pii import POOLED, Found, allowed, find, hidden
from seedbed.stats import more_p, wilson
from seedbed.text import Split, body, real_texts
from seedbed.types import EVIDENCE, Evidence, Example, Measure, Sample

SHOWN = 5
"""Rows with personal data that the note names."""
NONE_KEPT = "no generated row was kept"


@dataclass(frozen=True)
class Pii:
    """E-mail addresses, phone numbers, IBANs, card and social security numbers, public IP and MAC addresses and keys of services, by patterns that
    are checked (checksums, number plans). `pii_leak_rate` above 0 fails the run. Of an input that came from the pool, only what was written to it
    counts (nothing, where that is a label): it is the user's own. How many such inputs hold personal data stands in the notes, and beside the gate.

    allow: what may stand in the rows: a kind ("phone"), a value, or the end of an address ("@example.com"). presidio: "patterns", or the name of an
    installed spaCy model, to look with presidio-analyzer too; its kinds are then kinds here, in small letters ("us_passport").
    """

    version: ClassVar[int] = 1

    allow: tuple[str, ...] = ()
    presidio: str = ""

    def measure(self, sample: Sample, kept: Sequence[Example], seed: int) -> list[Measure]:
        task, asked = sample.task, {sample.task.input_text(e) for e in sample.pool}

        def told(e: Example) -> str:
            return str(e.fields[str(task.target)]) if asked and task.input_text(e) in asked else body(task, e.fields)

        pooled = [e for e in kept if task.input_text(e) in asked] if asked else []
        if pooled and task.has_labels:
            kept = [e for e in kept if task.input_text(e) not in asked]
        ours = [(e.id, found) for e in kept if (found := self._in(told(e)))]  # those with any: there may be a million rows
        known: dict[Found, tuple[Split, str]] = {}
        by_split: dict[str, list[set[Found]]] = {}
        for split, name, text in real_texts(sample):
            found = self._in(text)
            by_split.setdefault(split, []).append(found)
            known |= dict.fromkeys(found - known.keys(), (split, name))  # the gravest split first
        reference = [*by_split.get("dev", []), *by_split.get("test", [])]
        told_of = [self._rate(ours, len(kept), reference), self._leaks(ours, len(kept), known, by_split)]
        return [replace(m, note=m.note + self._as_they_came(pooled)) for m in told_of]

    def _as_they_came(self, pooled: Sequence[Example]) -> str:
        held = [(e.id, found) for e in pooled if (found := self._in(" ".join(map(str, e.fields.values()))))]
        values = _counted(found for _, found in held)
        return f"; {len(held)} of {len(pooled)} {POOLED}{values}{_named([name for name, _ in held])}" if pooled else ""

    def _in(self, text: str) -> set[Found]:
        return {found for found in find(text, self.presidio) if not allowed(found, self.allow)}

    def _rate(self, ours: Sequence[tuple[str, set[Found]]], n: int, reference: Sequence[set[Found]]) -> Measure:
        if not n:
            return Measure("pii_rate", None, "share", "lower", note=NONE_KEPT)
        hits, others = len(ours), sum(map(bool, reference))
        p = more_p(hits, n, others, len(reference)) if reference else None
        real = others / len(reference) if reference else None
        note = (
            f"{hits} of {n} rows{_counted(found for _, found in ours)}{_named([name for name, _ in ours])}; Wilson interval; "
            f"real: dev + test ({len(reference)} rows); p: more than these"
        )
        return Measure("pii_rate", hits / n, "share", "lower", n, *wilson(hits, n), real, note, p)

    def _leaks(
        self, ours: Sequence[tuple[str, set[Found]]], n: int, known: dict[Found, tuple[Split, str]], by_split: dict[str, list[set[Found]]]
    ) -> Measure:
        if not n or not by_split:
            return Measure("pii_leak_rate", None, "share", "lower", note=NONE_KEPT if not n else "the sample has no rows to compare with")
        leaked = [(name, found & known.keys()) for name, found in ours if found & known.keys()]
        values = set[Found]().union(*(found for _, found in leaked))
        # What unlike people have in common is no secret of one: a firm's number stands in fit and in test.
        test, fit = by_split.get("test", []), set[Found]().union(*by_split.get("fit", []))
        real = sum(bool(found & fit) for found in test) / len(test) if test else None
        rows = [
            Evidence(f"{kind} {hidden(value)}", name, known[kind, value][1], known[kind, value][0])
            for name, found in sorted(leaked, key=lambda pair: pair[0])
            for kind, value in sorted(found)
        ]
        what = f"{len(values)} values of real rows{_counted([values])} stand in {len(leaked)} of {n} rows"
        note = f"{what}; Wilson interval; real: share of test rows with a value that stands in fit"
        low, high = wilson(len(leaked), n)
        return Measure("pii_leak_rate", len(leaked) / n, "share", "lower", n, low, high, real, note, rows=tuple(rows[:EVIDENCE]))


def _named(rows: Sequence[str]) -> str:
    """The first ids: the rows to look at; what stands in them is not shown again."""
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return f": {', '.join(sorted(rows)[:SHOWN])}{more}" if rows else ""


def _counted(found: object) -> str:
    kinds = Counter(kind for values in found for kind, _ in values)  # type: ignore[attr-defined]
    return f" ({', '.join(f'{kind} {count}' for kind, count in sorted(kinds.items()))})" if kinds else ""

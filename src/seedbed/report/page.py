"""The report of a run: one HTML file that needs no script, no network and no other file."""

from __future__ import annotations

import random
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seedbed.report import plots, tables
from seedbed.report.facts import Facts
from seedbed.report.verdict import tone
from seedbed.types import seed_for

SHOWN = 20
"""Dropped rows to read."""
HEAD = 600
"""Characters of a text that are seen at once; the rest unfolds."""
SAID = {"better": "It helped", "worse": "It hurt", "open": "No gain shown", "unknown": "Gain not measured"}


def page(facts: Facts) -> str:
    """A whole HTML document. Equal facts give equal bytes; every text is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    home = Path(__file__).resolve().parent
    environment = Environment(loader=FileSystemLoader(home), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    gain, training, manifest, seen = facts.scores["gain"], facts.training, facts.manifest, facts.closeup["map"]
    failed = any(gate["passed"] is False for gate in facts.scores.get("gates", ()))
    leaks = tables.leaks(facts.scores)
    lead, semicolon, rest = tables.sentence(facts.verdict).replace(" %", "\u00a0%").partition("; ")
    measures = [_measure(m) for m in facts.scores["measures"]]
    labels = _labels(facts)
    return environment.get_template("page.html.jinja").render(
        facts=facts,
        style=Markup((home / "page.css").read_text(encoding="utf-8").strip()),
        tone="worse" if failed else tone(gain),
        said="Do not use" if failed else SAID[tone(gain)],
        gates=tables.gates(facts.scores),
        leaks=leaks,
        verdict={"lead": lead, "rest": semicolon + rest},
        keys=_keys(facts),
        sections=_sections(facts, bool(labels), bool(leaks.rows)),
        arms=tables.arms(gain),
        difference=tables.difference(gain),
        smallest=tables.smallest(gain),
        note=tables.sentence(gain["note"]) if gain["note"] and gain["difference"]["mean"] is not None else "",
        curve=Markup(plots.curve(gain)),
        measures=measures,
        tested=any(row["p"] for row in measures),
        map=Markup(plots.plane(seen)),
        seen=_caption(seen),
        share=f"{100 * (seen['share'] or 0):.0f} %",
        hidden=f"{100 - 100 * (seen['share'] or 0):.0f} %",
        labels=labels,
        counted=facts.scores["counts"],
        losses_of_filters=_filters(facts),
        training=training and tables.training(training),
        tuned=training and tables.tuned(training),
        losses=Markup(plots.losses(training)) if training else "",
        nearest=_nearest(facts),
        dropped=[{**row, "text": _cut(row["text"])} for row in _some(facts.dropped, facts.manifest["seed"])],
        method=tables.method(facts.recipe_toml, facts.sizes),
        versions=tables.pairs(("package", "version"), manifest["versions"]),
        engine=tables.pairs(("rows", ""), facts.data) if facts.data else tables.pairs(("engine", ""), manifest["engine"]),
        steps=tables.pairs(("step", "folder"), manifest["steps"]),
        seconds=tables.pairs(("step", "seconds"), manifest["seconds"]),
    )


def _sections(facts: Facts, labels: bool, leaks: bool) -> list[tuple[str, str]]:
    """(id, name) of the parts that this page has."""
    found = [("gain", "Gain"), ("measures", "Measures"), *([("leaks", "Leaks")] if leaks else []), ("map", "Map")]
    found += [("labels", "Labels")] if labels else []
    found += [("filters", "Refused" if facts.data else "Filters")] + (
        [("training", "Teacher" if tables.tuned(facts.training) else "Soft prompt")] if facts.training else []
    )
    return [*found, ("rows", "Rows to read"), ("method", "How it was measured" if facts.data else "How it was made")]


def _keys(facts: Facts) -> list[dict[str, str]]:
    """The few numbers under the verdict; where one was not measured, it says so."""
    gain, counts, sizes = facts.scores["gain"], facts.scores["counts"], facts.sizes
    known = {m["name"]: m for m in facts.scores["measures"]}
    d = gain["difference"]
    share = f"{100 * counts['kept'] / counts['candidates']:.0f} %" if counts["candidates"] else ""
    real = f"{tables.number(sizes['fit'])} fit, {tables.number(sizes['dev'])} dev; test {tables.number(sizes['test'])}"
    keys = [
        ("gain, points", *(("–", tables.UNKNOWN) if d["mean"] is None else (f"{d['mean']:+.1f}", f"95 %: {tables.spread(d)}"))),
        ("rows kept", tables.number(counts["kept"]), f"{share} of {tables.number(counts['candidates'])}"),
    ]
    if rate := known.get("verbatim_rate"):
        none = rate["value"] is None
        keys.append(("copies of real rows", *(("–", tables.UNKNOWN) if none else _copies(rate))))
    for name, called in (("mauve", "MAUVE"), ("vendi", "Vendi score")):
        if m := known.get(name):
            beside = "" if m["real"] is None else f"real text: {tables.number(m['real'])}"
            keys.append((called, *(("–", tables.UNKNOWN) if m["value"] is None else (tables.number(m["value"]), beside))))
    keys.append(("real rows", tables.number(sizes["fit"] + sizes["dev"]), real))
    return [{"name": name, "value": value, "detail": detail} for name, value, detail in keys]


def _measure(m: Mapping[str, Any]) -> dict[str, str]:
    """One measure's cells; where it was not measured, the note says why."""
    p, unknown = m.get("p"), m["value"] is None
    return {
        "name": m["name"],
        "value": "–" if unknown else tables.number(m["value"]),
        "unit": "" if unknown else m["unit"],
        "interval": "" if unknown else tables.interval(m),
        "real": "" if m["real"] is None else tables.number(m["real"]),
        "p": tables.chance(p),
        "n": tables.number(m["n"]),
        "better": {"closer": "closer to real"}.get(m["better"], m["better"]),
        "note": f"{tables.UNKNOWN}: {m['note']}" if unknown else m["note"],
    }


def _copies(rate: Mapping[str, Any]) -> tuple[str, str]:
    top = "" if rate["high"] is None else f"of {tables.number(rate['n'])}; 95 %: up to {100 * rate['high']:.1f} %"
    return tables.number(round(rate["value"] * rate["n"])), top


def _caption(seen: Mapping[str, Any]) -> str:
    if seen["share"] is None:
        return ""
    n = len(seen["real"])
    return f"{n:,} real texts (circles) and {n:,} synthetic ones (triangles) on the first two principal components of the real ones"


def _labels(facts: Facts) -> list[dict[str, Any]]:
    """Rows of each label, the most frequent real one first; widths: percent of the widest share in the table."""
    if not facts.labels:
        return []
    target = str(facts.task.target)
    kept = Counter(str((c.fields or {}).get(target)) for c in facts.kept)
    made = kept + Counter(str(row["label"]) for row in facts.dropped if row.get("label") is not None)
    columns: dict[str, Mapping[str, int]] = {"real": facts.labels, "made": made, "kept": kept}
    shares = {name: {label: n / max(1, sum(column.values())) for label, n in column.items()} for name, column in columns.items()}
    widest = max(share for column in shares.values() for share in column.values()) or 1
    rows = sorted(facts.labels, key=lambda label: (-facts.labels[label], label))
    return [
        {"label": label}
        | {name: column.get(label, 0) for name, column in columns.items()}
        | {f"{name}_width": round(100 * shares[name].get(label, 0) / widest, 1) for name in columns}
        for label in rows
    ]


def _filters(facts: Facts) -> list[dict[str, Any]]:
    """Candidates, then what each filter dropped in the order of the recipe (the most frequent reasons first), then the kept."""
    counted = facts.scores["counts"]
    order = [f["kind"] for f in tomllib.loads(facts.recipe_toml).get("filter", [])]
    place = {kind: i for i, kind in reversed(list(enumerate(order)))}
    dropped = Counter((row["filter"], row["reason"]) for row in facts.dropped)
    idle = {(kind, ""): 0 for kind in order if not facts.data and kind not in {name for name, _ in dropped}}
    reasons = sorted({**dropped, **idle}.items(), key=lambda entry: (place.get(entry[0][0], len(order)), -entry[1], entry[0]))
    rows = [("candidates", "", counted["candidates"], "all"), *((kind, reason, n, "made") for (kind, reason), n in reasons)]
    total = max(1, counted["candidates"])
    return [
        {"filter": kind, "reason": reason, "rows": n, "share": f"{100 * n / total:.1f} %", "width": round(100 * n / total, 1), "look": look}
        for kind, reason, n, look in [*rows, ("kept", "", counted["kept"], "kept")]
    ]


def _nearest(facts: Facts) -> list[dict[str, Any]]:
    shown = {entry["id"] for entry in facts.closeup["nearest"]}
    rows = {c.id: c for c in facts.kept if c.id in shown}
    return [
        {
            **entry,
            "cosine": f"{entry['cosine']:.2f}",
            "text": _cut(rows[entry["id"]].text),
            "near": _cut(entry["text"]),
            "sources": rows[entry["id"]].provenance.get("sources"),
        }
        for entry in facts.closeup["nearest"]
    ]


def _cut(text: str) -> dict[str, str]:
    """The part to be seen at once and the rest, at a space where there is one."""
    if len(text) <= HEAD + HEAD // 4:
        return {"head": text, "tail": ""}
    space = text.rfind(" ", HEAD // 2, HEAD)
    end = space if space > 0 else HEAD
    return {"head": text[:end], "tail": text[end:]}


def _some(rows: Sequence[Any], seed: int) -> list[Any]:
    """`SHOWN` of the rows at random, or all when there are fewer, in their order."""
    rng = random.Random(seed_for(seed, "report", "dropped"))
    return [rows[i] for i in sorted(rng.sample(range(len(rows)), min(SHOWN, len(rows))))]

"""What page and card both show: numbers as words, and the rows of their tables."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seedbed.stats import ALARM
from seedbed.task import Task, columns_used

ARMS = {"real": "real only", "synthetic": "synthetic only", "both": "real + synthetic", "full": "all real rows"}
UNKNOWN = "not measured"


@dataclass(frozen=True)
class Table:
    """Plain text, not yet escaped; every row is as long as the head."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def number(value: float | None, unit: str = "") -> str:
    """Whole numbers whole, others with one decimal, or three below 10, so that columns line up; None is "not measured"."""
    if value is None:
        return UNKNOWN
    size = abs(value)
    form = "," if isinstance(value, int) else ",.1f" if size >= 10 else ".1g" if 0 < size < 0.0005 else ".3f"
    return f"{value:{form}} {unit}".strip()


def interval(entry: Mapping[str, Any]) -> str:
    low, high = entry["low"], entry["high"]
    return UNKNOWN if low is None or high is None else f"{number(low)} to {number(high)}"


def points(value: float | None) -> str:
    """A score or a difference of scores: one decimal."""
    return UNKNOWN if value is None else f"{value:,.1f}"


def spread(entry: Mapping[str, Any]) -> str:
    """The interval of a score."""
    low, high = entry["low"], entry["high"]
    return UNKNOWN if low is None or high is None else f"{points(low)} to {points(high)}"


def sentence(text: str) -> str:
    """A capital first and a full stop last."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def measures(scores: Mapping[str, Any]) -> Table:
    head = ("measure", "value", "95 % interval", "real text", "p", "n", "better", "note")
    return Table(head, [_measure(m) for m in scores["measures"]])


def _measure(m: Mapping[str, Any]) -> tuple[str, ...]:
    better = {"closer": "closer to real"}.get(m["better"], m["better"])
    if m["value"] is None:
        real = "" if m["real"] is None else number(m["real"])
        return m["name"], f"{UNKNOWN}: {m['note']}", "", real, "", number(m["n"]), better, ""
    return m["name"], number(m["value"], m["unit"]), interval(m), number(m["real"]), chance(m.get("p")), number(m["n"]), better, m["note"]


def gates(scores: Mapping[str, Any]) -> Table:
    """The audits that decide whether the rows may be used."""
    return Table(
        ("gate", "passed", "why not"),
        [(g["name"], {True: "yes", False: "NO", None: UNKNOWN}[g["passed"]], g["why"]) for g in scores.get("gates", ())],
    )


def leaks(scores: Mapping[str, Any]) -> Table:
    """The rows that measures show."""
    head = ("measure", "kept row", "what", "real row", "text", "real text")
    found = [(m["name"], row) for m in scores["measures"] for row in m.get("rows", ())]
    return Table(
        head, [(name, r["id"], r["what"], f"{r['real']} ({r['split']})" if r["split"] else r["real"], r["text"], r["near"]) for name, r in found]
    )


def chance(p: float | None) -> str:
    """A p, and that it is an alarm; blank where no test was made."""
    return "" if p is None else f"{p:.3f}{' (alarm)' if p <= ALARM else ''}"


def arms(gain: Mapping[str, Any]) -> Table:
    """The arms' scores of the metric that decides."""
    rows = [(ARMS.get(name, name), points(a["mean"]), spread(a), number(a["seeds"]), number(a["n_train"])) for name, a in gain["arms"].items()]
    return Table(("trained on", f"{gain['metric']} on test", "95 % interval", "seeds", "training rows"), rows)


def difference(gain: Mapping[str, Any]) -> str:
    """Real + synthetic minus real only, in words."""
    d = gain["difference"]
    if d["mean"] is None:
        return f"{UNKNOWN}: {gain['note']}"
    return f"{points(d['mean'])} points (95 % interval {spread(d)})"


def smallest(gain: Mapping[str, Any]) -> str:
    """The smallest gain that the test could have shown, in words."""
    value = gain["smallest_detectable"]
    return f"{UNKNOWN}: {gain['note']}" if value is None else f"{points(value)} points"


def counts(counted: Mapping[str, Any]) -> Table:
    """Candidates, and what became of them; the most frequent reasons first."""
    total = counted["candidates"]
    rows = [("candidates", total), ("kept", counted["kept"])]
    rows += [(f"dropped, {reason}", n) for reason, n in sorted(counted["dropped"].items(), key=lambda pair: (-pair[1], pair[0]))]
    shares = [(what, number(n), f"{100 * n / total:.1f} %") for what, n in rows]
    # Failures can be of real rows (too long for the model): no share of the candidates.
    return Table(("what", "number", "share"), [*shares, *((f"failed, {cause}", number(n), "") for cause, n in sorted(counted["failed"].items()))])


def training(facts: Mapping[str, Any]) -> Table:
    """Losses of each form of the soft prompt; "z shuffled" gives every dev row another row's context."""
    heads = {"dev": "dev", "dev_shuffled": "dev, z shuffled", "train": "train", "epoch": "best epoch", "parameters": "parameters"}
    keys = [key for key in heads if key != "dev_shuffled" or not tuned(facts)]
    names = {name: name + (" (chosen)" if name == facts["chosen"] else "") for name in facts["forms"]}
    names |= {"none": "before", facts["chosen"]: facts["chosen"]} if tuned(facts) else {}
    forms = [(names[name], form | {"epoch": f"{form['epoch']:.3g}"} if "epoch" in form else form) for name, form in facts["forms"].items()]
    rows = [(name, *(v if isinstance(v := form.get(key, ""), str) else number(v) for key in keys)) for name, form in forms]
    return Table(("teacher" if tuned(facts) else "prompt", *(heads[key] for key in keys)), rows)


def tuned(training: Mapping[str, Any] | None) -> bool:
    """Whether it is of a fine-tuned model, not of a soft prompt."""
    return bool(training) and training["chosen"] in ("lora", "full")  # type: ignore[index]


def columns(task: Task, annotated: int = 0, whole: bool = False) -> Table:
    """The written columns; given ones are real, and so are the inputs of annotated rows. whole: all rows are annotated ones."""
    used = columns_used(task)
    origins = dict.fromkeys(task.inputs, "real, from the pool") | ({str(task.target): "named by an annotator"} if task.has_labels else {})
    made = {name: said if whole else f"generated; of {number(annotated)} rows {said}" for name, said in origins.items()} if annotated else {}
    made |= dict.fromkeys(task.given_columns, "taken from real rows")
    rows = [(name, used[name], made.get(name, "generated")) for name in task.columns]
    added = [("provenance", "origin", "which candidate, from which sources"), ("synthetic", "mark", "always true")]
    return Table(("column", "role", "values"), [*rows, *added])


def pairs(head: tuple[str, str], facts: Mapping[str, Any]) -> Table:
    return Table(head, [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)) for name, value in facts.items()])


def method(recipe_toml: str, sizes: Mapping[str, int]) -> Table:
    """How the rows were made: the recipe without its file names."""
    recipe = tomllib.loads(recipe_toml)
    if "generator" not in recipe:
        return _judging(recipe, sizes)
    sampling = ", ".join(f"{key} = {value}" for key, value in recipe["generate"].items() if key != "count")
    rows = [
        ("real sample", ", ".join(f"{part} {number(n)}" for part, n in sizes.items() if n)),
        ("model", recipe["model"]["name"]),
        ("generator", _part(recipe["generator"])),
        ("engine", _part(recipe["engine"])),
        ("sampling", sampling),
        ("annotators", "; ".join(_part(a) for a in recipe.get("annotator", [])) or "none"),
        ("filters", "; ".join(_part(f) for f in recipe.get("filter", [])) or "none"),
        ("student of the gain", _part(recipe["student"])),
        ("seed", str(recipe["seed"])),
    ]
    return Table(("step", "settings"), rows)


def _judging(recipe: Mapping[str, Any], sizes: Mapping[str, int]) -> Table:
    """How rows were measured that were not made here."""
    rows = [
        ("real sample", ", ".join(f"{part} {number(n)}" for part, n in sizes.items() if n)),
        ("metrics", "; ".join(_part(m) for m in recipe.get("metric", [])) or "none"),
        ("student of the gain", _part(recipe["student"])),
        ("seed", str(recipe["seed"])),
    ]
    return Table(("step", "settings"), rows)


def _part(section: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{key} = {value}" for key, value in section.items() if key != "kind" and value != "")
    return f"{section['kind']} ({settings})" if settings else str(section["kind"])

"""What a run's numbers look like in a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seedbed.compare import Compared
    from seedbed.errors import GateFailed
    from seedbed.run import Run


def number(value: Any) -> str:
    return "-" if value is None else f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"


def print_scores(scores: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from seedbed.stats import ALARM

    console, counts = Console(markup=False), scores["counts"]
    dropped = ", ".join(f"{k} {v}" for k, v in counts["dropped"].items()) or "none"
    console.print(f"{counts['candidates']} candidates, {counts['kept']} kept. Dropped: {dropped}.", highlight=False)
    table = Table("measure", "value", "95 % interval", "real vs real", "p", "n", box=None, pad_edge=False)
    unmeasured: dict[str, list[str]] = {}
    for m in scores["measures"]:
        if m["value"] is None:
            unmeasured.setdefault(m["note"], []).append(m["name"])
        else:
            table.add_row(m["name"], number(m["value"]), _interval(m), number(m["real"]), "" if m.get("p") is None else f"{m['p']:.3f}", str(m["n"]))
    for name, arm in ((scores["gain"] or {}).get("arms") or {}).items():
        if arm["mean"] is not None:
            table.add_row(f"{scores['gain']['metric']} {name}", number(arm["mean"]), _interval(arm), "", "", str(arm["n_train"]))
    if table.row_count:
        console.print(table)
    alarms = [m["name"] for m in scores["measures"] if m.get("p") is not None and m["p"] <= ALARM]
    if alarms:
        console.print(f"unlike real rows (p <= {ALARM}): {', '.join(alarms)}", highlight=False)
    for m in scores["measures"]:
        for row in m.get("rows", ())[:LEAKS]:
            console.print(f"  {m['name']}: {' '.join(filter(None, (row['id'], row['what'], row['split'], row['real'])))}", highlight=False)
    for note, names in unmeasured.items():
        console.print(f"not measured: {', '.join(names)}: {note}", highlight=False)
    if "verdict" in scores:  # runs of earlier versions have none
        print(f"\n{scores['verdict']}")


def print_run(done: Run, files: dict[str, str], as_json: bool, gate: GateFailed | None) -> None:
    """Numbers, and where the files are. Raises the gate that failed."""
    print_scores(done.scores)
    width = max(map(len, files))
    print("\n" + "\n".join(f"{what:{width}} {done.folder / name}" for what, name in files.items()))
    if as_json:
        print(json.dumps({"folder": str(done.folder), **done.scores}))
    if gate:
        raise gate


LEAKS = 5
"""Rows shown behind a leak; the report has more."""


def _interval(numbers: dict[str, Any]) -> str:
    return f"{number(numbers['low'])} to {number(numbers['high'])}" if numbers["low"] is not None else "-"


def print_estimate(found: Mapping[str, Any]) -> None:
    """An estimate's JSON as lines: a step each, all together, memory, money and what was assumed."""
    for name, cost in found["steps"].items():
        size = f"{cost['tokens']:>11,} tokens {cost['disk_bytes'] / 1e6:8.1f} MB"
        print(f"{name:12}{cost['seconds']:9.1f} s {size}  {cost['basis']}{': ' * bool(cost['note'])}{cost['note']}")
    print(f"{'together':12}{found['seconds']:9.1f} s {found['tokens']:>11,} tokens {found['disk_bytes'] / 1e6:8.1f} MB  {found['basis']}")
    money = "-" if found["money"] is None else f"{found['money']:,.2f}"
    print(f"{'memory':12}{found['memory_bytes'] / 1e9:8.1f} GB\n{'money':12}{money:>11}  {found['money_note']}")
    print("\n".join(f"assumed: {line}" for line in found["assumed"]))


def print_price(found: Mapping[str, Any]) -> None:
    """A comparison's price as lines: an arm each, all together, memory, money and what was assumed."""
    names = [f"{row['arm']}, {row['mode']}" for row in found["arms"]]
    width = max(len("together"), *map(len, names))
    for name, row in zip([*names, "together"], [*found["arms"], found], strict=True):
        money = "-" if row["money"] is None else f"{row['money']:,.2f}"
        scores = row.get("steps", {}).get("scores", {}).get("seconds")
        told = "" if scores is None else f"  students and metrics {scores:,.1f} s"
        print(f"{name:{width}} {row['seconds']:>11,.1f} s {row['tokens']:>13,} tokens {money:>9} money{told}")
    folds = f", {found['folds']} folds" if found["folds"] else ""
    print(f"{found['seeds']} seed{'s' * (found['seeds'] > 1)}{folds}; memory {found['memory_bytes'] / 1e9:.1f} GB; money: {found['money_note']}")
    print("\n".join(f"assumed: {line}" for line in found["assumed"]))


def print_decoder(found: Mapping[str, Any], out: Path) -> None:
    """What pretraining of an embedding decoder came to."""
    q = found["quality"]
    print(f"{out}: {found['steps']} steps, {found['passages']} passages, {found['minutes']} minutes. Of {q['n']} held-out passages:")
    losses = ", ".join(f"{t} soft tokens {loss:.3f}" for t, loss in q["held_out"].items())
    print(f"nats a token: no prompt {q['no_prompt']:.3f}, {losses}, contexts shuffled {q['shuffled']:.3f}")
    print(f"written out: token F1 {q['token_f1']:.3f}, cosine with the context {q['cosine']:.3f}, with another's {q['cosine_shuffled']:.3f}")


def print_compared(found: Compared) -> None:
    """A comparison's table, where it is and what is missing."""
    print((found.folder / "compare.md").read_text(encoding="utf-8"))
    print(f"Table {found.folder / 'compare.md'}" + (f"\nUnfinished: {found.unfinished}" if found.unfinished else ""))

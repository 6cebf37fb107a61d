"""SoftSRV (arXiv 2410.16534) on this machine: task x way x n, against few-shot prompts and a fine-tuned teacher.

python benchmarks/softsrv.py --data FOLDER [--tasks gsm8k,boolq,slurp,mbpp] [--n 128,2000] [--ways few-shot,mc]
    [--rows 500] [--seeds 3] [--seed 7] [--hours 2] [--out runs-softsrv]

Text of the questions is what is generated (SLURP: label and text). Judged at equal kept rows by MAUVE and MMD against dev + test, the held-out
loss of a small language model that read the rows (`heldout_nll`), copies, and for SLURP the gain of a student (a classifier of the real rows names
the labels of every way's). Writes docs/results/softsrv.md; of several --rows, such as 125,500,2000, softsrv-volume.md and its curves: what more
candidates of the same teachers are worth (`--n 2000`: the held-out loss is of as many kept rows as there are fit rows, at most). Run again, it
goes on.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import asked, write_page
from sets import each_once, rows_of, written

from seedbed.compare import Compared, compare
from seedbed.recipe import build

ROOT = Path(__file__).resolve().parent.parent
TASKS: dict[str, dict[str, Any]] = {
    "gsm8k": {"kind": "plain", "inputs": ["question"]},
    "boolq": {"kind": "plain", "inputs": ["question"]},
    "slurp": {"kind": "classification", "inputs": ["text"], "target": "label"},
    "mbpp": {"kind": "plain", "inputs": ["text"]},
}
TOKENS = {"gsm8k": 128, "boolq": 40, "slurp": 48, "mbpp": 64}
CACHE = {"gsm8k": 512, "boolq": 256, "slurp": 256, "mbpp": 256}
MOST = 1500
"""Rows of dev and of test, at most."""
TEMPERATURE = 0.5
"""Of every way: at 1.0 a model of 5.5 M weights writes words that are none (LOG, 25 November)."""
FILTERS = [{"kind": "form"}, {"kind": "dedup"}, {"kind": "overlap"}]
MEASURES = ("mauve", "mmd", "heldout_nll", "verbatim_rate")
Part = tuple[str, int, Compared]
TOLD = ("HP", "HP_SR", "verbalized")
"""Ways that tell the model in words what to do."""
REQUIRED = ("few-shot", "nsp", "mp", "mc", "amortised", "finetune")


def ways(task: str, rows: int, n: int) -> list[dict[str, Any]]:
    """epochs: some 20,000 rows read, 50 epochs at most."""
    soft: dict[str, Any] = {"kind": "soft", "tokens": 16, "epochs": min(50, 20000 // n)}
    mc = {**soft, "prompt": "mc"}
    roomy = {"engine": {"cache": 512}}  # words that tell of 60 labels are longer than the texts
    return [
        {"name": "few-shot", "generator": {"kind": "hard", "shots": 3 if task == "gsm8k" else 5}},
        {"name": "nsp", "generator": {**soft, "prompt": "nsp"}},
        {"name": "mp", "generator": {**soft, "prompt": "mp"}},
        {"name": "mc", "generator": mc},
        {"name": "amortised", "generator": {**soft, "prompt": "amortised"}},
        {"name": "finetune", "generator": {"kind": "finetune", "epochs": 10, **({"order": "label-first"} if task == "slurp" else {})}},
        {"name": "mc + mix", "generator": {**mc, "contexts": "mix"}},
        {"name": "mc + kernel", "generator": {**mc, "contexts": "kernel"}},
        {"name": "mc + cover", "generator": {**mc, "cover": True}},
        {"name": "mc + select", "generator": mc, **selected(rows)},
        {"name": "amortised + select", "generator": {**soft, "prompt": "amortised"}, **selected(rows)},
        {"name": "amortised-lora", "generator": {**soft, "prompt": "amortised-lora"}},
        {"name": "amortised-lora + select", "generator": {**soft, "prompt": "amortised-lora"}, **selected(rows)},
        {"name": "HP", "generator": {"kind": "hard", "template": "zero-shot"}, **roomy},
        {"name": "HP_SR", "generator": {"kind": "refine"}, **roomy},
        {"name": "verbalized", "generator": {"kind": "hard", "template": "verbalized"}, **roomy},
    ]


def selected(rows: int) -> dict[str, Any]:
    """Three times as many candidates, of which half as many as asked for are kept."""
    return {"generate": {"count": 3 * rows}, "filter": [*FILTERS, {"kind": "select", "rows": rows // 2}]}


def prepared(data: Path, work: Path, task: str) -> dict[str, str]:
    """fit, dev and test files; questions stand once (boolq and slurp repeat some)."""
    splits = {split: rows_of(data, task, split) for split in ("test", "dev", "train")}
    return written(work, task, each_once(splits, str(TASKS[task]["inputs"][0]), MOST))


def recipe_of(task: str, files: dict[str, str], n: int, rows: int, names: Collection[str], learned: int = 500, seed: int = 7) -> Any:
    """learned: rows that the student behind `heldout_nll` reads at most."""
    with open(files["fit"], encoding="utf-8") as file:
        n = min(n, sum(1 for _ in file))
    labels = TASKS[task]["kind"] == "classification"
    return build(
        {
            "name": f"{task}-{n}",
            "seed": seed,
            "sample": {**files, "rows": n},
            "task": TASKS[task],
            "engine": {"kind": "local", "slots": 128, "cache": CACHE[task]},
            "generate": {"count": rows, "max_tokens": TOKENS[task], "temperature": TEMPERATURE, "top_p": 0.95, "relabel": labels},
            "annotator": [{"kind": "classifier"}] if labels else [],
            "filter": FILTERS,
            "metric": [{"kind": "mauve"}, {"kind": "memorisation"}, {"kind": "heldout", "rows": learned}],
            "arm": [way for way in ways(task, rows, n) if way["name"] in names],
        }
    )


def page(parts: list[Part]) -> str:
    """parts: (task and number of real rows, candidates, what was found)."""
    cpu = next(line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    lines = [
        f"# Learned prompts against words and a fine-tuned teacher, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"Command: `{asked()}`. Machine: {len(os.sched_getaffinity(0))} cores, {cpu}. Teacher: seedling, frozen (finetune and amortised-lora: LoRA).",
        "Numbers are means over the seeds at the same number of kept rows, with the mean of their 95 % intervals; real rows: fit.",
        "n of MAUVE is the smallest of kept, fit and dev + test; under 100 a side it is None.",
        "",
    ]
    for title, rows, found in parts:
        lines += [
            f"## {title}, {rows:,} candidates",
            "",
            "| way | seeds | kept (of each seed) | " + " | ".join(MEASURES) + " | gain |",
            "|" + "---|" * (4 + len(MEASURES)),
        ]
        arms = [r for r in found.rows if r["mode"] != "-"]
        for r in arms:
            cells = [_cell(r["measures"].get(name)) for name in MEASURES]
            gain = "-" if r["gain"] is None else f"{r['gain']:.1f} ({r['gain_low']:.1f} to {r['gain_high']:.1f})"
            lines.append(
                f"| {r['arm']} | {len(r.get('kept', []))} | {r['n_kept']} ({', '.join(map(str, r.get('kept', [])))}) | {' | '.join(cells)} | {gain} |"
            )
        reals = max(arms, key=lambda r: r["n_kept"])["measures"]  # real rows at the number that the table is of
        lines += [f"| real rows | | | {' | '.join(_number((reals.get(name) or {}).get('real')) for name in MEASURES)} | |", ""]
        told = [r["arm"] for r in arms if r["arm"] in TOLD]
        lines += [f"- {', '.join(told)}: LM not instruction-tuned: no evidence for or against the paper."] if told else []
        lines += [f"- {r['arm']}: {r['note']}" for r in found.rows if r["note"] and "plain task" not in r["note"]] + [""]
    return "\n".join(lines)


def curves(parts: list[Part], path: Path) -> None:
    """Held-out loss by kept rows: a panel a task, a line a way, dashed the same number of real rows."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = path.stem
    panels = list(dict.fromkeys(title for title, _, _ in parts))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.6), squeeze=False, layout="constrained")
    for panel, name in zip(axes[0], panels, strict=True):
        points: dict[str, list[tuple[int, float, float]]] = {}
        for found in (found for title, _, found in parts if title == name):
            for r in found.rows:
                loss = r.get("measures", {}).get("heldout_nll") if r["mode"] != "-" else None
                if loss and loss["value"] is not None:
                    points.setdefault(r["arm"], []).append((r["n_kept"], loss["value"], loss["real"]))
        for way, line in points.items():
            kept, loss, _ = zip(*sorted(line), strict=True)
            panel.plot(kept, loss, marker="o", label=way)
        reals = sorted({kept: real for line in points.values() for kept, _, real in line}.items())
        panel.plot(*zip(*reals, strict=True), color="black", linestyle="--", label="real rows") if reals else None
        panel.set_title(name)
        panel.set_xscale("log")
        panel.set_xlabel("kept rows that a language model read")
        panel.set_ylabel("nats a token, unused real rows")
        panel.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"


def _cell(numbers: dict[str, Any] | None) -> str:
    if not numbers or numbers["value"] is None:
        return "-"
    spread = "" if numbers["low"] is None else f" ({_number(numbers['low'])} to {_number(numbers['high'])})"
    return _number(numbers["value"]) + spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--n", default="128,2000")
    parser.add_argument("--ways", default=",".join(REQUIRED))
    parser.add_argument("--rows", default="500", help="candidates of each way; several, with commas, for curves")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7, help="another one: other draws of fit and dev, other teachers; the same test")
    parser.add_argument("--hours", type=float, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs-softsrv"))
    given = parser.parse_args()
    if "," in given.rows and min(map(int, given.n.split(","))) < max(map(int, given.rows.split(","))):
        parser.error(
            f"--rows {given.rows} needs --n as large: the held-out loss reads as many kept rows as there are fit rows at most. Got {given.n}."
        )
    end = None if given.hours is None else time.monotonic() + 3600 * given.hours
    volumes = sorted(map(int, given.rows.split(",")))
    name = "softsrv-volume" if len(volumes) > 1 else "softsrv"
    parts: list[Part] = []
    for n in map(int, given.n.split(",")):
        for task in given.tasks.split(","):
            for rows in volumes:
                left = None if end is None else max(1e-6, (end - time.monotonic()) / 3600)
                files = prepared(given.data, given.out / "data", task)
                made = recipe_of(task, files, n, rows, given.ways.split(","), max(500, max(volumes)), given.seed)
                print(f"== {made.name}, {rows} candidates", flush=True)
                found = compare(made, (), given.seeds, given.out, left, lambda line: print(f"{time.strftime('%H:%M:%S')} {line}", flush=True))
                parts.append((f"{task}, n = {made.name.split('-')[1]}", rows, found))
            write_page(ROOT / f"docs/results/{name}.md", page(parts) + f"\n![Held-out loss by kept rows]({name}.svg)\n" * (len(volumes) > 1))
            if len(volumes) > 1:
                curves(parts, ROOT / f"docs/results/{name}.svg")


if __name__ == "__main__":
    main()

"""Ways to grow a training set from very few rows: task x n x way, on seedling, in order of priority until the hours are over.

python benchmarks/lowrow.py --data FOLDER [--tasks slurp20,helpdesk,gsm8k] [--n 32,128,512] [--rows 1000] [--seeds 3]
    [--seed 7] [--temperature 0.5] [--hours 2] [--out runs-lowrow]

n: real rows, a quarter of them dev. slurp20: SLURP's 20 most frequent intents; the tests are whole (SLURP, GSM8K: 1,500 rows at most). The loss
is in nats a token of 200 real rows that nothing has read, their labels given; contextual ways are also given each row's own embedding, so of them
it says how well they write a text that they are told of, not how probable the text is. Of classification tasks a classifier of the n rows names
the labels (`generate.relabel`), of every way alike, and the students learn its distribution. The way "real texts" (SLURP) has unlabelled training
texts in place of generated ones, a ceiling of what text can give. Writes
docs/results/lowrow.md and its curves. Run again, it goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import asked as command
from common import write_page
from sets import each_once, rows_of, written

from seedbed.compare import Compared, compare
from seedbed.data import load_sample
from seedbed.grow import step_names
from seedbed.recipe import Recipe, build
from seedbed.types import Sample, seed_for

ROOT = Path(__file__).resolve().parent.parent
TASKS: dict[str, dict[str, Any]] = {
    "slurp20": {"kind": "classification", "inputs": ["text"], "target": "label"},
    "helpdesk": {"kind": "classification", "inputs": ["message"], "target": "queue"},
    "gsm8k": {"kind": "plain", "inputs": ["question"]},
    "slurp": {"kind": "classification", "inputs": ["text"], "target": "label"},
    "boolq": {"kind": "plain", "inputs": ["question"]},
    "webnlg": {"kind": "plain", "inputs": ["text"]},
}
TOKENS = {"helpdesk": 64, "gsm8k": 112, "webnlg": 80}
MOST = 1500
HELD_OUT = 200
TEMPERATURE = 0.5
"""Of every way: at 1.0 a model of 5.5 M weights writes words that are none (LOG, 25 November)."""
STUDENTS = {"words": {"kind": "linear", "features": "tfidf"}, "minilm": {"kind": "linear", "features": "minilm"}}
FILTERS = [{"kind": "form"}, {"kind": "dedup"}, {"kind": "overlap"}]
SOFT: dict[str, Any] = {"kind": "soft", "tokens": 16, "epochs": 50}
WAYS: dict[str, dict[str, Any]] = {
    "amortised density": {**SOFT, "prompt": "amortised", "contexts": "kernel", "spread": 0.2},
    "amortised sample": {**SOFT, "prompt": "amortised"},
    "amortised cover": {**SOFT, "prompt": "amortised", "cover": True},
    "amortised select": {**SOFT, "prompt": "amortised"},
    "amortised-lora": {**SOFT, "prompt": "amortised-lora"},
    "mc": {**SOFT, "prompt": "mc"},
    "nsp": {**SOFT, "prompt": "nsp"},
    "finetune": {"kind": "finetune", "epochs": 10},
    "few-shot": {"kind": "hard", "shots": 3},
    "mp": {**SOFT, "prompt": "mp"},
    "real texts": {"kind": "hard"},
}
REQUIRED = ("amortised density", "amortised sample", "amortised-lora", "mc", "nsp", "finetune", "few-shot")


def prepared(data: Path, work: Path, task: str) -> dict[str, Any]:
    """The [sample] section; texts stand once, and none of test is in the training rows."""
    if task == "helpdesk":
        return {"path": str(ROOT / "examples/helpdesk.csv"), "test_share": 0.3}
    splits = {split: rows_of(data, "slurp" if task == "slurp20" else task, split) for split in ("test", "train")}
    if task == "slurp20":
        top = {label for label, _ in Counter(r["label"] for r in splits["train"]).most_common(20)}
        splits = {split: [r for r in rows if r["label"] in top] for split, rows in splits.items()}
    return written(work, task, each_once(splits, str(TASKS[task]["inputs"][0]), MOST))


def recipe_of(task: str, files: dict[str, Any], n: int, rows: int, ways: Sequence[str], temperature: float = TEMPERATURE, seed: int = 7) -> Recipe:
    labels = TASKS[task]["kind"] == "classification"
    arms = []
    for way in ways:
        settings = {**WAYS[way], "order": "label-first"} if way == "finetune" and labels else WAYS[way]
        # Three times as many candidates, of which as many as were asked for are chosen together.
        chosen = {"generate": {"count": 3 * rows}, "filter": [*FILTERS, {"kind": "select", "rows": rows}]} if way.endswith("select") else {}
        # A ceiling: unlabelled real texts in place of generated ones, labelled by the same classifier.
        chosen |= {"generate": {"count": 0}, "annotate": {"count": rows}} if way == "real texts" else {}
        for name, student in STUDENTS.items() if labels else [("", STUDENTS["minilm"])]:
            arms.append({"name": f"{way} {name}".strip(), "generator": settings, "student": student, **chosen})
    return build(
        {
            "name": f"{task}-{n}",
            "seed": seed,
            "sample": {**files, "rows": n, "dev_share": 0.25} | ({"pool": files["fit"]} if "real texts" in ways else {}),
            "task": TASKS[task],
            "engine": {"kind": "local", "slots": 128, "cache": 192},
            "generate": {"count": rows, "max_tokens": TOKENS.get(task, 48), "temperature": temperature, "top_p": 0.95, "relabel": labels},
            "annotator": [{"kind": "classifier"}] if labels else [],
            "filter": FILTERS,
            "metric": [{"kind": "mauve"}, {"kind": "memorisation"}],
            "gain": {"soft_labels": labels},
            "arm": arms,
        }
    )


def losses(made: Recipe, seeds: int, found: Compared) -> dict[str, list[float]]:
    """Way -> nats a token of HELD_OUT unused real rows, for each seed whose teacher is there. Kept in the comparison's folder."""
    path = found.folder / "held-out.json"
    known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    result: dict[str, list[float]] = {}
    for s in range(seeds):
        sample = load_sample(made.sample, made.task, seed_for(made.seed, "compare", s) if s else made.seed, made.base)
        for arm, own in made.arms:
            recipe = replace(own, seed=seed_for(own.seed, "compare", s) if s else own.seed)
            folder, way = found.folder / step_names(recipe, sample)["teacher"], _way(arm)
            if folder.is_dir() and own.generator.kind in ("soft", "finetune"):
                if folder.name not in known:
                    known[folder.name] = _loss(recipe, sample, folder)
                    path.write_text(json.dumps(known))
                result.setdefault(way, [None] * seeds)[s] = known[folder.name]  # type: ignore[list-item]
    return {way: [v for v in values if v is not None] for way, values in result.items()}


def _loss(recipe: Recipe, sample: Sample, folder: Path) -> float:
    import torch

    from seedbed.generators.steered import asked
    from seedbed.lm.decode import load_soft
    from seedbed.lm.embed import embed
    from seedbed.lm.finetune import merged
    from seedbed.lm.load import load
    from seedbed.lm.train import encode, mean_nll

    rows, task = random.Random(0).sample(sorted(sample.more, key=lambda e: e.id), HELD_OUT), sample.task
    adapter = folder / "adapter"
    lm = merged(recipe.model.name, adapter, torch.float32, "cpu") if adapter.is_dir() else load(recipe.model.name)
    texts = [encode(lm, asked(task, e.fields)) for e in rows]
    if recipe.generator.kind == "finetune":
        return mean_nll(lm, None, None, texts)
    form = json.loads((folder / "prompt.json").read_text())["form"]
    shown = [task.body(e.fields) if form.startswith("amortised") else task.render(e.fields) for e in rows]
    net = load_soft(folder, lm.hash, lm.device).net
    return mean_nll(lm, net, torch.from_numpy(embed(shown)), texts)


def _way(arm: str) -> str:
    return next(way for way in sorted(WAYS, key=len, reverse=True) if arm.startswith(way))


def page(parts: dict[tuple[str, int], tuple[Compared, dict[str, list[float]]]], ways: Sequence[str], missing: Sequence[str]) -> str:
    cpu = next(line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    lines = [
        f"# From very few rows, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"Command: `{command()}`. Machine: {len(os.sched_getaffinity(0))} cores, {cpu}, shared with other work. Teacher: seedling.",
        "n counts fit and dev (a quarter). loss: nats a token of 200 unused real rows, mean over seeds (each); mc, mp and both amortised: given",
        "each row's own embedding, so only these compare with one another in it. Gain: accuracy of real + synthetic less real only, points, with",
        "its 95 % interval over test rows and seeds, at equal kept rows (beside it: of all that each way kept). words: TF-IDF + logistic",
        "regression; minilm: frozen MiniLM + logistic regression. Labels: a MiniLM classifier of the n rows names them in every arm, and students",
        "learn its distribution. behind: points of accuracy that the best way of the student is ahead, in pairs on the same test rows and seeds;",
        "their 95 % intervals hold for all pairs of ways together.",
        "real rows: the same numbers on real rows at equal n. Kept: of every seed, of the rows asked for.",
        "",
        "![Loss on unused real rows](lowrow-loss.svg)",
        "",
        "![Gain](lowrow-gain.svg)",
        "",
    ]
    for (task, n), (found, loss) in parts.items():
        lines += [f"## {task}, n = {n}", ""]
        reals = [r for r in found.rows if r["arm"] == "real only" and r["mean"] is not None]
        named = zip(STUDENTS, reals, strict=False)
        lines += [f"Real rows alone: {', '.join(f'{name} {_score(r)}' for name, r in named) or '-'}.", ""]
        lines += ["| way | seeds | loss | kept | mmd | mauve | verbatim | gain, words | all kept | behind | gain, minilm | all kept | behind |"]
        lines += ["|" + "---|" * 13]
        for way in ways:
            arms = {r["arm"].removeprefix(way).strip(): r for r in found.rows if r["mode"] != "-" and _way(r["arm"]) == way}
            first = next(iter(arms.values()), None)
            if first is None:
                continue
            cells = [_mean(loss.get(way, [])), ", ".join(map(str, first.get("kept", []))) or "-"]
            cells += [_measure(first, name) for name in ("mmd", "mauve", "verbatim_rate")]
            cells += [_gain(arms.get(name), of) for name in STUDENTS for of in ("gain", "all_gain", "behind")]
            lines.append(f"| {way} | {len(first.get('kept', []))} | {' | '.join(cells)} |")
        first = next((r for r in found.rows if r["measures"]), None)
        if first:
            cells = [_number((first["measures"].get(name) or {}).get("real")) for name in ("mmd", "mauve", "verbatim_rate")]
            lines.append(f"| real rows | | | | {' | '.join(cells)} | | | | | | |")
        notes = dict.fromkeys(
            f"- {_way(r['arm'])}: {r['note']}" for r in found.rows if r["note"] and r["mode"] != "-" and "plain task" not in r["note"]
        )
        lines += ["", *(f"- {said}" for said in found.best), *notes, ""]
    return "\n".join([*lines, *([f"Not measured: {'; '.join(missing)}.", ""] if missing else [])])


def _score(row: dict[str, Any]) -> str:
    return f"{row['mean']:.1f} ({row['low']:.1f} to {row['high']:.1f})"


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.3f} ({', '.join(f'{v:.3f}' for v in values)})" if values else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _measure(row: dict[str, Any], name: str) -> str:
    m = row["measures"].get(name) or {}
    return "-" if m.get("value") is None else _number(m["value"]) + ("" if m["low"] is None else f" ({m['low']:.4f} to {m['high']:.4f})")


def _gain(row: dict[str, Any] | None, of: str = "gain") -> str:
    if row is None or row.get(of) is None:
        return "best" if row is not None and row["best"] and of == "behind" else "-"
    return f"{row[of]:+.1f} ({row[f'{of}_low']:+.1f} to {row[f'{of}_high']:+.1f})"


def curves(parts: dict[tuple[str, int], tuple[Compared, dict[str, list[float]]]], ways: Sequence[str]) -> None:
    """docs/results/lowrow-loss.svg and lowrow-gain.svg: a panel a task, n across."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "lowrow"
    tasks = list(dict.fromkeys(task for task, _ in parts))
    for name in ("loss", "gain"):
        shown = [t for t in tasks if name == "loss" or TASKS[t]["kind"] == "classification"]
        if not shown:
            continue
        figure, axes = plt.subplots(1, len(shown), figsize=(4.2 * len(shown), 3.4), squeeze=False)
        for panel, task in zip(axes[0], shown, strict=True):
            for i, way in enumerate(ways):
                points = []
                for (t, n), (found, loss) in parts.items():
                    rows = [r for r in found.rows if r["mode"] != "-" and _way(r["arm"]) == way and r["arm"].endswith("words")]
                    value = sum(v) / len(v) if name == "loss" and (v := loss.get(way)) else rows[0]["gain"] if name == "gain" and rows else None
                    points += [(n, value)] if t == task and value is not None else []
                points.sort()
                panel.plot(*zip(*points, strict=True), marker="osv^DPX*<>"[i], label=way) if points else None
            panel.set_title(task)
            panel.set_xscale("log")
            panel.set_xlabel("real rows (fit + dev)")
            panel.set_ylabel("nats a token, unused real rows" if name == "loss" else "gain in accuracy, words (points)")
        handles = dict(zip(*reversed(next(p for p in axes[0]).get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=4, frameon=False, fontsize=8)
        figure.tight_layout(rect=(0, 0.1, 1, 1))
        figure.savefig(ROOT / f"docs/results/lowrow-{name}.svg", metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", default="slurp20,helpdesk,gsm8k")
    parser.add_argument("--n", default="32,128,512")
    parser.add_argument("--ways", default=",".join(REQUIRED))
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7, help="another one: other draws of fit and dev, other teachers; the same test")
    parser.add_argument("--temperature", type=float, default=TEMPERATURE, help="of every way")
    parser.add_argument("--hours", type=float, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs-lowrow"))
    given = parser.parse_args()
    end = None if given.hours is None else time.monotonic() + 3600 * given.hours
    ways, parts, missing = given.ways.split(","), {}, []
    cells = [(s, int(n), task) for s in range(1, given.seeds + 1) for n in given.n.split(",") for task in given.tasks.split(",")]
    for seeds, n, task in cells:
        left = None if end is None else (end - time.monotonic()) / 3600
        if left is not None and left <= 0:
            missing.append(f"{task}, n = {n}, seed {seeds}: stopped at --hours {given.hours:g}")
            continue
        try:
            made = recipe_of(task, prepared(given.data, given.out / "data", task), n, given.rows, ways, given.temperature, given.seed)
            sample_rows = load_sample(made.sample, made.task, made.seed, made.base)
        except Exception as error:  # a set that has not so many rows is a missing cell, not the end
            missing.append(f"{task}, n = {n}: {error}")
            continue
        print(f"== {made.name}, {seeds} seeds, {len(sample_rows.test)} test rows", flush=True)
        found = compare(made, (), seeds, given.out, left, lambda line: print(f"{time.strftime('%H:%M:%S')} {line}", flush=True))
        parts[task, n] = (found, losses(made, seeds, found))
        ordered = dict(sorted(parts.items(), key=lambda part: (given.tasks.split(",").index(part[0][0]), part[0][1])))
        write_page(ROOT / "docs/results/lowrow.md", page(ordered, ways, missing))
        curves(ordered, ways)


if __name__ == "__main__":
    main()

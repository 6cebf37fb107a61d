"""CPU seconds and memory of whole runs as the rows grow: form, agreement with a TF-IDF classifier, exact and near duplicates and overlap on every
row, MAUVE, diversity, coverage and memorisation on equal draws. Ratio: the rise of rows over the rise of CPU seconds, from the second smallest run
of the toy engine to the largest: 1 is linear. `--million` adds a run of 1,000,000 rows. Writes docs/results/scale.svg and scale.md where it is not
--quick."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import child, peak_bytes, report, write_page

ROOT = Path(__file__).resolve().parent.parent
SLURP = ROOT.parent / "shared/data/slurp/train.jsonl.gz"
LARGE = f"""
fit = "{SLURP}"
dev_share = 0.45
test_share = 0.005
[task]
kind = "classification"
inputs = ["text"]
target = "scenario"
"""
"""6,300 rows of fit and 5,200 of dev and test, so that draws are of 5,000; under 100 of test, so that no student is trained."""
SMALL = f"""
path = "{ROOT}/examples/helpdesk.csv"
test_share = 0.1
[task]
kind = "classification"
inputs = ["message"]
target = "queue"
"""
RECIPE = """
name = "scale"
seed = 7
[sample]
{sample}
[engine]
kind = "{engine}"
[generator]
{generator}
[generate]
count = {count}
max_tokens = {tokens}
[[annotator]]
kind = "classifier"
features = "tfidf"
[[filter]]
kind = "dedup"
[[filter]]
kind = "overlap"
[[filter]]
kind = "form"
[[filter]]
kind = "agreement"
[[metric]]
kind = "memorisation"
[[metric]]
kind = "mauve"
draws = 1
[[metric]]
kind = "diversity"
[[metric]]
kind = "coverage"
"""
HEAD = """# Cost as the rows grow

`python benchmarks/scale.py --million`: whole runs; exact and near duplicates, overlap, form and agreement with a TF-IDF classifier on every
row, MAUVE, diversity, coverage and memorisation on equal draws of 5,200 rows a side at most.
CPU seconds of one thread. A row more: between this run and the one before it.

![plot](scale.svg)
"""
ENGINES = {
    "toy": {"generator": 'kind = "hard"\nshots = 2', "tokens": 80},
    "local": {"generator": 'kind = "soft"\nprompt = "nsp"\nepochs = 5', "tokens": 64},
}
"""A model as small as seedling writes rows of the right form behind a soft prompt alone; few-shot, none of 1,000 had it."""


def one(engine: str, count: int, large: bool) -> None:
    """A run of so many rows; prints what it took. large: on SLURP, else on the shipped example."""
    from seedbed.recipe import load
    from seedbed.run import run

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scale.toml"
        path.write_text(RECIPE.format(sample=LARGE if large else SMALL, engine=engine, count=count, **ENGINES[engine]))
        start = time.process_time()
        done = run(load(path), folder)
        seconds, peak = time.process_time() - start, peak_bytes()
        steps = json.loads((done.folder / "manifest.json").read_text())["seconds"]
        alone = _engine(done.folder, load(path)) if engine == "toy" else 0.0
    counts = done.scores["counts"]
    print(json.dumps({"engine": engine, "rows": count, "cpu": seconds, "engine_ms": alone, "kept": counts["kept"], "peak": peak, "steps": steps}))


def _engine(folder: Path, recipe: Any) -> float:
    """CPU milliseconds of the toy engine for one of the run's prompts."""
    from seedbed.data import load_sample

    sample = load_sample(recipe.sample, recipe.task, recipe.seed, recipe.base)
    teacher = recipe.generator.settings.load(next(folder.glob("teacher-*")), sample.task, recipe.model.name)
    prompts = [(row.index, teacher.prompt(row)) for row in teacher.rows(sample, 1000, 0)]
    start = time.process_time()
    for _ in recipe.engine.settings.open(teacher.model).complete(prompts, recipe.generate.sampling):
        pass
    return 1e3 * (time.process_time() - start) / len(prompts)


def main() -> None:
    quick = "--quick" in sys.argv
    large = SLURP.is_file() and not quick
    counts = [300, 1_000, 3_000] if quick else [1_000, 10_000, 100_000] + [1_000_000] * ("--million" in sys.argv)
    plan = [("toy", n) for n in counts] + ([] if quick else [("local", n) for n in (1_000, 10_000)])
    runs = []
    for engine, count in plan:
        runs.append(child(__file__, "--rows", engine, str(count), *(["--large"] if large and engine == "toy" else [])))
        print(json.dumps(runs[-1]), flush=True)
    if not quick:
        write(runs)
    toy = [r for r in runs if r["engine"] == "toy"]
    first, last = toy[-2], toy[-1]
    rise = (last["rows"] / first["rows"]) / (last["cpu"] / first["cpu"])
    report("scale", rise, 0.9, 1, rise, rise, runs=runs, **slope(first, last))


def slope(first: dict[str, Any], last: dict[str, Any]) -> dict[str, float]:
    """What one row more costs, between two runs: CPU milliseconds, of these beside the engine, and bytes at the peak."""
    rows = last["rows"] - first["rows"]
    a_row = 1e3 * (last["cpu"] - first["cpu"]) / rows
    return {"ms_a_row": a_row, "ms_beside_engine": a_row - last["engine_ms"], "bytes_a_row": (last["peak"] - first["peak"]) / rows}


def write(runs: list[dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
    lines = []
    for engine, name in (("toy", "toy"), ("local", "seedling")):
        mine = [r for r in runs if r["engine"] == engine]
        rows = [r["rows"] for r in mine]
        axes[0].loglog(rows, [r["cpu"] for r in mine], "o-", label=name)
        axes[1].semilogx(rows, [r["peak"] / 1e9 for r in mine], "o-", label=name)
        for before, r in zip([None, *mine], mine, strict=False):
            more = slope(before, r) if before else None
            a_row = f"{more['ms_a_row']:.2f} | {more['ms_beside_engine']:.2f}" if more and engine == "toy" else "- | -"
            lines.append(f"| {name} | {r['rows']:,} | {r['kept']:,} | {r['cpu']:.0f} | {a_row} | {r['peak'] / 1e9:.2f} |")
    for ax, label, top in zip(axes, ("CPU seconds", "peak memory, GB"), (None, 3), strict=True):
        ax.set(xlabel="generated rows", ylabel=label)
        if top:
            ax.set_ylim(0, top)
    axes[0].legend()
    folder = ROOT / "docs/results"
    figure.savefig(folder / "scale.svg", metadata={"Date": None})
    head = "| engine | rows | kept | CPU seconds | ms a row more | of these beside the engine | peak GB |\n|---|---|---|---|---|---|---|"
    write_page(folder / "scale.md", "\n".join([HEAD, head, *lines]))


if __name__ == "__main__":
    if "--rows" in sys.argv:
        one(sys.argv[2], int(sys.argv[3]), "--large" in sys.argv)
    else:
        main()

"""CPU seconds and memory of whole runs as the rows grow (toy engine, plain text): linear time and flat memory a row. Ratio: the rise of rows
over the rise of seconds, from the second smallest run to the largest. Writes docs/results/scale.svg and scale.md where it is not --quick."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from common import child, peak_bytes, quick, report

ROOT = Path(__file__).parent.parent
RECIPE = """
name = "scale"
seed = 7
[sample]
path = "{root}/examples/helpdesk.csv"
[task]
kind = "plain"
inputs = ["message"]
[engine]
kind = "toy"
order = 4
[generator]
kind = "hard"
shots = 1
[generate]
count = {count}
max_tokens = 80
[[filter]]
kind = "dedup"
[[filter]]
kind = "overlap"
[[metric]]
kind = "memorisation"
"""


def one(count: int) -> None:
    """A run of so many rows; prints {"rows", "seconds", "kept", "peak", "steps"}."""
    from seedbed.recipe import load
    from seedbed.run import run

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scale.toml"
        path.write_text(RECIPE.format(root=ROOT.resolve(), count=count))
        start = time.process_time()
        done = run(load(path), folder)
        seconds = time.process_time() - start
        steps = json.loads((done.folder / "manifest.json").read_text())["seconds"]
    print(json.dumps({"rows": count, "seconds": seconds, "kept": done.scores["counts"]["kept"], "peak": peak_bytes(), "steps": steps}))


def main() -> None:
    counts = (300, 1_000, 3_000) if quick() else (1_000, 10_000, 100_000)
    runs = []
    for count in counts:
        runs.append(child(__file__, "--rows", str(count)))
        print(json.dumps(runs[-1]), flush=True)
    if not quick():
        _write(runs)
    first, last = runs[-2], runs[-1]
    rise = (last["rows"] / first["rows"]) / (last["seconds"] / first["seconds"])
    bytes_a_row = (last["peak"] - first["peak"]) / (last["rows"] - first["rows"])
    report("scale", rise, 0.9, 1, rise, rise, runs=runs, bytes_a_row=bytes_a_row)


def _write(runs: list[dict[str, float]]) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
    rows = [r["rows"] for r in runs]
    axes[0].loglog(rows, [r["seconds"] for r in runs], "o-")
    axes[1].semilogx(rows, [r["peak"] / 1e6 for r in runs], "o-")
    axes[1].set_ylim(0)
    for ax, label in zip(axes, ("CPU seconds", "peak memory, MB"), strict=True):
        ax.set(xlabel="generated rows", ylabel=label)
    folder = ROOT / "docs/results"
    figure.savefig(folder / "scale.svg", metadata={"Date": None})
    lines = [f"| {r['rows']:,} | {r['kept']:,} | {r['seconds']:.1f} | {1e3 * r['seconds'] / r['rows']:.2f} | {r['peak'] / 1e6:.0f} |" for r in runs]
    head = ["# Cost as the rows grow", "", "Command: `python benchmarks/scale.py` (toy engine, dedup, overlap, memorisation). ![plot](scale.svg)", ""]
    (folder / "scale.md").write_text("\n".join([*head, "| rows | kept | CPU seconds | ms a row | peak MB |", "|---|---|---|---|---|", *lines, ""]))


if __name__ == "__main__":
    if "--rows" in sys.argv:
        one(int(sys.argv[2]))
    else:
        main()

"""How near `seedbed estimate` comes to the run itself: both in fresh processes, step by step, as one line of Markdown a step.

python benchmarks/estimate.py RECIPE [KEY=VALUE ...] [--processor]

--processor counts processor time of one thread instead of wall time, for a machine that does other work too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ESTIMATE = """
import json, sys, time
from types import SimpleNamespace
from seedbed import estimate, load_recipe
if sys.argv[3:4] == ["--processor"]:
    estimate.time = SimpleNamespace(perf_counter=time.process_time, monotonic=time.monotonic)
    estimate.TRIAL_S = 60.0
start = time.process_time() if estimate.TRIAL_S > 10 else time.perf_counter()
found = estimate.estimate(load_recipe(sys.argv[1], json.loads(sys.argv[2])), "nothing-there").to_json()
now = time.process_time() if estimate.TRIAL_S > 10 else time.perf_counter()
steps = {name: cost["seconds"] for name, cost in found["steps"].items()}
print(json.dumps(steps | {"itself": now - start, "memory": found["memory_bytes"], "disk": found["disk_bytes"]}))
"""
RUN = """
import json, resource, sys, tempfile, time
from pathlib import Path
from types import SimpleNamespace
from seedbed import load_recipe
from seedbed.run import run as carry_out

clock = time.process_time if sys.argv[3:4] == ["--processor"] else time.perf_counter
sys.modules["seedbed.run"].time = SimpleNamespace(monotonic=clock)
with tempfile.TemporaryDirectory() as out:
    start = clock()
    done = carry_out(load_recipe(sys.argv[1], json.loads(sys.argv[2])), out)
    total = clock() - start
    seconds = json.loads((done.folder / ".seconds.json").read_text())
    seconds["report"] = total - sum(seconds.values())
    disk = sum(p.stat().st_size for p in done.folder.rglob("*") if p.is_file())
    training = done.folder / json.loads((done.folder / "manifest.json").read_text())["steps"]["teacher"] / "training.json"
    forms = json.loads(training.read_text())["forms"] if training.exists() else {}
    epochs = {form: row["log"][-1]["epoch"] for form, row in forms.items() if "log" in row}
    counts = done.scores["counts"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(seconds | {"memory": peak, "disk": disk, "epochs": epochs, "of": [counts["kept"], counts["candidates"]]}))
"""


def main() -> None:
    processor = ["--processor"] if "--processor" in sys.argv else []
    recipe, *sets = [a for a in sys.argv[1:] if a != "--processor"]
    guess, real = (_answer(code, recipe, sets, processor) for code in (ESTIMATE, RUN))
    steps = [name for name in guess if name in real and name not in ("memory", "disk")]
    name = Path(recipe).stem
    for step in steps:
        print(f"| {name} | {step} | {guess[step]:.1f} | {real[step]:.1f} | |")
    total, took = (sum(found[step] for step in steps) for found in (guess, real))
    print(f"| {name} | **together** | {total:.1f} | {took:.1f} | {100 * (total / took - 1):+.0f} % |")
    print(f"{name}: the estimate took {guess['itself']:.1f} s; memory {guess['memory'] / 1e9:.2f} of {real['memory'] / 1e9:.2f} GB; disk")
    print(f"{guess['disk'] / 1e6:.1f} of {real['disk'] / 1e6:.1f} MB; epochs {real['epochs']}; kept {real['of']}; load {os.getloadavg()[0]:.1f}")


def _answer(code: str, recipe: str, sets: list[str], processor: list[str]) -> dict[str, Any]:
    threads = {"OMP_NUM_THREADS": "1"} if processor else {}
    with tempfile.TemporaryFile() as errors:
        command = [sys.executable, "-c", code, recipe, json.dumps(sets), *processor]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | threads)
        if done.returncode:
            errors.seek(0)
            sys.exit(errors.read().decode())
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()

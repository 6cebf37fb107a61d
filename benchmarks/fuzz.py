"""A million broken inputs for readers, recipe reader and parsers: a value or a typed error, soon, never a traceback or a wrong exit status.

`python benchmarks/fuzz.py [--quick] [--only NAME,...] [--runs N] [--seed N]`. What must hold is in tests/fuzzing.py. Bytes are found by coverage
with atheris (libFuzzer) where it is installed, in a process for each target; nearly right inputs are drawn by hypothesis. Prints a line a target
and, last, one JSON object; exit status 1 where an input broke a law: it is then left as `crash-...` in the folder that is printed, or shown by
hypothesis.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
BYTES = {
    ".csv": 120_000, ".tsv": 20_000, ".jsonl": 80_000, ".json": 60_000, ".jsonl.gz": 20_000, "rows": 400_000, "written": 250_000,
    "programs": 30_000, "toml": 10_000, "commands": 2_000,
}  # fmt: skip
DRAWN = {"records": 10_000, "fields": 10_000, "changed": 3_000}
QUICK = 100
"""--quick: so many times fewer."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} times fewer inputs: the program works")
    parser.add_argument("--only", help="targets, separated by commas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, help="inputs of each target, instead of its own number")
    args = parser.parse_args()
    if args.one:
        return one(args.one, args.runs, args.seed)
    wanted = args.only.split(",") if args.only else [*BYTES, *DRAWN]
    found = [each(name, args.runs or {**BYTES, **DRAWN}[name] // (QUICK if args.quick else 1), args.seed) for name in wanted]
    total = {"inputs": sum(row["inputs"] for row in found), "failed": [row["target"] for row in found if row["failed"]]}
    print(json.dumps({"targets": found, **total}))
    return 1 if total["failed"] else 0


def each(name: str, runs: int, seed: int) -> dict[str, Any]:
    """One target in a process of its own: libFuzzer ends the process that it runs in."""
    start, folder = time.monotonic(), tempfile.mkdtemp(prefix="seedbed-fuzz-")
    command = [sys.executable, str(HERE), "--one", name, "--runs", str(runs), "--seed", str(seed)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "0"})
    counts = json.loads(found[-1]) if (found := re.findall(r"^COUNTS (.*)$", done.stdout, re.M)) else {}
    engine = "atheris" if name in BYTES and importlib.util.find_spec("atheris") else "hypothesis" if name in DRAWN else "bytes at random"
    row = {"target": name, "engine": engine, "inputs": runs if done.returncode == 0 else 0, "became": counts, "failed": done.returncode != 0}
    row["seconds"] = round(time.monotonic() - start)
    print(f"{name:12}{engine:18}{row['inputs']:>9,}  {row['seconds']:>5} s  {'FAILED, see ' + folder if row['failed'] else ''}", flush=True)
    if row["failed"]:
        print(f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}", file=sys.stderr)
    return row


def one(name: str, runs: int, seed: int) -> int:
    """Runs one target here."""

    sys.path.insert(0, str(HERE.parent.parent / "tests"))
    fuzzed = name in BYTES and importlib.util.find_spec("atheris")
    if fuzzed:
        import atheris

        with atheris.instrument_imports(include=["seedbed"]):
            import fuzzing
    else:
        import fuzzing
    if name in DRAWN:
        drawn(fuzzing.STRUCTURED[name], runs, seed)
    elif fuzzed:
        corpus = Path("corpus")
        corpus.mkdir()
        for i, data in enumerate(fuzzing.SEEDS[name]):
            (corpus / f"seed-{i}").write_bytes(data)
        # libFuzzer ends the process itself: what was counted is said at every thousandth input.
        atheris.Setup(
            [
                sys.argv[0],
                f"-runs={runs}",
                f"-seed={seed}",
                f"-max_len={max(400, *(2 * len(s) for s in fuzzing.SEEDS[name]))}",
                "-timeout=120",
                str(corpus),
            ],
            counting(fuzzing, name),
        )
        atheris.Fuzz()
    else:
        import random

        rng, run = random.Random(seed), counting(fuzzing, name)
        for _ in range(runs):
            run(rng.choice(fuzzing.SEEDS[name])[: rng.randrange(60)] + rng.randbytes(rng.randrange(20)))
    say(fuzzing)
    return 0


def counting(fuzzing: Any, name: str) -> Any:
    target, seen = fuzzing.TARGETS[name], [0]

    def run(data: bytes) -> None:
        target(data)
        seen[0] += 1
        if seen[0] % 1000 == 0:
            say(fuzzing)

    return run


def say(fuzzing: Any) -> None:
    print("COUNTS", json.dumps(dict(sorted(fuzzing.counted.items()))), flush=True)


def drawn(structured: Any, runs: int, seed: int) -> None:
    """Draws in parts: hypothesis keeps what it has tried."""
    import hypothesis

    law, strategies = structured
    quiet = {"deadline": None, "database": None, "suppress_health_check": list(hypothesis.HealthCheck), "print_blob": False}
    for part in range(0, runs, 1000):
        limited = hypothesis.settings(max_examples=min(1000, runs - part), **quiet)
        hypothesis.seed(seed + part)(limited(hypothesis.given(**strategies)(law)))()


if __name__ == "__main__":
    sys.exit(main())

"""Runs every benchmark, one after the other, and writes docs/results/bench-DATE.md (bench-DATE-quick.md with --quick)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common import ceilings, quick

HERE = Path(__file__).resolve().parent
PEERS = ("torch", "transformers", "peft", "accelerate", "sentence-transformers", "datasketch", "mauve-text", "faiss-cpu", "scikit-learn")


def main() -> None:
    small = ["--quick"] if quick() else []
    measured, failed, rows = ceilings(), [], []
    for script in sorted([*HERE.glob("speed_*.py"), *HERE.glob("memory_*.py"), *HERE.glob("scale.py")]):
        print(f"== {script.name}", flush=True)
        start = time.perf_counter()
        found = _run([sys.executable, str(script), *small])
        if found is None:
            failed.append(script.name)
        else:
            rows.append(_row(found, script.name, time.perf_counter() - start))
    place = HERE.parent / "docs/results" / f"bench-{datetime.now(UTC):%Y-%m-%d}{'-quick' if small else ''}.md"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(_page(measured, rows, failed, bool(small)), encoding="utf-8")
    print(f"wrote {place.relative_to(HERE.parent)}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    sys.exit(1 if failed else 0)


def _run(command: list[str]) -> dict[str, Any] | None:
    """The JSON of the last line, shown while it runs; None where the benchmark failed or its results were not equal."""
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line
    return json.loads(last) if process.returncode == 0 and last.startswith("{") else None


def _row(found: dict[str, Any], script: str, seconds: float) -> str:
    shown = {"name", "ratio", "goal", "equal", "n", "low", "high", "quick", "load"}
    facts = "; ".join(f"{k} {json.dumps(v)}" for k, v in found.items() if k not in shown)
    reached = "yes" if found["ratio"] >= found["goal"] else "no"
    cells = [found["name"], found["ratio"], f"{found['low']} to {found['high']}", found["n"], found["goal"], reached, found["load"]]
    return f"| {' | '.join(map(str, cells))} | {facts}; `{script}` {seconds:.0f} s |"


def _page(measured: dict[str, float], rows: list[str], failed: list[str], small: bool) -> str:
    cpu = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("model name", "flags"))]
    fast = " ".join(flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in cpu[1].split())
    return "\n".join(
        [
            f"# Speed, {datetime.now(UTC):%Y-%m-%d}" + (" (quick)" if small else ""),
            "",
            f"Command: `make bench{' QUICK=1' if small else ''}`. Both sides run by turns; ratio: median over rounds of the peer's time over ours",
            "(above 1: ours is better), 95 % bootstrap over rounds; every benchmark checks that results are equal before it times."
            + (" Quick sizes: the goals are meant for the full ones." if small else ""),
            "",
            f"Machine: {len(os.sched_getaffinity(0))} cores, {cpu[0]} ({fast}). Ceilings: "
            + ", ".join(f"{k} {v}" for k, v in measured.items())
            + ".",
            "Versions: " + ", ".join(f"{name} {version(name)}" for name in PEERS) + ".",
            "",
            "| name | ratio | interval | n | goal | reached | load | more |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            *([f"\nFailed, or results not equal: {', '.join(failed)}."] if failed else []),
            "",
        ]
    )


if __name__ == "__main__":
    main()

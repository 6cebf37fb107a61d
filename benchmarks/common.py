"""The harness of every speed benchmark: equality first, then rounds of A and B by turns, then one JSON object on the last line.

A benchmark is a script `benchmarks/NAME.py [--quick]`; seconds are wall time. A ratio above 1 says that ours is so many times better.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DRAWS = 2000


def quick() -> bool:
    """Whether --quick was given: smaller inputs, fewer rounds; the goal is meant for the full size."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller inputs, fewer rounds")
    return bool(parser.parse_args().quick)


def race(
    name: str,
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    check: Callable[[Any, Any], str],
    *,
    goal: float,
    rounds: int,
    units: Callable[[Any], float] = lambda _: 1.0,
    **facts: Any,
) -> None:
    """Times ours and the peer by turns and reports how many times faster ours is.

    A first round warms both up, untimed, and its results go to `check`, which raises AssertionError where they are not equal and says
    what was found where they are. units: what a result is counted in (tokens, rows) where both sides do not make equally many; seconds
    are then seconds a unit. facts: what else the report should say.
    """
    print(f"{name}: equal: {check(ours(), peer())}", flush=True)
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    cpu: dict[str, list[float]] = {"ours": [], "peer": []}  # of all threads: what a busy machine disturbs less
    for done in range(rounds):
        for side, work in (("ours", ours), ("peer", peer)):
            start, used = time.perf_counter(), time.process_time()
            result = work()
            seconds[side].append((time.perf_counter() - start) / units(result))
            cpu[side].append((time.process_time() - used) / units(result))
        print(f"round {done + 1}: ours {seconds['ours'][-1]:.4g} s, peer {seconds['peer'][-1]:.4g} s", flush=True)
    ratio, low, high = interval([b / a for a, b in zip(seconds["ours"], seconds["peer"], strict=True)])
    medians = {f"{side}_seconds": statistics.median(values) for side, values in seconds.items()}
    spread = {f"{side}_range": [min(values), max(values)] for side, values in seconds.items()}
    facts["cpu_ratio"] = interval([b / a for a, b in zip(cpu["ours"], cpu["peer"], strict=True)])[0]
    report(name, ratio, goal, rounds, low, high, **medians, **spread, **facts)


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """(median, low, high): the ratios of neighbouring turns, bootstrap over rounds, 95 %. Pairs, so that a slower minute hits both sides."""
    picks = np.random.default_rng(0).integers(len(ratios), size=(DRAWS, len(ratios)))
    low, high = np.percentile(np.median(np.array(ratios)[picks], axis=1), [2.5, 97.5])
    return statistics.median(ratios), float(low), float(high)


def report(name: str, ratio: float, goal: float, n: int, low: float, high: float, **facts: Any) -> None:
    """Prints the last line. n: rounds. Call it only after results were found equal."""
    numbers = {"name": name, "ratio": ratio, "goal": goal, "equal": True, "n": n, "low": low, "high": high, **facts}
    numbers |= {"quick": "--quick" in sys.argv, "load": os.getloadavg()[0]}
    print(json.dumps(json.loads(json.dumps(numbers), parse_float=lambda digits: float(f"{float(digits):.4g}"))), flush=True)


def peak_bytes() -> int:
    """The most memory this process has held (VmHWM, which unlike ru_maxrss forgets what the parent held before exec)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def child(*args: str) -> dict[str, Any]:
    """Runs `python ARGS` on its own, e.g. a benchmark with a side's name; the JSON of its last line, which may hold its peak_bytes(), with
    "wall_seconds" of the whole process and "cpu_seconds" added."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, *args], stdout=subprocess.PIPE, text=True, check=True)
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    lines = done.stdout.strip().splitlines()
    found = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return {**found, "wall_seconds": wall, "cpu_seconds": cpu}


LOADED = [
    *("seedbed.run", "seedbed.cli", "seedbed.lm.classify", "seedbed.report.plots", "seedbed.annotators.classifier", "seedbed.engines.openai"),
    *("huggingface_hub.repocard", "matplotlib.backends.backend_svg", "openai", "pyarrow.parquet", "sklearn.linear_model", "torch"),
    *("seedbed.lm.train", "seedbed.engines.local", "transformers.models.bert.modeling_bert", "transformers.models.llama.modeling_llama"),
]
"""What runs import; of transformers the two that ship, seconds each."""


def started(work: Callable[..., None], *what: Any) -> Any:
    """work(*what) in a process of its own, whose imports (LOADED) are there already. A process that was started so starts others by a fork: it has
    come from the fork server itself, and has no threads yet."""
    if multiprocessing.parent_process():
        process: Any = multiprocessing.get_context("fork").Process(target=work, args=what)
    else:
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload(LOADED)
        process = server.Process(target=work, args=what)
    process.start()
    return process


def ceilings(threads: tuple[int, ...] = (1, 2)) -> dict[str, float]:
    """What the machine can do: GFLOP/s of a 2048^3 matmul in fp32 and bf16, GB/s of a copy that fits no cache (read + write); best of 5."""
    import torch

    def best(work: Callable[[], Any]) -> float:
        times = []
        for _ in range(6):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times[1:])

    found, before = {}, torch.get_num_threads()
    source = torch.ones(1 << 28)
    target = torch.empty_like(source)
    for count in threads:
        torch.set_num_threads(count)
        for label, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            a, b = (torch.randn(2048, 2048, dtype=dtype) for _ in range(2))
            found[f"{label} GFLOP/s, {count} threads"] = round(2 * 2048**3 / best(lambda a=a, b=b: a @ b) / 1e9)
        found[f"memory GB/s, {count} threads"] = round(2 * source.nbytes / best(lambda: target.copy_(source)) / 1e9, 1)
    torch.set_num_threads(before)
    return found


SAYS = "## What it says"


def write_page(place: Path, tables: str) -> None:
    """Tables into a page of results; what was written by hand below them, from SAYS on, stays."""
    before = place.read_text(encoding="utf-8") if place.exists() else ""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(tables.rstrip("\n") + "\n" + (f"\n{before[before.index(SAYS) :]}" if SAYS in before else ""), encoding="utf-8")
    print(f"wrote {place.name}", flush=True)


def asked() -> str:
    """The command line of a benchmark, without this machine's paths."""
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *("DATA" if a.startswith(("/", "..")) else a for a in sys.argv[1:])])


if __name__ == "__main__":
    print(json.dumps(ceilings()))

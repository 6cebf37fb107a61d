"""Runs that are killed, that run out of disk, whose files are damaged, whose clock jumps, that are started twice, on one machine and on Ray: the
final rows against those of a run that nothing happened to."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

from common import started  # noqa: E402
from faults import Section  # noqa: E402

from seedbed import recipe as recipes  # noqa: E402
from seedbed.errors import StoreError  # noqa: E402
from seedbed.limits import Limits  # noqa: E402
from seedbed.run import run  # noqa: E402

RAW: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "sample": {"path": "examples/helpdesk.csv", "rows": 150, "test_share": 0.1},
    "task": {"kind": "classification", "inputs": ["message"], "target": "queue"},
    "engine": {"kind": "toy"},
    "generator": {"kind": "hard", "shots": 2},
    "generate": {"count": 700, "max_tokens": 160, "temperature": 0.7},
    "annotator": [{"kind": "classifier", "features": "tfidf"}],
    "filter": [{"kind": "form"}, {"kind": "dedup"}, {"kind": "overlap"}, {"kind": "agreement"}],
    "metric": [],
    "gain": {"volumes": [0.5]},
}
"""Two parts of candidates, and every step but the gain, which needs 100 test rows."""
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
FULL = {"killed_here": 200, "damaged": 60, "disk_full": 12, "clock": 4, "twice": 5, "killed_driver": 8, "killed_worker": 12, "killed_node": 4}
QUICK = {"killed_here": 3, "damaged": 4, "disk_full": 1, "clock": 1, "twice": 1, "killed_driver": 0, "killed_worker": 1, "killed_node": 0}
"""How often each is done."""
Trial = Callable[[Path, dict[str, bytes], int], Counter[str]]
PATHS = ("recipe.toml", "dataset/README.md")
"""What says where the recipe's file is."""
TIMINGS = {"manifest.json", ".seconds.json", "report.html", ".lock"}


def measure(quick: bool, share: float = 1.0, only: tuple[str, ...] = ()) -> Section:
    """share: of the full counts. only: trials, by their functions' names; all where empty. As many at once as there are processors, those on Ray
    one after the other, for they find each other's processes."""
    moments = QUICK if quick else {key: max(1, round(share * count)) for key, count in FULL.items()}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        started(carry_out, str(work / "whole")).join()
        whole = snapshot(work / "whole")
        trials: dict[str, Trial] = {
            "kill -9 of the process, again and again until it ends": killed_here, "a part or the journal truncated, or a bit of it flipped": damaged,
            "the disk is full": disk_full, "the clock set back by years": clock, "a second run in the same folder": twice,
        }  # fmt: skip
        if ray_is_there():
            trials |= {"on Ray: kill -9 of the process that writes": killed_driver, "on Ray: kill -9 of a hand": killed_worker}
            trials |= {"on Ray: a node of three killed": killed_node}
        chosen = {title: trial for title, trial in trials.items() if moments[trial.__name__] and (not only or trial.__name__ in only)}
        on_ray = [trial for title, trial in chosen.items() if title.startswith("on Ray")]
        alone = [[trial] for title, trial in chosen.items() if not title.startswith("on Ray")]

        def carry(some: list[Trial]) -> dict[str, Counter[str]]:
            return {t.__name__: _apart(t, work / t.__name__, whole, moments[t.__name__]) for t in some}

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = {name: counts for part in pool.map(carry, [on_ray, *alone]) for name, counts in part.items()}
    lines, facts, broken = ["| what happened | times | what followed | final rows are others |", "|---|---|---|---|"], {}, []
    for title, trial in chosen.items():
        key, counts = trial.__name__, found[trial.__name__]
        other = counts.pop("others", 0)
        followed = ", ".join(f"{what}: {n}" for what, n in sorted(counts.items()))
        lines.append(f"| {title} | {moments[key]} | {followed or '-'} | {other} |")
        facts[key] = {"times": moments[key], "others": other, **counts}
        broken += [f"{key}: {other} of {moments[key]} ended with other rows"] if other else []
    said = "Each is compared, byte for byte, with all that a run leaves to which nothing happened (700 rows of the toy engine; timings apart)."
    return Section("Runs", [said, "", *lines], facts, broken)


def carry_out(out: str, on: str = "here", tokens: int | None = None) -> None:
    import torch

    torch.set_num_threads(1)
    run(recipes.build(RAW, ROOT), out, on=on, limits=Limits(tokens=tokens))


def snapshot(out: Path) -> dict[str, bytes]:
    """The bytes of all that a run leaves, but timings."""
    folder = out / "tiny"
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in TIMINGS}


def others(out: Path, whole: dict[str, bytes], but: tuple[str, ...] = ()) -> int:
    """1 where something of the whole run is not there or not the same. A run that a limit cut leaves steps of its shorter self beside; of a part
    the rows count: of its footer a few bytes, such as who wrote it, are read by nobody."""
    found = snapshot(out)
    unlike = [name for name, content in whole.items() if name not in but and found.get(name) != content]
    return int(any(not name.endswith(".parquet") or _rows(found.get(name)) != _rows(whole[name]) for name in unlike))


def _rows(content: bytes | None) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return content and pq.read_table(pa.BufferReader(content)).to_pylist()


def _apart(trial: Trial, work: Path, whole: dict[str, bytes], count: int) -> Counter[str]:
    """The trial in a process of its own."""
    reader, writer = Pipe(duplex=False)
    process = started(_send, writer, trial, work, whole, count)
    writer.close()
    try:
        found: Counter[str] = reader.recv()
    except EOFError:
        raise RuntimeError(f"{trial.__name__} ended before it had an answer; see above") from None
    finally:
        process.join()
    print(f"{trial.__name__}: {dict(found)}", file=sys.stderr, flush=True)
    return found


def _send(writer: Any, trial: Trial, *what: Any) -> None:
    writer.send(trial(*what))


def _ended(process: Any) -> int:
    """Its exit status."""
    process.join()
    return int(process.exitcode)


def _command(out: str, on: str = "here", memory: int = 0) -> None:
    """The same run by the command line, in this process. memory: bytes that a file may have, where not 0."""
    import resource

    from seedbed.cli import main

    if memory:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (memory, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (for the rest of this process)
    sys.stderr = open(f"{out}.stderr", "w")  # noqa: SIM115
    sys.argv = ["seedbed", "run", f"{out}.toml", "--out", out, "--on", on]
    main()


def _recipe_file(out: Path) -> Path:
    """The recipe as the command line reads it."""
    path = out.with_suffix(".toml")
    named = RAW | {"sample": RAW["sample"] | {"path": str(ROOT / "examples/helpdesk.csv")}}
    path.write_text(recipes.build(named, ROOT).to_toml())
    return path


def _shell(out: Path, prefix: dict[str, str], *flags: str) -> subprocess.Popen[str]:
    """The same run by the command line, where its environment must be another."""
    path = _recipe_file(out)
    command = [sys.executable, "-m", "seedbed.cli", "run", str(path), "--out", str(out), *flags]
    return subprocess.Popen(command, env=os.environ | prefix, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _killed(
    work: Path, whole: dict[str, bytes], count: int, begin: Callable[[Path], Any], share: tuple[float, float], but: tuple[str, ...] = ()
) -> Counter[str]:
    """At random moments; a run that comes to its end is compared, and the next one begins. begin(out): the process of one. share: of the seconds of
    a whole run, the first and last moment to kill one."""
    found, rng, kills, out = Counter[str](), random.Random(11), 0, work / "out"
    start = time.monotonic()
    if _ended(begin(work / "first")):
        raise RuntimeError("a run fails here though nobody killed it")
    seconds = time.monotonic() - start
    while True:
        process = begin(out)
        process.join(rng.uniform(*share) * seconds if kills < count else None)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            continue
        found["runs that ended"] += 1
        found["others"] += _ended(process) or others(out, whole, but)
        if kills == count:
            return found
        shutil.rmtree(out)


def killed_here(work: Path, whole: dict[str, bytes], count: int) -> Counter[str]:
    return _killed(work, whole, count, lambda out: started(carry_out, str(out)), (0, 0.6))


def damaged(work: Path, whole: dict[str, bytes], count: int) -> Counter[str]:
    """Of a run that stands half way: refused by name, and then made anew; or made good without a word."""
    found, rng = Counter[str](), random.Random(5)
    carry_out(str(work / "half"), tokens=60_000)
    for i in range(count):
        out = work / str(i)
        shutil.copytree(work / "half", out)
        step = next((out / "tiny").glob("candidates-*.partial"))
        path = rng.choice(sorted([*step.glob("part-*.parquet"), *step.glob("journal.jsonl")]))
        content = bytearray(path.read_bytes())
        if rng.random() < 0.5:
            del content[rng.randrange(len(content)) :]
        else:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        try:
            carry_out(str(out))
            found["made good"] += 1
        except StoreError as error:
            named = re.search(r"Remove the folder (\S+) and run again", str(error))
            if not named:  # the one who reads it must know which
                raise
            found["refused, and right after its folder was removed"] += 1
            shutil.rmtree(out / "tiny" / Path(named[1]).name)
            carry_out(str(out))
        found["others"] += others(out, whole)
        shutil.rmtree(out)
    return found


def disk_full(work: Path, whole: dict[str, bytes], count: int) -> Counter[str]:
    """A tmpfs too small for the run, where this process may mount one, else a limit of file sizes; then there is room."""
    found, rng = Counter[str](), random.Random(7)
    for i in range(count):
        out = work / str(i)
        out.mkdir(parents=True)
        size = rng.randrange(30, 900) << 10
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(out)], capture_output=True).returncode == 0
        try:
            _recipe_file(out)
            code, said = _ended(started(_command, str(out), "here", 0 if mounted else size // 4)), Path(f"{out}.stderr").read_text()
            if code == 0:
                found["it was enough"] += 1
            elif code == 1 and "Traceback" not in said:
                found["exit 1 and a sentence"] += 1
            else:
                found["others"] += 1
                print(code, said[-2000:], file=sys.stderr)
            if mounted:
                subprocess.run(["mount", "-o", "remount,size=64m", str(out)], check=True)
            found["others"] += _ended(started(_command, str(out))) or others(out, whole, PATHS)
        finally:
            if mounted:
                subprocess.run(["umount", str(out)], check=True)
    return found


def clock(work: Path, whole: dict[str, bytes], count: int) -> Counter[str]:
    """Half of the run today, the rest as if it were years ago (libfaketime)."""
    found = Counter[str]()
    if not FAKETIME.exists():
        return Counter({"left out, libfaketime is not installed": count})
    for i in range(count):
        out = work / str(i)
        carry_out(str(out), tokens=20_000 * (i + 1))
        done = _shell(out, {"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"-{5 * (i + 1)}y", "DONT_FAKE_MONOTONIC": "1"}, "--replace")
        found["others"] += done.wait() or others(out, whole, PATHS)
        found["runs that ended"] += 1
    return found


def twice(work: Path, whole: dict[str, bytes], count: int) -> Counter[str]:
    """The second while the first is at work."""
    found = Counter[str]()
    for i in range(count):
        out = work / str(i)
        first = started(carry_out, str(out))
        while first.is_alive() and not list((out / "tiny").glob("candidates-*")):
            time.sleep(0.01)
        try:
            carry_out(str(out))
            found["the first had ended"] += 1
        except StoreError as error:
            found["refused" if "in use by another process" in str(error) else "others"] += 1
        first.join()
        found["others"] += others(out, whole) or first.exitcode
    return found


def ray_is_there() -> bool:
    import importlib.util

    return importlib.util.find_spec("ray") is not None


def killed_driver(work: Path, whole: dict[str, bytes], count: int) -> Counter[str]:
    """Of runs on a cluster of their own, which goes with them."""
    os.environ["RAY_ADDRESS"] = ""
    work.mkdir(parents=True)

    def begin(out: Path) -> Any:
        _recipe_file(out)
        return started(_command, str(out), "ray")

    return _killed(work, whole, count, begin, (0.2, 1.0), PATHS)


def _cluster(nodes: int) -> tuple[Any, list[Any]]:
    import ray
    from ray.cluster_utils import Cluster

    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (as Ray spells it)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    more = [made.add_node(num_cpus=1) for _ in range(nodes - 1)]
    ray.init(address=made.address, log_to_driver=False)
    return made, more


def _during(out: Path, whole: dict[str, bytes], after: int, do: Callable[[], None]) -> int:
    """A run on Ray in which `do` happens when so many answers have come; whether its rows are others."""
    from seedbed import fleet

    next_of, seen = fleet.Fleet._next, [0]

    def next_and(self: Any) -> Any:
        found = next_of(self)
        before, seen[0] = seen[0], seen[0] + len(found[1])
        if before <= after < seen[0]:
            do()
        return found

    fleet.Fleet._next = next_and  # type: ignore[method-assign]
    try:
        carry_out(str(out), on="ray")
    finally:
        fleet.Fleet._next = next_of  # type: ignore[method-assign]
    assert seen[0] > after
    return others(out, whole)


def hands() -> list[int]:
    """Processes of hands, as Ray titles them."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdigit() and (place / "cmdline").read_bytes().startswith(b"ray::_Worker"):
                found.append(int(place.name))
        except OSError:
            continue  # it has ended
    return found


def killed_worker(work: Path, whole: dict[str, bytes], count: int) -> Counter[str]:
    import ray

    found, rng = Counter[str](), random.Random(3)
    made, _ = _cluster(3)
    for i in range(count):
        found["others"] += _during(work / str(i), whole, rng.randrange(600), lambda: os.kill(rng.choice(hands()), signal.SIGKILL))
        found["runs that ended"] += 1
    ray.shutdown()
    made.shutdown()
    return found


def killed_node(work: Path, whole: dict[str, bytes], count: int) -> Counter[str]:
    import ray

    found, rng = Counter[str](), random.Random(4)
    made, nodes = _cluster(3)
    for i in range(count):
        found["others"] += _during(work / str(i), whole, rng.randrange(600), lambda: made.remove_node(nodes.pop(), allow_graceful=False))
        found["runs that ended"] += 1
        nodes.append(made.add_node(num_cpus=1))
    ray.shutdown()
    made.shutdown()
    return found


if __name__ == "__main__":
    sys.modules.setdefault("faults_runs", sys.modules["__main__"])
    wanted = argparse.ArgumentParser(description=__doc__)
    wanted.add_argument("--quick", action="store_true", help="fewer of everything")
    wanted.add_argument("--share", type=float, default=1.0, help="of the full counts")
    wanted.add_argument("--only", default="", help=f"of {', '.join(FULL)}, separated by commas")
    given = wanted.parse_args()
    section = measure(given.quick, given.share, tuple(filter(None, given.only.split(","))))
    print("\n".join(section.lines))
    print(json.dumps({"name": "faults_runs", "broken": section.broken, **section.facts}))

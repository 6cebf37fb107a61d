"""The same run with its rows completed by two hands of a Ray cluster here, against the run in this process; the cluster is there already. Needs the
extra `ray`. Goal: at least 0.8 of the speed, for a toy row costs less than a millisecond."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from common import quick, race

ROOT = Path(__file__).resolve().parent.parent
RAW: dict[str, Any] = {
    "name": "fleet",
    "seed": 7,
    "sample": {"path": "examples/helpdesk.csv", "test_share": 0.1},
    "task": {"kind": "classification", "inputs": ["message"], "target": "queue"},
    "engine": {"kind": "toy"},
    "generator": {"kind": "hard", "shots": 2},
    "generate": {"max_tokens": 160, "temperature": 0.7},
    "annotator": [{"kind": "classifier", "features": "tfidf"}],
    "filter": [{"kind": "form"}, {"kind": "dedup"}, {"kind": "overlap"}, {"kind": "agreement"}],
    "metric": [],
    "gain": {"seeds": 1, "volumes": []},
}


def main() -> None:
    import ray

    from seedbed import recipe as recipes
    from seedbed.run import run

    rows, rounds = (10_000, 3) if quick() else (100_000, 2)
    made = recipes.build(RAW | {"generate": RAW["generate"] | {"count": rows}}, ROOT)
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (as Ray spells it)
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as name:
        places: Iterator[int] = count()

        def on(where: str) -> list[bytes]:
            done = run(made, Path(name) / str(next(places)), on=where)
            return [path.read_bytes() for path in sorted(done.folder.glob("dataset/data/*"))]

        def check(a: list[bytes], b: list[bytes]) -> str:
            assert a == b
            return f"the dataset of {rows:,} rows, byte for byte"

        race("fleet", lambda: on("ray"), lambda: on("here"), check, goal=0.8, rounds=rounds, rows=rows)
    ray.shutdown()


if __name__ == "__main__":
    main()

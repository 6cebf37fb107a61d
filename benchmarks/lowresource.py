"""Kaddour and Liu (arXiv 2310.01119) on this machine: task x fraction x {real only, annotate, generate, annotate+generate, full real}.

python benchmarks/lowresource.py --data FOLDER [--tasks slurp,rte] [--fractions 0.05,0.1]
    [--arms "LM annotate,LM generate"] [--pool 2000] [--full 2000] [--tests 300] [--seeds 3] [--hours 2] [--out runs-lowresource]

The rest of the training rows, with its targets hidden, is the pool, 2,000 rows at most, but for --pool; so is "full real", but for --full. A folder
of OUT for each of these. --arms none: the lines of real rows alone. Tests and dev longer than 1,500 rows (text tasks: 300) are cut to a random part;
of a test --tests rows. Teachers: seedling, tuned by LoRA (text tasks: all its weights), and, for annotating and checking
labels, a MiniLM classifier; students are smaller: a logistic regression of words, or for texts the first two of seedling's six blocks. Writes every
table that OUT holds into docs/results/lowresource.md. Run again, it goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import asked, write_page
from sets import rows_of, written

from seedbed.compare import FULL_ROWS, compare
from seedbed.ranking import NO_RANK, table
from seedbed.recipe import build

ROOT = Path(__file__).resolve().parent.parent
POOL = 2000
LABELS: dict[str, dict[str, Any]] = {
    "slurp": {"kind": "classification", "inputs": ["text"], "target": "label"},
    "rte": {"kind": "pair", "inputs": ["premise", "hypothesis"], "target": "label"},
    "boolq": {"kind": "qa", "inputs": ["passage", "question"], "target": "label"},
    "multirc": {"kind": "qa", "inputs": ["passage", "question", "answer"], "target": "label", "group": "group"},
}
TEXTS: dict[str, dict[str, Any]] = {
    "webnlg": {"kind": "data2text", "inputs": ["triples"], "target": "text", "references": "references"},
    "sgd": {"kind": "data2text", "inputs": ["acts"], "target": "text"},
}
COUNT = {"slurp": 1500, "rte": 400, "boolq": 400, "multirc": 400, "webnlg": 1000, "sgd": 1000}
"""Candidates made anew."""
TOKENS = {"slurp": 48, "rte": 64, "boolq": 48, "multirc": 64, "webnlg": 96, "sgd": 64}
TEMPERATURE = 0.5
"""At 1.0 a model of 5.5 M weights writes words that are none (LOG, 25 November)."""
DRAWN = 0.7
"""Of answers that are checked: the pool holds its inputs about three times, and another draw may name what the first left out."""
STUDENTS: dict[str, dict[str, Any]] = {"labels": {"kind": "linear", "features": "tfidf"}, "texts": {"kind": "causal", "layers": 2, "epochs": 10}}
TEACHER: dict[str, dict[str, Any]] = {
    "labels": {"method": "lora", "epochs": 10, "patience": 2},
    "texts": {"method": "full", "lr": 1e-3, "epochs": 4, "patience": 2},
}
"""By LoRA a teacher of texts is hardly better than its student; all weights tuned, it has 24.7 BLEU beside 17.0 (LOG, 30 November)."""


def prepared(data: Path, work: Path, task: str, tests: int | None) -> dict[str, str]:
    """fit, dev and test files; a long test (tests: its rows at most) and dev are cut to a random part, the same each time, of whole groups."""
    splits, group = {split: rows_of(data, task, split) for split in ("train", "dev", "test")}, LABELS.get(task, {}).get("group")
    usual = 300 if task in TEXTS else 1500
    for split, most in (("dev", usual), ("test", tests or usual)):
        rows = splits[split]
        if len(rows) > most:
            group_of = [str(r[group]) if group else str(i) for i, r in enumerate(rows)]
            keys = sorted(set(group_of))
            random.Random(0).shuffle(keys)
            kept = set(keys[: len(keys) * most // len(rows)])
            splits[split] = [r for r, key in zip(rows, group_of, strict=True) if key in kept]
    return written(work, task, splits)


def recipe_of(task: str, files: dict[str, str], fraction: float, names: Collection[str], pool: int) -> Any:
    """names: of arms; empty for all. pool: rows to annotate."""
    labels = task in LABELS
    ask = {"annotate": {"count": pool}}
    likelihood = [{"kind": "likelihood"}] if labels else []
    filters = [{"kind": "form"}, *([{"kind": "agreement", "annotator": "likelihood"}] if labels else []), {"kind": "dedup"}, {"kind": "overlap"}]
    ways: list[tuple[str, dict[str, Any]]] = [
        ("LM annotate", {**ask, "generate": {"count": 0}}),
        ("LM generate", {}),
        ("LM annotate+generate", ask),
    ]
    if labels:
        classifier = {"annotator": [{"kind": "classifier"}], "filter": [{"kind": "form"}, {"kind": "dedup"}, {"kind": "overlap"}]}
        ways.insert(0, ("classifier annotate", {**ask, "generate": {"count": 0}, **classifier}))
        relabelled = {"generate": {"relabel": True}, "generator": {"order": "label-first"}, **classifier}
        ways += [("LM generate relabelled", relabelled), ("LM annotate+generate relabelled", {**ask, **relabelled})]
    else:
        drawn = {"annotate": {"count": pool, "temperature": DRAWN}, "generate": {"count": 0}}
        ways.append(("LM annotate verified", {**drawn, "filter": [{"kind": "form"}, {"kind": "verified"}, *filters[1:]]}))
    arms = [{"name": name, **way} for name, way in ways if name in names or not names]
    if "none" in names:  # a comparison needs a way: this one's only row is cut off, and dropped
        arms = [{"name": "none", "generator": {"kind": "hard"}, "generate": {"count": 1, "max_tokens": 1}}]
    return build(
        {
            "name": f"{task}-{round(100 * fraction)}",
            "seed": 7,
            "sample": {**files, "fraction": fraction, "hide": True},
            "task": LABELS.get(task) or TEXTS[task],
            "engine": {"kind": "local", "slots": 128, "cache": 512 if task in ("boolq", "multirc", "rte") else 384},
            "generator": {"kind": "finetune", **TEACHER["labels" if labels else "texts"]},
            "generate": {"count": COUNT[task], "max_tokens": TOKENS[task], "temperature": TEMPERATURE, "top_p": 0.95},
            "student": STUDENTS["labels" if labels else "texts"],
            "annotator": likelihood,
            "filter": filters,
            "metric": [{"kind": "mauve"}, {"kind": "memorisation"}],
            "arm": arms,
        }
    )


def page(out: Path) -> str:
    """The tables of every comparison in `out`."""
    cpu = next(line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    lines = [
        f"# Low-resource tasks, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"Command: `{asked()}`. Machine: {len(os.sched_getaffinity(0))} cores, {cpu}, shared with other work. Tests: halves of the published",
        'ones, cut as the script says. Gain: over "real only" under the same seeds, in points, with the 95 % interval over test rows and seeds;',
        "detectable: the smallest true gain that this test shows 4 times of 5. All arms of a table at the same number of kept rows; beside it with",
        '"all kept". Of "full real" kept are real rows beside the sample\'s.',
        "",
    ]
    for fraction in ("5", "10"):
        for task in (*LABELS, *TEXTS):
            path = out / f"{task}-{fraction}-compare" / "compare.json"
            if path.exists():
                found = json.loads(path.read_text(encoding="utf-8"))
                lines += [f"## {task}, {fraction} % of train", "", table([NO_RANK | row for row in found["rows"]], found.get("best", ()))]
                lines += [f"Unfinished: {found['unfinished']}.", ""] if found["unfinished"] else []
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", default=",".join([*LABELS, *TEXTS]))
    parser.add_argument("--fractions", default="0.05,0.1")
    parser.add_argument("--arms", default="", help="names of the table's first column; all where not given")
    parser.add_argument("--pool", type=int, default=POOL, help="rows to annotate, at most")
    parser.add_argument("--tests", type=int, default=None, help="rows of the test, at most")
    parser.add_argument("--full", type=int, default=FULL_ROWS, help='rows of "full real", those of the sample among them')
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hours", type=float, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs-lowresource"))
    given = parser.parse_args()
    vars(sys.modules[compare.__module__])["FULL_ROWS"] = given.full
    end = None if given.hours is None else time.monotonic() + 3600 * given.hours
    for fraction in map(float, given.fractions.split(",")):
        for task in given.tasks.split(","):
            left = None if end is None else max(1e-6, (end - time.monotonic()) / 3600)
            files = prepared(given.data, given.out / "data", task, given.tests)
            made = recipe_of(task, files, fraction, tuple(filter(None, given.arms.split(","))), given.pool)
            print(f"== {task}, {fraction:.0%}", flush=True)
            found = compare(made, (), given.seeds, given.out, left, lambda line: print(f"{time.strftime('%H:%M:%S')} {line}", flush=True))
            print(table(found.rows, found.best), flush=True)
            write_page(ROOT / "docs/results/lowresource.md", page(given.out))


if __name__ == "__main__":
    main()

"""A server that fails 30 % of all requests, in eight ways, and a run that is killed twice: what the rows are, and how many requests they took."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from common import started  # noqa: E402
from faults import Section  # noqa: E402
from servers import KINDS, Fault, Server  # noqa: E402

from seedbed.candidates import complete, read_candidates  # noqa: E402
from seedbed.engines.openai import Openai  # noqa: E402
from seedbed.generators.hard import Hard  # noqa: E402
from seedbed.testing import tiny_sample  # noqa: E402
from seedbed.types import ModelRef, Sampling  # noqa: E402

SHARE, MOST = 0.3, 1.5
"""Of the requests, failed; requests a row allowed."""
SEED = 8
KILLS = (0.3, 0.6)
"""Of the rows, answered when the client is killed (SIGKILL)."""
TIMEOUT_S = 0.5


def measure(quick: bool) -> Section:
    rows = 600 if quick else 10_000
    with Faulty() as server, tempfile.TemporaryDirectory() as name:
        work, start = Path(name), time.monotonic()
        for share in KILLS:
            running = started(client, server.url, work, rows, work)
            while running.is_alive() and server.answered < share * rows:
                time.sleep(0.01)
            os.kill(running.pid, signal.SIGKILL)
            running.join()
        finish(server.url, work, rows)
        seconds, requests, sent = time.monotonic() - start, len(server.requests), dict(server.sent)
        (work / "again").mkdir()
        finish(server.url, work / "again", rows, cache=work)
        texts = [c.text for c in read_candidates(work / "rows", rows)]
        again = [c.text for c in read_candidates(work / "again" / "rows", rows)]
        lost = rows - len({t for t in texts if t})
        facts = {
            "rows": rows, "requests": requests, "a_row": round(requests / rows, 4), "failed_share": round(sum(sent.values()) / requests, 4),
            "answers": server.answered, "neither": requests - server.answered - sum(sent.values()), "lost": lost,
            "twice": len(texts) - len(set(texts)), "wrong": sum(t not in server.texts for t in texts),
            "asked_again_after_all": len(server.requests) - requests, "differ_after_all": sum(a != b for a, b in zip(texts, again, strict=True)),
        }  # fmt: skip
    zero = ("lost", "twice", "wrong", "asked_again_after_all", "differ_after_all")
    broken = [f"{name} is {facts[name]}, and must be 0" for name in zero if facts[name]]
    broken += [f"{facts['a_row']} requests a row, and at most {MOST} are allowed"] if facts["a_row"] > MOST else []
    return Section("Requests", _lines(facts, sent, seconds), facts, broken)


class Faulty(Server):
    """Fails a request by a draw from its prompt, its seed and how often it was asked; `sent`: faults of each kind."""

    def __init__(self) -> None:
        super().__init__(write=self.answer)
        self.asked: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.texts: set[str] = set()
        self.pick = self.fault

    def fault(self, asked: dict[str, Any]) -> Fault | None:
        name = f"{asked['seed']} {asked['messages'][-1]['content']}"
        draw = int.from_bytes(hashlib.sha256(f"{SEED} {self.asked[name]} {name}".encode()).digest()[:8], "big") / 2**64
        self.asked[name] += 1
        if draw >= SHARE:
            return None
        kind = list(KINDS)[int(draw / SHARE * len(KINDS))]
        self.sent[kind] += 1
        return KINDS[kind]

    def answer(self, prompt: str, asked: dict[str, Any]) -> str:
        drawn = hashlib.sha256(f"{asked['seed']} {prompt}".encode()).hexdigest()
        text = f"Label: music\nText: play {drawn}"
        self.texts.add(text)
        return text


def client(url: str, work: Path, rows: int, cache: Path) -> None:
    """Makes the rows in `work`, in a process of its own with that cache of completions."""
    os.environ["XDG_CACHE_HOME"] = str(cache)
    make(url, work, rows)


def finish(url: str, work: Path, rows: int, cache: Path | None = None) -> None:
    running = started(client, url, work, rows, cache or work)
    running.join()
    assert running.exitcode == 0, "the run failed"


def make(url: str, work: Path, rows: int) -> None:
    """The candidates step of a run: journal, parts and all."""
    sample, teacher, folder = tiny_sample(), work / "teacher", work / "rows"
    teacher.mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True)
    Hard(shots=2).fit(sample, "tiny", 0, teacher)
    engine = Openai(base_url=url, backoff_s=0.01, retries=20, timeout_s=TIMEOUT_S)
    complete(folder, Hard(shots=2).load(teacher, sample.task, "tiny"), engine.open(ModelRef("tiny")), sample, rows, 1, Sampling(1.0, 1.0, 40))


def _lines(facts: dict[str, Any], sent: dict[str, int], seconds: float) -> list[str]:
    failed, rows = sum(sent.values()), facts["rows"]
    return [
        f"{rows:,} rows from a server that fails {100 * facts['failed_share']:.1f} % of all requests; the client is killed (`kill -9`) when "
        f"{' and '.join(f'{share:.0%}' for share in KILLS)} of the rows were answered, and goes on by the same command. {seconds:.0f} s.",
        "",
        "| what the server did | requests |",
        "|---|---|",
        *(f"| {kind} | {sent.get(kind, 0):,} |" for kind in KINDS),
        f"| an answer | {facts['answers']:,} |",
        "",
        "| promise | found |",
        "|---|---|",
        f"| rows lost | {facts['lost']} of {rows:,} |",
        f"| rows twice | {facts['twice']} |",
        f"| rows with another text than the server wrote | {facts['wrong']} |",
        f"| requests for each row, {1 / (1 - SHARE):.3f} expected of {SHARE:.0%} faults alone, at most {MOST} | {facts['a_row']:.3f} |",
        f"| requests when the run's folder is lost and all rows are made anew | {facts['asked_again_after_all']} |",
        f"| rows that are then others | {facts['differ_after_all']} |",
        f"| answers that reached nobody (killed, and cut off) | {facts['answers'] - rows} |" if failed else "",
    ]

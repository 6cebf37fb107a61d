"""The candidates step: one stream of prompts to the engine, finished rows to the journal at once, parts cut from it.

Parts are units of commit, not of batching. A part holds PART_ROWS rows in order of index (the last of a call may hold fewer) and is
never rewritten; a longer run adds parts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from itertools import count as count_from
from itertools import takewhile
from pathlib import Path
from typing import Any

from seedbed.errors import StoreError
from seedbed.limits import Allowance
from seedbed.progress import bar
from seedbed.store import Journal, read_parts, write_part
from seedbed.types import Candidate, Completion, Prompt, Row, Sample, Sampling, Session, Teacher

PART_ROWS = 500


def rows_done(folder: Path) -> int:
    """Rows in the committed parts, which hold rows 0, 1, 2, ... Raises StoreError where one is missing."""
    indices = [r["index"] for r in read_parts(folder)] if folder.is_dir() else []
    if indices != list(range(len(indices))):
        raise StoreError(
            f"{folder}: its parts do not hold rows 0 to {max(indices)}; one was removed. Remove the folder and run again; other steps stay."
        )
    return len(indices)


def read_candidates(folder: Path, count: int) -> list[Candidate]:
    """Candidates of the first `count` rows, in order."""
    return [Candidate(**c) for record in read_parts(folder) if record["index"] < count for c in record["candidates"]]


def complete(
    folder: Path,
    teacher: Teacher,
    session: Session,
    sample: Sample,
    count: int,
    seed: int,
    sampling: Sampling,
    part_rows: int = PART_ROWS,
    allowance: Allowance | None = None,
) -> tuple[int, list[Candidate]]:
    """Brings the folder to `count` rows, from wherever an earlier call stopped; (rows finished, candidates of those in no part).

    Where the allowance is used up first, only full parts are cut and the journal stays, so that a later call goes on to the same
    parts. Rows finished are then those before the first unfinished one.
    """
    done = rows_done(folder)
    if done >= count:
        return count, []
    allowance = allowance or Allowance(sampling.max_tokens)
    path = folder / "journal.jsonl"
    with closing(Journal(path)) as journal, bar("generate", count) as update:
        rows = {row.index: row for row in teacher.rows(sample, count, seed) if row.index >= done}
        for record in journal.records:
            if record["index"] in rows:
                row = rows[record["index"]]
                rows[row.index] = replace(row, turns=(*row.turns, Completion(**record["completion"])))
        waiting = deque(rows)
        finished: dict[int, Row] = {}
        cut, tokens = _Cutter(folder, teacher, done, part_rows), 0
        while waiting:
            started = allowance.started
            for index, completion in session.complete(_stream(rows, waiting, finished, teacher, allowance), sampling):
                allowance.end(completion.tokens)
                journal.add({"index": index, "completion": asdict(completion)})
                rows[index] = replace(rows[index], turns=(*rows[index].turns, completion))
                waiting.appendleft(index)  # its next turn, or the finding that there is none
                cut.full_parts(finished)
                tokens += completion.tokens
                update(done + len(finished), f"{tokens:,} tokens")
            if waiting and allowance.started == started:  # nothing is under way, and nothing more may start
                cut.full_parts(finished)
                return cut.uncut(finished)
        cut.full_parts(finished)
        cut.rest(finished, count)
    path.unlink()
    return count, []


def _stream(
    rows: dict[int, Row], waiting: deque[int], finished: dict[int, Row], teacher: Teacher, allowance: Allowance
) -> Iterator[tuple[int, Prompt]]:
    """The next prompt of each waiting row, as long as the allowance lets one start; a row that has none is finished."""
    while waiting:
        index = waiting.popleft()
        prompt = teacher.prompt(rows[index])
        if prompt is None:
            finished[index] = rows[index]
        elif allowance.start():
            yield index, prompt
        else:
            waiting.appendleft(index)
            return


class _Cutter:
    """Writes finished rows to parts, in order of index."""

    def __init__(self, folder: Path, teacher: Teacher, start: int, part_rows: int) -> None:
        self.folder, self.teacher, self.next, self.part_rows = folder, teacher, start, part_rows
        self.parts = len(list(folder.glob("part-*.parquet")))

    def full_parts(self, finished: dict[int, Row]) -> None:
        while all(i in finished for i in range(self.next, self.next + self.part_rows)):
            self._cut(finished, self.next + self.part_rows)

    def rest(self, finished: dict[int, Row], count: int) -> None:
        if self.next < count:
            self._cut(finished, count)

    def uncut(self, finished: dict[int, Row]) -> tuple[int, list[Candidate]]:
        """(rows before the first unfinished one, candidates of those after the last part)."""
        following = list(takewhile(finished.__contains__, count_from(self.next)))
        return self.next + len(following), [c for i in following for c in self.teacher.read(finished[i])]

    def _cut(self, finished: dict[int, Row], stop: int) -> None:
        records: list[dict[str, Any]] = [
            {"index": i, "candidates": [asdict(c) for c in self.teacher.read(finished[i])]} for i in range(self.next, stop)
        ]
        write_part(self.folder / f"part-{self.parts:05d}.parquet", records)
        self.next, self.parts = stop, self.parts + 1

"""The candidates step: one stream of prompts to the engine, finished rows to the journal at once, parts cut from it.

Parts are units of commit, not of batching. A part holds PART_ROWS rows in order of index (the last of a call may hold fewer) and is
never rewritten; a longer run adds parts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from itertools import count as count_from
from itertools import takewhile
from pathlib import Path
from typing import Any

from seedbed.errors import StoreError
from seedbed.limits import Allowance
from seedbed.paid import most, paid_now
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


def tokens_of(folder: Path, count: int | None = None) -> int:
    """Tokens generated for the first `count` rows in the parts, or for all."""
    return sum(r["tokens"] for r in read_parts(folder) if count is None or r["index"] < count) if folder.is_dir() else 0


def cost_of(folder: Path, count: int | None = None) -> float:
    """Money that the first `count` rows in the parts cost, or all, by the engine's prices; 0 where it has none."""
    return sum(r.get("cost", 0.0) for r in read_parts(folder) if count is None or r["index"] < count) if folder.is_dir() else 0.0


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
        fresh = (row for row in teacher.rows(sample, count, seed) if row.index >= done)
        work = _Work(teacher, fresh, journal.records, allowance, lambda prompt: most(session, prompt, sampling))
        cut, tokens = _Cutter(folder, teacher, done, part_rows), 0
        while True:
            started = allowance.started
            for index, completion in session.complete(work.prompts(), sampling):
                allowance.end(completion.tokens, work.held.pop(index), paid_now(completion))
                journal.write({"index": index, "completion": asdict(completion)})
                work.answer(index, completion)
                cut.full_parts(work.finished)
                tokens += completion.tokens
                update(cut.next + len(work.finished), f"{tokens:,} tokens")
            if not work.waiting:
                break
            if allowance.started == started:  # nothing is under way, and nothing more may start
                cut.full_parts(work.finished)
                return cut.uncut(work.finished)
        cut.full_parts(work.finished)
        cut.rest(work.finished, count)
    path.unlink()
    return count, []


class _Work:
    """The rows under way. Rows not begun are not made yet, and those in a part are forgotten: memory does not grow with their number."""

    def __init__(
        self, teacher: Teacher, fresh: Iterator[Row], records: list[Any], allowance: Allowance, most: Callable[[Prompt], float] = lambda _: 0.0
    ) -> None:
        """fresh: the rows to make, in order. records: completions of an earlier call, taken out of the list. most: money for a prompt."""
        self.teacher, self.fresh, self.allowance, self.most = teacher, fresh, allowance, most
        self.held: dict[int, float] = {}
        self.earlier: dict[int, list[Completion]] = {}
        for record in records:
            self.earlier.setdefault(record["index"], []).append(Completion(**record["completion"]))
        records.clear()
        self.rows: dict[int, Row] = {}
        self.waiting: deque[int] = deque()
        self.finished: dict[int, Row] = {}

    def prompts(self) -> Iterator[tuple[int, Prompt]]:
        """The next prompt of each waiting row, then of each fresh one, while the allowance lets one start; a row that has none is finished."""
        while self.waiting or self._begin():
            index = self.waiting.popleft()
            row = self.rows[index]
            prompt = None if row.turns and row.turns[-1].problem else self.teacher.prompt(row)
            if prompt is None:
                self.finished[index] = self.rows.pop(index)
            elif self.allowance.start(held := self.most(prompt)):
                self.held[index] = held
                yield index, prompt
            else:
                self.waiting.appendleft(index)
                return

    def answer(self, index: int, completion: Completion) -> None:
        """The row waits again: for its next turn, or the finding that there is none."""
        self.rows[index] = replace(self.rows[index], turns=(*self.rows[index].turns, completion))
        self.waiting.appendleft(index)

    def _begin(self) -> bool:
        row = next(self.fresh, None)
        if row is None:
            return False
        self.rows[row.index] = replace(row, turns=(*row.turns, *self.earlier.pop(row.index, ())))
        self.waiting.append(row.index)
        return True


class _Cutter:
    """Writes finished rows to parts, in order of index."""

    def __init__(self, folder: Path, teacher: Teacher, start: int, part_rows: int) -> None:
        self.folder, self.teacher, self.next, self.part_rows = folder, teacher, start, part_rows
        self.parts = len(list(folder.glob("part-*.parquet")))

    def full_parts(self, finished: dict[int, Row]) -> None:
        while len(finished) >= self.part_rows and all(i in finished for i in range(self.next, self.next + self.part_rows)):
            self._cut(finished, self.next + self.part_rows)

    def rest(self, finished: dict[int, Row], count: int) -> None:
        if self.next < count:
            self._cut(finished, count)

    def uncut(self, finished: dict[int, Row]) -> tuple[int, list[Candidate]]:
        """(rows before the first unfinished one, candidates of those after the last part)."""
        following = list(takewhile(finished.__contains__, count_from(self.next)))
        return self.next + len(following), [c for i in following for c in self._read(finished[i])]

    def _read(self, row: Row) -> list[Candidate]:
        """The row's candidates; where the engine had no answer, with its reason."""
        problem = next((turn.problem for turn in row.turns if turn.problem), "")
        found = self.teacher.read(row)
        return [replace(c, fields=None, problem=problem) for c in found] if problem else found

    def _cut(self, finished: dict[int, Row], stop: int) -> None:
        records: list[dict[str, Any]] = []
        for i in range(self.next, stop):
            row = finished.pop(i)
            record = {"index": i, "tokens": sum(turn.tokens for turn in row.turns), "candidates": [asdict(c) for c in self._read(row)]}
            cost = sum(turn.cost for turn in row.turns)
            records.append(record | ({"cost": cost} if cost else {}))
        write_part(self.folder / f"part-{self.parts:05d}.parquet", records)
        self.next, self.parts = stop, self.parts + 1

"""The candidates step: one stream of prompts to the engine, finished rows to the journal at once, parts cut from it.

Parts are units of commit, not of batching. A part holds PART_ROWS rows in order of index (the last of a call may hold fewer) and is
never rewritten; a longer run adds parts.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain, takewhile
from itertools import count as count_from
from pathlib import Path
from typing import Any

from seedbed.errors import StoreError
from seedbed.limits import STOPPED, Allowance, ended_by
from seedbed.paid import most, paid_now
from seedbed.progress import bar
from seedbed.store import Journal, each_part, indices_of, journalled, read_parts, write_part
from seedbed.types import Candidate, Completion, Prompt, Row, Sample, Sampling, Session, Teacher

PART_ROWS = 500
JOURNAL = 1 << 22
"""Bytes from which a journal is written anew without the rows that stand in parts: what a stopped run has to read again does not grow."""


def rows_done(folder: Path, start: int = 0) -> int:
    """Rows in the committed parts, which hold rows start, start + 1, ... Raises StoreError where one is missing."""
    indices = indices_of(folder) if folder.is_dir() else []
    if indices != list(range(start, start + len(indices))):
        raise StoreError(
            f"{folder}: its parts do not hold rows {start} to {max(indices)}; one was removed. Remove the folder and run again; other steps stay."
        )
    return len(indices)


def shard_folder(step: Path, start: int, stop: int) -> Path:
    """Where a shard of a candidates step makes rows [start, stop): beside it, until `adopt`."""
    return step.with_name(f"{step.name}.shards") / f"{start:09d}-{stop:09d}"


def adopt(step: Path, folder: Path) -> None:
    """Moves the parts of all shards into the step's folder, in order: a stop in between leaves some to the next call. A part whose rows are there,
    by another division into shards, is left out.

    Raises StoreError where rows are missing before the end of a shard, and moves nothing then.
    """
    places = step.with_name(f"{step.name}.shards")
    shards = sorted(places.glob("*-*")) if places.is_dir() else []
    moved, done, behind = list[Path](), rows_done(folder), [int(place.name.split("-")[1]) for place in shards]
    for part, indices in chain.from_iterable(map(each_part, shards)):
        if indices == list(range(done, done + len(indices))):
            moved.append(part)
            done += len(indices)
        behind.append(indices[0])
    if missing := [first for first in behind if first > done]:
        raise StoreError(
            f"{places}: rows {done} to {min(missing) - 1} are not finished. Run the --shard of these rows, or remove this folder to make all rows "
            "that are missing without shards."
        )
    for number, part in enumerate(moved, len(list(folder.glob("part-*.parquet")))):
        part.replace(folder / f"part-{number:05d}.parquet")
    for place in shards:
        if (place / "engine.json").exists():
            (place / "engine.json").replace(folder / "engine.json")
    shutil.rmtree(places, ignore_errors=True)


def each_candidate(folder: Path, count: int) -> Iterator[Candidate]:
    """Candidates of the first `count` rows, in order, one at a time."""
    return (Candidate(**c) for record in read_parts(folder) if record["index"] < count for c in record["candidates"])


def read_candidates(folder: Path, count: int) -> list[Candidate]:
    """Candidates of the first `count` rows, in order."""
    return list(each_candidate(folder, count))


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
    start: int = 0,
) -> tuple[int, list[Candidate]]:
    """Brings the folder to row `count`, from wherever an earlier call stopped; (rows finished, candidates of those in no part).

    start: the folder's first row, of a shard; what a shard finished counts from 0 all the same.

    Where the allowance is used up first, only full parts are cut and the journal stays, so that a later call goes on to the same
    parts. Rows finished are then those before the first unfinished one.
    """
    done = start + rows_done(folder, start)
    path = folder / "journal.jsonl"
    if done >= count:
        if not _turns(journalled(path), done):  # an earlier call was killed when all of its rows stood in parts
            path.unlink(missing_ok=True)
        return count, []
    allowance = allowance or Allowance(sampling.max_tokens)
    with closing(Journal(path, lambda records: _turns(records, done))) as journal, bar("generate", count - start) as update:
        ask = getattr(session, "ask", teacher.prompt)  # a fleet is given rows and builds their prompts where it completes them
        fresh = (row for row in teacher.rows(sample, count, seed) if row.index >= done)
        work = _Work(ask, fresh, journal.records, allowance, lambda prompt: most(session, prompt, sampling))
        cut, tokens = _Cutter(folder, teacher, done, part_rows), 0
        while True:
            started = allowance.started
            for index, completion in ended_by(session, allowance.deadline).complete(work.prompts(), sampling):
                allowance.end(completion.tokens, work.held.pop(index), paid_now(completion))
                if completion.problem == STOPPED:
                    work.waiting.append(index)
                    continue
                journal.write({"index": index, "completion": vars(completion)})
                work.answer(index, completion)
                if cut.full_parts(work.finished) and journal.size > JOURNAL:
                    journal.replace(work.records())
                tokens += completion.tokens
                update(cut.next - start + len(work.finished), f"{tokens:,} tokens")
            if not work.waiting:
                break
            if allowance.started == started:  # nothing is under way, and nothing more may start
                cut.full_parts(work.finished)
                return cut.uncut(work.finished)
        cut.full_parts(work.finished)
        cut.rest(work.finished, count)
    path.unlink()
    return count, []


def _turns(records: Iterator[Any], done: int) -> dict[int, list[Completion]]:
    """Completions of an earlier call, by row; those of rows in a part are forgotten."""
    found: dict[int, list[Completion]] = {}
    for record in records:
        if record["index"] >= done:
            found.setdefault(record["index"], []).append(Completion(**record["completion"]))
    return found


class _Work:
    """The rows under way. Rows not begun are not made yet, and those in a part are forgotten: memory does not grow with their number."""

    def __init__(
        self,
        ask: Callable[[Row], Prompt | None],
        fresh: Iterator[Row],
        earlier: dict[int, list[Completion]],
        allowance: Allowance,
        most: Callable[[Prompt], float] = lambda _: 0.0,
    ) -> None:
        """ask: the next prompt of a row, None where it is finished. fresh: the rows to make, in order. earlier: completions of an earlier call.
        most: money for a prompt."""
        self.ask, self.fresh, self.earlier, self.allowance, self.most = ask, fresh, earlier, allowance, most
        self.held: dict[int, float] = {}
        self.rows: dict[int, Row] = {}
        self.waiting: deque[int] = deque()
        self.finished: dict[int, Row] = {}

    def records(self) -> Iterator[dict[str, Any]]:
        """What a journal must hold of the rows in no part."""
        turns = {**self.earlier, **{row.index: row.turns for rows in (self.rows, self.finished) for row in rows.values()}}
        return ({"index": index, "completion": vars(turn)} for index, said in sorted(turns.items()) for turn in said)

    def prompts(self) -> Iterator[tuple[int, Prompt]]:
        """The next prompt of each waiting row, then of each fresh one, while the allowance lets one start; a row that has none is finished."""
        while self.waiting or self._begin():
            index = self.waiting.popleft()
            row = self.rows[index]
            prompt = None if row.turns and row.turns[-1].problem else self.ask(row)
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

    def full_parts(self, finished: dict[int, Row]) -> bool:
        """Cuts those that can be; whether there was one."""
        before = self.parts
        while len(finished) >= self.part_rows and all(i in finished for i in range(self.next, self.next + self.part_rows)):
            self._cut(finished, self.next + self.part_rows)
        return self.parts > before

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
        found = [replace(c, provenance=dict(c.provenance) | {"seed": row.seed}) for c in self.teacher.read(row)]
        return [replace(c, fields=None, problem=problem) for c in found] if problem else found

    def _cut(self, finished: dict[int, Row], stop: int) -> None:
        records: list[dict[str, Any]] = []
        for i in range(self.next, stop):
            row = finished.pop(i)
            record = {"index": i, "tokens": sum(turn.tokens for turn in row.turns), "candidates": [vars(c) for c in self._read(row)]}
            cost = sum(turn.cost for turn in row.turns)
            records.append(record | ({"cost": cost} if cost else {}))
        write_part(self.folder / f"part-{self.parts:05d}.parquet", records)
        self.next, self.parts = stop, self.parts + 1

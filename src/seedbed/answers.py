"""[annotate]: real inputs without targets as candidates. Labels are named by an annotator afterwards; other targets are written by the teacher."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

from seedbed.candidates import complete, read_candidates, rows_done
from seedbed.limits import Allowance
from seedbed.specs import Annotate
from seedbed.stats import equal_draw
from seedbed.task import Task
from seedbed.types import Candidate, Example, ModelRef, Prompt, Row, Sample, Session, Teacher, seed_for


def pool_rows(sample: Sample, spec: Annotate, seed: int) -> list[Example]:
    """At most spec.count rows of the pool, drawn by the seed; where there are fewer, all of them again, spec.answers times at most."""
    n = spec.rows(len(sample.pool))
    drawn = equal_draw(sample.pool, min(n, len(sample.pool)), seed_for(seed, "pool"))
    return list(islice(cycle(drawn), n))


def drafts(task: Task, rows: Sequence[Example]) -> list[Candidate]:
    """Candidates that have inputs and no target yet."""
    inputs = [{name: e.fields[name] for name in task.inputs} for e in rows]
    asked = task.known(dict.fromkeys(task.inputs))
    return [
        Candidate(_id(i), i, asked.prefix(fields), fields, True, "", _origin(e.id)) for i, (e, fields) in enumerate(zip(rows, inputs, strict=True))
    ]


def labelled(task: Task, candidates: Iterable[Candidate], by: str, again: bool = False) -> Iterator[Candidate]:
    """The drafts among the candidates with the likeliest label of annotator `by`, which ranks labels; others as they are. again: the others too;
    `provenance` then keeps the label that the teacher wrote."""
    target = str(task.target)

    def label(candidate: Candidate) -> Candidate:
        said = candidate.annotations.get(by)
        if candidate.fields is None or (target in candidate.fields and not again) or not said:
            return candidate
        fields = dict(candidate.fields) | {target: next(iter(said))}
        written = {"label": candidate.fields[target]} if target in candidate.fields else {}
        return replace(candidate, fields=fields, text=task.render(fields), provenance=dict(candidate.provenance) | written)

    return map(label, candidates)


@dataclass(frozen=True)
class Answering:
    """The teacher, asked for the targets of real inputs instead of for new rows."""

    teacher: Teacher
    pool: tuple[Example, ...]

    @property
    def model(self) -> ModelRef:
        return self.teacher.model

    def rows(self, sample: Sample, count: int, seed: int) -> Iterator[Row]:
        for index, e in enumerate(self.pool[:count]):
            yield Row(index, seed_for(seed, "row", index), {name: e.fields[name] for name in sample.task.inputs}, e.id)

    def prompt(self, row: Row) -> Prompt | None:
        return self.teacher.prompt(row)

    def read(self, row: Row) -> list[Candidate]:
        """The teacher's first reading; its provenance keeps how it was made."""
        return [
            replace(c, id=_id(row.index), provenance=dict(c.provenance) | _origin(row.source) | {"made_by": c.provenance.get("generator")})
            for c in self.teacher.read(row)[:1]
        ]


def answered(
    folder: Path,
    teacher: Teacher,
    session: Session,
    sample: Sample,
    rows: Sequence[Example],
    spec: Annotate,
    max_tokens: int,
    seed: int,
    allowance: Allowance,
) -> tuple[int, list[Candidate]]:
    """The teacher's answers to the rows, as candidates: (how many rows were finished, these). Goes on where an earlier call stopped."""
    sampling = spec.sampling(max_tokens)
    asking = Answering(teacher, tuple(rows))
    if rows_done(folder) < len(rows):
        done, uncut = complete(folder, asking, session, sample, len(rows), seed, sampling, allowance=allowance)
    else:
        done, uncut = len(rows), []
    return done, [*read_candidates(folder, done), *uncut]


def _id(index: int) -> str:
    return f"a{index:07d}"


def _origin(source: str) -> dict[str, object]:
    return {"generator": "annotate", "sources": [source], "weights": [1.0]}

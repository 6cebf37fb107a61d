"""Candidates that copy a real row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from seedbed.copies import NEAR, Copied, Copies, alike
from seedbed.text import SPLITS, Split, real_texts, word_runs, words
from seedbed.types import Candidate, Example, Fields, Sample, Verdict


@dataclass(frozen=True)
class Overlap:
    """Drops a candidate whose generated text copies a real row's: of test, dev or fit, or another one (pool, and rows the sample left out).

    Three kinds, the gravest first and each looked for in all splits: equal but for case, punctuation and white space ("copy of fit");
    nearly equal ("near copy of fit"); sharing a long run of words ("shared run with fit"). threshold: Jaccard similarity of the sets of
    5-character shingles from which a text is nearly equal, in (0, 1]. run: words of a run that count as copied, 2 or more. others: look
    at pool and left-out rows too. Candidates without fields are kept.

    A real input that was annotated is dropped neither for other inputs of the pool nor for what it shares with fit (a signature, a passage of
    several questions). It is dropped where each of its inputs equals or nearly equals that of a row of test or dev, or of fit (in a task whose
    target is a text, where that is alike too); where it shares a run with test or dev that fit lacks, or holds all inputs of such a row; and
    where the text written to it copies test, dev or fit.
    """

    version: ClassVar[int] = 3
    scope: ClassVar[Literal["row", "set"]] = "row"

    threshold: Annotated[float, Field(gt=0, le=1)] = NEAR
    run: Annotated[int, Field(ge=2)] = 13
    others: bool = True

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        if not candidates:
            return []
        real = _index(sample, self)
        reasons = ["" if c.fields is None else _reason(real, c, c.fields) for c in candidates]
        return [Verdict(not reason, reason) for reason in reasons]


class _Real:
    """The real rows, to look texts up among, and the inputs of annotated candidates."""

    def __init__(self, sample: Sample, settings: Overlap) -> None:
        self.sample, self.settings = sample, settings
        self.texts = Copies(list(real_texts(sample)), settings.threshold, settings.run)

    @cached_property
    def rows(self) -> dict[str, Example]:
        return {e.id: e for e in (*self.sample.fit, *self.sample.dev, *self.sample.test)}

    @cached_property
    def inputs(self) -> Copies:
        """Inputs of test and dev, and of fit where they are all that a row's text is."""
        task, sides = self.sample.task, {"test": self.sample.test, "dev": self.sample.dev, "fit": self.sample.fit}
        splits = SPLITS[: 3 if task.has_labels else 2]
        return Copies([(split, e.id, task.input_text(e)) for split in splits for e in sides[split]], self.settings.threshold)

    @cached_property
    def openings(self) -> dict[str, set[int]]:
        """First run of words of a real row's inputs, where they are texts -> how many words they have in all."""
        found = dict[str, set[int]]()
        for text in self.inputs.whole if self.sample.task.kind != "data2text" else ():
            for opening in word_runs(text, self.settings.run)[:1]:
                found.setdefault(opening, set()).add(len(words(text)))
        return found

    def quoted(self, text: str) -> Iterator[Split]:
        """The splits of the rows whose inputs stand in it as a whole."""
        own = words(text)
        for start, opening in enumerate(word_runs(text, self.settings.run)):
            for n in self.openings.get(opening, ()):
                if found := self.inputs.whole.get(" ".join(own[start : start + n])):
                    yield found[0]

    def likeness(self, fields: Fields, copied: Copied, columns: Sequence[str]) -> set[bool]:
        """Whether the columns are each alike, and unlike, those of a row of test, dev or fit."""
        real = self.rows[copied.real].fields
        return {alike(str(fields[c]), str(real[c]), self.settings.threshold) for c in columns}


Found = Iterator[tuple[str, Split]]
"""Ways in which a candidate is copied, the gravest first."""


def _reason(real: _Real, candidate: Candidate, fields: Fields) -> str:
    """Why the candidate counts as copied; "" where it does not."""
    others = real.settings.others and not candidate.annotated
    found = _annotated(real, fields) if candidate.annotated else _text(real.texts, real.sample.task.body(fields))
    kind, split = next(((kind, split) for kind, split in found if others or split != "other"), ("", ""))
    return kind and f"{kind} {'other real row' if split == 'other' else split}"


def _text(real: Copies, text: str) -> Found:
    if whole := real.equal(text):
        yield "copy of", whole.split
    yield from (("near copy of", copied.split) for copied in real.near(text))
    yield from (("shared run with", split) for split in real.shared(text))


def _annotated(real: _Real, fields: Fields) -> Found:
    task, texts, inputs = real.sample.task, real.texts, real.inputs
    asked = task.input_text(Example("", fields))
    written = "" if task.has_labels else str(fields[str(task.target)])
    whole = task.body(fields) if written else ""
    yield from (("copy of", c.split) for c in (inputs.equal(asked), texts.equal(whole)) if c)
    yield from (("near copy of", c.split) for c in inputs.near(asked) if False not in real.likeness(fields, c, task.inputs))
    generated = [c for c in task.inputs if c not in task.given_columns]
    for c in texts.near(whole):  # one input alike and another not: a passage of several questions
        if c.split != "other" and len(real.likeness(fields, c, generated)) < 2:
            yield "near copy of", c.split
    own = task.body(dict(fields) | {str(task.target): ""})
    leaked = {*texts.shared(own, texts.learned), *real.quoted(asked)} & {"test", "dev"}
    known = set(word_runs(own, real.settings.run)) if written else ()
    yield from (("shared run with", split) for split in sorted({*leaked, *texts.shared(written, known)}, key=SPLITS.index))


_last: list[tuple[Sample, Overlap, _Real]] = []
"""The index made last: a run judges part by part, always against the same rows."""


def _index(sample: Sample, settings: Overlap) -> _Real:
    for known, same, real in _last:
        if known is sample and same == settings:
            return real
    real = _Real(sample, settings)
    _last[:] = [(sample, settings, real)]
    return real

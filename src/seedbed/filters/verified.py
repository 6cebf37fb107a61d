"""Programs that do not pass their asserts, worked answers whose arithmetic is not true, and texts that leave out what their data says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from seedbed import arithmetic, programs
from seedbed.errors import ParseError
from seedbed.naming import Naming
from seedbed.sandbox import Isolation, Limits
from seedbed.task import Task
from seedbed.types import Candidate, Sample, Verdict

PASSES_WITHOUT = "passes with no program"
LEAVES_OUT = "leaves out its data"


@dataclass(frozen=True)
class Verified:
    """Keeps a program that passes its asserts, a worked answer whose arithmetic is true, and a text that names its data. Candidates without fields
    are kept.

    `code`: at least `asserts` asserts with different arguments (1 or more); the program passes all, each program in a sandbox of its own with
    `seconds` of CPU (1 to 60) and `memory` MiB of address space (64 to 4,096); the same program with `return None` as the body of every
    function does not. isolation: "none" runs programs as plain child processes, which can read, write and send what the user can; "sandbox"
    ends the run where there is none to be had.
    `math`: every `<<a=b>>` is true, rounded or cut to the decimals that b is written with; there are at least `marks` of them; and the final number
    is the last one's result, or what the last line comes to. agree: of several answers to the question the share that agree with this one, in
    [0, 1], where generator `answered` asked for several.
    `data2text`: the text names at least the share `told`, in [0, 1], of the different words of its data, at those places of it (subjects and objects
    of triples, values of dialogue acts) of which the fit rows' texts name half of the words or more; without `told`, the share that nine of ten fit
    rows reach. What a text adds to its data is not seen.
    """

    version: ClassVar[int] = 2
    scope: ClassVar[Literal["row", "set"]] = "row"

    asserts: Annotated[int, Field(ge=1)] = 3
    seconds: Annotated[int, Field(ge=1, le=60)] = 5
    memory: Annotated[int, Field(ge=64, le=4096)] = 512
    isolation: Isolation = "sandbox"
    marks: Annotated[int, Field(ge=0)] = 0
    agree: Annotated[float, Field(ge=0, le=1)] = 0.6
    told: Annotated[float, Field(ge=0, le=1)] | None = None

    def supports(self, task: Task) -> str:
        """Why there is nothing to verify in such a task, or ""."""
        if task.kind not in ("code", "math", "data2text"):
            return f"verified looks at tasks of kind code, math and data2text, got {task.kind}"
        return "verified needs the column of asserts: write tests in [task]" if task.kind == "code" and not task.tests else ""

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        """Raises SandboxError where a program would have to run and cannot be isolated."""
        task, reasons = sample.task, [""] * len(candidates)
        read = [i for i, c in enumerate(candidates) if c.fields is not None and not self.supports(task)]
        if task.kind == "code":
            found = self.check_programs([(str(_fields(candidates[i])[str(task.target)]), _fields(candidates[i])[str(task.tests)]) for i in read])
        elif task.kind == "data2text":
            found = self.check_texts(Naming(task, [e.fields for e in sample.fit]), [_fields(candidates[i]) for i in read])
        else:
            found = [self.check_answer(str(_fields(candidates[i])[str(task.target)])) for i in read]
        for i, reason in zip(read, found, strict=True):
            reasons[i] = reason or self._agreement(candidates[i].provenance)
        return [Verdict(not reason, reason) for reason in reasons]

    def check_programs(self, pairs: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
        """For each (program, asserts) why it is dropped, or ""."""
        trials = [self._trial(*pair) for pair in pairs]
        limits = Limits(cpu_s=self.seconds, wall_s=6.0 * self.seconds, memory_mib=self.memory)  # 6: a busy machine may not change a verdict
        reasons = [trial if isinstance(trial, str) else "" for trial in trials]
        for hollow in (False, True):
            left = [i for i, reason in enumerate(reasons) if not reason]
            asked = [t for i in left if isinstance(t := trials[i], programs.Trial)]
            said = programs.judge([t.emptied() for t in asked] if hollow else asked, limits, self.isolation)
            for i, reason in zip(left, said, strict=True):
                reasons[i] = reason if not hollow else "" if reason else PASSES_WITHOUT
        return reasons

    def _trial(self, program: str, asserts: Sequence[str]) -> programs.Trial | str:
        try:
            found = programs.trial(program, asserts)
        except ParseError as error:
            return error.reason
        return found if found.different >= self.asserts else f"fewer than {self.asserts} asserts"

    def check_answer(self, text: str) -> str:
        """Why the worked answer is dropped, or ""."""
        marks = arithmetic.marks(text)
        if len(marks) < self.marks:
            return f"fewer than {self.marks} marks"
        if not all(map(arithmetic.true, marks)):
            return "arithmetic wrong"
        final = arithmetic.final_number(text)
        if final is None:
            return "no final number"
        return "" if Fraction(final) in arithmetic.results(text) else "final number is not the last result"

    def check_texts(self, naming: Naming, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """For each row why its text is dropped, or ""."""
        least = naming.least if self.told is None else self.told
        shares = [naming.share(fields) for fields in rows]
        return [LEAVES_OUT if share is not None and share < least - 1e-9 else "" for share in shares]

    def _agreement(self, provenance: Mapping[str, Any]) -> str:
        said = provenance.get("confidence")
        if not said:
            return ""
        return "" if said["agreeing"] >= self.agree * said["answers"] - 1e-9 else "answers disagree"


def _fields(candidate: Candidate) -> Mapping[str, Any]:
    assert candidate.fields is not None
    return candidate.fields

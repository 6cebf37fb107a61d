"""Everything that seedbed raises on purpose.

    SeedbedError
    ├── RecipeError      the recipe: every problem at once
    ├── DataError        a user's file: where, what was found, what to do
    ├── ComponentError   a plug-in or a combination of parts that cannot work
    ├── ModelError       a language model or embedder that cannot be loaded or used
    ├── EngineError      completing or scoring failed
    │   └── TooLong      a prompt does not fit the model's context (counted, never stops a run)
    ├── SandboxError     generated code cannot be isolated on this machine
    ├── StoreError       a run folder that is broken or belongs to another recipe
    ├── RunFailed        the run ended without a usable result
    │   └── GateFailed   all is written, and an audit says that it must not be used
    └── ParseError       a text that is not of the task's form (becomes a drop reason, never stops a run)

A message says where, what was got, what is allowed and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


def did_you_mean(got: str, allowed: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or "" when nothing is near; case does not count."""
    by_lower = {name.lower(): name for name in allowed}
    near = get_close_matches(got.lower(), by_lower, n=1)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""


class SeedbedError(Exception):
    """Base of all; the command line prints it without a traceback."""


class RecipeError(SeedbedError):
    """One or more problems in a recipe; `problems` has one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DataError(SeedbedError):
    """A file of the user's cannot be read as examples of the task. reason: in a word or two, to count rows by."""

    def __init__(self, message: str, reason: str = "unreadable") -> None:
        self.reason = reason
        super().__init__(message)


class ComponentError(SeedbedError):
    """A component cannot be found, or does not fit the others."""


class ModelError(SeedbedError):
    """A model cannot be loaded, or is not the one a teacher was fitted for."""


class EngineError(SeedbedError):
    """An engine could not complete or score."""


class TooLong(EngineError):
    """A prompt, or one and its continuation, is longer than the engine reads."""


class SandboxError(SeedbedError):
    """Generated code would have to run, and this machine cannot isolate it."""


class StoreError(SeedbedError):
    """A run folder is damaged or was made by another recipe."""


class RunFailed(SeedbedError):
    """The run finished with nothing usable (for example: no row was kept)."""


class GateFailed(RunFailed):
    """The results are there, but a gate did not pass. run: what `run` would have given."""

    def __init__(self, message: str, run: Any) -> None:
        self.run = run
        super().__init__(message)


class ParseError(SeedbedError):
    """A generated text is not of the task's form; `reason` is counted."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

"""Seedbed grows a training set out of a handful of real labelled examples, and proves whether it helped."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seedbed.data import load_sample
    from seedbed.errors import SeedbedError
    from seedbed.recipe import Recipe
    from seedbed.recipe import load as load_recipe
    from seedbed.run import Run
    from seedbed.task import Task
    from seedbed.types import Candidate, Example, Measure, Sample, Verdict

__version__ = "0.1.0"
__all__ = ["Candidate", "Example", "Measure", "Recipe", "Run", "Sample", "SeedbedError", "Task", "Verdict", "load_recipe", "load_sample"]

_PLACES = {
    "load_recipe": ("seedbed.recipe", "load"),
    "Recipe": ("seedbed.recipe", "Recipe"),
    "load_sample": ("seedbed.data", "load_sample"),
    "Run": ("seedbed.run", "Run"),
    "Task": ("seedbed.task", "Task"),
    "SeedbedError": ("seedbed.errors", "SeedbedError"),
} | {name: ("seedbed.types", name) for name in ("Candidate", "Example", "Measure", "Sample", "Verdict")}


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """Public names are imported when first asked for, so that `import seedbed` loads next to nothing."""
    if name not in _PLACES:
        raise AttributeError(f"module 'seedbed' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    found = getattr(import_module(module), attribute)
    globals()[name] = found
    return found

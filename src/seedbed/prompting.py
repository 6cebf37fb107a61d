"""Prompts in words: Jinja templates, the user's or shipped ones, and rows whose turns two teachers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from seedbed.catalog import guarded
from seedbed.errors import ComponentError
from seedbed.types import Completion, Row, Teacher

STOP = "\n---"
"""Stands between records in the templates; the model's record ends where it writes one."""


def template_text(name: str, folder: Path, where: str) -> str:
    """The text of a shipped template of `folder`, by its name, or of the user's file. Raises ComponentError, which says `where`."""
    shipped = folder / f"{name}.jinja"
    source = shipped if shipped.is_file() else Path(name)
    if not name or not source.is_file():
        names = sorted(p.stem for p in folder.glob("*.jinja"))
        raise ComponentError(f"{where} = {name!r} is neither a file nor one of {names}. Copy one of those and give its path.")
    return source.read_text(encoding="utf-8")


def compiled(text: str, where: str) -> Any:
    """A Jinja template that cannot reach beyond what it is given. Raises ComponentError where it is broken."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    try:
        return SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(text)
    except TemplateError as error:
        raise ComponentError(f"{where} is broken: {error}. Correct it; shipped ones are in seedbed/generators/templates.") from error


def written(template: Any, known: Mapping[str, Any], where: str) -> str:
    """The template with the values. Raises ComponentError where it asks for others."""
    text: str = guarded(where, lambda: template.render(**known))
    return text


def begun(teacher: Teacher, row: Row) -> tuple[Row, tuple[Completion, ...]] | None:
    """(the row as `teacher` finished it, the turns after that), or None where the teacher has a prompt left."""
    for n in range(len(row.turns) + 1):
        own = replace(row, turns=row.turns[:n])
        if teacher.prompt(own) is None:
            return own, row.turns[n:]
    return None

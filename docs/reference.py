"""Writes docs/reference.md, every setting and every flag, from the code: python docs/reference.py (--check: compare)."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import json
import sys
import types
import typing
from pathlib import Path
from typing import Any

import typer

from seedbed.catalog import CATALOG, find
from seedbed.cli import app
from seedbed.data import SampleSpec
from seedbed.parts import Component
from seedbed.recipe import DEFAULTS, SECTIONS
from seedbed.specs import Annotate, Evaluate, GainSpec, Generate, ModelSpec, Where
from seedbed.task import Task

PLAIN = {
    "sample": SampleSpec, "task": Task, "model": ModelSpec, "generate": Generate, "annotate": Annotate, "gain": GainSpec, "evaluate": Evaluate,
    "where": Where,
}  # fmt: skip
HEAD = """# Reference: settings and commands

Written by `python docs/reference.py` from the code, so that it is as true as the code: do not edit it. `seedbed explain KIND` prints the same
of one component, yours included.

"""


def allowed(hint: Any) -> str:
    """A type with its range, in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return ", ".join([allowed(inner[0]), *filter(None, map(bounds, inner[1:]))])
    if origin is typing.Literal:
        return " or ".join(json.dumps(value) for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(allowed(part) for part in inner if part is not type(None)) + " (may be absent)" * (type(None) in inner)
    if origin is tuple:
        return f"list of {allowed(inner[0])}"
    if hint is Component:
        return '`{kind = "...", settings}`'
    if origin is collections.abc.Mapping:
        return f"table of {allowed(inner[1])}"
    if hasattr(hint, "model_fields"):
        return "`{" + ", ".join(hint.model_fields) + "}`"
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}.get(hint, str(hint))


def bounds(field: Any) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [f"{signs[name]} {getattr(rule, name)}" for rule in field.metadata for name in signs if hasattr(rule, name)]
    return ", ".join(found + [f"of the form `{rule.pattern}`" for rule in field.metadata if hasattr(rule, "pattern")])


def settings(shape: Any) -> str:
    """What a section is, and a table of its settings."""
    if dataclasses.is_dataclass(shape):
        missing, defaults = dataclasses.MISSING, {f.name: f.default for f in dataclasses.fields(shape)}
    else:
        missing, defaults = (
            inspect.Parameter.empty,
            {n: inspect.Parameter.empty if f.is_required() else f.default for n, f in shape.model_fields.items()},
        )
    text = (inspect.getdoc(shape) or "").replace("<", "&lt;")
    hints = typing.get_type_hints(shape, include_extras=True)
    rows = [f"| `{n}` | {allowed(hints[n])} | {'(needed)' if d is missing else default(d)} |" for n, d in defaults.items()]
    return "\n".join([text, "", "| setting | allowed | default |", "|---|---|---|", *rows, ""]) if rows else f"{text}\n\nNo settings.\n"


def default(value: Any) -> str:
    return "" if value is None else f"`{json.dumps(value)}`"


def parts(role: str) -> str:
    usual = DEFAULTS[role]
    kinds = [usual["kind"]] if isinstance(usual, dict) else [part["kind"] for part in usual]
    name = f"[[{role}]]" if isinstance(usual, list) else f"[{role}]"
    always = " `pii` is measured in any case." * (role == "metric")
    head = f"### `{name}`\n\nWithout this section: {', '.join(f'`{kind}`' for kind in kinds) or 'none'}.{always}\n\n"
    return head + "\n".join(f'#### `kind = "{kind}"`\n\n{settings(find(role, kind))}' for kind in CATALOG[role])


def verbs() -> str:
    text = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        rows = [argument(param) for param in command.params]
        table = ["| argument | what it is | default |", "|---|---|---|", *rows, ""] if rows else []
        text.append("\n".join([f"### seedbed {name}", "", command.help or "", "", *table]))
    return "\n".join(text)


def argument(param: Any) -> str:
    """A row of a command's table."""
    is_option = param.param_type_name == "option"
    names = " ".join(f"`{o}`" for o in param.opts) if is_option else f"`{param.name.upper()}`"
    usual = str(param.default) if isinstance(param.default, Path) else param.default
    last = "(needed)" if param.required else "" if usual in ([], False) else default(usual)
    return f"| {names} | {(param.help or '').replace('<', '&lt;')} | {last} |"


TOP = """## The recipe

Sections stand in the order of a run. At the top, before the first section: `name`, the folder of the run (default `"run"`), `seed`, a whole
number of at least 0 that all randomness comes from (default `0`), `sensitive`, which makes the audits of personal data, membership and bias gates
(default `false`), and `base`, the folder that relative paths start from (default: the recipe's).
`[sample]` and `[task]` are needed, the others have defaults.

"""


def page() -> str:
    """The whole page."""
    sections = []
    for name in SECTIONS:
        if name in PLAIN:
            sections.append(f"### `[{name}]`\n\n{settings(PLAIN[name])}")
        elif name in DEFAULTS:
            sections.append(parts(name))
    return HEAD + TOP + "\n".join(sections) + "\n## The commands\n\n" + verbs()


if __name__ == "__main__":
    file = Path(__file__).with_name("reference.md")
    if sys.argv[1:] != ["--check"]:
        file.write_text(page(), encoding="utf-8")
    elif file.read_text(encoding="utf-8") != page():
        sys.exit(f"{file.name} is not what the code says. Write it again: python docs/reference.py")

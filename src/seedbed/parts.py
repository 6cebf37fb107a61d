"""A part of a run: what a recipe's section becomes, and how it is written down again. A part may hold parts, such as an engine of its own."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Component:
    """One part of a run: its name in the recipe, its code's identity and the settings object itself."""

    kind: str
    identity: str
    settings: Any

    def facts(self) -> list[Any]:
        """What counts in fingerprints: all but the settings that cannot change a result, those in the class's `apart`."""
        return [self.identity, self._counted()]

    def fit_facts(self) -> list[Any]:
        """What counts for what was fitted: all but the settings that only its use reads, those in the class's `later`, of its parts' too."""
        return [self.identity, self._counted(later=False)]

    def use_facts(self) -> dict[str, Any]:
        """Those other settings."""
        return self._counted(later=True)

    def all(self) -> Iterator[Component]:
        """Itself and the parts in it."""
        yield self
        for f in dataclasses.fields(self.settings):
            if isinstance(part := getattr(self.settings, f.name), Component):
                yield from part.all()

    def _counted(self, later: bool | None = None) -> dict[str, Any]:
        """Settings by name. later: those that only use reads (True), the others (False), or all (None)."""
        whole, apart, used = dataclasses.asdict(self.settings), getattr(self.settings, "apart", ()), getattr(self.settings, "later", ())
        found: dict[str, Any] = {}
        for name in whole.keys() - set(apart):
            value, chosen = getattr(self.settings, name), later is None or (name in used) == later
            if not isinstance(value, Component):
                found |= {name: whole[name]} if chosen else {}
            elif chosen:
                found[name] = {"kind": value.kind, "identity": value.identity, "settings": value._counted(None if name in used else later)}
            elif later and (inner := value._counted(later)):
                found[name] = inner
        return found


def given_only(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is absent: TOML has no null."""
    return {k: v for k, v in values.items() if v is not None and v != () and v != []}


def toml_lines(values: Mapping[str, Any]) -> list[str]:
    """`key = value`, one a line."""
    return [f"{_key(key)} = {_toml(value)}" for key, value in values.items()]


def _toml(value: Any) -> str:
    """Truth values and most strings and numbers are written alike in JSON and TOML; a mapping and a nested part are inline tables."""
    if isinstance(value, Component):
        return _toml(_written(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(toml_lines(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return toml_string(value) if isinstance(value, str) else json.dumps(value)


def toml_string(text: str) -> str:
    """Not JSON's pairs of surrogates, which TOML has not, and no control sign as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_string(name)


def _written(component: Component) -> dict[str, Any]:
    """What stands in a recipe for it."""
    return {"kind": component.kind, **given_only({f.name: getattr(component.settings, f.name) for f in dataclasses.fields(component.settings)})}


def component_lines(component: Component) -> list[str]:
    """A section's lines."""
    return toml_lines(_written(component))

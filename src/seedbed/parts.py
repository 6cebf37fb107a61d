"""A part of a run: what a recipe's section becomes, and how it is written down again. A part may hold parts, such as an engine of its own."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from seedbed.store import file_hash, fingerprint

SHIPPED = ("seedling", "minilm")
OWN_WEIGHTS = ("local", "vllm")
"""Engines that load models themselves. A server knows its own names; toy has no weights."""


@dataclasses.dataclass(frozen=True)
class Component:
    """One part of a run: its name in the recipe, its code's identity and the settings object itself. written: settings as the recipe has them, of
    those that hold a path that was found from its folder."""

    kind: str
    identity: str
    settings: Any
    written: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def models(self) -> dict[str, str]:
        """Setting -> name of each model that it loads. A `model` beside an engine of its own without weights is that engine's word for it."""
        names, engine = ["embedder", "model"], getattr(self.settings, "engine", self)
        if engine is not self and not (getattr(self.settings, "model", "") and (engine is None or engine.kind in OWN_WEIGHTS)):
            names = ["embedder"]
        return {name: value for name in names if isinstance(value := getattr(self.settings, name, None), str)}

    def placed(self, base: Path) -> Component:
        """With the paths of the files and of the models' folders that it names from `base`; a file's bytes count in its identity."""
        named, found = self.identity, dict[str, str]()
        for name in getattr(self.settings, "files", ()):
            if os.path.isfile(path := base / getattr(self.settings, name)):
                named, found[name] = f"{named}:{file_hash(path)}", str(path.resolve())
        found |= {name: place for name, model in self.models.items() if (place := model_place(model, base)) != model}
        written = {name: getattr(self.settings, name) for name in found}
        return Component(self.kind, named, dataclasses.replace(self.settings, **found) if found else self.settings, written)

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
        """Settings by name. later: those that only use reads (True), the others (False), or all (None). Of a folder of the user's its weights
        count too; of a file its bytes, in the identity, and not its place."""
        apart, used, files = (getattr(self.settings, name, ()) for name in ("apart", "later", "files"))
        whole = dataclasses.asdict(self.settings) | dict(self.written)
        whole |= {name: [whole[name], model_identity(model)] for name, model in self.models.items() if model not in SHIPPED and os.path.isdir(model)}
        found: dict[str, Any] = {}
        for name in whole.keys() - set(apart) - (self.written.keys() & set(files)):
            value, chosen = getattr(self.settings, name), later is None or (name in used) == later
            if not isinstance(value, Component):
                found |= {name: whole[name]} if chosen else {}
            elif chosen:
                found[name] = {"kind": value.kind, "identity": value.identity, "settings": value._counted(None if name in used else later)}
            elif later and (inner := value._counted(later)):
                found[name] = inner
        return found


def model_place(name: str, base: Path) -> str:
    """The path of a model's folder that lies in `base`; any other name, a folder's from here too, unchanged."""
    if name in ("", *SHIPPED) or os.path.isabs(name) or not os.path.isdir(base / name):
        return name
    return os.path.relpath(base / name)


def model_folder(name: str) -> Path:
    """Where a shipped model or the user's own folder is; no folder for a hub name."""
    shipped = Path(__file__).resolve().parent / "models" / name
    return shipped if shipped.is_dir() else Path(name)


def model_identity(name: str) -> str:
    """Hashes of a folder's weight files (shipped or the user's own); a hub name stands for itself."""
    folder = model_folder(name)
    return fingerprint([hash_once(path) for path in sorted(folder.glob("*.safetensors"))]) if folder.is_dir() else name


def hash_once(path: Path) -> str:
    """SHA-256 of a file, once a process while it stays as it is: every cell of a comparison asks, and weights may be many gigabytes."""
    found = path.stat()
    return _hash_of(path.resolve(), found.st_size, found.st_mtime_ns)


@cache
def _hash_of(path: Path, size: int, changed: int) -> str:
    return file_hash(path)


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
    values = {f.name: getattr(component.settings, f.name) for f in dataclasses.fields(component.settings)} | dict(component.written)
    return {"kind": component.kind, **given_only(values)}


def component_lines(component: Component) -> list[str]:
    """A section's lines."""
    return toml_lines(_written(component))


MOST_NAMED = 5


def differing(was: str, now: str) -> str:
    """The settings that two resolved recipes differ in, as a sentence; "" where there is none or the first is no TOML."""
    try:
        old, new = (dict(_settings(tomllib.loads(text))) for text in (was, now))
    except tomllib.TOMLDecodeError:
        return ""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    told = [f"{name} (was {_cut(old.get(name, 'nothing'))}, is {_cut(new.get(name, 'nothing'))})" for name in names[:MOST_NAMED]]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f" It differs in {', '.join(told)}{more}." if told else ""


def _settings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, value as TOML) of each setting; sections in a list have numbers from 1."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _settings(part, f"{name}.{_key(key)}" if name else key)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for i, part in enumerate(value, 1):
            yield from _settings(part, f"{name}.{i}")
    else:
        yield name, _toml(value)


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."

"""recipe.toml <-> frozen models. A bad recipe names every problem at once, before any model loads.

A component's section is `kind` and the fields of its class; each default stands in that class alone. A recipe that names a plug-in
file runs that file: recipes are code.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from seedbed.catalog import find, identity
from seedbed.data import SampleSpec
from seedbed.errors import ComponentError, RecipeError, did_you_mean
from seedbed.flops import DeviceName, Shape
from seedbed.store import file_hash
from seedbed.task import Task
from seedbed.types import Sampling

FROZEN = ConfigDict(frozen=True, extra="forbid")


class ModelSpec(BaseModel):
    """name: "seedling" (shipped), a folder, or a hub name. shape: sizes instead of weights; such a model can be estimated, not run."""

    model_config = FROZEN
    name: Annotated[str, Field(min_length=1)] = "seedling"
    shape: Shape | None = None


class Where(BaseModel):
    """What cannot change a result. device: that a `shape` is estimated for. price_per_hour: of the machine, in any currency."""

    model_config = FROZEN
    device: DeviceName = "h100"
    price_per_hour: Annotated[float, Field(ge=0)] | None = None


class Generate(BaseModel):
    """count: candidates to make. temperature: 0 is greedy. top_p: share of the mass drawn from. max_tokens: a candidate's length at most."""

    model_config = FROZEN
    count: Annotated[int, Field(ge=1)] = 600
    temperature: Annotated[float, Field(ge=0, le=5)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    max_tokens: Annotated[int, Field(ge=1)] = 96

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.max_tokens)


class GainSpec(BaseModel):
    """seeds: students trained for each arm. volumes: synthetic rows of the curve, as multiples of n."""

    model_config = FROZEN
    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    volumes: tuple[Annotated[float, Field(gt=0, le=1000)], ...] = (0.5, 1, 2, 5, 10, 20)


@dataclasses.dataclass(frozen=True)
class Component:
    """One part of a run: its name in the recipe, its code's identity and the settings object itself."""

    kind: str
    identity: str
    settings: Any

    def facts(self) -> list[Any]:
        """What counts in fingerprints."""
        return [self.identity, dataclasses.asdict(self.settings)]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A whole run. base: the folder that relative paths start from."""

    name: str
    seed: int
    sample: SampleSpec
    task: Task
    model: ModelSpec
    engine: Component
    generator: Component
    generate: Generate
    annotators: tuple[Component, ...]
    filters: tuple[Component, ...]
    metrics: tuple[Component, ...]
    student: Component
    gain: GainSpec
    where: Where = dataclasses.field(default=Where(), compare=False)
    base: Path = dataclasses.field(default=Path(), compare=False)

    def to_toml(self) -> str:
        """The resolved recipe: every setting that holds, defaults included."""
        lines = [f"name = {json.dumps(self.name)}", f"seed = {self.seed}"]
        plain = {
            "sample": self.sample.model_dump(exclude_none=True, mode="json"),
            "task": _set(dataclasses.asdict(self.task)),
            "model": self.model.model_dump(exclude={"shape"}),
        }
        if self.model.shape:
            plain["model.shape"] = self.model.shape.model_dump(exclude_none=True)
        for section, values in plain.items():
            lines += ["", f"[{section}]", *_toml_lines(values)]
        for section, component in (("engine", self.engine), ("generator", self.generator)):
            lines += ["", f"[{section}]", *_component_lines(component)]
        lines += ["", "[generate]", *_toml_lines(self.generate.model_dump())]
        for section, components in (("annotator", self.annotators), ("filter", self.filters), ("metric", self.metrics)):
            for component in components:
                lines += ["", f"[[{section}]]", *_component_lines(component)]
        lines += ["", "[student]", *_component_lines(self.student), "", "[gain]", *_toml_lines(self.gain.model_dump(mode="json"))]
        return "\n".join(lines) + "\n"


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if v is not None and v != () and v != []}


def _toml_lines(values: Mapping[str, Any]) -> list[str]:
    """Strings, numbers, truth values and lists are written alike in JSON and TOML."""
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]


def _component_lines(component: Component) -> list[str]:
    return _toml_lines({"kind": component.kind, **_set(dataclasses.asdict(component.settings))})


DEFAULTS: dict[str, Any] = {
    "engine": {"kind": "local"},
    "generator": {"kind": "soft"},
    "annotator": [],
    "filter": [{"kind": "form"}, {"kind": "dedup"}, {"kind": "overlap"}],
    "metric": [{"kind": "mauve"}, {"kind": "diversity"}, {"kind": "coverage"}, {"kind": "memorisation"}],
    "student": {"kind": "linear"},
}
"""The parts of a run that a recipe does not name."""
SECTIONS = (
    "name", "seed", "sample", "task", "model", "engine", "generator", "generate", "annotator", "filter", "metric", "student", "gain", "where",
)  # fmt: skip


def load(path: Path | str, sets: Sequence[str] = ()) -> Recipe:
    """Reads a recipe; sets: `section.key=value` overrides. Raises RecipeError with every problem."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError([f"{path}: cannot be read: {error.strerror}. `seedbed init FILE` prints a recipe to start from."]) from error
    except UnicodeDecodeError as error:
        raise RecipeError([f"{path}: is not UTF-8 text (byte {error.start}). A recipe is a TOML file."]) from error
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError([f"{path}: is not TOML: {error}"]) from error
    return build(raw, path.resolve().parent, sets)


def build(raw: Mapping[str, Any], base: Path = Path(), sets: Sequence[str] = ()) -> Recipe:
    """A recipe from a mapping such as `tomllib.loads` gives. Raises RecipeError with every problem."""
    values: dict[str, Any] = json.loads(json.dumps(dict(raw), default=str))
    problems = [p for p in (_apply(values, text) for text in sets) if p]
    problems += [f"[{k}] is no section of a recipe. Allowed: {', '.join(SECTIONS)}.{did_you_mean(k, SECTIONS)}" for k in values if k not in SECTIONS]
    name = values.get("name", "run")
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,99}", name):
        problems.append(f"name must be a folder's name of at most 100 letters, digits, '.', '_' and '-'. Got {name!r}.")
    seed = values.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        problems.append(f"seed must be a whole number of at least 0. Got {seed!r}.")
    for section in ("sample", "task"):
        if section not in values:
            problems.append(f"[{section}] is missing. Add it; `seedbed init FILE` prints one to start from.")
    parts = {
        "sample": _section("sample", SampleSpec, values, problems) if "sample" in values else None,
        "task": _section("task", Task, values, problems) if "task" in values else None,
        "model": _section("model", ModelSpec, values, problems),
        "generate": _section("generate", Generate, values, problems),
        "gain": _section("gain", GainSpec, values, problems),
        "where": _section("where", Where, values, problems),
        "engine": _component("engine", values.get("engine", DEFAULTS["engine"]), base, problems),
        "generator": _component("generator", values.get("generator", DEFAULTS["generator"]), base, problems),
        "student": _component("student", values.get("student", DEFAULTS["student"]), base, problems),
        "annotators": _components("annotator", values, base, problems),
        "filters": _components("filter", values, base, problems),
        "metrics": _components("metric", values, base, problems),
    }
    if parts["sample"] is not None:
        problems += _absent(parts["sample"], base)
    if parts["generator"] and parts["engine"]:
        problems += _misfits(parts["generator"], parts["engine"])
    problems += _unannotated(parts["task"], parts["annotators"], parts["filters"])
    if problems:
        raise RecipeError(problems)
    return Recipe(name=name, seed=seed, base=base, **parts)


def need_weights(recipe: Recipe) -> None:
    """Raises RecipeError for a model that is a shape."""
    if recipe.model.shape:
        raise RecipeError(["[model] shape describes a model without weights: it can be estimated, not run. Remove shape; name alone is the model."])


def _apply(values: dict[str, Any], text: str) -> str:
    """Applies one `section.key=value`; the problem, or ""."""
    key, equals, written = text.partition("=")
    if not equals or not key.strip():
        return f"--set {text!r} must be key=value, for example generator.tokens=32."
    try:
        value = tomllib.loads(f"v = {written}")["v"]
    except (ValueError, RecursionError):
        value = written
    *path, last = key.strip().split(".")
    place: Any = values
    for depth, step in enumerate(path):
        if isinstance(place, dict) and step not in place and depth == 0 and step in DEFAULTS:
            place[step] = json.loads(json.dumps(DEFAULTS[step]))
        if isinstance(place, list):
            if not step.isdigit() or int(step) >= len(place):
                return f"--set {text!r}: {'.'.join(path[:depth])} is a list of {len(place)}; give a number from 0."
            place = place[int(step)]
        elif isinstance(place, dict):
            place = place.setdefault(step, {})
        else:
            return f"--set {text!r}: {'.'.join(path[:depth])} is no section."
    if not isinstance(place, dict):
        return f"--set {text!r}: {'.'.join(path)} is no section; for lists give a number, for example filter.0.kind=dedup."
    place[last] = value
    return ""


def _section(name: str, shape: Any, values: Mapping[str, Any], problems: list[str]) -> Any:
    given = values.get(name, {})
    if not isinstance(given, dict):
        problems.append(f"[{name}] must be a section of key = value lines. Got {given!r}.")
        return None
    return _validated(f"[{name}]", shape, given, problems)


def _component(role: str, given: Any, base: Path, problems: list[str], where: str = "") -> Component | None:
    where = where or f"[{role}]"
    if not isinstance(given, dict) or not isinstance(given.get("kind"), str):
        problems.append(f'{where} must be a section with kind = "...". Got {given!r}.')
        return None
    try:
        shape = find(role, given["kind"], base)
    except ComponentError as error:
        problems.append(str(error))
        return None
    settings = _validated(where, shape, {k: v for k, v in given.items() if k != "kind"}, problems)
    if settings is None:
        return None
    named = identity(role, given["kind"], base)
    for field in getattr(shape, "files", ()):  # settings that may name a file of the user's: found from the recipe, and its bytes count
        path = base / getattr(settings, field)
        if path.is_file():
            settings, named = dataclasses.replace(settings, **{field: str(path.resolve())}), f"{named}:{file_hash(path)}"
    return Component(given["kind"], named, settings)


def _components(role: str, values: Mapping[str, Any], base: Path, problems: list[str]) -> tuple[Component, ...]:
    given = values.get(role, DEFAULTS[role])
    if not isinstance(given, list):
        problems.append(f"[{role}] must be written [[{role}]], once for each. Got one section.")
        return ()
    found = [_component(role, entry, base, problems, f"[{role} {i + 1}]") for i, entry in enumerate(given)]
    return tuple(f for f in found if f is not None)


def _validated(where: str, shape: Any, given: Mapping[str, Any], problems: list[str]) -> Any:
    """An object of `shape`, or None with the problems noted."""
    fields = [f.name for f in dataclasses.fields(shape)] if dataclasses.is_dataclass(shape) else list(shape.model_fields)
    unknown = [key for key in given if key not in fields]
    for key in unknown:
        problems.append(f"{where} has no setting {key!r}. Allowed: {', '.join(fields) or 'none'}.{did_you_mean(key, fields)}")
    try:
        found = TypeAdapter(shape).validate_python({k: v for k, v in given.items() if k not in unknown})
    except ValidationError as error:
        for problem in error.errors():
            place = ".".join(str(p) for p in problem["loc"])
            message = problem["msg"].removeprefix("Value error, ")
            problems.append(f"{where} {place} = {problem['input']!r}: {message}." if place else f"{where} {message}")
        return None
    return found


def _absent(spec: SampleSpec, base: Path) -> list[str]:
    """Files that the recipe names and that are not there."""
    problems = []
    for key in ("path", "fit", "dev", "test", "pool"):
        value = getattr(spec, key, None)
        if value and not str(value).startswith("hub:") and not os.path.exists(base / str(value)):
            problems.append(f"[sample] {key} = {str(value)!r}: there is no such file (paths are relative to the recipe's folder).")
    return problems


def _misfits(generator: Component, engine: Component) -> list[str]:
    lacking = sorted(generator.settings.needs - engine.settings.can)
    if not lacking:
        return []
    return [
        f"[generator] kind = {generator.kind!r} needs an engine that takes {', '.join(lacking)} prompts; "
        f"[engine] kind = {engine.kind!r} takes {', '.join(sorted(engine.settings.can))}. Choose another engine or generator."
    ]


def _unannotated(task: Task | None, annotators: Sequence[Component], filters: Sequence[Component]) -> list[str]:
    """Annotators that cannot do the task or stand twice, and filters that read annotations nobody writes."""
    problems, kinds = [], [a.kind for a in annotators]
    for i, annotator in enumerate(annotators):
        reason = annotator.settings.supports(task) if task else ""
        if reason:
            problems.append(f"[annotator {i + 1}] {reason}. Remove it, and the filters that read it.")
        if annotator.kind in kinds[:i]:
            problems.append(f"[annotator {i + 1}] kind = {annotator.kind!r} stands twice; annotations are kept by kind. Remove one.")
    for i, component in enumerate(filters):
        for kind in sorted(getattr(component.settings, "reads", frozenset()) - set(kinds)):
            problems.append(
                f"[filter {i + 1}] kind = {component.kind!r} reads the annotations of {kind!r}. Got {', '.join(kinds) or 'no annotator'}. "
                f'Write [[annotator]] kind = "{kind}" in the recipe, or remove the filter.'
            )
    return problems

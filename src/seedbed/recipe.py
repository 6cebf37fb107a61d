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
from typing import Any

from pydantic import TypeAdapter, ValidationError

from seedbed.catalog import find, identity
from seedbed.data import SampleSpec
from seedbed.errors import ComponentError, RecipeError, did_you_mean
from seedbed.parts import Component, component_lines, given_only, model_place, toml_lines, toml_string
from seedbed.specs import Annotate, Evaluate, GainSpec, Generate, ModelSpec, Where
from seedbed.task import Task


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A whole run. sensitive: the audits of personal data, membership and bias are gates. arms: name -> the recipe with what that [[arm]]
    overrides, for `compare`. base: the folder that relative paths start from."""

    name: str
    seed: int
    sensitive: bool
    sample: SampleSpec
    task: Task
    model: ModelSpec
    engine: Component
    generator: Component
    generate: Generate
    annotate: Annotate | None
    annotators: tuple[Component, ...]
    filters: tuple[Component, ...]
    metrics: tuple[Component, ...]
    student: Component
    gain: GainSpec
    evaluate: Evaluate | None = None
    arms: tuple[tuple[str, Recipe], ...] = dataclasses.field(default=(), compare=False)
    where: Where = dataclasses.field(default=Where(), compare=False)
    base: Path = dataclasses.field(default=Path(), compare=False)

    @property
    def label_by(self) -> str | None:
        """The annotator that names the labels of annotated rows, and whose distribution a student learns from; None where there is none."""
        named = self.annotate.by if self.annotate else None
        return named or (self.annotators[0].kind if self.annotators else None)

    @property
    def lm(self) -> str:
        """What [model] name is loaded by: the path of a folder that lies in the recipe's; any other name as it is."""
        return model_place(self.model.name, self.base)

    @property
    def asks_teacher(self) -> bool:
        """Whether any part needs the fitted teacher."""
        written = self.annotate is not None and not self.task.has_labels
        return bool(self.generate.count) or written or any(getattr(a.settings, "asks_teacher", False) for a in self.annotators)

    def to_toml(self) -> str:
        """The resolved recipe: every setting that holds, defaults included."""
        lines = [f"name = {toml_string(self.name)}", f"seed = {self.seed}", f"sensitive = {json.dumps(self.sensitive)}"]
        lists = {"annotator": self.annotators, "filter": self.filters, "metric": self.metrics}
        lines += [f"{section} = []" for section, components in lists.items() if DEFAULTS[section] and not components]  # none, and not the usual ones
        plain = {
            "sample": self.sample.model_dump(exclude_none=True, exclude=self.sample.idle, mode="json"),
            "task": given_only(dataclasses.asdict(self.task)),
            "model": self.model.model_dump(exclude={"shape"}),
        }
        if self.model.shape:
            plain["model.shape"] = self.model.shape.model_dump(exclude_none=True)
        for section, values in plain.items():
            lines += ["", f"[{section}]", *toml_lines(values)]
        for section, component in (("engine", self.engine), ("generator", self.generator)):
            lines += ["", f"[{section}]", *component_lines(component)]
        lines += ["", "[generate]", *toml_lines(self.generate.model_dump())]
        if self.annotate:
            lines += ["", "[annotate]", *toml_lines(self.annotate.model_dump(exclude_none=True))]
        for section, components in lists.items():
            for component in components:
                lines += ["", f"[[{section}]]", *component_lines(component)]
        lines += ["", "[student]", *component_lines(self.student), "", "[gain]", *toml_lines(self.gain.model_dump(mode="json"))]
        if self.evaluate:
            lines += ["", "[evaluate]", *toml_lines(self.evaluate.model_dump(exclude_none=True))]
        return "\n".join(lines) + "\n"


DEFAULTS: dict[str, Any] = {
    "engine": {"kind": "local"},
    "generator": {"kind": "soft"},
    "annotator": [],
    "filter": [{"kind": "form"}, {"kind": "dedup"}, {"kind": "overlap"}],
    "metric": [{"kind": "mauve"}, {"kind": "diversity"}, {"kind": "coverage"}, {"kind": "memorisation"}, {"kind": "pii"}],
    "student": {"kind": "linear"},
}
"""The parts of a run that a recipe does not name. Metrics that gates read are added to any."""
AUDITED = ("pii", "membership")  # metrics that a gate reads one of: the first in every run, both in a sensitive one
SECTIONS = (
    "name", "seed", "sensitive", "sample", "task", "model", "engine", "generator", "generate", "annotate", "annotator", "filter", "metric",
    "student", "gain", "evaluate", "arm", "where", "base",
)  # fmt: skip
ARM = ("model", "engine", "generator", "generate", "annotate", "annotator", "filter", "student")
"""Sections that an [[arm]] may override: the sample, the task and how they are measured are the same for all."""


def load(path: Path | str, sets: Sequence[str] = (), generators: Sequence[str] = ()) -> Recipe:
    """Reads a recipe. sets: `section.key=value` overrides, of lists counted from 1. generators: kinds that become arms beside those of the
    recipe, with their defaults or the recipe's own settings. Raises RecipeError with every problem."""
    raw = read(path)
    own = raw.get("generator", DEFAULTS["generator"])
    for kind in generators if isinstance(raw.setdefault("arm", []), list) else ():  # what is no list is a problem below
        settings = own if isinstance(own, dict) and own.get("kind") == kind else {"kind": kind}
        raw["arm"].append({"name": kind, "generator": settings})
    return build(raw, Path(path).resolve().parent, sets)


def read(path: Path | str) -> dict[str, Any]:
    """A recipe's file as it stands. Raises RecipeError."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError([f"{path}: cannot be read: {error.strerror}. `seedbed init FILE` prints a recipe to start from."]) from error
    except UnicodeDecodeError as error:
        raise RecipeError([f"{path}: is not UTF-8 text (byte {error.start}). A recipe is a TOML file."]) from error
    except (ValueError, RecursionError) as error:
        raise RecipeError([f"{path}: is not TOML: {error}. Of a file of rows `seedbed init FILE` prints a recipe."]) from error


def build(raw: Mapping[str, Any], base: Path = Path(), sets: Sequence[str] = ()) -> Recipe:
    """A recipe from a mapping such as `tomllib.loads` gives. Raises RecipeError with every problem."""
    values: dict[str, Any] = json.loads(json.dumps(dict(raw), default=str))
    problems = [p for p in (_apply(values, text) for text in sets) if p]
    problems += [f"[{k}] is no section of a recipe. Allowed: {', '.join(SECTIONS)}.{did_you_mean(k, SECTIONS)}" for k in values if k not in SECTIONS]
    if not isinstance(folder := values.pop("base", ""), str) or "\0" in folder:
        problems.append(f"base must be the folder that relative paths start from, itself relative to the recipe's. Got {folder!r}.")
        folder = ""
    base, name = base / folder, values.get("name", "run")
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,99}", name):
        problems.append(f"name must be a folder's name of at most 100 letters, digits, '.', '_' and '-'. Got {name!r}.")
    seed = values.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        problems.append(f"seed must be a whole number of at least 0. Got {seed!r}.")
    sensitive = values.get("sensitive", False)
    if not isinstance(sensitive, bool):
        problems.append(f"sensitive must be true or false. Got {sensitive!r}.")
    for section in ("sample", "task"):
        if section not in values:
            problems.append(f"[{section}] is missing. Add it; `seedbed init FILE` prints one to start from.")
    parts = {
        "sample": _section("sample", SampleSpec, values, problems) if "sample" in values else None,
        "task": _section("task", Task, values, problems) if "task" in values else None,
        "model": _section("model", ModelSpec, values, problems),
        "generate": _section("generate", Generate, {"generate": {"count": 0}} | values if "annotate" in values else values, problems),
        "annotate": _section("annotate", Annotate, values, problems) if "annotate" in values else None,
        "gain": _section("gain", GainSpec, values, problems),
        "evaluate": _section("evaluate", Evaluate, values, problems) if "evaluate" in values else None,
        "where": _section("where", Where, values, problems),
        "engine": _component("engine", values.get("engine", DEFAULTS["engine"]), base, problems),
        "generator": _component("generator", values.get("generator", DEFAULTS["generator"]), base, problems),
        "student": _component("student", values.get("student", DEFAULTS["student"]), base, problems),
        "annotators": _components("annotator", values, base, problems),
        "filters": _components("filter", values, base, problems),
        "metrics": _components("metric", {**values, "metric": _audits(values, sensitive is True, problems)}, base, problems),
    }
    parts["sample"] = _with_pool(parts["sample"], parts["annotate"], problems)
    if parts["sample"] is not None:
        problems += _absent(parts["sample"], base)
    if parts["generator"] and parts["engine"]:
        problems += _misfits(parts["generator"], parts["engine"], parts["annotators"])
    if parts["task"] and parts["generator"] and (reason := getattr(parts["generator"].settings, "supports", lambda task: "")(parts["task"])):
        problems.append(f"[generator] {reason}.")
    problems += _unannotated(parts["task"], parts["annotators"], parts["filters"])
    problems += _aimless(parts)
    arms = _arms(values, base, problems)
    if problems:
        raise RecipeError(problems)
    return Recipe(name=name, seed=seed, sensitive=sensitive, base=base, arms=arms, **parts)


def _audits(values: Mapping[str, Any], sensitive: bool, problems: list[str]) -> Any:
    """The metrics with those that gates read: personal data always, membership of a sensitive recipe; bias has groups that only the user can name."""
    given = values.get("metric", DEFAULTS["metric"])
    kinds = [m.get("kind") for m in given if isinstance(m, dict)] if isinstance(given, list) else []
    problems += [f"[[metric]] kind = {kind!r} is there more than once; a gate reads one." for kind in AUDITED if kinds.count(kind) > 1]
    if sensitive and "bias" not in kinds:
        problems.append(
            'sensitive = true looks for bias, and only you know between whom. Write [[metric]] kind = "bias", groups = {women = ["she", "her"], '
            'men = ["he", "him"]} (the words of yours) or column = "...". Naming one metric replaces the default ones.'
        )
    return given + [{"kind": kind} for kind in AUDITED[: 1 + sensitive] if kind not in kinds] if isinstance(given, list) else given


def _arms(values: Mapping[str, Any], base: Path, problems: list[str]) -> tuple[tuple[str, Recipe], ...]:
    """Each [[arm]] as a recipe of its own. A section with a kind takes the place of the recipe's, one without changes settings of it."""
    entries, found = values.get("arm", []), dict[str, Recipe]()
    if not isinstance(entries, list):
        problems.append("[arm] must be written [[arm]], once for each. Got one section.")
        return ()
    shared = {k: v for k, v in values.items() if k != "arm"}
    for i, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w .+-]{0,39}", name) or name in found:
            problems.append(f"[arm {i + 1}] needs a name of its own, at most 40 letters, digits, spaces and '.+-'. Got {name!r}.")
            continue
        unknown = [k for k in entry if k != "name" and k not in ARM]
        problems += [f"[arm {name}] cannot override [{k}]. Allowed: {', '.join(ARM)}.{did_you_mean(k, ARM)}" for k in unknown]
        over = {k: v for k, v in entry.items() if k in ARM}
        merged = {k: shared[k] | v if isinstance(v, dict) and "kind" not in v and isinstance(shared.get(k), dict) else v for k, v in over.items()}
        try:
            found[name] = build(shared | merged, base)
        except RecipeError as error:
            problems += [f"[arm {name}] {problem}" for problem in error.problems if problem not in problems]
    return tuple(found.items())


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
            if not re.fullmatch(r"[0-9]{1,9}", step) or not 1 <= int(step) <= len(place):
                return f"--set {text!r}: {'.'.join(path[:depth])} is a list of {len(place)}; give a number from 1 on, as messages do. Got {step!r}."
            place = place[int(step) - 1]
        elif isinstance(place, dict):
            place = place.setdefault(step, {})
        else:
            return f"--set {text!r}: {'.'.join(path[:depth])} is no section."
    if not isinstance(place, dict):
        return f"--set {text!r}: {'.'.join(path)} is no section; for lists give a number, for example filter.1.kind=dedup."
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
    roles = getattr(shape, "parts", {})  # settings that are parts themselves: setting -> role
    nested = {name: _component(part, given[name], base, problems, f"{where} {name}") for name, part in roles.items() if name in given}
    settings = _validated(where, shape, {k: v for k, v in given.items() if k != "kind" and k not in nested} | nested, problems)
    if settings is None:
        return None
    return Component(given["kind"], identity(role, given["kind"], base), settings).placed(base)


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
            problems.append(f"[sample] {key} = {str(value)!r}: there is no such file (relative paths start at {base.resolve()}).")
    return problems


def _with_pool(sample: SampleSpec | None, annotate: Annotate | None, problems: list[str]) -> SampleSpec | None:
    """The sample, with the file of [annotate] as its pool."""
    if sample is None or annotate is None or annotate.path is None:
        return sample
    if sample.hide or sample.pool not in (None, annotate.path):  # the same twice stands in a resolved recipe
        problems.append(f"[annotate] path = {annotate.path!r} and [sample] {'pool' if sample.pool else 'hide'} both say what the pool is. Give one.")
    return sample.model_copy(update={"pool": annotate.path, "hide": False})


def _misfits(generator: Component, engine: Component, annotators: Sequence[Component]) -> list[str]:
    """Parts that ask the engine, or the teacher, for what it lacks."""
    problems = []
    asking = [("[generator]", generator)] + [(f"[annotator {i + 1}]", a) for i, a in enumerate(annotators)]
    for where, component in asking:
        role = where.strip("[]1234567890 ")
        nested = getattr(component.settings, "engine", None)
        asked, asks = nested if isinstance(nested, Component) else None, getattr(component.settings, "asks_teacher", False)
        own: frozenset[str] = getattr(component.settings, "needs", frozenset())
        if asks and "score:text" in own and "adapter" in generator.settings.needs:
            own |= {"score:adapter"}
        for place, served, needs in (
            ("[engine]", engine, own),
            (f"{where} engine", asked, frozenset({"text"})),
        ):
            if served and (lacking := sorted(needs - served.settings.can)):
                problems.append(
                    f"{where} kind = {component.kind!r} needs an engine that takes {', '.join(lacking)} prompts; "
                    f"{place} kind = {served.kind!r} takes {', '.join(sorted(served.settings.can))}. Choose another engine or {role}."
                )
        if asks and not getattr(generator.settings, "answers", False):
            problems.append(f"{where} kind = {component.kind!r} asks the teacher for targets. {_answers_not(generator)}")
    return problems


def _answers_not(generator: Component) -> str:
    return f"[generator] kind = {generator.kind!r} makes new rows only. Choose one that answers too, such as finetune or hard."


def _aimless(parts: Mapping[str, Any]) -> list[str]:
    """Recipes that make nothing, or whose [annotate] has nobody to name the targets."""
    task, annotate, generate, annotators = (parts[name] for name in ("task", "annotate", "generate", "annotators"))
    problems = []
    if generate and generate.relabel and task and not (task.has_labels and annotators):
        lacking = "no annotator" if task.has_labels else f"a {task.kind} task, which has no labels"
        problems.append(
            f'[generate] relabel needs an annotator that names labels. Got {lacking}. Write [[annotator]] kind = "classifier", or remove it.'
        )
    if annotate is None:
        return problems + ["[generate] count = 0 makes no row. Give 1 or more, or add [annotate]."] * bool(generate and not generate.count)
    if parts["sample"] is not None and not (parts["sample"].pool or parts["sample"].hide):
        problems.append("[annotate] needs inputs: give annotate.path, [sample] pool or [sample] hide.")
    kinds = [a.kind for a in annotators]
    if task and task.has_labels and not annotators:
        problems.append('[annotate] needs an annotator that names the labels. Write [[annotator]] kind = "likelihood" (the teacher) or "classifier".')
    if annotate.by is not None and annotate.by not in kinds:
        problems.append(
            f"[annotate] by = {annotate.by!r} is no annotator of the recipe. Got {', '.join(kinds) or 'none'}.{did_you_mean(annotate.by, kinds)}"
        )
    if task and task.has_labels and annotate.answers > 1:
        problems.append(f"[annotate] answers = {annotate.answers} is for targets that the teacher writes, and annotators name labels. Remove it.")
    if task and not task.target:
        problems.append("[annotate] has no use for a plain task, which has no target. Remove it.")
    if task and task.target and not task.has_labels and parts["generator"] and not getattr(parts["generator"].settings, "answers", False):
        problems.append(f"[annotate] asks the teacher for the targets of a {task.kind} task. {_answers_not(parts['generator'])}")
    return problems


def _unannotated(task: Task | None, annotators: Sequence[Component], filters: Sequence[Component]) -> list[str]:
    """Annotators that cannot do the task or stand twice, and filters that cannot or that read annotations nobody writes."""
    problems, kinds = [], [a.kind for a in annotators]
    for i, annotator in enumerate(annotators):
        if task and (reason := annotator.settings.supports(task)):
            problems.append(f"[annotator {i + 1}] {reason}. Remove it, and the filters that read it.")
        if annotator.kind in kinds[:i]:
            problems.append(f"[annotator {i + 1}] kind = {annotator.kind!r} stands twice; annotations are kept by kind. Remove one.")
    for i, component in enumerate(filters):
        supports = getattr(component.settings, "supports", None)
        if task and supports and (reason := supports(task)):
            problems.append(f"[filter {i + 1}] {reason}. Remove it.")
        for kind in sorted(getattr(component.settings, "reads", frozenset()) - set(kinds)):
            problems.append(
                f"[filter {i + 1}] kind = {component.kind!r} reads the annotations of {kind!r}. Got {', '.join(kinds) or 'no annotator'}. "
                f'Write [[annotator]] kind = "{kind}" in the recipe, or remove the filter.'
            )
    return problems

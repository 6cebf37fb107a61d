"""Names -> places, lazily: the one list of what ships. A plug-in is `package.module:Class` or `file.py:Class`; nothing is registered."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seedbed.errors import ComponentError, SeedbedError, did_you_mean

CATALOG: dict[str, dict[str, str]] = {
    "generator": {
        "soft": "seedbed.generators.soft:Soft",
        "finetune": "seedbed.generators.finetune:Finetune",
        "hard": "seedbed.generators.hard:Hard",
        "refine": "seedbed.generators.refine:Refine",
        "answered": "seedbed.generators.answered:Answered",
    },
    "engine": {
        "local": "seedbed.engines.local:Local",
        "openai": "seedbed.engines.openai:Openai",
        "toy": "seedbed.engines.toy:Toy",
        "vllm": "seedbed.engines.vllm:Vllm",
    },
    "annotator": {
        "classifier": "seedbed.annotators.classifier:Classifier",
        "likelihood": "seedbed.annotators.likelihood:Likelihood",
        "prompted": "seedbed.annotators.prompted:Prompted",
    },
    "filter": {
        "agreement": "seedbed.filters.agreement:Agreement",
        "balance": "seedbed.filters.balance:Balance",
        "form": "seedbed.filters.form:Form",
        "dedup": "seedbed.filters.dedup:Dedup",
        "overlap": "seedbed.filters.overlap:Overlap",
        "personal": "seedbed.filters.personal:Personal",
        "quota": "seedbed.filters.quota:Quota",
        "select": "seedbed.filters.select:Select",
        "verified": "seedbed.filters.verified:Verified",
    },
    "metric": {
        "bias": "seedbed.metrics.bias:Bias",
        "mauve": "seedbed.metrics.mauve:Mauve",
        "diversity": "seedbed.metrics.diversity:Diversity",
        "coverage": "seedbed.metrics.coverage:Coverage",
        "memorisation": "seedbed.metrics.memorisation:Memorisation",
        "heldout": "seedbed.metrics.heldout:Heldout",
        "frechet": "seedbed.metrics.frechet:Frechet",
        "marginals": "seedbed.metrics.marginals:Marginals",
        "labels": "seedbed.metrics.labels:Labels",
        "membership": "seedbed.metrics.membership:Membership",
        "pii": "seedbed.metrics.pii:Pii",
    },
    "student": {
        "causal": "seedbed.students.causal:Causal",
        "encoder": "seedbed.students.encoder:Encoder",
        "linear": "seedbed.students.linear:Linear",
        "seq2seq": "seedbed.students.seq2seq:Seq2seq",
    },
}
METHODS = {
    "generator": ("fit", "load"),
    "engine": ("open",),
    "annotator": ("annotate", "supports"),
    "filter": ("judge",),
    "metric": ("measure",),
    "student": ("learn", "supports"),
}


def guarded(where: str, work: Callable[[], Any]) -> Any:
    """work(); what a plug-in raises becomes a ComponentError that names it. Errors of seedbed pass."""
    try:
        return work()
    except SeedbedError:
        raise
    except Exception as error:
        raise ComponentError(f"{where} failed: {type(error).__name__}: {error}. Correct the plug-in; what is finished is kept.") from error


def find(role: str, kind: str, base: Path = Path()) -> type[Any]:
    """The class that `kind` names. base: folder that a plug-in file's path is relative to. Raises ComponentError."""
    shipped = CATALOG[role]
    place = shipped.get(kind, kind)
    module_name, colon, class_name = place.rpartition(":")
    if not colon:
        allowed = f"{', '.join(shipped)}, package.module:Class or file.py:Class"
        raise ComponentError(f"[{role}] kind = {kind!r} is unknown. Allowed: {allowed}.{did_you_mean(kind, shipped)}")
    found = _class(role, kind, module_name, class_name, base)
    missing = [m for m in METHODS[role] if not callable(getattr(found, m, None))]
    if missing:
        raise ComponentError(f"[{role}] kind = {kind!r}: {class_name} is no {role}: it lacks the method {missing[0]!r}.")
    return found


def roles_of(plugin: str) -> list[str]:
    """The roles whose methods a plug-in has. Raises ComponentError where it has those of none, or cannot be loaded."""
    module_name, _, class_name = plugin.rpartition(":")
    found = _class("plug-in", plugin, module_name, class_name, Path())
    roles = [role for role, methods in METHODS.items() if all(callable(getattr(found, m, None)) for m in methods)]
    if not roles:
        needed = "; ".join(f"{role}: {', '.join(methods)}" for role, methods in METHODS.items())
        raise ComponentError(f"{plugin}: {class_name} has the methods of no role. They are {needed}.")
    return roles


def _class(role: str, kind: str, module_name: str, class_name: str, base: Path) -> type[Any]:
    module = _module(role, module_name, base)
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        there = [name for name, value in vars(module).items() if isinstance(value, type) and value.__module__ == module.__name__]
        allowed = f" Its classes: {', '.join(there) or 'none'}.{did_you_mean(class_name, there)}"
        raise ComponentError(f"[{role}] kind = {kind!r}: {module_name} has no class {class_name!r}.{allowed}")
    if not dataclasses.is_dataclass(found):
        raise ComponentError(f"[{role}] kind = {kind!r}: {class_name} must be a frozen dataclass whose fields are its settings.")
    return found


def _module(role: str, name: str, base: Path) -> Any:
    """A plug-in file is run once for each content that it has: a recipe built twice is then made of the same classes."""
    if not name.endswith(".py"):
        try:
            return importlib.import_module(name)
        except (Exception, SystemExit) as error:  # a module may raise anything
            raise ComponentError(f"[{role}] {name} cannot be imported: {error}. Is it installed in this environment?") from error
    path = base / name
    if "\0" in name or not path.is_file():
        raise ComponentError(f"[{role}] the plug-in file {name} does not exist in {base.resolve()}.")
    path, key = path.resolve(), ""
    try:
        key = f"seedbed_plugin_{hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()[:12]}"
        if key in sys.modules:
            return sys.modules[key]
        spec = importlib.util.spec_from_file_location(key, path)
        assert spec is not None and spec.loader is not None  # a .py file always has a loader
        module = sys.modules[key] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(key, None)
        if not isinstance(error, (Exception, SystemExit)):
            raise
        raise ComponentError(f"[{role}] the plug-in {name} fails to load: {type(error).__name__}: {error}") from error
    return module


def identity(role: str, kind: str, base: Path = Path()) -> str:
    """What stands for a component's code in fingerprints: kind and version, and for a plug-in file its bytes."""
    found = find(role, kind, base)
    code = ""
    if kind not in CATALOG[role] and ".py:" in kind:
        code = hashlib.sha256((base / kind.rpartition(":")[0]).read_bytes()).hexdigest()[:16]
    return f"{role}:{kind}:{getattr(found, 'version', 1)}:{code}"

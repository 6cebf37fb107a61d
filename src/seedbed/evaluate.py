"""Anybody's dataset, measured as if it had been grown here: its rows stand in the place of the kept ones. Nothing is generated."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seedbed import recipe as recipes
from seedbed.data import in_words, load_sample, record
from seedbed.errors import DataError, RecipeError, RunFailed
from seedbed.grow import Grown, Timer, step_names
from seedbed.init import guess
from seedbed.layouts import Reading, chats, reading, unfold
from seedbed.readers import HUB, Table, read
from seedbed.recipe import Recipe
from seedbed.report.card import evaluated as card
from seedbed.report.closeup import VERSION as CLOSEUP
from seedbed.report.page import page as render
from seedbed.run import Run, claim, facts_of, gated, manifest_of, results, score, seal
from seedbed.sifting import write_sifted
from seedbed.store import Store, file_hash, fingerprint, read_json, write_text
from seedbed.task import Task
from seedbed.types import Candidate, Sample

SECTIONS = ("seed", "sensitive", "sample", "task", "metric", "student", "gain", "evaluate")
"""Of a recipe, those that say how rows are measured; the others say how they are made."""
METRICS = ("mauve", "frechet", "marginals", "diversity", "coverage", "labels", "memorisation", "membership", "pii", "heldout")
"""What is measured where the recipe names no metric."""
SHOWN = 3
"""Refused rows that an error names."""


@dataclass(frozen=True)
class Evaluated(Run):
    """data: which rows were read, and how ({"from", "rows", "refused", "columns", "real"}; real: how many real ones they were measured against)."""

    data: Mapping[str, Any]


@dataclass(frozen=True)
class Judged:
    """rows: those that could be read, as candidates. refused: {"id", "filter", "reason", "label", "text"} of the others; text says where and why."""

    rows: list[Candidate]
    refused: list[dict[str, Any]]


def evaluate(
    data: str, real: str | None, recipe: Path | None = None, out: Path | str = "runs", *, sets: Sequence[str] = (), replace: bool = False
) -> Evaluated:
    """Measures the rows of `data` (a file, a folder, or hub:owner/name) against the real ones of `real`, in OUT/evaluate-<name of data>.

    recipe: says the task, how columns are read ([evaluate]), the metrics and the student; without it the task is guessed from `real`, which may
    be left out where the recipe's [sample] says where the real rows are. Raises RecipeError, DataError for files that cannot be read, RunFailed
    where no row of `data` can, GateFailed where a gate has not passed (all is written then), StoreError where the folder holds another evaluation
    (replace: make it anew).
    """
    if not data.startswith(HUB) and (inside := Path(data) / "dataset").is_dir() and (Path(data) / "manifest.json").is_file():
        raise DataError(f"{data} is the folder of a run, with many tables. Give the rows that it kept: {inside}.")
    settings = _recipe(data, real, recipe, sets)
    store = Store(Path(out) / settings.name)
    with store.held():
        return _steps(store, settings, data, replace, Timer())


def _recipe(data: str, real: str | None, path: Path | None, sets: Sequence[str]) -> Recipe:
    """The sections that measure, of a recipe's file or guessed."""
    raw = recipes.read(path) if path else {}
    base = path.resolve().parent / str(raw.get("base", "")) if path else Path.cwd()
    values = {name: raw[name] for name in SECTIONS if name in raw}
    if wrong := [name for name in ("sample", "evaluate") if not isinstance(values.get(name, {}), dict)]:
        raise RecipeError([f"[{name}] must be a section of key = value lines. Got {values[name]!r}." for name in wrong])
    if real is not None:
        kept = {k: v for k, v in values.get("sample", {}).items() if k in ("rows", "fraction", "dev_share", "test_share", "license")}
        values["sample"] = {"path": _from(base, real), **kept}
    elif "sample" not in values:
        raise RecipeError(["give the real rows: --real FILE, or --recipe RECIPE with a [sample]."])
    values.setdefault("metric", [{"kind": kind} for kind in METRICS])
    values["evaluate"] = {**values.get("evaluate", {}), "path": _from(base, data)}
    values["name"] = f"evaluate-{_stem(data)}"
    named = str(values["sample"].get("path") or values["sample"].get("fit") or "")
    if named and "task" not in values and not any(text.startswith("task.") for text in sets):
        task = guess(chats(read(named if named.startswith(HUB) else base / named)))
        values["task"] = {"kind": task.kind, "inputs": list(task.inputs), **({"target": task.target} if task.target else {})}
    built = recipes.build(values, base, sets)
    if built.sample.folds:
        raise RecipeError(
            [f"[sample] folds = {built.sample.folds}: rows that were made elsewhere may have been made of any of these. Give real ones with --real."]
        )
    return built


def _from(base: Path, name: str) -> str:
    """A path as a recipe in `base` names it."""
    return name if name.startswith(HUB) else os.path.relpath(name, base)


def _stem(data: str) -> str:
    """A folder's name after a file, folder or hub name; of a run's dataset after the run."""
    place = Path(data).resolve()
    place = place.parent if place.name == "dataset" and (place.parent / "manifest.json").is_file() else place
    name = data.removeprefix(HUB) if data.startswith(HUB) else place.name
    name = re.sub(r"(\.gz)?$", "", name, flags=re.I)
    return re.sub(r"[^\w.-]+", "-", re.sub(r"\.(csv|tsv|jsonl?|parquet|arrow)$", "", name, flags=re.I)).strip("-.")[:80] or "rows"


def _steps(store: Store, recipe: Recipe, data: str, replace_old: bool, timer: Timer) -> Evaluated:
    sample: Sample = timer.time("sample", lambda: load_sample(recipe.sample, recipe.task, recipe.seed, recipe.base))
    judged, how = timer.time("read", lambda: read_rows(data, sample.task, recipe))
    _unseen(data, sample)
    claim(store, recipe, replace_old)  # what could not be read holds no folder
    names = _names(recipe, sample, judged)
    store.step(names["kept"], lambda folder: write_sifted(folder, judged.rows, judged.refused))
    counts = _counts(judged)
    if not judged.rows:
        why = _no_row(data, judged)
        results(store, {"measures": [], "gain": None, "counts": counts, "verdict": why}, {})
        raise RunFailed(why)
    grown = Grown(recipe, names, None, judged.rows, judged.refused, {}, [], {})
    scored = timer.time("scores", lambda: store.step(names["scores"], lambda folder: score(folder, grown, sample, counts)))
    manifest = manifest_of(grown, sample, timer, counts) | {"data": _origin(data, judged, how) | {"real": in_words(sample)}}
    facts = replace(facts_of(recipe, sample, grown, scored, manifest), recipe_toml=_measuring(recipe), data=manifest["data"])
    results(store, dict(facts.scores), manifest)
    write_text(store.path("report.html"), render(facts))
    write_text(store.path("card.md"), card(facts))
    seal(store, manifest)
    return gated(Evaluated(store.root, dict(facts.scores), facts.data))


def _unseen(data: str, sample: Sample) -> None:
    """Raises DataError where the rows are those of a run with folds, which is made of all its real rows, and these are tested on."""
    run = Path(data).resolve().parent
    manifest = read_json(run / "manifest.json") if Path(data).resolve().name == "dataset" and (run / "manifest.json").is_file() else {}
    if not manifest.get("counts", {}).get("folds"):
        return
    ids = read_json(run / manifest["steps"]["sample"] / "sample.json")["ids"]
    if learned := {*ids["fit"], *ids["dev"]}.intersection(e.id for e in sample.test):
        raise DataError(
            f"{data}: made with folds, of all its real rows; {len(learned)} of {len(sample.test)} test rows are among them, "
            f"such as {min(learned)!r}. Its gain stands in {run / 'scores.json'}; for another give other real rows with --real."
        )


def _names(recipe: Recipe, sample: Sample, judged: Judged) -> dict[str, str]:
    """Step -> folder, named after all that it depends on."""
    first = step_names(recipe, sample)["sample"]
    kept = fingerprint(first, [[c.id, dict(c.fields or {})] for c in judged.rows], judged.refused)
    scores = fingerprint(kept, [m.facts() for m in recipe.metrics], recipe.student.facts(), recipe.gain.model_dump(), CLOSEUP)
    return {"sample": first, "kept": f"kept-{kept}", "scores": f"scores-{scores}"}


def read_rows(data: str, task: Task, recipe: Recipe) -> tuple[Judged, Reading]:
    """The rows of `data` as candidates, how they were read, and the refused ones with their reasons. Raises DataError for what is no table."""
    refused: dict[int, DataError] = {}
    table = chats(unfold(read(data if data.startswith(HUB) else Path(data))), refused.__setitem__)
    spec = recipe.evaluate
    how = reading(table, task, spec.columns if spec else {}, spec.labels if spec else {})
    mapped = [how.row(task, row) for row in table.rows]
    columns = tuple(dict.fromkeys(name for row in mapped for name in row))
    ours = replace(table, rows=tuple(mapped), columns=columns)
    rows = []
    for i in range(len(mapped)):
        if i in refused:
            continue
        try:
            fields = record(ours, i, task)
        except DataError as error:
            refused[i] = error
        else:
            rows.append(_candidate(ours, i, task, fields))
    return Judged(rows, [_refusal(i, refused[i]) for i in sorted(refused)]), how


def _candidate(table: Table, index: int, task: Task, fields: Mapping[str, Any]) -> Candidate:
    known = {name: fields[name] for name in task.columns}
    return Candidate(f"r{index:07d}", index, task.render(known), known, True, "", {"sources": [table.place(index)]})


def _refusal(index: int, error: DataError) -> dict[str, Any]:
    return {"id": f"r{index:07d}", "filter": "read", "reason": error.reason, "label": None, "text": str(error)}


def _counts(judged: Judged) -> dict[str, Any]:
    reasons = [f"read:{row['reason']}" for row in judged.refused]
    dropped = {reason: reasons.count(reason) for reason in sorted(set(reasons))}
    return {"candidates": len(judged.rows) + len(judged.refused), "kept": len(judged.rows), "dropped": dropped, "failed": {}}


def _no_row(data: str, judged: Judged) -> str:
    first = "\n".join(str(row["text"]) for row in judged.refused[:SHOWN])
    return f"{data}: none of its {len(judged.refused)} rows can be read as the task's. The first:\n{first}"


def _origin(data: str, judged: Judged, how: Reading) -> dict[str, Any]:
    """Which bytes were measured, and how they were read."""
    path = Path(data)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else []
    digest = file_hash(path) if path.is_file() else fingerprint([[str(p.relative_to(path)), file_hash(p)] for p in files])
    known = {"sha256" if path.is_file() else "fingerprint of its files": digest} if files else {}
    return {"from": data, **known, "rows": len(judged.rows) + len(judged.refused), "refused": len(judged.refused), "columns": how.how}


def _measuring(recipe: Recipe) -> str:
    """The resolved recipe without the sections that say how rows are made."""
    made = ("model", "engine", "generator", "generate", "annotator", "filter")
    return "\n\n".join(part for part in recipe.to_toml().split("\n\n") if not part.lstrip("[").startswith(tuple(f"{name}]" for name in made)))

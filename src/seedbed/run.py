"""One run, top to bottom: sample, teacher, candidates, annotations, kept, scores, dataset, report."""

from __future__ import annotations

import json
import math
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from dataclasses import replace as replace_in
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from seedbed import fleet
from seedbed.catalog import guarded
from seedbed.data import load_sample
from seedbed.dataset import write_dataset
from seedbed.errors import ComponentError, GateFailed, RecipeError, RunFailed, StoreError
from seedbed.folds import grow_folds
from seedbed.gain import Gain, decisive, lessons, measure_gain, training_sets
from seedbed.gates import failed, gates
from seedbed.grow import Grown, Timer, looks_step, own, sizes, step_names
from seedbed.limits import UNLIMITED, Limits, Purse, said
from seedbed.parts import Component, differing, model_folder
from seedbed.pii import POOLED
from seedbed.progress import bar
from seedbed.recipe import Recipe
from seedbed.report.card import card
from seedbed.report.closeup import closeup
from seedbed.report.facts import Facts
from seedbed.report.page import page as render
from seedbed.report.verdict import verdict
from seedbed.sifting import tally
from seedbed.store import Journal, Mapped, Store, file_hash, write_json, write_text
from seedbed.types import Candidate, Example, Measure, Sample, seed_for
from seedbed.volume import grow_as_asked
from seedbed.weights import need_weights, untuned

VERSIONED = ("seedbed", "torch", "transformers", "tokenizers", "numpy", "scikit-learn", "pyarrow")


Done = TypeVar("Done", bound="Run")


@dataclass(frozen=True)
class Run:
    """A finished run. folder: OUT/<name>. scores: what scores.json holds."""

    folder: Path
    scores: dict[str, Any]

    @property
    def verdict(self) -> str:
        """Gates that did not pass, the gain, copies and alarms, and where a limit cut the run, in one sentence."""
        return str(self.scores["verdict"])


def run(recipe: Recipe, out: Path | str = "runs", *, replace: bool = False, limits: Limits = UNLIMITED, on: str = fleet.HERE) -> Run:
    """Carries the recipe out in OUT/<name>; finished steps are not made again.

    A limit ends the fit with its best so far, and generating with the rows finished; what follows is made of these, exactly as if
    `generate.count` were their number. A later call goes on from there to the bytes of a run that was never limited. on: "here", "ray" or
    ray://host:port (extra `ray`): where rows are completed; it changes no row.

    Raises StoreError when the folder holds another recipe's results (replace: make those anew, keep the steps that still fit),
    RunFailed when no row is kept, GateFailed when all is written and a gate of `gates` has not passed, and what the parts raise.
    """
    need_weights(recipe)
    need_price(recipe, limits, on)
    store = Store(Path(out) / recipe.name)
    with store.held():
        timer = Timer(_earlier(store, ".seconds.json"), Purse(limits.cost, sum(_earlier(store, ".cost.json").values())))
        sample: Sample = timer.time("sample", lambda: load_sample(recipe.sample, recipe.task, recipe.seed, recipe.base))
        # Not before its rows can be read: a recipe that is then corrected is no other one, and nothing is given up for it.
        claim(store, recipe, replace)
        try:
            return _steps(store, recipe, sample, timer, replace, limits, on)
        finally:
            write_json(store.path(".seconds.json"), timer.seconds)
            if timer.purse.spent:
                write_json(store.path(".cost.json"), {"cost": timer.purse.spent})


def _steps(store: Store, recipe: Recipe, sample: Sample, timer: Timer, replace: bool, limits: Limits, on: str) -> Run:
    name = step_names(recipe, sample)["sample"]
    _same_data(store, name, replace)
    store.step(name, lambda folder: write_json(folder / "sample.json", _describe(sample)))
    deadline = limits.deadline()
    grown, volume = grow_as_asked(store, recipe, sample, limits, timer, on)
    counts = _counts(grown, sample) | ({"auto": volume} if volume else {})
    if not grown.kept:
        why = _no_row(store, grown, counts)
        results(store, {"measures": [], "gain": None, "counts": counts, "verdict": why} | grown.cut, {})
        raise RunFailed(why)
    grown, folds = grow_folds(store, grown, recipe, sample, limits, deadline, timer, on)
    counts |= {"folds": [{"test": len(s.test), "kept": len(f.kept)} for s, f in zip(sample.folds, folds, strict=False)]} if folds else {}
    scored = timer.time("scores", lambda: store.step(grown.names["scores"], lambda out: score(out, grown, sample, counts, folds)))
    page = facts_of(recipe, sample, grown, scored, manifest_of(grown, sample, timer, counts, folds))
    rows = originated(grown)
    store.replace("dataset", lambda out: write_dataset(out, sample.task, rows, lambda written: card(page, written)))
    results(store, dict(page.scores), dict(page.manifest))
    write_text(store.path("report.html"), render(page))
    seal(store, dict(page.manifest))
    return gated(Run(store.root, dict(page.scores)))


def gated(done: Done) -> Done:
    """The run, where its gates have passed. Raises GateFailed."""
    if why := failed(done.scores["gates"]):
        raise GateFailed(
            f"{why}. Everything is written, and must not be used as it is. The rows: seedbed show {done.folder} scores, or the report. Drop them "
            '([[filter]] kind = "personal" for personal data), allow them (pii.allow), or train less; see docs/ethics.md.',
            done,
        )
    return done


def facts_of(recipe: Recipe, sample: Sample, grown: Grown, scored: Path, manifest: dict[str, Any]) -> Facts:
    scores, closeup = (json.loads((scored / name).read_text()) for name in ("scores.json", "closeup.json"))
    scores |= grown.cut | {"gates": gates(scores["measures"], recipe.sensitive)}
    task, target = sample.task, str(sample.task.target)
    labels = Counter(str(e.fields[target]) for e in (*sample.fit, *sample.dev)) if task.has_labels else Counter[str]()
    first = verdict((scored / "verdict.txt").read_text().strip(), scores["measures"], failed(scores["gates"]))
    scores["verdict"] = first + said(scores) + (f". {note}" if (note := untuned(recipe)) else "") + real_inputs(scores["counts"])
    licenses = {"sample": recipe.sample.license, "model": model_license(recipe.lm)}
    made = (recipe.to_toml(), task, sizes(sample), scores, manifest, _training(grown.fitted))
    return Facts(recipe.name, *made, grown.kept, grown.dropped, {name: labels[name] for name in task.labels}, closeup, licenses)


def real_inputs(counts: Mapping[str, Any]) -> str:
    """What of the kept rows is no model's text; "" where all is."""
    n = counts.get("annotated", 0)
    return f". {n} of {counts['kept']} rows are real inputs of the pool that were given a target: their texts are as they came" if n else ""


def model_license(name: str) -> str | None:
    """What the card in a model's folder names as its licence; None where there is no folder, no card or no such line."""
    from huggingface_hub.repocard import metadata_load

    path = model_folder(name) / "README.md"
    try:
        found = (metadata_load(path) or {}).get("license") if path.is_file() else None
    except ValueError:
        return None  # front matter of another form: unknown, which the card says
    return found if isinstance(found, str) else None


def claim(store: Store, recipe: Recipe, replace: bool) -> None:
    path, text = store.path("recipe.toml"), recipe.to_toml()
    before = path.read_text(encoding="utf-8") if path.exists() else text
    if before != text and not replace and _finished(store):
        raise StoreError(
            f"{store.root} holds the results of another recipe, or of an earlier version that read this one otherwise.{differing(before, text)} "
            "Give --replace to make them anew (finished steps that still fit are kept), or another name or --out."
        )
    if before != text:
        for name in ("scores.json", "manifest.json", "report.html"):
            store.path(name).unlink(missing_ok=True)
        shutil.rmtree(store.path("dataset"), ignore_errors=True)
    write_text(path, text)


def _finished(store: Store) -> bool:
    """Whether the folder holds more than the sample and steps in the making, which are in nobody's way: their names tell whose they are."""
    return any(p.suffix != ".partial" and not p.name.startswith((".", "recipe.", "sample-")) for p in store.root.iterdir())


def _same_data(store: Store, name: str, replace: bool) -> None:
    """Refuses to put results of other rows in the place of finished ones."""
    found = [p.name for p in store.root.glob("sample-*") if p.name != name]
    if found and store.path("scores.json").exists() and not store.path(name).exists() and not replace:
        raise StoreError(
            f"{store.root} holds results of other rows: the data changed since. Give --replace to make them anew, or another name or --out."
        )


def _no_row(store: Store, grown: Grown, counts: Mapping[str, Any]) -> str:
    if not counts["candidates"]:
        return (
            f"no row was finished{said(grown.cut)}. Give a higher limit; a row starts only when all of its generate.max_tokens = "
            f"{grown.recipe.generate.max_tokens} are left, and the money that it can cost."
        )
    reasons = ", ".join(f"{k} {n}" for k, n in counts["dropped"].items() if n)
    return (
        f"no row was kept of {counts['candidates']} candidates ({reasons}){said(grown.cut)}. Read some: seedbed show {store.root} dropped. "
        "Texts of the wrong form want a longer fit (generator.epochs of a soft prompt), room for a whole row in generate.max_tokens, or a stronger "
        "[model]; labels hold one line."
    )


def score(out: Path, grown: Grown, sample: Sample, counts: dict[str, Any], folds: Sequence[Grown] = ()) -> None:
    """scores.json, closeup.json and verdict.txt; each (arm, volume, seed, fold) of the gain is a unit in the journal."""
    recipe, seed = grown.recipe, seed_for(grown.recipe.seed, "scores")
    made = examples_of(grown.kept, sample, recipe)
    whole = examples_of(grown.kept, sample, recipe, "pii")
    measures = []
    with bar("measure", len(recipe.metrics)) as update:
        for i, component in enumerate(recipe.metrics):
            update(i, component.kind)
            measures += measured(component, sample, whole if component.kind == "pii" else made, seed)
        update(len(recipe.metrics), "")
    if grown.kept and not made:
        measures = [m if m.value is not None or POOLED in m.note else replace_in(m, note=NOTHING_WRITTEN) for m in measures]
    rows, *in_folds = (lessons(g.kept, str(sample.task.target), recipe.label_by if recipe.gain.soft_labels else None) for g in (grown, *folds))
    spec, student, few = recipe.gain, recipe.student.settings, min(map(len, (rows, *in_folds)))
    sets = [] if decisive(sample, student)[1] else training_sets(sample, few, spec.volumes)
    students = len(sets) * spec.seeds * max(1, len(sample.folds))
    with closing(Journal(out / "units.jsonl")) as journal, bar("students", students) as update:
        known = {r["name"]: r["value"] for r in journal.records}

        def unit(name: str, make: Callable[[], Any]) -> Any:
            if name not in known:
                known[name] = own("student", recipe.student, make)
                journal.add({"name": name, "value": known[name]})
                update(len(known), "")
            return known[name]

        gain: Gain = measure_gain(sample, rows, student, seed, seeds=spec.seeds, volumes=spec.volumes, folds=in_folds, unit=unit)
    write_json(out / "closeup.json", closeup(sample, grown.kept, seed))
    write_text(out / "verdict.txt", gain.verdict + "\n")
    write_json(out / "scores.json", {"measures": [asdict(m) for m in measures], "gain": gain.to_json(), "counts": counts})


NOTHING_WRITTEN = "every kept row is a real input whose label was read: no text was generated"


def examples_of(kept: Sequence[Candidate], sample: Sample, recipe: Recipe, metric: str = "") -> Sequence[Example]:
    """The kept rows that a metric of this kind looks at. Of an annotated row with a label every word is the user's own: there is nothing to measure,
    but for the personal data that it brings along."""
    if recipe.annotate and sample.task.has_labels and metric != "pii":
        kept = [c for c in kept if not c.annotated]
    return Mapped(kept, lambda c: Example(c.id, c.fields or {}))


def originated(grown: Grown) -> Sequence[Candidate]:
    """The kept rows with what the run knows of all alike: hashes of the model and of the adapter or prompt that steered it, sampling, and the
    filters that kept them. None of a real row that an annotator labelled: nobody wrote it."""
    recipe, steered = grown.recipe, grown.fitted / "prompt.safetensors" if grown.fitted else None
    adapter = file_hash(steered) if steered and steered.is_file() else grown.engine.get("adapter_hash")
    facts = {"model_hash": grown.engine.get("model_hash"), "adapter_hash": adapter, "sampling": asdict(recipe.generate.sampling)}
    answers = facts | {"sampling": recipe.annotate and asdict(recipe.annotate.sampling(recipe.generate.max_tokens))}
    judged = {"filters": [f.kind for f in recipe.filters]}

    def origin(candidate: Candidate) -> dict[str, Any]:
        if not candidate.annotated:
            return facts
        return answers if candidate.provenance.get("made_by") else dict.fromkeys(facts)

    return Mapped(grown.kept, lambda c: replace_in(c, provenance=dict(c.provenance) | origin(c) | judged))


def measured(component: Component, sample: Sample, rows: Sequence[Example], seed: int) -> list[Measure]:
    found = guarded(f"[metric] kind = {component.kind!r}", lambda: component.settings.measure(sample, rows, seed))
    if not isinstance(found, list) or not all(isinstance(m, Measure) for m in found):
        raise ComponentError(f"[metric] kind = {component.kind!r}: measure() must give a list of Measures. Got {found!r:.80}.")
    for m in found:  # they end in JSON, which has no NaN, and in tables
        for name in ("value", "low", "high", "real", "p"):
            number = getattr(m, name)
            if number is not None and not (isinstance(number, int | float) and math.isfinite(number)):
                raise ComponentError(
                    f"[metric] kind = {component.kind!r}: {name} of {m.name!r} must be a finite int or float, or None. Got {number!r:.80}."
                )
    return found


def _counts(grown: Grown, sample: Sample) -> dict[str, Any]:
    """annotated: of the kept ones, real inputs that got a target; only with [annotate]. quota_not_met: label -> rows missing; only with a quota."""
    places = [grown.fitted / name for name in ("prompt.json", "finetune.json")] if grown.fitted else []  # a prompt with LoRA has both
    too_long: dict[str, int] = next((json.loads(place.read_text())["too_long"] for place in places if place.exists()), {})
    failed = {f"{split} rows longer than the context": n for split, n in too_long.items() if n}
    all_rows = len(grown.kept) + len(grown.dropped)
    found = {
        "candidates": all_rows,
        "kept": len(grown.kept),
        "dropped": tally((f.kind for f in grown.recipe.filters), grown.dropped),
        "failed": failed,
    }
    found |= {"annotated": sum(c.annotated for c in grown.kept)} if grown.recipe.annotate else {}
    quotas = [f.settings.short(grown.kept, sample) for f in grown.recipe.filters if f.kind == "quota"]
    return found | ({"quota_not_met": quotas[-1]} if quotas else {})


def manifest_of(grown: Grown, sample: Sample, timer: Timer, counts: dict[str, Any], folds: Sequence[Grown] = ()) -> dict[str, Any]:
    in_folds = [{step: name for step, name in fold.names.items() if step not in ("sample", "scores")} for fold in folds]
    return {
        "name": grown.recipe.name,
        "seed": grown.recipe.seed,
        "steps": dict(grown.names),
        **({"folds": in_folds} if folds else {}),
        "sizes": sizes(sample),
        "engine": dict(grown.engine),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONED},
        "seconds": timer.seconds,
        "counts": counts,
        "annotators": grown.annotators,
        **({"cost": round(timer.purse.spent, 6)} if timer.purse.spent else {}),
        **grown.cut,
    }


def results(store: Store, scores: dict[str, Any], manifest: dict[str, Any]) -> None:
    write_json(store.path("scores.json"), scores)
    write_json(store.path("manifest.json"), manifest)


def seal(store: Store, manifest: dict[str, Any]) -> None:
    """manifest.json once more, with the hash of every file that it speaks of: what `verify` checks first."""
    write_json(store.path("manifest.json"), manifest | {"files": sealed(store.root, manifest)})


def sealed(root: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Path in the run folder -> SHA-256, of the whole steps, those of folds, what a teacher looked at, the dataset and the results."""
    sets = [("", manifest.get("steps", {})), *(("folds/", fold) for fold in manifest.get("folds", ()))]
    steps = [where + name for where, names in sets for name in (*names.values(), *([looks_step(names)] if "candidates" in names else ()))]
    tops = [root / name for name in ("recipe.toml", "scores.json", "report.html", "card.md")]
    inside = [path for name in (*steps, "dataset") for path in sorted((root / name).rglob("*"))]
    return {path.relative_to(root).as_posix(): file_hash(path) for path in (*tops, *inside) if path.is_file()}


def _earlier(store: Store, name: str) -> dict[str, float]:
    """What earlier calls took."""
    try:
        found: dict[str, float] = json.loads(store.path(name).read_text())
    except (OSError, ValueError):
        return {}  # for the manifest alone: a run does not stop for it
    return found


def need_price(recipe: Recipe, limits: Limits, on: str) -> None:
    """Raises RecipeError where money is limited and nothing has a price, or rows are completed elsewhere: the limit would never hold."""
    if limits.cost is not None and on != fleet.HERE:
        raise RecipeError([f"--max-cost: money is counted where rows are completed, and with on = {on!r} that is elsewhere. Leave one of both out."])
    parts = [part.settings for top in (recipe.engine, recipe.generator, *recipe.annotators) for part in top.all()]
    if limits.cost is not None and not any(getattr(p, "price_in", 0) or getattr(p, "price_out", 0) for p in parts):
        raise RecipeError(
            ['--max-cost: no engine of the recipe has a price. Give price_in and price_out of kind = "openai"; time on a machine is --max-minutes.']
        )


def _training(fitted: Path | None) -> dict[str, Any] | None:
    path = fitted / "training.json" if fitted else None
    return json.loads(path.read_text()) if path and path.exists() else None


def _describe(sample: Sample) -> dict[str, Any]:
    ids = {part: [e.id for e in getattr(sample, part)] for part in ("fit", "dev", "test", "pool")}
    return {"sizes": sizes(sample), "labels": list(sample.task.labels), "ids": ids}

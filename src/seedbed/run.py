"""One run, top to bottom: sample, teacher, candidates, annotations, kept, scores, dataset, report."""

from __future__ import annotations

import json
import math
import platform
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from dataclasses import replace as replace_fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from seedbed import fleet
from seedbed.annotations import annotate, annotated, annotation_facts
from seedbed.candidates import complete, read_candidates, rows_done
from seedbed.catalog import guarded
from seedbed.data import load_sample, write_dataset
from seedbed.errors import ComponentError, RunFailed, StoreError
from seedbed.gain import Gain, measure_gain
from seedbed.limits import FIT_SHARE, GENERATE_SHARE, UNLIMITED, Allowance, Deadline, Limits, said
from seedbed.recipe import Component, Recipe, need_weights
from seedbed.report.card import card
from seedbed.report.closeup import VERSION as CLOSEUP
from seedbed.report.closeup import closeup
from seedbed.report.facts import Facts
from seedbed.report.page import page as render
from seedbed.report.verdict import verdict
from seedbed.store import Journal, Store, file_hash, fingerprint, read_lines, unchanged, write_hashes, write_json, write_lines, write_text
from seedbed.types import Candidate, Example, Measure, Sample, Teacher, Verdict, seed_for

VERSIONED = ("seedbed", "torch", "transformers", "tokenizers", "numpy", "scikit-learn", "pyarrow")
SIFTED = ("kept.jsonl", "dropped.jsonl")
JUDGED_TOGETHER = 1000
"""Candidates in one part of row-by-row filtering."""


@dataclass(frozen=True)
class Run:
    """A finished run. folder: OUT/<name>. scores: what scores.json holds. verdict: the gain in one sentence, and where a limit cut the run."""

    folder: Path
    scores: dict[str, Any]
    verdict: str


@dataclass(frozen=True)
class _Made:
    """Candidates of `rows` rows: those in the folder's parts, and `uncut`, in no part yet. engine: facts of it."""

    folder: Path
    rows: int
    uncut: list[Candidate]
    engine: dict[str, Any]

    def read(self, answers: Path | None = None) -> list[Candidate]:
        """All of them, with what the annotators answered, where there is a folder of that."""
        found = [*read_candidates(self.folder, self.rows), *self.uncut]
        return annotated(answers, found) if answers else found


@dataclass
class _Timer:
    """Seconds spent in each step, over all calls of this run."""

    seconds: dict[str, float] = field(default_factory=dict)

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        start = time.monotonic()
        try:
            return work()
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - start, 2)


def run(recipe: Recipe, out: Path | str = "runs", *, replace: bool = False, limits: Limits = UNLIMITED) -> Run:
    """Carries the recipe out in OUT/<name>; finished steps are not made again.

    A limit ends the fit with its best so far, and generating with the rows finished; what follows is made of these, exactly as if
    `generate.count` were their number. A later call goes on from there to the bytes of a run that was never limited.

    Raises StoreError when the folder holds another recipe's results (replace: make those anew, keep the steps that still fit),
    RunFailed when no row is kept, and what the parts raise.
    """
    need_weights(recipe)
    store = Store(Path(out) / recipe.name)
    with store.held():
        _claim(store, recipe, replace)
        timer = _Timer(_earlier_seconds(store))
        try:
            return _steps(store, recipe, timer, replace, limits)
        finally:
            write_json(store.path(".seconds.json"), timer.seconds)


def _steps(store: Store, recipe: Recipe, timer: _Timer, replace: bool, limits: Limits) -> Run:
    deadline = limits.deadline()
    sample: Sample = timer.time("sample", lambda: load_sample(recipe.sample, recipe.task, recipe.seed, recipe.base))
    names = step_names(recipe, sample)
    _same_data(store, names["sample"], replace)
    store.step(names["sample"], lambda folder: write_json(folder / "sample.json", _describe(sample)))
    short = timer.time("teacher", lambda: _fit(store, names["teacher"], recipe, sample, deadline.share(FIT_SHARE)))
    names = step_names(recipe, sample, short)
    fitted = store.path(names["teacher"])
    teacher: Teacher = _own("generator", recipe.generator, lambda: recipe.generator.settings.load(fitted, sample.task, recipe.model.name))
    allowance = Allowance(recipe.generate.max_tokens, limits.tokens, deadline.share(GENERATE_SHARE))
    made = timer.time("candidates", lambda: _generate(store, names["candidates"], recipe, sample, teacher, allowance))
    cut = limits.cut(made.rows, recipe.generate.count, short)
    done = replace_fields(recipe, generate=recipe.generate.model_copy(update={"count": made.rows}))
    names = step_names(done, sample, short)
    answers = timer.time("annotations", lambda: _annotations(store, names, made, done, sample)) if recipe.annotators else None
    kept_folder = timer.time("kept", lambda: store.step(names["kept"], lambda out: _sift(out, made.read(answers), done, sample)))
    kept, dropped = _sifted(kept_folder)
    counts = _counts(done, dropped, kept, fitted)
    if not kept:
        _results(store, {"measures": [], "gain": None, "counts": counts} | cut, {})
        raise RunFailed(_no_row(store, done, counts, cut))
    scored = timer.time("scores", lambda: store.step(names["scores"], lambda out: _score(out, done, sample, kept, counts)))
    manifest = _manifest(done, sample, names, made.engine, timer, counts) | {"annotators": annotation_facts(answers) if answers else []} | cut
    page = _facts(recipe, sample, fitted, scored, manifest, kept, dropped)
    store.replace("dataset", lambda out: write_dataset(out, sample.task, kept, lambda written: card(page, written)))
    _results(store, dict(page.scores), dict(page.manifest))
    write_text(store.path("report.html"), render(page))
    return Run(store.root, dict(page.scores), page.verdict)


def _facts(
    recipe: Recipe, sample: Sample, fitted: Path, scored: Path, manifest: dict[str, Any], kept: list[Candidate], dropped: list[dict[str, Any]]
) -> Facts:
    scores, closeup = (json.loads((scored / name).read_text()) for name in ("scores.json", "closeup.json"))
    scores |= {name: manifest[name] for name in manifest if name == "cut"}
    task, target = sample.task, str(sample.task.target)
    labels = Counter(str(e.fields[target]) for e in (*sample.fit, *sample.dev)) if task.has_labels else Counter[str]()
    sentence = verdict((scored / "verdict.txt").read_text().strip(), scores["measures"]) + said(scores)
    licenses = {"sample": recipe.sample.license, "model": model_license(recipe.model.name)}
    made = (recipe.to_toml(), task, _sizes(sample), scores, manifest, _training(fitted))
    return Facts(recipe.name, sentence, *made, kept, dropped, {name: labels[name] for name in task.labels}, closeup, licenses)


def step_names(recipe: Recipe, sample: Sample, short: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Step -> folder, named after all that it depends on. Where a run works ([where]) is in none. short: where a limit cut the fit."""
    content = [[e.id, dict(e.fields)] for part in (sample.fit, sample.dev, sample.test, sample.pool, sample.more) for e in part]
    made = [fingerprint(content, _sizes(sample), asdict(sample.task), recipe.seed)]
    names = {"sample": f"sample-{made[0]}"}
    gen = recipe.generate
    chain: dict[str, Any] = {
        "teacher": [recipe.generator.facts(), recipe.model.name, model_identity(recipe.model.name), *([short] if short else [])],
        "candidates": [recipe.engine.facts(), asdict(gen.sampling)],
        "annotations": [gen.count, [a.facts() for a in recipe.annotators]],
        "kept": [gen.count, [f.facts() for f in recipe.filters]],
        "scores": [[m.facts() for m in recipe.metrics], recipe.student.facts(), recipe.gain.model_dump(), CLOSEUP],
    }
    if not recipe.annotators:
        del chain["annotations"]
    for step, facts in chain.items():
        made.append(fingerprint(made[-1], facts))
        names[step] = f"{step}-{made[-1]}"
    return names


def model_identity(name: str) -> str:
    """Hashes of a folder's weight files (shipped or the user's own); a hub name stands for itself."""
    folder = _model_folder(name)
    return fingerprint([file_hash(p) for p in sorted(folder.glob("*.safetensors"))]) if folder.is_dir() else name


def model_license(name: str) -> str | None:
    """What the card in a model's folder names as its licence; None where there is no folder, no card or no such line."""
    from huggingface_hub.repocard import metadata_load

    path = _model_folder(name) / "README.md"
    try:
        found = (metadata_load(path) or {}).get("license") if path.is_file() else None
    except ValueError:
        return None  # front matter of another form: unknown, which the card says
    return found if isinstance(found, str) else None


def _model_folder(name: str) -> Path:
    shipped = Path(__file__).resolve().parent / "models" / name
    return shipped if shipped.is_dir() else Path(name)


def _claim(store: Store, recipe: Recipe, replace: bool) -> None:
    path, text = store.path("recipe.toml"), recipe.to_toml()
    if path.exists() and path.read_text(encoding="utf-8") != text and not replace:
        raise StoreError(
            f"{store.root} holds the results of another recipe. Give --replace to make them anew (finished steps that still fit are kept), "
            "or another name or --out."
        )
    if path.exists() and path.read_text(encoding="utf-8") != text:
        for name in ("scores.json", "manifest.json", "report.html"):
            store.path(name).unlink(missing_ok=True)
        shutil.rmtree(store.path("dataset"), ignore_errors=True)
    write_text(path, text)


def _same_data(store: Store, name: str, replace: bool) -> None:
    """Refuses to put results of other rows in the place of finished ones."""
    found = [p.name for p in store.root.glob("sample-*") if p.name != name]
    if found and store.path("scores.json").exists() and not store.path(name).exists() and not replace:
        raise StoreError(
            f"{store.root} holds results of other rows: the data changed since. Give --replace to make them anew, or another name or --out."
        )


def _own(role: str, component: Component, work: Callable[[], Any]) -> Any:
    """work(), whose errors name the part where it is the user's own; those of a part that ships keep their traceback."""
    return guarded(f"[{role}] kind = {component.kind!r}", work) if ":" in component.kind else work()


def _fit(store: Store, name: str, recipe: Recipe, sample: Sample, deadline: Deadline) -> Mapping[str, Any]:
    """Fits the teacher; nothing when it is whole. Else where the deadline cut it, and then the teacher so far is a step of its own."""
    if store.path(name).exists():
        return {}
    folder = store.reopen(name)
    settings, seed = recipe.generator.settings, seed_for(recipe.seed, "teacher")
    short: Mapping[str, Any] = _own("generator", recipe.generator, lambda: settings.fit(sample, recipe.model.name, seed, folder, deadline))
    if not short:
        store.close(name)
        return {}
    ours = shutil.ignore_patterns("checkpoint-*")

    def so_far(out: Path) -> None:
        shutil.copytree(folder, out, ignore=ours, dirs_exist_ok=True)

    store.step(step_names(recipe, sample, short)["teacher"], so_far)
    return short


def _generate(store: Store, name: str, recipe: Recipe, sample: Sample, teacher: Teacher, allowance: Allowance) -> _Made:
    """Makes the candidates that are missing, as far as the allowance goes."""
    count, whole = recipe.generate.count, store.path(name)
    if (whole / "engine.json").exists() and rows_done(whole) >= count:
        return _Made(whole, count, [], json.loads((whole / "engine.json").read_text()))
    session = _own("engine", recipe.engine, lambda: recipe.engine.settings.open(teacher.model))
    folder, facts = store.reopen(name), dict(session.describe())
    seed, how = seed_for(recipe.seed, "candidates"), recipe.generate.sampling
    rows, uncut = _own("engine", recipe.engine, lambda: complete(folder, teacher, session, sample, count, seed, how, allowance=allowance))
    write_json(folder / "engine.json", facts)
    return _Made(store.close(name) if rows == count else folder, rows, uncut, facts)


def _annotations(store: Store, names: dict[str, str], made: _Made, recipe: Recipe, sample: Sample) -> Path:
    return store.step(names["annotations"], lambda out: annotate(out, made.read(), recipe, sample))


def _no_row(store: Store, recipe: Recipe, counts: Mapping[str, Any], cut: Mapping[str, Any]) -> str:
    if not recipe.generate.count:
        return (
            f"no row was finished{said(cut)}. Give a higher limit; a row starts only when all of its generate.max_tokens = "
            f"{recipe.generate.max_tokens} are left."
        )
    reasons = ", ".join(f"{k} {n}" for k, n in counts["dropped"].items())
    return (
        f"no row was kept of {recipe.generate.count} candidates ({reasons}){said(cut)}. Read some: seedbed show {store.root} dropped. "
        "Texts of the wrong form want a longer fit (generator.epochs of a soft prompt), room for a whole row in generate.max_tokens, or a stronger "
        "[model]; labels hold one line."
    )


def _sift(out: Path, kept: list[Candidate], recipe: Recipe, sample: Sample) -> None:
    """kept.jsonl and dropped.jsonl: each filter judges what the ones before it kept."""
    dropped: list[dict[str, Any]] = []
    for component in recipe.filters:
        verdicts = list(_judge(component, kept, sample))
        dropped += [_drop(c, component.kind, v.reason, sample) for c, v in zip(kept, verdicts, strict=True) if not v.keep]
        kept = [c for c, v in zip(kept, verdicts, strict=True) if v.keep]
    unread = [c for c in kept if c.fields is None]  # no filter of the recipe looked at the form
    dropped += [_drop(c, "parse", c.problem, sample) for c in unread]
    kept = [c for c in kept if c.fields is not None]
    write_lines(out / "kept.jsonl", [asdict(c) for c in kept])
    write_lines(out / "dropped.jsonl", dropped)
    write_hashes(out, SIFTED)


def _drop(candidate: Candidate, kind: str, reason: str, sample: Sample) -> dict[str, Any]:
    """label: the dropped row's, None where it could not be read or the task has none."""
    label = (candidate.fields or {}).get(str(sample.task.target)) if sample.task.has_labels else None
    return {"id": candidate.id, "filter": kind, "reason": reason, "label": label, "text": candidate.text}


def _sifted(folder: Path) -> tuple[list[Candidate], list[dict[str, Any]]]:
    """Kept candidates and dropped records. Raises StoreError when a file is not what the step wrote."""
    unchanged(folder, SIFTED)
    kept, dropped = (read_lines(folder / name) for name in SIFTED)
    return [Candidate(**record) for record in kept], dropped


def _judge(component: Component, candidates: list[Candidate], sample: Sample) -> Iterator[Verdict]:
    def judge(part: list[Candidate]) -> list[Verdict]:
        verdicts = guarded(f"[filter] kind = {component.kind!r}", lambda: component.settings.judge(list(part), sample))
        if not isinstance(verdicts, list) or len(verdicts) != len(part) or not all(isinstance(v, Verdict) for v in verdicts):
            raise ComponentError(f"[filter] kind = {component.kind!r}: judge() must give a list of {len(part)} Verdicts. Got {verdicts!r:.80}.")
        return verdicts

    size = JUDGED_TOGETHER if component.settings.scope == "row" else max(1, len(candidates))
    parts = [candidates[i : i + size] for i in range(0, len(candidates), size)]
    for verdicts in fleet.map_parts(judge, parts):
        yield from verdicts


def _score(out: Path, recipe: Recipe, sample: Sample, kept: Sequence[Candidate], counts: dict[str, Any]) -> None:
    """scores.json, closeup.json and verdict.txt; each (arm, volume, seed) of the gain is a unit in the journal."""
    rows = [Example(c.id, c.fields or {}) for c in kept]
    seed = seed_for(recipe.seed, "scores")
    measures = [m for component in recipe.metrics for m in _measured(component, sample, rows, seed)]
    with closing(Journal(out / "units.jsonl")) as journal:
        known = {r["name"]: r["value"] for r in journal.records}

        def unit(name: str, make: Callable[[], Any]) -> Any:
            if name not in known:
                known[name] = _own("student", recipe.student, make)
                journal.add({"name": name, "value": known[name]})
            return known[name]

        spec = recipe.gain
        gain: Gain = measure_gain(sample, rows, recipe.student.settings, seed, seeds=spec.seeds, volumes=spec.volumes, unit=unit)
    write_json(out / "closeup.json", closeup(sample, kept, seed))
    write_text(out / "verdict.txt", gain.verdict + "\n")
    write_json(out / "scores.json", {"measures": [asdict(m) for m in measures], "gain": gain.to_json(), "counts": counts})


def _measured(component: Component, sample: Sample, rows: Sequence[Example], seed: int) -> list[Measure]:
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


def _counts(recipe: Recipe, dropped: list[dict[str, Any]], kept: list[Candidate], fitted: Path) -> dict[str, Any]:
    by_reason = Counter(f"{d['filter']}:{d['reason']}" for d in dropped)
    prompt = fitted / "prompt.json"
    too_long = json.loads(prompt.read_text())["too_long"] if prompt.exists() else {}
    failed = {f"{split} rows longer than the context": n for split, n in too_long.items() if n}
    return {"candidates": recipe.generate.count, "kept": len(kept), "dropped": dict(sorted(by_reason.items())), "failed": failed}


def _manifest(recipe: Recipe, sample: Sample, names: dict[str, str], engine: dict[str, Any], timer: _Timer, counts: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "seed": recipe.seed,
        "steps": names,
        "sizes": _sizes(sample),
        "engine": engine,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONED},
        "seconds": timer.seconds,
        "counts": counts,
    }


def _results(store: Store, scores: dict[str, Any], manifest: dict[str, Any]) -> None:
    write_json(store.path("scores.json"), scores)
    write_json(store.path("manifest.json"), manifest)


def _earlier_seconds(store: Store) -> dict[str, float]:
    path = store.path(".seconds.json")
    try:
        found: dict[str, float] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}  # timings alone: a run does not stop for them
    return found


def _training(fitted: Path) -> dict[str, Any] | None:
    path = fitted / "training.json"
    return json.loads(path.read_text()) if path.exists() else None


def _sizes(sample: Sample) -> dict[str, int]:
    return {part: len(getattr(sample, part)) for part in ("fit", "dev", "test", "pool", "more")}


def _describe(sample: Sample) -> dict[str, Any]:
    ids = {part: [e.id for e in getattr(sample, part)] for part in ("fit", "dev", "test", "pool")}
    return {"sizes": _sizes(sample), "labels": list(sample.task.labels), "ids": ids}

"""From a sample to kept rows: teacher, candidates, answers, annotations, kept. Each step is a folder named after what it depends on."""

from __future__ import annotations

import shutil
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, cast

from seedbed import fleet
from seedbed.annotations import annotate, annotated, annotation_facts
from seedbed.answers import answered, drafts, labelled, pool_rows
from seedbed.canaries import learned
from seedbed.candidates import adopt, complete, each_candidate, rows_done
from seedbed.catalog import guarded
from seedbed.limits import FIT_SHARE, GENERATE_SHARE, Allowance, Deadline, Limits, Purse
from seedbed.parts import SHIPPED, Component, hash_once, model_identity
from seedbed.recipe import Recipe, build
from seedbed.relay import Relay
from seedbed.report.closeup import VERSION as CLOSEUP
from seedbed.sifting import sift, sifted
from seedbed.store import Store, fingerprint, read_json, write_json
from seedbed.task import Task
from seedbed.types import Backing, Candidate, ModelRef, Sample, Session, Teacher, seed_for


@dataclass
class Timer:
    """Seconds spent in each step, over all calls of this run. purse: what this call may still pay, and what all have paid. tokens: that this call
    has generated, counted where they are limited."""

    seconds: dict[str, float] = field(default_factory=dict)
    purse: Purse = field(default_factory=Purse)
    tokens: int = 0

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        start = time.monotonic()
        try:
            return work()
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - start, 2)


@dataclass(frozen=True)
class Grown:
    """Kept and dropped rows, on disk until they are asked for. recipe: with the counts that a limit left; names: its steps. fitted: the
    teacher, or None where nothing needs one.

    engine, annotators: facts of them. cut: as of `Limits.cut`.
    """

    recipe: Recipe
    names: Mapping[str, str]
    fitted: Path | None
    kept: Sequence[Candidate]
    dropped: Sequence[dict[str, Any]]
    engine: Mapping[str, Any]
    annotators: list[dict[str, Any]]
    cut: dict[str, Any]


@dataclass(frozen=True)
class _Made:
    """Candidates of the first `rows` rows, read when they are asked for, one at a time. engine: facts of it."""

    read: Callable[[], Iterable[Candidate]]
    rows: int
    engine: dict[str, Any]


def grow(store: Store, recipe: Recipe, sample: Sample, limits: Limits, timer: Timer, on: str = fleet.HERE) -> Grown:
    """Makes the steps that are missing; a limit ends the fit with its best so far, and generating with the rows finished. on: "here", "ray" or
    ray://host:port, where rows are completed."""
    deadline = limits.deadline()
    names, short, fitted, teacher = step_names(recipe, sample), {}, None, None
    if recipe.asks_teacher:
        short = timer.time("teacher", lambda: fit(store, names["teacher"], recipe, sample, deadline.share(FIT_SHARE)))
        names = step_names(recipe, sample, short)
        fitted = folder = store.path(names["teacher"])
        teacher = own("generator", recipe.generator, lambda: recipe.generator.settings.load(folder, sample.task, recipe.lm))

    @cache
    def session(model: ModelRef) -> Session:
        return Relay(own("engine", recipe.engine, lambda: recipe.engine.settings.open(model)))

    allowance = Allowance(recipe.generate.max_tokens, limits.tokens, deadline.share(GENERATE_SHARE), timer.purse)
    made = _Made(list, 0, {})
    with hands(on, recipe, sample, teacher, fitted, session) as asked_at:
        if teacher and recipe.generate.count:
            made = timer.time("candidates", lambda: _generate(store, names, recipe, sample, teacher, asked_at, allowance))
        asked = timer.time("candidates", lambda: _ask(store, names, recipe, sample, teacher, asked_at, allowance))
    wanted = recipe.generate.count + (recipe.annotate.rows(len(sample.pool)) if recipe.annotate else 0)
    cut = limits.cut(made.rows + asked.rows, wanted, short)
    done = _done(recipe, made.rows, asked.rows if cut else None)
    names = step_names(done, sample, short)
    timer.tokens += 0 if limits.tokens is None else round(limits.tokens - allowance.left)
    backing = Backing(recipe.lm, teacher, session, timer.purse)
    said: dict[str, Path] = {}
    for step, part in (("annotations", made), ("labels", asked)):
        if recipe.annotators and part.rows:
            write = partial(_annotate, part, done, sample, backing)
            said[step] = timer.time("annotations", partial(store.step, names[step], write))

    def candidates() -> Iterator[Candidate]:
        both = chain.from_iterable(annotated(said[s], p.read()) if s in said else p.read() for s, p in (("annotations", made), ("labels", asked)))
        return labelled(sample.task, both, str(recipe.label_by), recipe.generate.relabel)

    facts = [fact | ({"of": "pool"} if step == "labels" else {}) for step, folder in said.items() for fact in annotation_facts(folder)]
    kept, dropped = sifted(timer.time("kept", lambda: store.step(names["kept"], lambda out: sift(out, candidates(), done, sample))))
    return Grown(done, names, fitted, kept, dropped, made.engine or asked.engine, facts, cut)


@dataclass(frozen=True)
class _Hire:
    """Makes the teacher and the engine of a hand on another machine. folder: the fitted teacher's; where it is not there, of its files."""

    recipe: str
    base: Path
    task: Task
    folder: Path
    files: Mapping[str, bytes]

    def __call__(self) -> tuple[Teacher, Session]:
        recipe, folder = build(tomllib.loads(self.recipe), self.base), self.folder
        if not folder.is_dir():
            folder = Path(tempfile.mkdtemp())
            for name, content in self.files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
        teacher = recipe.generator.settings.load(folder, self.task, recipe.lm)
        return teacher, Relay(recipe.engine.settings.open(teacher.model))


@contextmanager
def hands(
    on: str, recipe: Recipe, sample: Sample, teacher: Teacher | None, fitted: Path | None, here: Callable[[ModelRef], Session]
) -> Iterator[Callable[[ModelRef], Session]]:
    """Whom to ask for completions: this process's engine, or a fleet, started when it is first asked."""
    if on == fleet.HERE or teacher is None or fitted is None:
        yield here
        return
    started: list[fleet.Fleet] = []

    def session(model: ModelRef) -> Session:
        if not started:
            files = {str(p.relative_to(fitted)): p.read_bytes() for p in fitted.rglob("*") if p.is_file() and not p.name.startswith("checkpoint-")}
            hire = _Hire(recipe.to_toml(), recipe.base.resolve(), sample.task, fitted.resolve(), files)
            started.append(fleet.Fleet(on, hire, teacher, recipe.where.cpus))
        return cast("Session", started[0])  # it completes rows, and candidates.complete knows

    try:
        yield session
    finally:
        for one in started:
            one.close()


def _annotate(made: _Made, recipe: Recipe, sample: Sample, backing: Backing, out: Path) -> None:
    annotate(out, made.read(), recipe, sample, backing)


def step_names(recipe: Recipe, sample: Sample, short: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Step -> folder, named after all that it depends on. Where a run works ([where]) is in none. short: where a limit cut the fit."""
    content = [[e.id, dict(e.fields)] for part in (sample.fit, sample.dev, sample.test, sample.pool, sample.more) for e in part]
    planted = [[[e.id, dict(e.fields)] for e in sample.canaries], sample.canary_repeats] if sample.canaries else []
    made = [fingerprint(content, sizes(sample), asdict(sample.task), recipe.seed, *planted)]
    names = {"sample": f"sample-{made[0]}"}
    gen, asks = recipe.generate, recipe.annotate.model_dump() if recipe.annotate else None
    annotators, model = [a.facts() for a in recipe.annotators], [recipe.model.name, model_identity(recipe.lm), *decoder_hash(recipe)]
    steps: dict[str, Any] = {
        "teacher": [recipe.generator.fit_facts(), *model, *([short] if short else [])],
        "candidates": [recipe.engine.facts(), asdict(gen.sampling), recipe.generator.use_facts()],
        "annotations": [gen.count, annotators],
        "kept": [
            gen.count,
            *([asks, annotators] if asks else []),
            *(["relabel", recipe.label_by] if gen.relabel else []),
            [f.facts() for f in recipe.filters],
        ],
        "scores": [
            *([step_names(recipe, fold)["kept"] for fold in sample.folds]),
            *[[m.facts() for m in recipe.metrics], recipe.student.facts(), recipe.gain.model_dump(), CLOSEUP],
        ],
    }
    if not recipe.annotators:
        del steps["annotations"]
    for step, facts in steps.items():
        made.append(fingerprint(made[-1], facts))
        names[step] = f"{step}-{made[-1]}"
    if asks:
        names["answers"] = f"answers-{fingerprint(names['candidates'], asks)}"
        alone = not any(getattr(a.settings, "needs", None) or getattr(a.settings, "asks_teacher", False) for a in recipe.annotators)
        names["labels"] = f"labels-{fingerprint(names['sample' if alone else 'candidates'], asks, annotators)}"
    return names


def sizes(sample: Sample) -> dict[str, int]:
    """Rows of each part; as test those of all folds, which are rows of fit and dev too."""
    return {part: len(getattr(sample, part)) for part in ("fit", "dev", "test", "pool", "more")} | {"test": len(sample.tested)}


def decoder_hash(recipe: Recipe) -> list[str]:
    """Of the decoder in the model's own folder, where a fit may start from it. None of a shipped model's, which stays as it is."""
    places = [part.settings.beside(recipe.lm) for part in recipe.generator.all() if hasattr(part.settings, "beside")]
    return [hash_once(place) for place in places if place and recipe.model.name not in SHIPPED]


def own(role: str, component: Component, work: Callable[[], Any]) -> Any:
    """work(), whose errors name the part where it is the user's own; those of a part that ships keep their traceback."""
    return guarded(f"[{role}] kind = {component.kind!r}", work) if ":" in component.kind else work()


def _done(recipe: Recipe, rows: int, asked: int | None) -> Recipe:
    """The recipe of what was made. asked: answered pool rows where a limit cut the run, else None."""
    generate = recipe.generate.model_copy(update={"count": rows})
    if asked is None or recipe.annotate is None:
        return replace(recipe, generate=generate)
    return replace(recipe, generate=generate, annotate=recipe.annotate.model_copy(update={"count": asked}))


def fit(store: Store, name: str, recipe: Recipe, sample: Sample, deadline: Deadline) -> Mapping[str, Any]:
    """Fits the teacher; nothing when it is whole. Else where the deadline cut it, and then the teacher so far is a step of its own."""
    if store.path(name).exists():
        return {}
    folder = store.reopen(name)
    settings, seed = recipe.generator.settings, seed_for(recipe.seed, "teacher")
    short: Mapping[str, Any] = own("generator", recipe.generator, lambda: settings.fit(learned(sample), recipe.lm, seed, folder, deadline))
    if not short:
        store.close(name)
        return {}
    ours = shutil.ignore_patterns("checkpoint-*")

    def so_far(out: Path) -> None:
        shutil.copytree(folder, out, ignore=ours, dirs_exist_ok=True)

    store.step(step_names(recipe, sample, short)["teacher"], so_far)
    return short


def _generate(
    store: Store,
    names: Mapping[str, str],
    recipe: Recipe,
    sample: Sample,
    teacher: Teacher,
    session: Callable[[ModelRef], Session],
    allowance: Allowance,
) -> _Made:
    """Makes the candidates that are missing, as far as the allowance goes."""
    count, name = recipe.generate.count, names["candidates"]
    whole = store.path(name)
    if (whole / "engine.json").exists() and rows_done(whole) >= count:
        return _Made(lambda: each_candidate(whole, count), count, read_json(whole / "engine.json"))
    folder, rows, uncut = store.reopen(name), count, list[Candidate]()
    adopt(whole, folder)
    if not (folder / "engine.json").exists() or rows_done(folder) < count:
        opened = session(teacher.model)
        seed, how = seed_for(recipe.seed, "candidates"), recipe.generate.sampling
        if (seeing := having_seen(store, names, recipe, sample, teacher, opened, allowance)) is None:
            return _Made(list, 0, dict(opened.describe()))
        rows, uncut = own("engine", recipe.engine, lambda: complete(folder, seeing, opened, sample, count, seed, how, allowance=allowance))
        write_json(folder / "engine.json", dict(opened.describe()))
    facts = read_json(folder / "engine.json")
    folder = store.close(name) if rows == count else folder
    return _Made(lambda: chain(each_candidate(folder, rows), uncut), rows, facts)


def having_seen(
    store: Store, names: Mapping[str, str], recipe: Recipe, sample: Sample, teacher: Teacher, opened: Session, allowance: Allowance
) -> Teacher | None:
    """The teacher, or, of one that looks first at what it writes, the one that has; None where a limit came before."""
    looks: int = getattr(teacher, "looks", 0)
    if not looks:
        return teacher
    name = looks_step(names)
    if not (folder := store.path(name)).exists():
        folder, seed = store.reopen(name), seed_for(recipe.seed, "looks")
        how = recipe.generate.sampling
        done, _ = own("engine", recipe.engine, lambda: complete(folder, teacher, opened, sample, looks, seed, how, allowance=allowance))
        if done < looks:
            return None
        folder = store.close(name)
    found: Teacher = teacher.having_seen(learned(sample), each_candidate(folder, looks))  # type: ignore[attr-defined]
    return found


def looks_step(names: Mapping[str, str]) -> str:
    """The rows that a teacher looks at before it makes its candidates; there where one does (generators/soft.py, `cover`)."""
    return names["candidates"].replace("candidates", "looks")


def _ask(
    store: Store,
    names: Mapping[str, str],
    recipe: Recipe,
    sample: Sample,
    teacher: Teacher | None,
    session: Callable[[ModelRef], Session],
    allowance: Allowance,
) -> _Made:
    """The pool's rows as candidates; with targets that the teacher writes where the task has no labels."""
    if recipe.annotate is None:
        return _Made(list, 0, {})
    spec, task, seed = recipe.annotate, sample.task, seed_for(recipe.seed, "answers")
    rows = pool_rows(sample, spec, seed)
    if task.has_labels or teacher is None:
        return _Made(lambda: drafts(task, rows), len(rows), {})
    name, opened = names["answers"], session(teacher.model)
    folder = store.path(name) if store.path(name).exists() else store.reopen(name)
    work = (teacher, opened, sample, rows, spec, recipe.generate.max_tokens, seed, allowance)
    done, candidates = own("engine", recipe.engine, lambda: answered(folder, *work))
    if done == len(rows) and not store.path(name).exists():
        store.close(name)
    return _Made(lambda: candidates, done, dict(opened.describe()))

"""What a run will cost, step by step: small pieces of the same work are measured on this machine and extrapolated.

Fitting and generating of a model that is only a `shape` are computed from FLOPs and bytes (flops.py) for the device in [where]; a server is sent
nothing unless `ask` says so, and what it would write and charge is computed (unasked.py).
Finished steps of an existing run folder cost nothing.
"""

from __future__ import annotations

import math
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from seedbed.candidates import complete, cost_of, rows_done
from seedbed.computed import COMPUTED, Cost, all_epochs, busy, computed, fits_of, seconds_each, texts_of
from seedbed.data import load_sample
from seedbed.errors import ModelError
from seedbed.flops import CHARACTERS_A_TOKEN
from seedbed.folds import folds_to_grow
from seedbed.gain import FULL_ROWS, MIN_TEST, MOST_KEPT, measure_gain, training_sets
from seedbed.generators.soft import DEV_TEXTS
from seedbed.generators.steered import looks
from seedbed.grow import looks_step, step_names
from seedbed.limits import Allowance, Deadline
from seedbed.parts import Component
from seedbed.recipe import Recipe
from seedbed.relay import Relay
from seedbed.stats import power_law
from seedbed.store import write_lines
from seedbed.types import Backing, Candidate, Example, Sample, Teacher, seed_for
from seedbed.unasked import SPEED, Unasked, standing, unasked
from seedbed.volume import TIMES

SMALL, LARGE = 100, 200
"""Rows of the two trials of filters, metrics and student."""
KEPT_SHARE = 0.6
"""Of the candidates, kept: about what the shipped recipes keep."""
TRIAL_S = 6.0
"""When one trial of fitting or generating is cut: its speed is known well enough by then."""
BOUNDLESS = 10**12
"""Tokens: more than any trial makes."""
UNASKED = (
    f"no request is sent to a server: it writes {SPEED:g} tokens a second in each of its `concurrency` requests, {CHARACTERS_A_TOKEN:g} characters a "
    "token, texts as long as the real ones; seedbed estimate --ask sends a few dozen, which it may charge, and measures"
)
Trained = Callable[[Sample, int], list[int]]
"""(sample, kept rows) -> rows that each student learns from, in each fold."""
REPORT_S = 2.0
"""Dataset, card and page: too small to be worth a trial."""


@dataclass
class Estimate:
    """What `estimate` found. memory: bytes at the peak. money: None with its reason in `money_note` where no price is known."""

    steps: dict[str, Cost]
    memory: int
    money: float | None
    money_note: str
    assumed: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        costs = self.steps.values()
        computed = any(c.basis == COMPUTED for c in costs)
        return {
            "basis": COMPUTED if computed else "measured",
            "seconds": round(sum(c.seconds for c in costs), 1),
            "tokens": sum(c.tokens for c in costs),
            "disk_bytes": sum(c.disk for c in costs),
            "memory_bytes": self.memory,
            "money": self.money,
            "money_note": self.money_note,
            "assumed": self.assumed,
            "steps": {
                name: {"seconds": round(c.seconds, 2), "tokens": c.tokens, "disk_bytes": c.disk, "basis": c.basis, "note": c.note}
                for name, c in self.steps.items()
            },
        }


def estimate(recipe: Recipe, out: Path | str = "runs", ask: bool = False, trained: Trained | None = None) -> Estimate:
    """What `run(recipe, out)` will cost from where its folder stands now. Writes nothing there. Raises what loading the parts raises.

    ask: an engine that is a server's is sent a few dozen requests for each part that asks it, which it may charge, and its speed is measured.
    trained: students of a comparison's seed in place of the gain's; metrics are then of each fold.
    """
    start, assumed = time.perf_counter(), busy()
    sample = load_sample(recipe.sample, recipe.task, recipe.seed, recipe.base)
    steps = {"sample": Cost(time.perf_counter() - start)}
    recipe = _for(recipe, min(recipe.generate.count, TIMES * sample.n)) if recipe.generate.auto else recipe
    names, folder = step_names(recipe, sample), Path(out) / recipe.name
    pool = recipe.annotate.rows(len(sample.pool)) if recipe.annotate else 0
    written = 0 if sample.task.has_labels else pool  # the pool's targets that the teacher writes, as it does candidates
    looked = looks(len(sample.fit)) if recipe.generate.count and getattr(recipe.generator.settings, "cover", False) else 0
    making, judged = _for(recipe, recipe.generate.count + written + looked), _for(recipe, recipe.generate.count + pool)
    folds = folds_to_grow(recipe, sample)
    sets = [(folder, sample), *((folder / "folds", fold) for fold in folds)]
    done, times = _finished(recipe, sets, making.generate.count), len(sets)
    assumed += [f"the rows of each of {times - 1} folds cost what those of the whole sample do"] if folds else []
    if not ask:
        making, judged = unasked(making, sample), unasked(judged, sample)
    memory, fitted = 0, folder / names["teacher"] if done["teacher"] == 1 and recipe.asks_teacher else None
    with tempfile.TemporaryDirectory() as name:
        if min(done["candidates"], done["teacher"]) < 1:
            work = computed if recipe.model.shape else _measured
            made, memory, fitted = work(making, sample, fitted, Path(name), assumed)
            steps |= {step: scaled(cost, times * (1 - done[step])) for step, cost in made.items()}
        if done.get("annotations", 1.0) < 1:
            steps["annotations"] = scaled(_annotating(judged, sample, fitted, assumed), times)
        if min(done["kept"], done["scores"]) < 1:
            steps |= _judging(judged, sample, Path(name), assumed, trained)
    steps["report"] = Cost(REPORT_S, note="dataset, card and page")
    if min(done.values()) == 1 and (folder / "report.html").is_file():
        done |= {"sample": 1.0, "report": 1.0}
    steps |= {step: Cost(basis="finished") for step, share in done.items() if share == 1 and (step != "sample" or "report" in done)}
    order = ("sample", "teacher", "candidates", "annotations", "kept", "scores", "report")
    steps = {step: steps[step] for step in order if step in steps}
    if any(step in steps and steps[step].basis == COMPUTED for step in ("candidates", "annotations")) and standing(*_parts(judged)):
        assumed.append(UNASKED)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Estimate(steps, max(memory, peak), *money_of(recipe, steps.values()), assumed)


def _finished(recipe: Recipe, sets: Sequence[tuple[Path, Sample]], count: int) -> dict[str, float]:
    """Step -> the share of it that is there, over the run's own rows, which come first, and those of its folds. count: rows to make of each."""
    found = []
    for folder, sample in sets:
        names = step_names(recipe, sample)
        done = {step: float((folder / name).is_dir()) for step, name in names.items() if step not in ("answers", "labels")}
        if recipe.annotators:
            said = [names[step] for step, some in (("annotations", recipe.generate.count), ("labels", recipe.annotate)) if some]
            done["annotations"] = float(all((folder / name).is_dir() for name in said))
        rows = sum(rows_there(folder / step) for step in (names["candidates"], names.get("answers", ""), looks_step(names)) if step)
        done["candidates"] = min(1.0, rows / count) if count else 1.0
        found.append(done | ({} if recipe.asks_teacher else {"teacher": 1.0}))
    return {step: sum(done[step] for done in found) / len(found) for step in found[0]} | {step: found[0][step] for step in ("sample", "scores")}


def _parts(recipe: Recipe) -> list[Component]:
    return [recipe.engine, recipe.generator, *recipe.annotators]


def _for(recipe: Recipe, count: int) -> Recipe:
    return replace(recipe, generate=recipe.generate.model_copy(update={"count": count}))


def rows_there(folder: Path) -> int:
    """Rows in the parts of a candidates step, whole or in the making."""
    return max(rows_done(folder), rows_done(folder.with_name(folder.name + ".partial")))


def scaled(cost: Cost, share: float) -> Cost:
    disk, tokens = round(share * cost.disk), round(share * cost.tokens)
    return replace(cost, seconds=share * cost.seconds, tokens=tokens, disk=disk, money=share * cost.money)


def money_of(recipe: Recipe, costs: Collection[Cost]) -> tuple[float | None, str]:
    price, hours, charged = recipe.where.price_per_hour, sum(c.seconds for c in costs) / 3600, sum(c.money for c in costs)
    notes = [f"{price:g} an hour, as given in [where]"] if price is not None else []
    notes += ["tokens by the engines' price_in and price_out"] if charged else []
    if not notes:
        return None, "no price is known. For a rented machine give where.price_per_hour, for a server its engine's price_in and price_out."
    return round((price or 0.0) * hours + charged, 4), "; ".join(notes)


def _measured(recipe: Recipe, sample: Sample, fitted: Path | None, work: Path, assumed: list[str]) -> tuple[dict[str, Cost], int, Path]:
    """Teacher and candidates; no bytes of memory of their own: the process's peak holds them; and a teacher, hardly fitted."""
    steps, length = {}, None
    if fitted is None:
        if hasattr(recipe.generator.settings, "epochs"):
            steps["teacher"], fitted, length = _fitting(recipe, sample, work, assumed)
        else:
            fitted = work / "teacher"
            fitted.mkdir()
            settings, seed = recipe.generator.settings, seed_for(recipe.seed, "teacher")
            seconds = _timed(lambda: settings.fit(sample, recipe.lm, seed, fitted))
            steps["teacher"] = Cost(seconds, disk=_size(fitted))
    steps["candidates"] = _generating(recipe, sample, fitted, None if recipe.engine.kind == "toy" else length, work)
    return steps, 0, fitted


def _fitting(recipe: Recipe, sample: Sample, work: Path, assumed: list[str]) -> tuple[Cost, Path, float]:
    """(cost, a teacher that was hardly fitted, mean tokens of a candidate), from three short fits on rows of real lengths."""
    from seedbed.lm.embed import embed
    from seedbed.lm.load import load
    from seedbed.lm.train import encode

    settings, rng = recipe.generator.settings, random.Random(seed_for(recipe.seed, "estimate"))
    forms, batch, texts_a_row = fits_of(settings), settings.batch, len(texts_of(settings, sample.task, sample.fit[0]))
    soft = recipe.generator.kind == "soft"
    # Folds and several forms are too much for a trial: one fit stands for each, since the model's pass is what a step costs.
    tried = replace(settings, prompt="mc") if soft and forms > 1 else settings
    # A row of dev is read before, at each evaluation, and of a soft prompt with another row's context.
    beside, once = 1 + forms * soft, 1 + soft
    rows, dev = rng.choices(sample.fit, k=16 * batch), rng.choices(sample.dev, k=64)

    def trial(name: str, n: int, m: int) -> tuple[float, int, Path]:
        """(seconds, steps, folder) of one epoch over n rows, evaluated on m."""
        (work / name).mkdir()
        part, brief = replace(sample, fit=tuple(rows[:n]), dev=tuple(dev[:m])), replace(tried, epochs=1)
        start = time.perf_counter()
        short = brief.fit(part, recipe.lm, recipe.seed, work / name, Deadline(time.monotonic() + TRIAL_S))
        steps = math.ceil(texts_a_row * n / batch) - sum(at["of"] - at["step"] for at in (short or {}).values())
        return time.perf_counter() - start, steps, work / name

    loading, *_ = trial("warm", 2, 1)
    texts = sorted({sample.task.render(e.fields) for e in (*rows, *dev)})
    embedder = getattr(settings, "embedder", None)
    each = _timed(lambda: embed(texts, embedder)) / len(texts) if embedder else 0.0
    a, few, _ = trial("few", 8 * batch, 8)
    b, many, folder = trial("many", 16 * batch, 8)
    c, *_ = trial("dev", 8 * batch, 64)
    step = seconds_each((a, few), (b, many))
    evaluation = max(0.0, c - a) / (56 * (1 + once))
    setup = max(0.0, a - few * step - 8 * (1 + once) * evaluation)
    epoch, evaluated = math.ceil(texts_a_row * len(sample.fit) / batch), len(sample.dev[:DEV_TEXTS])
    last = epoch * settings.epochs
    evaluations = forms * math.ceil(last / max(epoch, 20)) + beside
    seconds = loading + setup + each * (len(sample.fit) + evaluated) + forms * last * step + evaluations * evaluated * evaluation
    lm = load(recipe.lm)
    found = [[len(encode(lm, text).target) for text in texts_of(settings, sample.task, e)] for e in rows]
    lengths = [first for first, *_ in found]
    tokens = forms * settings.epochs * len(sample.fit) * sum(map(sum, found)) / len(rows)
    assumed.append(all_epochs(settings))
    assumed.append("candidates are as long as the fit rows' texts, and at most generate.max_tokens")
    length = sum(min(n, recipe.generate.max_tokens) for n in lengths) / len(lengths)
    disk, note = _size(folder) * len(sample.fit) // len(rows), f"{step:.3g} s a step" if step else "too short to time a step"
    return Cost(seconds, round(tokens), disk, note=note), folder, length


def _generating(recipe: Recipe, sample: Sample, fitted: Path, length: float | None, work: Path) -> Cost:
    """length: tokens of a candidate, or None: as this teacher's candidates are."""
    how, engine = recipe.generate, recipe.engine.settings
    teacher: Teacher = recipe.generator.settings.load(fitted, sample.task, recipe.lm)
    start = time.perf_counter()
    session = Relay(engine.open(teacher.model))
    longest = how.max_tokens if length is None else min(how.max_tokens, math.ceil(length))

    def trial(name: str, n: int, at_most: int) -> tuple[float, int, int, int]:
        """(seconds, rows finished, turns, tokens) of n rows whose turns are cut at so many tokens."""
        (work / name).mkdir()
        allowance, sampling = Allowance(at_most, BOUNDLESS, Deadline(time.monotonic() + TRIAL_S)), replace(how.sampling, max_tokens=at_most)
        start = time.perf_counter()
        finished, _ = complete(work / name, teacher, session, sample, n, recipe.seed, sampling, allowance=allowance)
        return time.perf_counter() - start, finished, allowance.started, round(BOUNDLESS - allowance.left)

    trial("first", 1, 1)
    opened = time.perf_counter() - start
    n = min(how.count, max(32, 2 * getattr(engine, "slots", 1)))
    a, _, asked, few = trial("short", n, max(1, longest // 4))
    b, finished, turns, many = trial("long", n, longest)
    each = max(1.0, turns / finished) if finished else 1.0  # turns of a row
    token = seconds_each((a, few), (b, many))
    turn = max(0.0, a - few * token) / max(1, asked)
    mean = each * (length if length is not None else many / max(1, turns))
    disk = _size(work / "long") * how.count // max(1, finished)
    seconds, money = opened + how.count * (each * turn + mean * token), how.count * cost_of(work / "long") / max(1, finished)
    tokens, served = round(how.count * mean), standing(recipe.engine, recipe.generator)
    if served:
        return Cost(seconds + max(s.seconds(tokens) for s in served), tokens, disk, COMPUTED, f"{mean:.0f} tokens a row; no request was sent", money)
    return Cost(seconds, tokens, disk, note=f"{1 / token if token else 0:,.0f} tokens a second, {mean:.0f} tokens a row", money=money)


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.name.startswith("checkpoint-"))


def _annotating(recipe: Recipe, sample: Sample, fitted: Path | None, assumed: list[str]) -> Cost:
    """Each annotator, its fit on the real rows included, on few and on more stand-ins; in proportion from there."""
    rng = random.Random(seed_for(recipe.seed, "estimate", "annotators"))
    made = [_stand_in(recipe, sample, rng.choice(sample.fit), i, rng) for i in range(LARGE)]
    teacher = recipe.generator.settings.load(fitted, sample.task, recipe.lm) if fitted else None
    engine, labels = recipe.engine.settings, sample.task.labels
    engine = replace(engine, answers=labels) if isinstance(engine, Unasked) and labels else engine
    backing = Backing(recipe.lm, teacher, cache(engine.open))
    priced = [a for a in recipe.annotators if not (recipe.model.shape and getattr(a.settings, "needs", None))]
    assumed += [f"annotator {a.kind} of a model without weights costs nothing" for a in recipe.annotators if a not in priced]

    def asked(n: int) -> tuple[float, float]:
        """(seconds, money)"""
        start = time.perf_counter()
        found = [a.settings.annotate(made[:n], sample, 0, backing) for a in priced]
        rows = sum(len(list(f.rows)) for f in found)
        assert rows == n * len(priced)
        return time.perf_counter() - start, sum(f.facts.get("cost", 0.0) for f in found)

    (few, _), (more, money) = asked(SMALL), asked(LARGE)
    each = max(0.0, more - few) / (LARGE - SMALL)
    cost = Cost(max(0.0, few - SMALL * each) + recipe.generate.count * each, money=recipe.generate.count * money / LARGE)
    served = [*([engine] if isinstance(engine, Unasked) else []), *standing(*recipe.annotators)]
    tokens = [round(recipe.generate.count * s.written["tokens"] / (SMALL + LARGE)) for s in served]
    if not any(tokens):
        return cost
    waited = sum(s.seconds(n) for s, n in zip(served, tokens, strict=True))
    return replace(cost, seconds=cost.seconds + waited, tokens=sum(tokens), basis=COMPUTED, note="no request was sent")


def _judging(recipe: Recipe, sample: Sample, work: Path, assumed: list[str], trained: Trained | None) -> dict[str, Cost]:
    """Filters, metrics and the gain: run on few and on more real rows whose words are shuffled, and extrapolated by a power of n."""
    few = _Trial(recipe, sample, work, SMALL)
    more = _Trial(recipe, sample, work, LARGE) if few.cold < 2 * TRIAL_S else few
    count = recipe.generate.count
    kept = max(1, round(KEPT_SHARE * count))
    assumed.append(f"{kept} of {count} candidates are kept")
    if more.absent:
        assumed.append(f"the student costs nothing, for it cannot be tried out here: {more.absent}")
    n, times = min(kept, len(sample.dev) + len(sample.test), len(sample.fit)), 1 + len(folds_to_grow(recipe, sample))
    rows = times * min(kept, MOST_KEPT) + sum(len(part) for part in (sample.fit, sample.dev, sample.test)) + min(FULL_ROWS, len(sample.more))
    features = max(0.0, more.cold - more.warm) / more.rows
    imports = max(0.0, few.cold - few.warm - few.rows * features)
    metrics = power_law([(few.n, few.metrics), (more.n, more.metrics)], n)
    sizes = trained(sample, kept) if trained else training_sets(sample, kept, recipe.gain.volumes)
    units, folds = [*few.units, *more.units], max(1, len(sample.folds))
    students = folds * (1 if trained else recipe.gain.seeds)
    metrics *= folds if trained else 1
    learned = sum(students * power_law(units, size) for size in sizes) if units else 0.0
    intervals = more.intervals * len(sizes) / max(1, len(more.units)) * len(sample.tested) / max(1, more.tests)
    seconds = imports + rows * features + metrics + learned + intervals
    note = f"{len(sizes) * students} students" if units else "no student is priced" if more.absent else "the gain is not measured"
    disk = round(more.disk * kept / more.kept)
    return {
        "kept": Cost(times * more.filters * count / more.kept, disk=times * disk),
        "scores": Cost(seconds, disk=disk, note=note),
    }


class _Trial:
    """Seconds of filters, metrics and gain on n stand-ins and n real rows of each part, features cold and then warm."""

    def __init__(self, recipe: Recipe, sample: Sample, work: Path, n: int) -> None:
        rng = random.Random(seed_for(recipe.seed, "estimate", n))
        sizes = ((sample.fit, n), (sample.dev, n // 2), (sample.tested, max(n, MIN_TEST)), (sample.more, n))
        fit, dev, test, more = (tuple(rng.sample(rows, min(most, len(rows)))) for rows, most in sizes)
        part = replace(sample, fit=fit, dev=dev, test=test, more=more, folds=())
        judged = replace(part, folds=(part,)) if sample.folds else part  # in one fold
        made = [_stand_in(recipe, sample, rng.choice(sample.fit), i, rng) for i in range(n)]
        kept = [Example(c.id, c.fields or {}) for c in made]
        self.filters = _timed(lambda: [f.settings.judge(made, part) for f in recipe.filters])
        self.units: list[tuple[float, float]] = []
        self.absent = ""

        def unit(name: str, make: Callable[[], Any]) -> Any:
            start = time.perf_counter()
            found = make()
            self.units.append((float(name.split("/")[1]), time.perf_counter() - start))
            return found

        def metrics() -> None:
            for metric in recipe.metrics:
                metric.settings.measure(part, kept, 0)

        def gain() -> None:
            self.units.clear()
            try:
                folds = [kept] if sample.folds else []
                measure_gain(judged, kept, recipe.student.settings, 0, seeds=1, volumes=(1,), folds=folds, unit=unit)
            except ModelError as error:  # a large student of another machine: all else can still be priced
                self.absent = str(error).splitlines()[0]

        self.cold = _timed(metrics) + _timed(gain)
        self.metrics, self.gain = _timed(metrics), _timed(gain)
        self.warm = self.metrics + self.gain
        self.intervals = max(0.0, self.gain - sum(seconds for _, seconds in self.units))
        self.kept, self.tests, self.n = n, len(part.test), min(n, len(part.dev) + len(part.test), len(part.fit))
        self.rows = n + sum(map(len, (part.fit, part.dev, part.test, part.more)))
        path = work / f"kept-{n}.jsonl"
        write_lines(path, [asdict(c) for c in made])
        self.disk = path.stat().st_size


def _stand_in(recipe: Recipe, sample: Sample, example: Example, i: int, rng: random.Random) -> Candidate:
    """A real row whose generated words are shuffled: of its length, and no copy of it. Every annotator is sure of its label."""
    task = sample.task
    fixed = {*task.given_columns, *task.structured, *((task.target,) if task.has_labels else ())}

    def shuffled(text: str) -> str:
        words = text.split()
        return " ".join(rng.sample(words, len(words)))

    fields = {name: value if name in fixed or not isinstance(value, str) else shuffled(value) for name, value in example.fields.items()}
    sure = {a.kind: {str(fields.get(task.target or "", "")): 1.0} for a in recipe.annotators}
    return Candidate(f"c{i:07d}", i, task.render(fields), fields, True, annotations=sure)

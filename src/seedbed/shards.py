"""One part of a run's candidates, made by one job of many that know nothing of each other (a Slurm array): `--shard i/n`.

Each job fits the teacher or waits for the one that does, and then makes its rows in a folder beside the candidates step. A run without --shard
takes all of them in, part by part, and goes on: to the bytes of a run on one machine.
"""

from __future__ import annotations

from pathlib import Path

from seedbed import fleet
from seedbed.candidates import PART_ROWS, complete, rows_done, shard_folder
from seedbed.data import load_sample
from seedbed.errors import ComponentError, RecipeError
from seedbed.grow import fit, hands, having_seen, own, step_names
from seedbed.limits import UNLIMITED, Allowance, Limits, Purse
from seedbed.recipe import Recipe
from seedbed.relay import Relay
from seedbed.run import claim, need_price
from seedbed.store import Store, write_json
from seedbed.types import ModelRef, Session, seed_for
from seedbed.weights import need_weights


def part_of(text: str) -> tuple[int, int]:
    """(number, of) of `i/n`. Raises RecipeError for any other text."""
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise RecipeError([f"--shard must be I/N with 1 <= I <= N, such as 3/8. Got {text!r}."])
    return int(number), int(of)


def bounds(count: int, number: int, of: int) -> tuple[int, int]:
    """Rows [start, stop) of shard `number` (1 to `of`): whole parts, so that parts are those of a run on one machine."""
    parts = -(-count // PART_ROWS)
    return min(count, parts * (number - 1) // of * PART_ROWS), min(count, parts * number // of * PART_ROWS)


def make_shard(
    recipe: Recipe, out: Path | str, number: int, of: int, limits: Limits = UNLIMITED, on: str = fleet.HERE, replace: bool = False
) -> tuple[Path, int, int]:
    """(folder of the shard's parts, its first row, how many of its rows are finished). Goes on where an earlier call stopped, and behind the rows
    that a run without shards has finished.

    limits: of this call, fit and waiting included. A job whose limit comes before the teacher is whole makes no rows, for those of a teacher cut
    elsewhere would fit no other job's; a later one goes on with the fit.

    replace: as of `run`; the jobs after the first find their own recipe.

    Raises ComponentError where a run cannot be divided, RecipeError where a limit of money would not hold, StoreError where the run folder holds
    another recipe's results.
    """
    need_price(recipe, limits, on)
    need_weights(recipe)
    if not recipe.generate.count or recipe.generate.auto:
        raise ComponentError("--shard divides rows whose number is known. Give generate.count as a number above 0, or leave --shard out.")
    store, deadline = Store(Path(out) / recipe.name), limits.deadline()
    with store.held(wait=True):  # the first job fits the teacher, the others find it
        sample = load_sample(recipe.sample, recipe.task, recipe.seed, recipe.base)
        claim(store, recipe, replace)
        names = step_names(recipe, sample)
        cut = not store.path(names["teacher"]).exists() and (deadline.over() or fit(store, names["teacher"], recipe, sample, deadline))
        finished = max(rows_done(store.path(names["candidates"] + ending)) for ending in ("", ".partial"))
    fitted, (start, stop) = store.path(names["teacher"]), bounds(recipe.generate.count, number, of)
    whole = store.path(names["candidates"])
    start = max(start, min(stop, finished))
    shard = Store(shard_folder(whole, start, stop))
    if cut:
        return shard.root, start, 0
    teacher = own("generator", recipe.generator, lambda: recipe.generator.settings.load(fitted, sample.task, recipe.lm))

    def here(model: ModelRef) -> Session:
        return Relay(own("engine", recipe.engine, lambda: recipe.engine.settings.open(model)))

    with shard.held(), hands(on, recipe, sample, teacher, fitted, here) as session:
        allowance = Allowance(recipe.generate.max_tokens, limits.tokens, deadline, Purse(limits.cost))
        if start + rows_done(shard.root, start) < stop or (start < stop and not (shard.root / "engine.json").exists()):
            opened, how, seed = session(teacher.model), recipe.generate.sampling, seed_for(recipe.seed, "candidates")
            with store.held(wait=True):  # the first job looks, the others find what it saw
                seeing = having_seen(store, names, recipe, sample, teacher, opened, allowance)
            if seeing is None:
                return shard.root, start, 0
            work = (shard.root, seeing, opened, sample, stop, seed, how)
            own("engine", recipe.engine, lambda: complete(*work, allowance=allowance, start=start))
            write_json(shard.root / "engine.json", dict(opened.describe()))
    return shard.root, start, rows_done(shard.root, start)

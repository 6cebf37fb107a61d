"""The cells of a comparison: arms in their modes, and the rows of each seed and fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seedbed.data import load_sample
from seedbed.errors import RecipeError
from seedbed.folds import folds_to_grow
from seedbed.gain import decisive
from seedbed.recipe import Recipe
from seedbed.store import fingerprint
from seedbed.types import Sample, seed_for

MODES = ("generate", "annotate", "annotate+generate")


@dataclass(frozen=True)
class Arm:
    """One line of the table: a name, a mode of MODES and the recipe that carries it out."""

    name: str
    mode: str
    recipe: Recipe

    @property
    def student(self) -> str:
        """Arms of one have a control in common."""
        return fingerprint(self.recipe.student.facts())

    def seeded(self, s: int) -> Recipe:
        """The recipe under seed number s; number 0 is its own."""
        return replace(self.recipe, seed=_seed(self.recipe, s))


def arms_of(recipe: Recipe, modes: Sequence[str] = ()) -> list[Arm]:
    """The recipe's arms (itself, where it has none) in each mode; modes (): each recipe's own. Raises RecipeError with every problem."""
    unknown = [mode for mode in modes if mode not in MODES]
    problems = [f"--mode {mode!r} is unknown. Allowed: {', '.join(MODES)}." for mode in unknown]
    found = []
    for name, own_recipe in recipe.arms or ((recipe.generator.kind, recipe),):
        generates, annotates = bool(own_recipe.generate.count), own_recipe.annotate is not None
        if own_recipe.generate.auto:
            problems.append(
                f'[arm {name}] count = "auto" is a number of its own for every arm and seed. Give [generate] count a number to compare at.'
            )
        if _pool(own_recipe) != _pool(recipe):
            problems.append(f"[arm {name}] annotate.path names another pool, and arms share one. Write it in [annotate], or as [sample] pool.")
        usual = "annotate+generate" if generates and annotates else "annotate" if annotates else "generate"
        for mode in [m for m in modes if m not in unknown] or [usual]:
            if "annotate" in mode and not annotates:
                problems.append(f"[arm {name}] mode {mode!r} needs [annotate] in the recipe. Write the section.")
            elif "generate" in mode and not generates:
                problems.append(f"[arm {name}] mode {mode!r} needs new rows: give [generate] count, 1 or more.")
            else:
                found.append(Arm(name, mode, _in_mode(own_recipe, mode)))
    if problems:
        raise RecipeError(problems)
    return found


def _pool(recipe: Recipe) -> Path | None:
    return (recipe.base / recipe.sample.pool).resolve() if recipe.sample.pool else None


def _in_mode(recipe: Recipe, mode: str) -> Recipe:
    if "annotate" not in mode:  # the one that `annotate.by` names still names the labels: the first where there is no [annotate]
        return replace(recipe, annotate=None, annotators=tuple(sorted(recipe.annotators, key=lambda a: a.kind != recipe.label_by)))
    return recipe if "generate" in mode else replace(recipe, generate=recipe.generate.model_copy(update={"count": 0}))


def _seed(recipe: Recipe, s: int) -> int:
    return seed_for(recipe.seed, "compare", s) if s else recipe.seed


def samples_of(recipe: Recipe, seeds: int) -> tuple[list[Sample], list[Sequence[Sample]]]:
    """(the sample of each seed, the parts of each in which rows are grown: its folds, or itself)."""
    samples = [load_sample(recipe.sample, recipe.task, _seed(recipe, s), recipe.base) for s in range(seeds)]
    for sample in samples[1:]:
        assert [e.id for e in sample.tested] == [e.id for e in samples[0].tested], "a seed never redraws the test"
    return samples, [folds_to_grow(recipe, sample) or (sample,) for sample in samples]


def unmeasurable(arms: Sequence[Arm], sample: Sample) -> list[str]:
    """A sentence without its stop for each student with which no gain can be measured."""
    students = {arm.student: arm.recipe.student for arm in arms}.values()
    found = [(student.kind, decisive(sample, student.settings)[1]) for student in students]
    return [f"no gain can be measured with student {kind}: {reason}" for kind, reason in found if reason]

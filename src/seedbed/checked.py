"""A recipe and its data looked at before anything is run: what is wrong is raised, what a user should know is noted."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from seedbed.arms import arms_of
from seedbed.copies import repeated
from seedbed.data import SampleSpec, in_words, load_sample
from seedbed.errors import DataError, RecipeError
from seedbed.gain import FOLDS, MIN_FOLDED, MIN_TEST, uneven
from seedbed.recipe import Recipe
from seedbed.types import Sample
from seedbed.weights import absent, too_deep


@dataclass(frozen=True)
class Checked:
    """A recipe that can be read. rows: of each part of the sample (test: of all folds together). words: the same for people."""

    words: str
    rows: dict[str, int]
    labels: list[str]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        return {"good": True, "problems": [], **asdict(self)}


def check(recipe: Recipe) -> Checked:
    """Raises RecipeError where the data do not fit the recipe, or its student's blocks their model."""
    if problems := too_deep(recipe):
        raise RecipeError(problems)
    try:
        sample = load_sample(recipe.sample, recipe.task, recipe.seed, recipe.base)
    except DataError as error:
        raise RecipeError([str(error)]) from error
    undecoded = [part.settings.undecoded(recipe.lm) for part in recipe.generator.all() if hasattr(part.settings, "undecoded")]
    notes = [f"{line} Without it the recipe can be priced, not run." for line in (*absent(recipe), *filter(None, undecoded))]
    if recipe.task.target and (advice := more_test(sample, recipe.sample)):
        notes.append(f"the gain will not be measured: {advice}")
    if recipe.task.target and (reason := recipe.student.settings.supports(recipe.task)):
        notes.append(f'the gain will not be measured: {reason}. Give [student] kind = "causal", which writes its answers.')
    notes += [f"{why}." for why in (uneven(sample), repeated(sample), untested(sample), alike(recipe)) if why]
    if (few := min(len(sample.fit), len(sample.dev) + len(sample.test))) < MIN_TEST and any(m.kind == "mauve" for m in recipe.metrics):
        notes.append(f"MAUVE will not be measured: it needs {MIN_TEST} rows of fit, of dev + test together and kept; the fewest here are {few}.")
    try:
        arms_of(recipe)
    except RecipeError as error:
        notes += [f"compare: {problem}" for problem in error.problems]
    rows = {"fit": len(sample.fit), "dev": len(sample.dev), "test": len(sample.tested), "more": len(sample.more), "folds": len(sample.folds)}
    return Checked(f"{in_words(sample)}; {len(sample.task.labels)} labels", rows, list(sample.task.labels), notes)


def alike(recipe: Recipe) -> str:
    """Where the labels that a student learns are named by its like: what to do; "" else."""
    student, names = recipe.student, recipe.generate.relabel or recipe.annotate
    by = next((a.settings for a in recipe.annotators if a.kind == recipe.label_by == "classifier"), None) if names else None
    encoder = by is not None and (by.features, by.model, by.tune) == ("encoder", "minilm", False)
    if not (encoder and student.kind == "linear" and student.settings.features == "minilm"):
        return ""
    return (
        "the student reads through the encoder of the annotator that names its labels, which has nothing to teach it (docs/amortised.md): "
        'give student.features = "tfidf"'
    )


def untested(sample: Sample) -> str:
    """Which labels stand in test rows alone, or in none of them; "" where there is none such."""
    task = sample.task
    if not (task.has_labels and task.target and sample.tested):
        return ""
    tested = {str(e.fields[task.target]) for e in sample.tested}
    missing, unknown = set(task.labels) - tested, tested - set(task.labels)
    said = [f"the gain will say nothing of {_names(missing)}, which no test row has"] if missing else []
    said += [f"nobody can be right on test rows of {_names(unknown)}, which no row of fit or dev has"] if unknown else []
    return "; ".join(said)


def _names(labels: set[str]) -> str:
    return ", ".join(map(repr, sorted(labels)[:SHOWN])) + f" and {len(labels) - SHOWN} more" * (len(labels) > SHOWN)


SHOWN = 5
"""Labels that are named."""


def more_test(sample: Sample, spec: SampleSpec) -> str:
    """Why test has too few rows for a gain, and what to do; "" where it has enough."""
    needed, got, rows = MIN_FOLDED if spec.folds else MIN_TEST, len(sample.tested), sample.n + len(sample.test) + len(sample.more)
    if got >= needed:
        return ""
    if spec.folds:
        todo = f"Label {needed - got} more."
    elif spec.test:
        todo = f"Add {needed - got} to {spec.test}."
        if rows >= MIN_FOLDED:
            todo += f" Or put all {rows} rows into one file and give sample.folds = {FOLDS} in place of sample.test: each is tested once."
    elif rows >= 2 * MIN_TEST:  # half of them stay
        todo = f"Give sample.test_share = {math.ceil(100 * MIN_TEST / rows) / 100:g}."
    elif rows >= MIN_FOLDED:
        todo = f"There are {rows} rows in all: give sample.folds = {FOLDS}, and each is tested once, by rows grown without it."
    else:
        todo = f"There are {rows} rows in all: label {MIN_FOLDED - rows} more, and give sample.folds = {FOLDS}."
    return f"it needs {needed} test rows, got {got}. {todo}"

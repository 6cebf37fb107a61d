"""[sample] folds: rows are grown once more in each fold, without its test rows, so that the gain is measured on every row there is.

k-fold cross-validation of the whole procedure: teacher, filters and student of a fold know its training rows alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from seedbed.gain import decisive, uneven
from seedbed.grow import Grown, Timer
from seedbed.limits import Deadline, Limits
from seedbed.progress import within
from seedbed.recipe import Recipe
from seedbed.store import Store, fingerprint
from seedbed.types import Sample
from seedbed.volume import grow_as_asked


def folds_to_grow(recipe: Recipe, sample: Sample) -> Sequence[Sample]:
    """The sample's folds; none where no gain could be measured on them."""
    return () if decisive(sample, recipe.student.settings)[1] else sample.folds


def grow_folds(
    store: Store, grown: Grown, recipe: Recipe, sample: Sample, limits: Limits, deadline: Deadline, timer: Timer, on: str
) -> tuple[Grown, list[Grown]]:
    """(the run's rows, the rows of each fold, their steps in the folder `folds`). Where a limit comes first there are no folds, and the run's rows
    say where it was cut and have a step of scores of their own. limits, deadline: of the call, which has grown the run's rows already."""
    inner, found = Store(store.path("folds")), list[Grown]()
    folds = folds_to_grow(recipe, sample)
    names = {**grown.names, "scores": f"scores-{fingerprint(grown.names['scores'], 'without folds')}"} if folds else grown.names
    if grown.cut:
        return replace(grown, names=names), []
    if folds and (why := uneven(sample)):
        print(f"note: {why}.", file=sys.stderr, flush=True)
    for number, fold in enumerate(folds, 1):
        place, done = f"fold {number} of {len(folds)}", len(list(inner.root.glob("kept-*")))
        each = sum(timer.seconds.values()) / (1 + done)  # the run's rows and those of the finished folds
        ahead = f", about {each * (len(folds) - done):,.0f} s for all that are left" if done < len(folds) else ""
        print(f"{place}{ahead}", file=sys.stderr, flush=True)
        left, cut = limits.left(deadline, timer.tokens), {"cut": {"rows": 0, "of": recipe.generate.count, "fit": {}}}
        if left:
            with within(place):
                found.append(grow_as_asked(inner, recipe, fold, left, timer, on)[0])
            cut = found[-1].cut
        if cut:
            cut["cut"] |= {"limits": str(limits), "fold": place.removeprefix("fold ")}
            return replace(grown, names=names, cut=cut), []
    return grown, found

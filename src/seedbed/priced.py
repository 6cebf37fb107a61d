"""What a comparison will cost, arm by arm, before any of it is run: the estimate of each arm's steps, once for each seed and fold."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seedbed.arms import Arm, arms_of, samples_of, unmeasurable
from seedbed.computed import BUSY, Cost, busy
from seedbed.estimate import Estimate, Trained, estimate, money_of, rows_there, scaled
from seedbed.gain import FULL_ROWS
from seedbed.grow import step_names
from seedbed.recipe import Recipe
from seedbed.types import Sample

ASSUMED = (
    "every seed and fold costs what the first does; a step that arms share is counted at the first, and one that is there costs nothing",
    "the real rows' students are counted at the first arm of each student; students that are there are counted again",
    "no arm keeps so much more than another that it is scored a second time with all its rows",
)


def price(recipe: Recipe, modes: Sequence[str] = (), seeds: int = 3, out: Path | str = "runs") -> dict[str, Any]:
    """What `compare` of the same arguments will cost from where its folder stands now. Writes nothing there. Raises RecipeError, and what the parts
    raise."""
    arms = arms_of(recipe, modes)
    samples, parts = samples_of(arms[0].recipe, seeds)
    folder, made, seen = Path(out) / f"{recipe.name}-compare", dict[str, int](), set[str]()
    assumed, rows, found, costs = busy(), list[dict[str, Any]](), list[Estimate](), list[Cost]()
    for arm in arms:
        with tempfile.TemporaryDirectory() as empty:  # where no step is finished: what is there is looked up below
            found.append(estimate(arm.recipe, empty, trained=_students(parts[0][0], new=arm.student not in seen)))
        seen.add(arm.student)
        times = {"scores": float(seeds)} | _to_make(arm, parts, folder, made)
        mine = {step: scaled(cost, times[step]) for step, cost in found[-1].steps.items() if step in times}
        costs += mine.values()
        rows.append(_line(arm, mine, *money_of(arm.recipe, mine.values())))
    known, notes = [row["money"] for row in rows if row["money"] is not None], list(dict.fromkeys(row.pop("money_note") for row in rows))
    assumed += [] if recipe.arms else [f"the recipe has no [[arm]]: it is one arm, {arms[0].name}"]
    assumed += [f"{said}; no student is trained" for said in unmeasurable(arms, samples[0])]
    return {
        "seeds": seeds,
        "folds": len(parts[0]) if len(parts[0]) > 1 else 0,
        "arms": rows,
        "seconds": round(sum(c.seconds for c in costs), 1),
        "tokens": sum(c.tokens for c in costs),
        "disk_bytes": sum(c.disk for c in costs),
        "memory_bytes": max(one.memory for one in found),
        "money": round(sum(known), 4) if known else None,
        "money_note": "; ".join(notes),
        "assumed": [*assumed, *ASSUMED, *_said(arms, [one.assumed for one in found])],
    }


def _students(part: Sample, new: bool) -> Trained:
    """Of one seed, in each fold: on the arm's rows, and on real rows alone where none of its kind was counted yet. part: as it is grown in."""
    fit, more = len(part.fit), min(len(part.more), FULL_ROWS - len(part.fit))
    real = ([fit, fit + more] if more > 0 else [fit]) if new else []
    return lambda sample, kept: [*real, fit + kept]


def _to_make(arm: Arm, parts: Sequence[Sequence[Sample]], folder: Path, made: dict[str, int]) -> dict[str, float]:
    """Step -> how many times what the estimate has of it, which is the rows' own and each fold's, is still to make. made: rows of the steps that
    arms before this one make, by the step's name, to which its own are added."""
    times: dict[str, float] = {}
    for s, under in enumerate(parts):
        recipe = arm.seeded(s)
        for part in under:
            names = step_names(recipe, part)
            for step, wanted in _steps(recipe, part).items():
                fresh, whole = 0, sum(wanted.values())
                for name, rows in wanted.items():
                    there = made.get(names[name], _there(folder / names[name], rows))
                    fresh += max(0, rows - there)
                    made[names[name]] = max(rows, there)
                times[step] = times.get(step, 0.0) + fresh / whole / (1 + len(under) * (len(under) > 1))
    return times


def _steps(recipe: Recipe, sample: Sample) -> dict[str, dict[str, int]]:
    """Step of an estimate -> folder of `step_names` -> rows in it; without those that the recipe does not have."""
    count, pool = recipe.generate.count, recipe.annotate.rows(len(sample.pool)) if recipe.annotate else 0
    written = 0 if sample.task.has_labels else pool
    found = {
        "teacher": {"teacher": int(recipe.asks_teacher)},
        "candidates": {"candidates": count, "answers": written},
        "annotations": {"annotations": count, "labels": pool} if recipe.annotators else {},
        "kept": {"kept": count + pool},
    }
    found = {step: {name: rows for name, rows in wanted.items() if rows} for step, wanted in found.items()}
    return {step: wanted for step, wanted in found.items() if wanted}


def _there(folder: Path, rows: int) -> int:
    return rows_there(folder) if folder.name.startswith(("candidates", "answers")) else rows * folder.is_dir()


def _line(arm: Arm, costs: Mapping[str, Cost], money: float | None, note: str) -> dict[str, Any]:
    steps = {step: {"seconds": round(c.seconds, 2), "tokens": c.tokens, "disk_bytes": c.disk, "basis": c.basis} for step, c in costs.items()}
    return {
        "arm": arm.name,
        "mode": arm.mode,
        "student": arm.recipe.student.kind,
        "seconds": round(sum(c.seconds for c in costs.values()), 1),
        "tokens": sum(c.tokens for c in costs.values()),
        "money": money,
        "money_note": note,
        "steps": steps,
    }


def _said(arms: Sequence[Arm], assumed: Sequence[Sequence[str]]) -> list[str]:
    """What is assumed of all arms, and then of some, each line once."""
    lines = list(dict.fromkeys(line for mine in assumed for line in mine if not line.startswith(BUSY)))
    whose = {line: [f"{arm.name}, {arm.mode}" for arm, mine in zip(arms, assumed, strict=True) if line in mine] for line in lines}
    every = [line for line in lines if len(whose[line]) == len(arms)]
    return every + [f"{'; '.join(whose[line])}: {line}" for line in lines if line not in every]

"""What a finished run knows of itself: the one input of page and card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seedbed.task import Task
from seedbed.types import Candidate


@dataclass(frozen=True)
class Facts:
    """scores: scores.json. manifest: manifest.json (seed, versions, hashes, timings in seconds, counts).

    training: training.json of a soft prompt ({"chosen", "unit", "forms": {"none": {"dev"}, "mc": {"dev", "dev_shuffled", "train", "epoch",
    "parameters", "log": [{"step", "epoch", "train", "dev"}]}}}) or, with "lora" or "full" as its form, of a tuned model, or None. dropped:
    {"id", "text", "filter", "reason", "label"} each.
    labels: label -> rows of fit + dev, empty for tasks without. closeup: closeup.json. licenses: of "sample" and "model", None where unknown.
    data: of rows that were not made here ({"from", "rows", "refused", "columns"}); empty for a run.
    """

    name: str
    recipe_toml: str
    task: Task
    sizes: Mapping[str, int]
    scores: Mapping[str, Any]
    manifest: Mapping[str, Any]
    training: Mapping[str, Any] | None
    kept: Sequence[Candidate]
    dropped: Sequence[Mapping[str, Any]]
    labels: Mapping[str, int]
    closeup: Mapping[str, Any]
    licenses: Mapping[str, str | None]
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        return str(self.scores["verdict"])

    @property
    def folds(self) -> str:
        """What stands after the number of test rows: "" without folds."""
        folds = self.scores["counts"].get("folds", ())
        return f", each in one of {len(folds)} folds, whose synthetic rows and students knew none of its test rows" if folds else ""

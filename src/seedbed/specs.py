"""The plain sections of a recipe: values with their ranges, no components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from seedbed.flops import DeviceName, Shape
from seedbed.types import Sampling

FROZEN = ConfigDict(frozen=True, extra="forbid", validate_default=True)
"""Defaults are read as settings are, 1 of a float as 1.0: a resolved recipe that is read back is then the same in every fingerprint."""


MOST = 100_000
"""Candidates that count = "auto" may come to, whatever the sample's size."""


class ModelSpec(BaseModel):
    """name: "seedling" (shipped), a folder, or a hub name. shape: sizes instead of weights; such a model can be estimated, not run."""

    model_config = FROZEN
    name: Annotated[str, Field(min_length=1)] = "seedling"
    shape: Shape | None = None


class Where(BaseModel):
    """What cannot change a result. device: that a `shape` is estimated for. price_per_hour: of the machine, in any currency. cpus: of one hand of
    `--on ray`, where the cluster has no GPU; with GPUs a hand has one."""

    model_config = FROZEN
    device: DeviceName = "h100"
    price_per_hour: Annotated[float, Field(ge=0)] | None = None
    cpus: Annotated[float, Field(gt=0)] = 1.0


class Generate(BaseModel):
    """count: candidates to make; 0 with [annotate] alone; "auto": as many as help on dev, and at most 20 for each row of fit + dev.

    auto: what count = "auto" stands for; with it, count is the most. temperature: 0 is greedy. top_p: share of the mass drawn from. max_tokens: a
    candidate's length at most. relabel: each row gets the likeliest label of the annotator that names the labels (`annotate.by`, or the first)
    instead of the one that the teacher wrote, and a student learns its distribution (He et al. 2022: inputs first, then annotation).
    """

    model_config = FROZEN
    count: Annotated[int, Field(ge=0)] = 600
    auto: bool = False
    temperature: Annotated[float, Field(ge=0, le=5)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    max_tokens: Annotated[int, Field(ge=1)] = 96
    relabel: bool = False

    @model_validator(mode="before")
    @classmethod
    def _auto(cls, values: Any) -> Any:
        return {**values, "count": MOST, "auto": True} if isinstance(values, dict) and values.get("count") == "auto" else values

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.max_tokens)


class Annotate(BaseModel):
    """Real inputs without targets get targets. path: a file of them, instead of [sample] pool. count: at most so many, drawn by the seed.

    by: the kind of the [[annotator]] whose likeliest label each gets; the first where not given. For tasks without labels the teacher writes
    the target instead, with temperature (0 is greedy), at most generate.max_tokens long. answers: how often it may be asked of the same input, in
    rounds of the whole pool until there are `count` answers, so that a filter that checks them (`verified`) finds a right one.
    """

    model_config = FROZEN
    path: str | None = None
    count: Annotated[int, Field(ge=1)] = 2000
    by: str | None = None
    temperature: Annotated[float, Field(ge=0, le=5)] = 0.0
    answers: Annotated[int, Field(ge=1, le=101)] = 1

    @model_validator(mode="after")
    def _differ(self) -> Annotate:
        if self.answers > 1 and not self.temperature:
            raise ValueError(f"answers = {self.answers} would be {self.answers} times the same at temperature 0: give temperature, such as 0.7")
        return self

    def rows(self, pool: int) -> int:
        """Rows that a pool of so many inputs comes to."""
        return min(self.count, self.answers * pool)

    def sampling(self, max_tokens: int) -> Sampling:
        return Sampling(self.temperature, 1.0, max_tokens)


class GainSpec(BaseModel):
    """seeds: students trained for each arm. volumes: synthetic rows of the curve, as multiples of n. soft_labels: a student learns from the
    whole distribution of the annotator that names the labels (`annotate.by`, or the first), not from the likeliest label alone."""

    model_config = FROZEN
    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    soft_labels: bool = True
    volumes: tuple[Annotated[float, Field(gt=0, le=1000)], ...] = (0.5, 1, 2, 5, 10, 20)


class Evaluate(BaseModel):
    """How `seedbed evaluate` reads somebody's rows. columns: of the task -> of their table; `metadata.label` is the field label of a struct. labels:
    as they write them -> as the sample does. path: the rows, which the command fills in."""

    model_config = FROZEN
    path: str | None = None
    columns: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}

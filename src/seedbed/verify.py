"""`seedbed verify`: a run folder's hashes and claims, checked again. Each check names the first file or row that does not match."""

from __future__ import annotations

import json
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from seedbed import recipe as recipes
from seedbed.annotations import annotated
from seedbed.answers import drafts, labelled, pool_rows
from seedbed.candidates import read_candidates
from seedbed.data import load_sample
from seedbed.dataset import ORIGIN, data_file
from seedbed.errors import SandboxError, StoreError
from seedbed.export import dataset_rows
from seedbed.gates import gates
from seedbed.grow import step_names
from seedbed.outcome import not_compared
from seedbed.recipe import Recipe
from seedbed.run import examples_of, measured, sealed
from seedbed.sifting import SIFTED, sift, tally
from seedbed.specs import Generate
from seedbed.store import read_json, read_lines
from seedbed.types import Candidate, Sample, seed_for

RECOMPUTED = ("memorisation", "pii", "membership", "bias")
"""Metrics that are measured again: what is claimed about safety."""
CLOSE = 1e-4
"""Numbers that differ by no more are the same: features depend on the machine in their last digits."""


@dataclass(frozen=True)
class Check:
    """passed: None where it could not be checked. why: what does not match first, or what was not checked."""

    name: str
    passed: bool | None
    why: str = ""


def verify(folder: Path, recipe: Path | None = None) -> list[Check]:
    """Checks files against the manifest, the dataset against the kept rows, these against the candidates, counts and gates against what is there.

    recipe: the file that the run was made by. With it the real rows are read again (their files are found from its folder), and steps' names,
    the filters' verdicts and the numbers of RECOMPUTED are worked out anew; only then does code run that the run's recipe names (plug-ins).
    Raises StoreError where there is no finished run.
    """
    there = _Run(folder)
    checks: list[tuple[str, Callable[[], str | None]]] = [
        ("files", there.files), ("dataset", there.dataset), ("origin", there.origin), ("counts", there.counts), ("gates", there.gates),
        ("names", lambda: there.names(recipe)), ("verdicts", lambda: there.verdicts(recipe)), ("measures", lambda: there.measures(recipe)),
    ]  # fmt: skip
    found = []
    for name, check in checks:
        try:
            why = check()
        except StoreError as error:
            why = str(error)
        except (LookupError, TypeError, ValueError, AttributeError) as error:  # a file of another form than any run writes
            why = f"a file is damaged: {type(error).__name__}: {error}"
        except _NotChecked as reason:
            found.append(Check(name, None, str(reason)))
            continue
        found.append(Check(name, not why, why or ""))
    return found


class _NotChecked(Exception):
    """What a check would need and is not there."""


@dataclass(frozen=True)
class _Grown:
    """Rows that the run grew: where in words ("" or " of fold 2"), the folder of their steps, and step -> its name."""

    where: str
    folder: Path
    steps: Mapping[str, Any]


class _Run:
    def __init__(self, root: Path) -> None:
        not_compared(root)
        if not (root / "manifest.json").is_file():
            raise StoreError(f"{root} holds no finished run: it has no manifest.json. Give the folder of one, for example runs/helpdesk.")
        self.root, self.manifest = root, read_json(root / "manifest.json")
        if self.manifest == {}:  # as RunFailed leaves it
            raise StoreError(f"{root} holds a run that kept no row, so that there is nothing to verify. Why: seedbed show {root} dropped.")
        self.folds = self.manifest.get("folds", [])
        for steps in (self.manifest.get("steps", {}), *(self.folds if isinstance(self.folds, list) else [self.folds])):
            if not isinstance(steps, dict) or not all(re.fullmatch(r"\w[\w.-]*", str(name)) for name in steps.values()):
                raise StoreError(f"{root / 'manifest.json'} is damaged: its steps are no names of folders in the run. Got {steps!r:.80}.")

    def step(self, name: str, grown: _Grown | None = None) -> Path | None:
        """The folder of a step; of the run's own rows, or of others that it grew."""
        of = grown or _Grown("", self.root, self.manifest.get("steps", {}))
        path = of.folder / str(of.steps.get(name))
        return path if path.is_dir() else None

    @property
    def grown(self) -> list[_Grown]:
        """The run's rows, then those of each fold."""
        folds = [_Grown(f" of fold {number}", self.root / "folds", steps) for number, steps in enumerate(self.folds, 1)]
        return [_Grown("", self.root, self.manifest["steps"]), *folds]

    @cached_property
    def kept(self) -> list[Candidate]:
        return [Candidate(**row) for row in read_lines(self._sifted() / "kept.jsonl")]

    @cached_property
    def raw(self) -> dict[str, Any]:
        """The run's recipe as it is written. Not built: that runs the code of the plug-ins that it names, and the folder may be a stranger's."""
        try:
            return tomllib.loads((self.root / "recipe.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.root / 'recipe.toml'} is missing or damaged: {error}.") from error

    @property
    def most(self) -> int:
        """Candidates that the recipe asks for at most."""
        return Generate.model_validate(self.raw["generate"]).count

    def _sifted(self, grown: _Grown | None = None) -> Path:
        found = self.step("kept", grown)
        if found is None:
            raise StoreError(f"{self.root} has no step of kept rows{grown.where if grown else ''} that its manifest names.")
        return found

    def files(self) -> str | None:
        """The first file that is not what the run wrote."""
        written = self.manifest.get("files")
        if not written:
            raise _NotChecked("the manifest lists no hashes: the run was made by an earlier version")
        now = sealed(self.root, self.manifest)
        for name, digest in written.items():
            if now.get(name) != digest:
                return f"{name} was changed after the run: its SHA-256 is another" if name in now else f"{name} is missing"
        return next((f"{name} was added after the run" for name in now if name not in written), None)

    def dataset(self) -> str | None:
        """The first row of the dataset that is not a kept one."""
        if not (self.root / "dataset").is_dir():
            raise _NotChecked("there is no dataset: rows that were not made here are measured and not written again")
        rows = dataset_rows(self.root)
        if len(rows) != len(self.kept):
            return f"the dataset has {len(rows)} rows, {len(self.kept)} were kept"
        for i, (row, c) in enumerate(zip(rows, self.kept, strict=True)):
            origin, fields = row["provenance"], c.fields or {}
            if origin["candidate"] != c.id or not row["synthetic"]:
                return f"row {i + 1} of the dataset is {origin['candidate']}, kept is {c.id}"
            for name, value in fields.items():
                if name in row and _plain(row[name]) != _plain(value):
                    return f"row {i + 1} of the dataset ({c.id}): {name!r} is not what was kept"
            if origin["sources"] != c.provenance.get("sources"):
                return f"row {i + 1} of the dataset ({c.id}): its sources are not those that were kept"
        named = data_file([_with(c, row["provenance"]) for c, row in zip(self.kept, rows, strict=True)])
        return None if (self.root / "dataset" / named).is_file() else f"dataset/{named} should be the data's name, after what is in it"

    def origin(self) -> str | None:
        """The first kept row that no candidate stands behind, or whose sources are no rows of the sample."""
        made = {c.id: c for c in self._made()}
        sample = self.step("sample")
        ids = {name for part in read_json(sample / "sample.json")["ids"].values() for name in part} if sample else set()
        for c in self.kept:
            if made and not c.annotated and (c.id not in made or not _made_of(c, made[c.id], self.raw["task"].get("target"))):
                return f"kept row {c.id}: no candidate has this id and text"
            strange = [s for s in c.provenance.get("sources") or () if ids and s not in ids and not s.startswith("canary-")]
            if strange and "data" not in self.manifest:
                return f"kept row {c.id}: its source {strange[0]!r} is no row of the sample"
        return None

    def _made(self) -> Iterator[Candidate]:
        for name, count in (("candidates", self.most), ("answers", 10**9)):
            if folder := self.step(name):
                yield from read_candidates(folder, count)

    def counts(self) -> str | None:
        """The first count that is not what a recount gives."""
        scores, dropped = read_json(self.root / "scores.json"), read_lines(self._sifted() / "dropped.jsonl")
        counted = scores["counts"]
        kinds = [] if "data" in self.manifest else [f["kind"] for f in self.raw["filter"]]
        reasons = tally(kinds, dropped)
        again = {"kept": len(self.kept), "candidates": len(self.kept) + len(dropped), "dropped": reasons}
        for name, value in again.items():
            if counted[name] != value:
                return f"scores.json: counts.{name} is {counted[name]}, a recount gives {value}"
        in_folds = [len(read_lines(self.root / "folds" / fold["kept"] / "kept.jsonl")) for fold in self.folds]
        if in_folds != (claimed := [fold["kept"] for fold in counted.get("folds", [])]):
            return f"scores.json: kept rows of the folds are {claimed}, a recount gives {in_folds}"
        scored = self.step("scores")
        if scored and (of := read_json(scored / "scores.json"))["measures"] != scores["measures"]:
            wrong = [a["name"] for a, b in zip(of["measures"], scores["measures"], strict=False) if a != b]
            return f"scores.json: {wrong[0] if wrong else 'the list of measures'} is not what {scored.name} holds"
        return "scores.json: gain is not what was measured" if scored and of["gain"] != scores["gain"] else None

    def gates(self) -> str | None:
        """Gates that do not follow from the measures."""
        scores = read_json(self.root / "scores.json")
        again = gates(scores["measures"], self.raw["sensitive"])
        if not again and not scores.get("gates"):
            raise _NotChecked("no audit was measured, as earlier versions did not: no gate says whether the rows may be used. Run the recipe again")
        earlier = [g if g["passed"] is not None else g | {"passed": True, "why": ""} for g in again]  # as versions before had it
        return None if scores.get("gates", []) in (again, earlier) else f"scores.json: gates do not follow from the measures, which give {again}"

    def _sample(self, path: Path | None) -> tuple[Recipe, Sample]:
        if path is None:
            raise _NotChecked("needs the real rows: give --recipe, the file that the run was made by")
        if "data" in self.manifest:
            raise _NotChecked("rows that were not made here: evaluate them again")
        if self.raw["generate"].get("auto") or "cut" in self.manifest:
            raise _NotChecked("the run ended at a limit or by itself, so that its recipe does not say how many rows it has")
        own = recipes.read(path) if path.is_file() else {}
        found = recipes.build(self.raw, path.resolve().parent / str(own.get("base", "")))
        kinds = [m["kind"] for m in self.raw.get("metric", ())]  # without an audit that is added now, and was not when the run was made
        found = replace(found, metrics=tuple(m for m in found.metrics if m.kind in kinds))
        return found, load_sample(found.sample, found.task, found.seed, found.base)

    def names(self, path: Path | None) -> str | None:
        """The first step whose name does not follow from recipe, real rows and model."""
        recipe, sample = self._sample(path)
        for where, step, name, written in self._named(recipe, sample):
            if written != name:
                return f"step {step}{where} should be {name} by recipe, real rows, model and code. The manifest says {written}"
        return None

    def _named(self, recipe: Recipe, sample: Sample) -> Iterator[tuple[str, str, str, str | None]]:
        """(of which fold, step, its name worked out anew, the one that the manifest has)."""
        own, *folds = self.grown
        for step, name in step_names(recipe, sample).items():
            yield own.where, step, name, own.steps.get(step)
        for fold, grown in zip(sample.folds, folds, strict=False):
            again = step_names(recipe, fold)
            yield from ((grown.where, step, again[step], written) for step, written in grown.steps.items())

    def verdicts(self, path: Path | None) -> str | None:
        """The first row that the filters judge otherwise, among the run's rows and then in each fold."""
        recipe, sample = self._sample(path)
        judged = (self._judged(grown, recipe, of) for grown, of in zip(self.grown, (sample, *sample.folds), strict=False))
        return next((why for why in judged if why), None)

    def _judged(self, grown: _Grown, recipe: Recipe, sample: Sample) -> str | None:
        made = [*self._generated(grown, recipe), *self._asked(grown, recipe, sample)]
        with tempfile.TemporaryDirectory() as name:
            try:
                sift(Path(name), made, recipe, sample)
            except SandboxError as error:
                raise _NotChecked(str(error)) from error
            for part in SIFTED:
                again, there = read_lines(Path(name) / part), read_lines(self._sifted(grown) / part)
                for i, (a, b) in enumerate(zip(again, there, strict=False)):
                    if a != b:
                        return f"{part}{grown.where}, line {i + 1}: {b['id']} stands there, the filters give {a['id']} ({a.get('reason', 'kept')})"
                if len(again) != len(there):
                    return f"{part}{grown.where} has {len(there)} rows, the filters give {len(again)}"
        return None

    def _generated(self, grown: _Grown, recipe: Recipe) -> list[Candidate]:
        """The generated rows with what annotators said of them, as `grow` has them."""
        made = list(read_candidates(folder, self.most)) if (folder := self.step("candidates", grown)) else []
        if not made or not (place := self.step("annotations", grown)):
            return made
        return list(labelled(recipe.task, annotated(place, made), str(recipe.label_by), recipe.generate.relabel))

    def _asked(self, grown: _Grown, recipe: Recipe, sample: Sample) -> list[Candidate]:
        """The pool's rows with their targets, as `grow` has them."""
        if recipe.annotate is None:
            return []
        answers = self.step("answers", grown)
        rows = pool_rows(sample, recipe.annotate, seed_for(recipe.seed, "answers"))
        made = list(read_candidates(answers, len(rows))) if answers else drafts(sample.task, rows)
        place = self.step("labels", grown)
        return list(labelled(sample.task, annotated(place, made) if place else made, str(recipe.label_by)))

    def measures(self, path: Path | None) -> str | None:
        """The first number of RECOMPUTED that comes out otherwise."""
        recipe, sample = self._sample(path)
        written = {m["name"]: m for m in read_json(self.root / "scores.json")["measures"]}
        for component in recipe.metrics:
            if component.kind in RECOMPUTED:
                rows = examples_of(self.kept, sample, recipe, component.kind)
                for m in measured(component, sample, rows, seed_for(recipe.seed, "scores")):
                    for field in ("value", "low", "high", "real", "p"):
                        ours, theirs = asdict(m)[field], written.get(m.name, {}).get(field)
                        if not _same(ours, theirs):
                            return f"scores.json: {field} of {m.name} is {theirs}, measured again it is {ours}"
        return None


def _with(candidate: Candidate, origin: Mapping[str, Any]) -> Candidate:
    return replace(candidate, provenance=dict(candidate.provenance) | {name: origin[name] for name in ORIGIN})


def _made_of(kept: Candidate, candidate: Candidate, target: str | None) -> bool:
    """Whether the candidate is what was kept, but for the label where another was given."""
    if "label" not in kept.provenance:
        return kept.text == candidate.text
    return dict(kept.fields or {}) | {target: kept.provenance["label"]} == candidate.fields


def _plain(value: Any) -> str:
    """Values as JSON has them: a list of no common type stands as its text in the dataset."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _same(a: float | None, b: float | None) -> bool:
    return a == b if a is None or b is None else abs(a - b) <= CLOSE * max(1.0, abs(a))

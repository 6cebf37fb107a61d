"""Several ways to grow a training set, side by side: arms x modes x seeds at an equal number of kept rows, against the real rows alone.

A seed redraws fit and dev and refits teacher and student, never the test. With folds a cell is grown in each of them, and its answers to the tests of
all are scored together. Steps that two cells share are made once. Cells are filled seed by seed, and within a seed in the order of the arms, so that
what a limit leaves is the same comparison with fewer seeds. The best arm's rows are those of the recipe's own seed, which is seed number 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from seedbed.arms import Arm, arms_of, samples_of, unmeasurable
from seedbed.candidates import tokens_of
from seedbed.cells import LEAST_SHARE, Cell, half_empty, labellers, reasons_of, too_few
from seedbed.errors import StoreError
from seedbed.gain import FEWEST_BLOCKS, FULL_ROWS, Ruler, decisive, lessons, long_rows, taught
from seedbed.grow import Grown, Timer, grow, looks_step, own, step_names
from seedbed.limits import Hours
from seedbed.outcome import lend, nameable, write_best, write_outcome
from seedbed.progress import within
from seedbed.ranking import LEGEND, ranked, sentence, table, tell_nothing, unmeasured
from seedbed.recipe import Recipe
from seedbed.run import examples_of, measured
from seedbed.stats import Scorer, equal_draw, mean_of
from seedbed.store import Journal, Store, fingerprint, read_json, write_json
from seedbed.types import Example, Sample, seed_for
from seedbed.weights import need_weights, untuned

WORTH_A_STUDENT = 1.05
"""An arm that kept more rows than this times the number that all are compared at is also measured with all of its rows."""
REAL, FULL = "real only", "full real"


@dataclass(frozen=True)
class Compared:
    """folder: OUT/<name>-compare. rows: what compare.json holds. best: of each student, which way is the best and what it is shown to beat.
    unfinished: why some cells are missing, or "". recipes: file in the folder, whose run makes a dataset of the best way -> which way that is."""

    folder: Path
    rows: list[dict[str, Any]]
    best: list[str]
    unfinished: str
    recipes: dict[str, str]


def compare(
    recipe: Recipe,
    modes: Sequence[str] = (),
    seeds: int = 3,
    out: Path | str = "runs",
    hours: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Compared:
    """Fills the table, from wherever an earlier call stopped, and writes compare.json and compare.md into OUT/<name>-compare.

    hours: what a call may take; cells that it does not reach are None with the reason, and a later call goes on. say: told of each cell as it
    begins and as it ends, and first where no gain can be measured.
    Raises RecipeError, StoreError where the folder holds another comparison, and what the parts raise.
    """
    arms = arms_of(recipe, modes)
    for arm in arms:
        need_weights(arm.recipe)
    store = nameable(Store(Path(out) / f"{recipe.name}-compare"), recipe.base)
    with store.held(), closing(Journal(store.path("units.jsonl"))) as journal:
        return _Table(store, arms, seeds, Hours(hours), journal, say).fill()


def _claim(store: Store, recipe: Recipe, sample: Sample) -> None:
    """One folder, one comparison, of these rows wherever their file is; more seeds, arms or modes are the same one going on."""
    facts = {"sample": step_names(recipe, sample)["sample"]} | ({"folds": str(len(sample.folds))} if sample.folds else {})
    path = store.path("compare-of.json")
    if path.exists() and read_json(path) != facts:
        raise StoreError(f"{store.root} holds a comparison on another sample or seed. Give another name or --out, or remove the folder.")
    write_json(path, facts)


class _Table:
    def __init__(self, store: Store, arms: Sequence[Arm], seeds: int, clock: Hours, journal: Journal, say: Callable[[str], None]) -> None:
        self.store, self.arms, self.seeds, self.clock, self.journal, self.say = store, arms, seeds, clock, journal, say
        self.known = {r["name"]: r["value"] for r in journal.records}
        self.seconds = read_json(store.path("seconds.json")) if store.path("seconds.json").exists() else {}
        base = arms[0].recipe
        self.samples, self.parts = samples_of(base, seeds)
        _claim(store, base, self.samples[0])

    def fill(self) -> Compared:
        for said in unmeasurable(self.arms, self.samples[0]):
            self.say(f"{said}. Rows are grown all the same, and the table has no scores.")
        cells, failed = self._grow()
        least: dict[int, int] = {}
        for (i, _), cell in cells.items():
            least[i] = min(least.get(i, cell.kept), cell.kept)
        most = max((cell.kept for cell in cells.values()), default=0)
        budget = min((n for n in least.values() if n >= LEAST_SHARE * most), default=most)
        real = [self._reference(REAL, arm) for arm in self._students()]
        lines = [self._row(i, arm, cells, budget, failed) for i, arm in enumerate(self.arms)]
        best = list(filter(None, (self._rank(arm.student, cells, budget, lines) for arm in self._students())))
        rows = [*real, *lines, *(self._reference(FULL, arm) for arm in self._students() if self.samples[0].more)]
        of_rows = [*self._students(), *self.arms, *self._students()]
        for one in self._students():
            tell_nothing([row for row, arm in zip(rows, of_rows, strict=False) if arm.student == one.student])
        unfinished = str(self.clock) if any("--hours" in r["note"] for r in rows) else ""
        runs = [] if unfinished else [(write_best(self.store, c.arm.recipe, number), c) for number, c in self._winners(cells, lines)]
        recipes = {file: f"{c.arm.name}, {c.arm.mode}, {c.arm.recipe.student.kind}" for (file, _), c in runs}
        facts = {"rows": rows, "best": best, "unfinished": unfinished, "recipes": recipes}
        of = fingerprint(self.seeds, [[arm.name, arm.mode, arm.recipe.to_toml()] for arm in self.arms])
        if said := write_outcome(self.store, facts | {"of": of}, f"{table(rows, best)}\n{LEGEND}\n"):
            self.say(said)
        for (_, run), cell in runs:
            folds = "folds/" if len(cell.grown) > 1 else ""
            lend(self.store, run, [f"{folds}{step}" for g in cell.grown for step in (*g.names.values(), looks_step(g.names))], self.say)
        return Compared(self.store.root, rows, best, unfinished, recipes)

    def _winners(self, cells: Mapping[tuple[int, int], Cell], lines: Sequence[dict[str, Any]]) -> list[tuple[int, Cell]]:
        """Of each student, numbered from 1, its best arm, or the only one that kept rows: what it grew under the recipe's own seed."""
        found = []
        for number, one in enumerate(self._students(), 1):
            mine = [i for i, arm in enumerate(self.arms) if arm.student == one.student and (i, 0) in cells]
            best = [i for i in mine if lines[i]["best"]] or mine
            found += [(number, cells[best[0], 0])] if len(best) == 1 else []
        return found

    def _grow(self) -> tuple[dict[tuple[int, int], Cell], dict[tuple[int, int], str]]:
        """(cells by arm and seed, as far as the time goes; of the others of these, why they have none)."""
        cells: dict[tuple[int, int], Cell] = {}
        failed: dict[tuple[int, int], str] = {}
        for s in range(self.seeds):
            for i, arm in enumerate(self.arms):
                cell = self._cell(arm, s)
                if cell is None:
                    return cells, failed
                folds = f" in the least of {len(cell.rows)} folds" if len(cell.rows) > 1 else ""
                self.say(f"{arm.name}, {arm.mode}, seed {s + 1} of {self.seeds}: {cell.kept} rows kept{folds}")
                if cell.kept:
                    cells[i, s] = cell
                else:
                    failed[i, s] = f"seed {s + 1} kept no row{' of one fold' * bool(folds)}: {reasons_of(cell.least)}"
        return cells, failed

    def _cell(self, arm: Arm, s: int) -> Cell | None:
        """What the arm grows under seed number s; None where the time is up."""
        recipe, target = arm.seeded(s), str(arm.recipe.task.target)
        found: list[Grown] = []
        for number, part in enumerate(self.parts[s], 1):
            if self.clock.over():
                return None
            place = f"{arm.name}, {arm.mode}, seed {s + 1} of {self.seeds}" + f", fold {number} of {len(self.parts[s])}" * (len(self.parts[s]) > 1)
            self.say(f"{place}: begins")
            timer, name = Timer(), _cell_name(arm, recipe, part)
            try:
                with within(place):
                    found.append(grow(self.store, recipe, part, self.clock.limits(), timer))
            finally:
                self.seconds[name] = round(self.seconds.get(name, 0.0) + sum(timer.seconds.values()), 2)
                write_json(self.store.path("seconds.json"), self.seconds)
            if found[-1].cut:
                return None
        by = recipe.label_by if recipe.gain.soft_labels else None
        return Cell(arm, s, found, [lessons(grown.kept, target, by) for grown in found])

    @property
    def _fit(self) -> int:
        """Real rows that a student learns from, at most."""
        return max(len(part.fit) for parts in self.parts for part in parts)

    def _students(self) -> list[Arm]:
        """An arm for each different student."""
        return list({arm.student: arm for arm in reversed(self.arms)}.values())[::-1]

    def _predictions(
        self, arm: Arm, s: int, name: Callable[[int], str], rows: Callable[[int], Sequence[Example]], long: list[Any] | None = None
    ) -> list[str] | None:
        """Of the arm's student trained on fit and these rows, on test, of all folds one after the other; None where the time is up. name: of the rows
        of a fold, in the journal. long: takes of each fold, under seed number 0, how many rows are longer than the student reads (`gain.taught`)."""
        student, seed = arm.recipe.student, seed_for(arm.recipe.seed, "compare", "student", s)
        found: list[str] = []
        for i, part in enumerate(self.parts[s]):
            # A seed draws no other rows where [sample] names files of them: its student is another all the same.
            unit = f"{step_names(arm.recipe, part)['sample']}/{s}/{fingerprint(student.facts(), arm.recipe.gain.soft_labels)}/{name(i)}"
            if unit not in self.known:
                if self.clock.over():
                    return None
                self.known[unit] = own("student", student, partial(taught, student.settings, part, [*part.fit, *rows(i)], seed, not s))
                self.journal.add({"name": unit, "value": self.known[unit]})
            made = self.known[unit]
            if isinstance(made, dict) and long is not None:
                long.append(made["long"])
            found += made["predictions"] if isinstance(made, dict) else made
        return found

    def _real(self, arm: Arm, s: int, long: list[Any] | None = None) -> list[str] | None:
        return self._predictions(arm, s, lambda i: REAL, lambda i: [], long)

    def _ruler(self, arm: Arm) -> tuple[Ruler, str]:
        """What measures the arm's student, and why it cannot or ""."""
        metric, reason = decisive(self.samples[0], arm.recipe.student.settings)
        return Ruler(self.samples[0].task, self.samples[0].tested, metric, seed_for(arm.recipe.seed, "compare", "bootstrap")), reason

    def _reference(self, name: str, arm: Arm) -> dict[str, Any]:
        """The line of real rows: those of the sample, or with those that it leaves out."""
        ruler, reason = self._ruler(arm)
        more = [[max(0, min(len(p.more), FULL_ROWS - len(p.fit))) if name == FULL else 0 for p in parts] for parts in self.parts]
        line = unmeasured(name, "-", arm.recipe.student.kind, self._fit, max(map(max, more)), ruler.metric)
        if reason:
            return line | {"note": reason}
        long: list[Any] = []

        def runs(s: int) -> list[str] | None:
            if name == REAL:
                return self._real(arm, s, long)
            drawn = seed_for(arm.recipe.seed, "compare", "full", s)
            return self._predictions(arm, s, lambda i: f"{FULL}/{more[s][i]}", lambda i: equal_draw(self.parts[s][i].more, more[s][i], drawn), long)

        line |= self._numbers(ruler, arm, {s: runs(s) for s in range(self.seeds)}, versus_real=name == FULL)
        return line | {"note": "; ".join(filter(None, [line["note"], long_rows(long)]))}

    def _row(self, i: int, arm: Arm, cells: Mapping[tuple[int, int], Cell], budget: int, failed: Mapping[tuple[int, int], str]) -> dict[str, Any]:
        ruler, reason = self._ruler(arm)
        mine = [cells[i, s] for s in range(self.seeds) if (i, s) in cells]
        without = [failed[i, s] for s in range(self.seeds) if (i, s) in failed]
        missing = self.seeds - len(mine) - len(without)
        reasons = [*without, f"{missing} of {self.seeds} seeds missing: {self.clock}" if missing and str(self.clock) else "", untuned(arm.recipe)]
        least = min((cell.kept for cell in mine), default=0)
        n = min(budget, least)
        line = unmeasured(arm.name, arm.mode, arm.recipe.student.kind, self._fit, n, ruler.metric) | {"kept": [c.kept for c in mine]}
        spent = [self.seconds.get(_cell_name(arm, arm.seeded(s), part), 0.0) for s, parts in enumerate(self.parts) for part in parts]
        line |= {"seconds": round(sum(spent), 1)}
        line |= {"tokens": sum(self._tokens(cell) for cell in mine)}
        line |= self._measures(mine, n)
        if mine and arm.recipe.metrics and not line["measures"]:
            reasons.append(f"measures missing: {self.clock}")
        reasons += [half_empty(mine), *labellers(mine)]
        if leaked := (line["measures"].get("pii_leak_rate") or {}).get("value"):
            reasons.append(f"personal data of real rows in {100 * leaked:.1f} % of its rows: as a run they would fail its gate")
        if not mine or reason:
            return line | {"note": "; ".join(filter(None, [reason if mine else "", *reasons]))}
        long: list[Any] = []
        equal = {cell.seed: self._learned(cell, n, long) for cell in mine}
        line |= self._numbers(ruler, arm, equal, versus_real=True)
        if max(line["kept"]) > WORTH_A_STUDENT * n:
            whole = self._numbers(ruler, arm, {cell.seed: self._learned(cell, cell.kept) for cell in mine}, versus_real=True)
            line |= {f"all_{key}": whole[key] for key in ("mean", "gain", "gain_low", "gain_high")}
            line |= {"all_kept": least if least == max(line["kept"]) else line["kept"]}
        notes = [line["note"], *reasons, too_few(min(mine, key=lambda cell: cell.kept), budget) if n < budget else "", long_rows(long)]
        return line | {"note": "; ".join(dict.fromkeys(filter(None, notes)))}

    def _rank(self, student: str, cells: Mapping[tuple[int, int], Cell], n: int, lines: Sequence[dict[str, Any]]) -> str:
        """Ranks this student's lines of n kept rows that have the same seeds, the most of any, in place; the sentence about them."""
        mine = [i for i, arm in enumerate(self.arms) if arm.student == student and lines[i]["n_kept"] == n and lines[i]["mean"] is not None]
        runs = {i: {s: run for s in range(self.seeds) if (i, s) in cells and (run := self._learned(cells[i, s], n)) is not None} for i in mine}
        most = max(map(tuple, runs.values()), key=len, default=())
        same = {i: list(found.values()) for i, found in runs.items() if tuple(found) == most}
        for i, rank in (ranked(self._ruler(self.arms[mine[0]])[0], same) if same else {}).items():
            lines[i].update(rank)
        return sentence([lines[i] for i in same])

    def _tokens(self, cell: Cell) -> int:
        made = [tokens_of(self.store.path(g.names["candidates"]), g.recipe.generate.count) for g in cell.grown]
        made += [tokens_of(self.store.path(looks_step(g.names))) for g in cell.grown]
        return sum(made) + sum(tokens_of(self.store.path(g.names["answers"])) for g in cell.grown if "answers" in g.names)

    def _learned(self, cell: Cell, n: int, long: list[Any] | None = None) -> list[str] | None:
        drawn = seed_for(cell.arm.recipe.seed, "compare", "draw", cell.seed)
        rows, grown = cell.rows, cell.grown
        return self._predictions(cell.arm, cell.seed, lambda i: f"{grown[i].names['kept']}/{n}", lambda i: equal_draw(rows[i], n, drawn), long)

    def _numbers(self, ruler: Ruler, arm: Arm, runs: Mapping[int, list[str] | None], versus_real: bool) -> dict[str, Any]:
        """mean with its interval, and the gain over the real rows alone of the same seeds."""
        done = {s: run for s, run in runs.items() if run is not None}
        reals = {s: real for s in done if (real := self._real(arm, s)) is not None}
        done = {s: done[s] for s in reals}
        empty = dict.fromkeys(("mean", "low", "high", "gain", "gain_low", "gain_high", "smallest_detectable"))
        if not done:
            return empty | {"seeds": 0, "note": str(self.clock)}
        scorer: Scorer = ruler.scorer(list(done.values()))
        mean, low, high = ruler.interval(scorer, len(done))
        found = empty | {"mean": mean, "low": low, "high": high, "seeds": len(done), "note": ""}
        if versus_real:
            d = ruler.difference(ruler.scorer(list(reals.values())), scorer, len(done), paired=True)
            found |= {"gain": d.mean, "gain_low": d.low, "gain_high": d.high}
            found |= {"smallest_detectable": max(d.smallest_detectable, 100 * FEWEST_BLOCKS / ruler.blocks)}
        return found

    def _measures(self, mine: Sequence[Cell], n: int) -> dict[str, Any]:
        """What the recipe's metrics say of n kept rows of each seed (and fold): means of value, interval and real against real; none where the time
        was up before all of them were measured."""
        found: dict[str, list[dict[str, Any]]] = {}
        for arm, grown, sample in ((c.arm, g, p) for c in mine for g, p in zip(c.grown, self.parts[c.seed], strict=True)):
            recipe = arm.recipe
            unit = f"{grown.names['kept']}/{n}/{fingerprint([m.facts() for m in recipe.metrics])}/measures"
            if unit not in self.known and not self.clock.over():
                made = examples_of(grown.kept, sample, recipe)
                drawn = equal_draw(made, min(n, len(made)), seed_for(recipe.seed, "compare", "measures"))
                said = [m for component in recipe.metrics for m in measured(component, sample, drawn, seed_for(recipe.seed, "scores"))]
                self.known[unit] = {m.name: {k: getattr(m, k) for k in ("value", "low", "high", "real")} for m in said}
                self.journal.add({"name": unit, "value": self.known[unit]})
            if unit not in self.known:
                return {"mauve": None, "copies": None, "measures": {}}
            for name, numbers in self.known[unit].items():
                found.setdefault(name, []).append(numbers)
        means = {name: {k: mean_of([v[k] for v in values]) for k in ("value", "low", "high", "real")} for name, values in found.items()}
        value = {name: numbers["value"] for name, numbers in means.items()}
        return {"mauve": value.get("mauve"), "copies": value.get("verbatim_rate"), "measures": means}


def _cell_name(arm: Arm, recipe: Recipe, sample: Sample) -> str:
    """Of an arm under one seed, in seconds.json: what another recipe of the same name took is not its own."""
    return f"{arm.name}/{arm.mode}/{step_names(recipe, sample)['kept']}"

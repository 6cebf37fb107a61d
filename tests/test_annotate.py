"""[annotate]: real inputs get targets; who names them, what becomes of them, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seedbed import recipe as recipes
from seedbed.annotations import annotate, annotation_facts
from seedbed.annotators.likelihood import Likelihood
from seedbed.annotators.prompted import Prompted
from seedbed.answers import Answering, drafts, pool_rows
from seedbed.candidates import complete, read_candidates
from seedbed.data import load_sample
from seedbed.engines.local import Local
from seedbed.engines.toy import Toy
from seedbed.errors import ComponentError, DataError, RecipeError, StoreError
from seedbed.filters.quota import Quota
from seedbed.gain import lessons
from seedbed.generators.hard import Hard
from seedbed.grow import step_names
from seedbed.limits import Purse
from seedbed.run import run
from seedbed.show import rows_of
from seedbed.specs import Annotate
from seedbed.store import read_lines
from seedbed.task import Task
from seedbed.testing import tiny_candidates, tiny_sample
from seedbed.types import Backing, Candidate, Completion, Example, ModelRef, Prompt, Row, Sample, Sampling
from seedbed.verify import verify

ROOT = Path(__file__).resolve().parent.parent
LABELS: dict[str, Any] = {
    "name": "labels",
    "seed": 3,
    "sample": {"path": "examples/helpdesk.csv", "rows": 100, "hide": True},
    "task": {"kind": "classification", "inputs": ["message"], "target": "queue"},
    "engine": {"kind": "toy", "order": 5},
    "generator": {"kind": "hard", "shots": 8},
    "annotate": {"count": 90},
    "annotator": [{"kind": "classifier"}],
    "metric": [{"kind": "memorisation"}],
    "gain": {"seeds": 1, "volumes": [0.5]},
}


def backing(sample: Sample, folder: Path, shots: int = 5) -> Backing:
    """Few-shot prompts and the toy engine."""
    Hard(shots=shots).fit(sample, "toy", 0, folder)
    return Backing("toy", Hard(shots=shots).load(folder, sample.task, "toy"), Toy().open)


@pytest.mark.slow
def test_nothing_is_kept_by_annotations_that_were_changed_on_disk(tmp_path: Path) -> None:
    made = recipes.build(LABELS, ROOT)
    before = run(made, tmp_path)
    kept = next(before.folder.glob("kept-*"))
    whole = (kept / "kept.jsonl").read_bytes()
    shutil.rmtree(kept)
    (before.folder / "scores.json").unlink()
    labels = next(before.folder.glob("labels-*")) / "annotations.jsonl"
    labels.write_bytes(labels.read_bytes().replace(b"0.", b"0.0", 1))
    with pytest.raises(StoreError, match=r"changed after it was made\. Remove it"):
        run(made, tmp_path)
    shutil.rmtree(labels.parent)
    run(made, tmp_path)
    assert (kept / "kept.jsonl").read_bytes() == whole


def test_a_hidden_pool_is_the_left_out_rows_without_their_targets() -> None:
    made = recipes.build(LABELS, ROOT)
    sample = load_sample(made.sample, made.task, made.seed, ROOT)
    assert [e.id for e in sample.pool] == [e.id for e in sample.more]
    assert all(set(e.fields) == {"message"} for e in sample.pool)
    assert len(pool_rows(sample, Annotate(count=90), 1)) == 90
    assert len(pool_rows(sample, Annotate(count=10**6), 1)) == len(sample.pool)


@pytest.fixture(scope="module")
def labelled_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(recipes.build(LABELS, ROOT), tmp_path_factory.mktemp("labels")).folder


@pytest.mark.slow
def test_annotating_alone_fits_no_teacher_and_ships_real_inputs_with_the_label_that_was_read(labelled_run: Path) -> None:
    made = recipes.build(LABELS, ROOT)
    sample = load_sample(made.sample, made.task, made.seed, ROOT)
    assert not [p.name for p in labelled_run.iterdir() if p.name.startswith(("teacher", "candidates"))]
    kept = [json.loads(line) for line in next(labelled_run.glob("kept-*/kept.jsonl")).read_text().splitlines()]
    inputs = {e.id: e.fields["message"] for e in sample.pool}
    assert kept and all(inputs[c["provenance"]["sources"][0]] == c["fields"]["message"] for c in kept)
    assert all(c["fields"]["queue"] == next(iter(c["annotations"]["classifier"])) for c in kept)
    scores = json.loads((labelled_run / "scores.json").read_text())
    assert scores["counts"]["annotated"] == scores["counts"]["kept"] == len(kept)
    assert scores["counts"]["candidates"] == 90
    [shown] = rows_of(labelled_run, "labels", 1)
    assert shown["text"].startswith("Message: ") or shown["text"].startswith("Queue: ")
    assert max(shown["classifier"].values()) == next(iter(shown["classifier"].values()))
    assert all(m["value"] is None for m in scores["measures"])  # of real text there is nothing to measure


@pytest.mark.slow
def test_real_labels_are_not_looked_at(tmp_path: Path, labelled_run: Path) -> None:
    rows = (ROOT / "examples/helpdesk.csv").read_text().splitlines()
    made = recipes.build(LABELS, ROOT)
    sample = load_sample(made.sample, made.task, made.seed, ROOT)
    pool = {e.fields["message"] for e in sample.pool}
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps({"message": m, "queue": "a label that no task has"}) + "\n" for m in sorted(pool)))
    other = LABELS | {"sample": {"path": str(ROOT / "examples/helpdesk.csv"), "rows": 100}, "annotate": {"count": 90, "path": "pool.jsonl"}}
    folder = run(recipes.build(other, tmp_path), tmp_path / "out").folder
    kept = [json.loads(line) for line in next(folder.glob("kept-*/kept.jsonl")).read_text().splitlines()]
    said = {
        json.loads(line)["fields"]["message"]: json.loads(line)["fields"]["queue"] for line in next(labelled_run.glob("kept-*/kept.jsonl")).open()
    }
    both = [c for c in kept if c["fields"]["message"] in said]
    assert len(rows) > 1
    assert both and all(said[c["fields"]["message"]] == c["fields"]["queue"] for c in both)


def test_annotating_and_generating_in_one_run(tmp_path: Path) -> None:
    settings = LABELS | {"name": "both", "generate": {"count": 60, "max_tokens": 200, "temperature": 0.7}, "annotate": {"count": 40}}
    scores = run(recipes.build(settings, ROOT), tmp_path).scores
    assert scores["counts"]["candidates"] == 100
    assert 0 < scores["counts"]["annotated"] < scores["counts"]["kept"]
    assert next(m for m in scores["measures"] if m["name"] == "verbatim_rate")["n"] == scores["counts"]["kept"] - scores["counts"]["annotated"]


@pytest.mark.slow
def test_relabelled_rows_have_the_label_that_was_read_and_keep_the_one_that_was_written(tmp_path: Path) -> None:
    settings = {name: value for name, value in LABELS.items() if name != "annotate"} | {"name": "relabelled"}
    folder = run(recipes.build(settings | {"generate": {"count": 60, "max_tokens": 200, "relabel": True}}, ROOT), tmp_path).folder
    kept = read_lines(next(folder.glob("kept-*")) / "kept.jsonl")
    assert all(c["fields"]["queue"] == next(iter(c["annotations"]["classifier"])) for c in kept)
    made = {c.id: c for c in read_candidates(next(folder.glob("candidates-*")), 60)}
    assert all(c["provenance"]["label"] == (made[c["id"]].fields or {})["queue"] for c in kept)
    assert any(c["provenance"]["label"] != c["fields"]["queue"] for c in kept)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copy(folder / "recipe.toml", tmp_path)
    assert [check.name for check in verify(folder, tmp_path / "recipe.toml") if not check.passed] == []


def test_relabelling_changes_kept_rows_and_no_candidate(tmp_path: Path) -> None:
    settings = {name: value for name, value in LABELS.items() if name != "annotate"} | {"name": "relabelled"}
    made = [recipes.build(settings | {"generate": {"count": 60, "relabel": again}}, ROOT) for again in (False, True)]
    sample = load_sample(made[0].sample, made[0].task, made[0].seed, ROOT)
    plain, again = (step_names(recipe, sample) for recipe in made)
    assert {step for step in plain if plain[step] != again[step]} == {"kept", "scores"}


@pytest.mark.parametrize("lacking", [{"annotator": []}, {"task": {"kind": "plain", "inputs": ["message"]}, "annotator": []}])
def test_relabelling_needs_somebody_who_names_labels(lacking: dict[str, Any]) -> None:
    settings = {name: value for name, value in LABELS.items() if name != "annotate"} | lacking
    with pytest.raises(RecipeError, match=r"\[generate\] relabel needs an annotator that names labels. Got "):
        recipes.build(settings | {"generate": {"relabel": True}}, ROOT)


@pytest.mark.parametrize("answers", [1, 3])
def test_the_teacher_writes_the_targets_of_a_task_without_labels(answers: int, tmp_path: Path) -> None:
    rows = [
        {"data": [["sky", p, c]], "text": f"the sky is {c} over the {p}"} for c in ("blue", "grey", "red") for p in ("sea", "hill", "town", "bay")
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    settings = LABELS | {
        "sample": {"path": "rows.jsonl", "rows": 6, "test_share": 0.2, "hide": True},
        "task": {"kind": "data2text", "inputs": ["data"], "target": "text"},
        "annotator": [],
        "filter": [{"kind": "form", "slack": 9.0}],
        "annotate": {"temperature": 1.0, "answers": answers},
        "generate": {"count": 0, "max_tokens": 80},
    }
    folder = run(recipes.build(settings, tmp_path), tmp_path / "out").folder
    kept = [json.loads(line) for line in next(folder.glob("kept-*/kept.jsonl")).read_text().splitlines()]
    assert kept and all(c["fields"]["text"] and c["provenance"]["generator"] == "annotate" and c["id"].startswith("a") for c in kept)
    assert list(folder.glob("answers-*/part-*.parquet"))
    assert json.loads((folder / "scores.json").read_text())["counts"]["candidates"] == 4 * answers
    made = recipes.build(settings, tmp_path)
    (tmp_path / "recipe.toml").write_text(made.to_toml())
    assert [check.name for check in verify(folder, tmp_path / "recipe.toml") if check.passed is False] == []
    before = {p: p.stat().st_mtime_ns for p in folder.glob("answers-*/*")}
    run(recipes.build(settings, tmp_path), tmp_path / "out")
    assert before == {p: p.stat().st_mtime_ns for p in folder.glob("answers-*/*")}


def test_a_pool_may_be_asked_in_rounds_with_other_draws() -> None:
    pool = tuple(Example(str(i), {"data": [str(i)]}) for i in range(5))
    sample = Sample(Task("data2text", ("data",), "text"), (), (), (), pool=pool)
    once = pool_rows(sample, Annotate(count=9), 3)
    assert sorted(e.id for e in once) == list("01234")
    assert pool_rows(sample, Annotate(count=12, answers=3, temperature=0.7), 3) == [*once, *once, *once[:2]]
    assert pool_rows(sample, Annotate(count=99, answers=2, temperature=0.7), 3) == [*once, *once]
    assert pool_rows(sample, Annotate(count=3, answers=2, temperature=0.7), 3) == pool_rows(sample, Annotate(count=3), 3)
    assert pool_rows(replace(sample, pool=()), Annotate(answers=2, temperature=0.7), 3) == []
    nobody: Any = None
    rows = list(Answering(nobody, tuple(once * 2)).rows(sample, 10, 1))
    assert len({row.seed for row in rows}) == 10 and [row.given for row in rows[:5]] == [row.given for row in rows[5:]]


def test_likelihood_is_brute_force_on_the_toy_engine(tmp_path: Path) -> None:
    sample = tiny_sample()
    asked = backing(sample, tmp_path)
    made = drafts(sample.task, sample.test)
    assert asked.teacher is not None
    for normalise in ("tokens", "none"):
        found = Likelihood(normalise, calibrate=False).annotate(made, sample, 0, asked)
        for candidate, row in zip(made, found.rows, strict=True):
            prompt = asked.teacher.prompt(Row(0, _seed(candidate), candidate.fields or {}, candidate.id))
            assert prompt is not None and prompt.text.rstrip("\n").endswith(f"Text: {(candidate.fields or {})['text']}")
            session, scores = asked.open(ModelRef("toy")), []
            for label in sample.task.labels:
                [(value, tokens)] = session.score(replace(prompt, text=prompt.text + "Label:"), [f" {label}{prompt.stop}"])
                scores.append(math.exp(value / tokens if normalise == "tokens" else value))
            assert row == {label: pytest.approx(s / sum(scores)) for label, s in zip(sample.task.labels, scores, strict=True)}


def _seed(candidate: Candidate) -> int:
    from seedbed.types import seed_for

    return seed_for(0, "likelihood", candidate.id)


def test_the_temperature_is_the_best_on_dev_and_changes_no_first_choice(tmp_path: Path) -> None:
    sample = tiny_sample()
    made = drafts(sample.task, sample.test)
    plain, fitted = (Likelihood("none", calibrate=c).annotate(made, sample, 0, backing(sample, tmp_path)) for c in (False, True))
    assert [max(r, key=r.__getitem__) for r in plain.rows] == [max(r, key=r.__getitem__) for r in fitted.rows]
    assert fitted.facts["dev_log_likelihood"] > plain.facts["dev_log_likelihood"]
    assert fitted.facts["dev_accuracy"] == plain.facts["dev_accuracy"] and fitted.facts["dev_rows"] == len(sample.dev)


def test_what_dev_chooses_does_not_depend_on_the_order_of_its_rows(tmp_path: Path) -> None:
    """Files are often sorted by label: the first of many rows are then of one label alone."""
    sample = tiny_sample()
    dev = sorted((replace(e, id=f"{e.id}-{i}") for i in range(400 // len(sample.dev)) for e in sample.dev), key=lambda e: str(e.fields["label"]))
    both = (replace(sample, dev=tuple(order)) for order in (dev, dev[::-1]))
    first, last = (Likelihood("tokens").annotate([], one, 0, backing(sample, tmp_path)).facts for one in both)
    assert len(dev) > 200 and first["dev_accuracy"] == last["dev_accuracy"]
    assert first["temperature"] == pytest.approx(last["temperature"], rel=1e-3)


def test_auto_divides_by_tokens_where_that_fits_dev_better(tmp_path: Path) -> None:
    sample = tiny_sample()
    made, asked = drafts(sample.task, sample.test), backing(sample, tmp_path)
    found = {way: Likelihood(way).annotate(made, sample, 0, asked) for way in ("auto", "tokens", "none")}  # type: ignore[arg-type]
    best = max(("tokens", "none"), key=lambda way: found[way].facts["dev_log_likelihood"])
    assert found["auto"].rows == found[best].rows and found["auto"].facts == found[best].facts


def test_rows_too_long_for_the_model_are_counted_and_dropped(tmp_path: Path) -> None:
    sample = tiny_sample()
    long = Example("long", {"text": "word " * 900, "label": "music"})
    asked = replace(backing(sample, tmp_path, shots=1), open=Local(cache=512).open, model="seedling")
    assert asked.teacher is not None
    teacher = Hard(shots=1).load(tmp_path, sample.task, "seedling")
    made = drafts(sample.task, (*sample.test[:1], long))
    found = Likelihood().annotate(made, sample, 0, replace(asked, teacher=teacher))
    assert found.rows[0] and not found.rows[1]
    assert found.facts["too_long"] == 1


def test_votes_are_shares_of_the_answers_that_are_labels(tmp_path: Path) -> None:
    sample = tiny_sample()

    class Says:
        """An engine that answers the same four things in turn."""

        def complete(self, prompts: Any, sampling: Sampling) -> Any:
            for i, (key, _) in enumerate(prompts):
                yield key, Completion([" weather", "Weather\nand more", " music", " no idea"][i % 4], 1, True)

    found = Prompted(votes=4).annotate(drafts(sample.task, sample.test[:2]), sample, 0, replace(backing(sample, tmp_path), open=lambda model: Says()))
    assert list(found.rows) == [{"weather": 2 / 3, "music": 1 / 3}] * 2
    assert found.facts == {"votes": 8, "invalid": 2}


class Teller:
    """The toy engine's session at a price; it counts what it is asked, and is stopped before it gives one answer more than `most`."""

    def __init__(self, most: int) -> None:
        self.session, self.most_answers, self.asked = Toy().open(ModelRef("toy")), most, 0

    def most(self, prompt: Prompt, sampling: Sampling) -> float:
        return 0.5

    def complete(self, prompts: Iterable[tuple[int, Prompt]], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        for key, prompt in prompts:
            self._count()
            yield key, replace(next(self.session.complete([(0, prompt)], sampling))[1], cost=0.25)

    def score(self, *asked: Any, **how: Any) -> list[tuple[float, int]]:
        self._count()
        return self.session.score(*asked, **how)

    def _count(self) -> None:
        if self.asked == self.most_answers:
            raise KeyboardInterrupt
        self.asked += 1


@pytest.mark.parametrize("kind", ["likelihood", "prompted"])
def test_a_stopped_annotator_asks_for_what_was_not_answered_and_no_more(kind: str, tmp_path: Path) -> None:
    """To the same bytes, and each answer is paid once."""
    sample, recipe = tiny_sample(), recipes.build(LABELS | {"annotator": [{"kind": kind}]}, ROOT)
    few_shot = backing(sample, tmp_path)

    def asked(name: str, most: int = 10**6) -> int:
        teller, purse = Teller(most), Purse()
        (tmp_path / name).mkdir(exist_ok=True)
        try:
            with_teller = replace(few_shot, open=lambda model: teller, purse=purse)  # type: ignore[arg-type, return-value]
            annotate(tmp_path / name, tiny_candidates(sample), recipe, sample, with_teller)
        except KeyboardInterrupt:
            assert teller.asked == most
        assert purse.spent == (0.25 * teller.asked if kind == "prompted" else 0)
        return teller.asked

    whole = asked("whole")
    assert [asked("cut", most) for most in (3, whole // 2)] == [3, whole // 2]
    assert asked("cut") == whole - 3 - whole // 2
    files = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("whole", "cut")]
    assert files[0] == files[1] and files[0].keys() == {"annotations.jsonl", "facts.json", "hashes.json"}


def test_annotations_that_are_all_written_ask_nobody(tmp_path: Path) -> None:
    """A stop after the journal is removed, before the step is renamed."""
    sample, recipe = tiny_sample(), recipes.build(LABELS | {"annotator": [{"kind": "likelihood"}]}, ROOT)
    made, few_shot = tiny_candidates(sample), backing(sample, tmp_path)
    folder = tmp_path / "step"
    folder.mkdir()
    annotate(folder, made, recipe, sample, few_shot)
    whole = {p.name: p.read_bytes() for p in folder.iterdir()}
    (folder / "candidates.jsonl").write_text("")  # removed last
    annotate(folder, made, recipe, sample, replace(few_shot, teacher=None))
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == whole


def test_a_fact_of_an_annotator_is_not_its_kind(tmp_path: Path) -> None:
    kinds = ["tests/plugins.py:Certain", "likelihood"]
    sample, recipe = tiny_sample(), recipes.build(LABELS | {"annotator": [{"kind": kind} for kind in kinds], "annotate": {"by": kinds[0]}}, ROOT)
    few_shot, made = backing(sample, tmp_path), tiny_candidates(sample)
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    annotate(tmp_path / "whole", made, recipe, sample, few_shot)
    with pytest.raises(ComponentError, match="asks the teacher"):  # the second annotator; the first has finished
        annotate(tmp_path / "cut", made, recipe, sample, replace(few_shot, teacher=None))
    annotate(tmp_path / "cut", made, recipe, sample, few_shot)
    assert [fact["kind"] for fact in annotation_facts(tmp_path / "cut")] == kinds
    assert (tmp_path / "cut/annotations.jsonl").read_bytes() == (tmp_path / "whole/annotations.jsonl").read_bytes()


def test_a_quota_keeps_the_first_of_each_label_and_says_what_is_short() -> None:
    sample = tiny_sample()
    made = tiny_candidates(sample)
    verdicts = Quota(per_label=2).judge(made, sample)
    kept = [c for c, v in zip(made, verdicts, strict=True) if v.keep]
    assert [sum((c.fields or {}).get("label") == label for c in kept) for label in sample.task.labels] == [2, 2]
    assert {v.reason for v in verdicts} == {"", "over quota"}
    assert Quota(per_label=3).short(kept, sample) == {"music": 1, "weather": 1}


def test_a_row_teaches_its_annotators_distribution_only_where_they_agree() -> None:
    def row(label: str, said: dict[str, float]) -> Candidate:
        return Candidate("c", 0, "", {"label": label}, True, annotations={"x": said})

    said = {"a": 0.7, "b": 0.295, "c": 0.005}
    found = lessons([row("a", said), row("b", said), row("a", {})], "label", "x")
    assert found[0].target_probs == said
    assert found[1].target_probs is None and found[2].target_probs is None
    assert lessons([row("a", said)], "label", None)[0].target_probs is None


@pytest.mark.slow
def test_a_pool_row_that_is_a_test_row_is_dropped(tmp_path: Path) -> None:
    made = recipes.build(LABELS, ROOT)
    sample = load_sample(made.sample, made.task, made.seed, ROOT)
    rows = [e.fields["message"] for e in (*sample.test[:5], *sample.pool[:20])]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps({"message": m}) + "\n" for m in rows))
    settings = LABELS | {"sample": {"path": str(ROOT / "examples/helpdesk.csv"), "rows": 100}, "annotate": {"path": "pool.jsonl"}}
    scores = run(recipes.build(settings, tmp_path), tmp_path / "out").scores
    assert scores["counts"]["dropped"]["overlap:copy of test"] == 5
    assert not [reason for reason in scores["counts"]["dropped"] if "other" in reason]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"annotator": []}, "needs an annotator that names the labels"),
    ({"annotate": {"by": "likelihoud"}}, "is no annotator of the recipe"),
    ({"sample": {"path": "examples/helpdesk.csv"}}, "needs inputs: give annotate.path"),
    ({"sample": {"path": "examples/helpdesk.csv", "rows": 9, "hide": True, "pool": "x.csv"}}, "Got both, give one"),
    ({"sample": {"path": "examples/helpdesk.csv", "hide": True}}, "Got neither, give one"),
    ({"generator": {"kind": "soft"}, "annotator": [{"kind": "likelihood"}]}, "makes new rows only"),
    ({"annotate": {"count": 0}}, "greater than or equal to 1"),
    ({"annotate": {"answers": 2}}, "the same at temperature 0: give temperature"),
    ({"annotate": {"answers": 2, "temperature": 0.7}}, r"answers = 2 is for targets that the teacher writes"),
    ({"task": {"kind": "plain", "inputs": ["message"]}, "annotator": []}, "no use for a plain task"),
    (
        {"task": {"kind": "text2text", "inputs": ["message"], "target": "queue"}, "generator": {"kind": "soft"}, "annotator": []},
        "makes new rows only",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_recipe_that_cannot_annotate_says_why(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipes.build(LABELS | change, ROOT)


def test_a_run_that_makes_nothing_is_refused() -> None:
    settings = {k: v for k, v in LABELS.items() if k != "annotate"} | {"generate": {"count": 0}}
    with pytest.raises(RecipeError, match="makes no row"):
        recipes.build(settings, ROOT)


def test_a_pool_with_wrong_fields_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "pool.jsonl").write_text('{"massage": "hello"}\n')
    settings = LABELS | {"sample": {"path": str(ROOT / "examples/helpdesk.csv"), "rows": 100}, "annotate": {"path": "pool.jsonl"}}
    with pytest.raises(DataError, match=r"no column 'message'.*Did you mean 'massage'"):
        run(recipes.build(settings, tmp_path), tmp_path / "out")


def test_an_engine_without_an_answer_costs_its_row_alone(tmp_path: Path) -> None:
    sample = tiny_sample()
    Hard(shots=2).fit(sample, "toy", 0, tmp_path)
    teacher = Hard(shots=2).load(tmp_path, sample.task, "toy")

    class Half:
        def complete(self, prompts: Any, sampling: Sampling) -> Any:
            for key, prompt in prompts:
                assert isinstance(prompt, Prompt)
                yield key, Completion("", 0, False, "too long") if key % 2 else Completion("Label: music\nText: a tune", 9, True)

    complete(tmp_path, teacher, Half(), sample, 10, 0, Sampling())  # type: ignore[arg-type]
    found = read_candidates(tmp_path, 10)
    assert [c.problem for c in found] == ["", "too long"] * 5
    assert [c.fields is None for c in found] == [False, True] * 5


@pytest.mark.slow
def test_a_limit_on_tokens_cuts_the_answers_and_the_next_call_goes_on(tmp_path: Path) -> None:
    from seedbed.limits import Limits

    rows = [{"source": f"number {i} of many", "target": f"the {i}th"} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    settings = LABELS | {
        "sample": {"path": "rows.jsonl", "rows": 10, "test_share": 0.1, "hide": True},
        "task": {"kind": "text2text", "inputs": ["source"], "target": "target"},
        "annotator": [],
        "filter": [],
        "generate": {"count": 0, "max_tokens": 30},
    }
    made = recipes.build(settings, tmp_path)
    cut = run(made, tmp_path / "out", limits=Limits(tokens=150)).scores["cut"]
    assert 0 < cut["rows"] < cut["of"] == 26
    whole = run(made, tmp_path / "out")
    fresh = run(made, tmp_path / "fresh")
    for name in ("scores.json", "dataset/README.md"):
        assert (whole.folder / name).read_bytes() == (fresh.folder / name).read_bytes()


@pytest.mark.slow
def test_preview_and_estimate_of_annotating_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seedbed.estimate import estimate
    from seedbed.preview import preview

    monkeypatch.setattr("seedbed.estimate.SMALL", 20)
    monkeypatch.setattr("seedbed.estimate.LARGE", 40)
    few = LABELS | {"metric": [], "gain": {"seeds": 1, "volumes": []}}
    made = recipes.build(few, ROOT)
    shown = preview(made, 4, tmp_path).candidates
    assert len(shown) == 4 and all((c.fields or {})["queue"] for c, _ in shown)
    assert estimate(made, tmp_path).steps["annotations"].seconds > 0
    asking = recipes.build(few | {"annotator": [{"kind": "likelihood"}], "annotate": {"count": 20}}, ROOT)
    found = estimate(asking, tmp_path)
    assert {"teacher", "annotations"} <= set(found.steps) and found.steps["candidates"].basis == "finished"


def test_a_tuned_teacher_needs_an_engine_that_scores_under_its_adapter() -> None:
    settings = LABELS | {"generator": {"kind": "finetune"}, "annotator": [{"kind": "likelihood"}], "engine": {"kind": "tests/plugins.py:TextOnly"}}
    with pytest.raises(RecipeError, match=r"\[annotator 1\] kind = 'likelihood' needs an engine that takes score:adapter, score:text"):
        recipes.build(settings, ROOT)

"""Conformance checks for plug-in authors: `check_filter(TooPolite())` raises AssertionError with what is wrong, or returns None.

Each check runs the component on a tiny sample that ships here. What is checked for all: settings are a frozen dataclass with a docstring
that names every field, equal settings are equal, `version` is a whole number.
"""

from __future__ import annotations

import dataclasses
import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seedbed.limits import NEVER
from seedbed.task import Task
from seedbed.types import (
    Annotations,
    Annotator,
    Backing,
    Candidate,
    Engine,
    Example,
    Filter,
    Generator,
    Measure,
    Metric,
    ModelRef,
    Prompt,
    Row,
    Sample,
    Sampling,
    Session,
    Student,
    Verdict,
)


def _no_engine(model: ModelRef) -> Session:
    raise AssertionError(f"an annotator that says in `needs` that it asks no engine may not open {model}")


NOBODY = Backing("seedling", None, _no_engine)
"""What an annotator that asks neither teacher nor engine gets."""
WORDS = {
    "weather": ["will it rain in the north", "how warm is it by the sea", "is there snow on the hills now", "tell me if the wind drops tonight"],
    "music": ["play a slow song", "turn the radio up please", "skip this tune", "put on some piano for supper"],
}


def tiny_sample() -> Sample:
    """24 fit, 8 dev and 8 test examples of a two-label classification task."""
    task = Task("classification", ("text",), "label", labels=("music", "weather"))

    def part(name: str, endings: Sequence[str]) -> tuple[Example, ...]:
        rows = [(label, f"{text} {ending}".strip()) for ending in endings for label, texts in WORDS.items() for text in texts]
        return tuple(Example(f"{name}-{i}", {"text": text, "label": label}) for i, (label, text) in enumerate(rows))

    return Sample(task, part("fit", ["", "today", "for me"]), part("dev", ["now then"]), part("test", ["if you can"]))


def tiny_texts() -> Sample:
    """The same examples as a task that answers with a text."""
    replies = {"music": "listen to this", "weather": "look at the sky"}

    def part(examples: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(Example(e.id, {"text": e.fields["text"], "reply": replies[e.fields["label"]]}) for e in examples)

    labelled = tiny_sample()
    return Sample(Task("text2text", ("text",), "reply"), part(labelled.fit), part(labelled.dev), part(labelled.test))


def tiny_candidates(sample: Sample) -> list[Candidate]:
    """Good, short, unfinished, copied, repeated, unparseable and wrongly labelled candidates, annotated as a classifier would."""
    task = sample.task
    fields: list[dict[str, Any]] = [
        {"text": "is there fog on the road this morning", "label": "weather"},
        {"text": "x", "label": "music"},
        {"text": "play something with drums and", "label": "music"},
        dict(sample.fit[0].fields),
        {"text": "is there fog on the road this morning", "label": "weather"},
    ]
    made = [Candidate(f"c{i}", i, task.render(f), f, i != 2) for i, f in enumerate(fields)]
    wrong = {"text": "will the sun shine at noon", "label": "music"}
    made = [*made, Candidate("c5", 5, "no form at all", None, True, "section missing"), Candidate("c6", 6, task.render(wrong), wrong, True)]
    sure = [0.9, 0.6, 0.1, 0.8, 0.9, None, 0.7]  # of "weather"
    return [
        dataclasses.replace(c, annotations={"classifier": {} if p is None else {"weather": p, "music": 1 - p}})
        for c, p in zip(made, sure, strict=True)
    ]


def _check_settings(component: Any) -> None:
    name = type(component).__name__
    assert dataclasses.is_dataclass(component) and not isinstance(component, type), f"{name} must be a dataclass instance"
    assert type(component).__dataclass_params__.frozen, f"{name} must be frozen: @dataclass(frozen=True)"  # type: ignore[attr-defined]
    text = inspect.getdoc(type(component)) or ""
    missing = [f.name for f in dataclasses.fields(component) if f.name not in text]
    assert text and not missing, f"{name}'s docstring must say what each setting means; it lacks {missing}"
    assert dataclasses.replace(component) == component, f"{name} with equal settings must be equal"
    assert isinstance(getattr(component, "version", 1), int), f"{name}.version must be a whole number"


def check_filter(component: Filter) -> None:
    """One verdict a candidate, in order; drops have reasons; equal twice; row scope ignores neighbours; a second pass drops nothing."""
    _check_settings(component)
    sample = tiny_sample()
    candidates = tiny_candidates(sample)
    assert component.scope in ("row", "set"), f'scope must be "row" or "set", got {component.scope!r}'
    assert component.judge([], sample) == [], "no candidates, no verdicts"
    try:
        verdicts = component.judge(candidates, sample)
    except Exception as error:
        raise AssertionError(f"judge() failed on a candidate ({type(error).__name__}: {error}); one that was not parsed has fields None") from error
    assert len(verdicts) == len(candidates), f"{len(candidates)} candidates got {len(verdicts)} verdicts"
    assert all(isinstance(v, Verdict) and (v.keep or v.reason) for v in verdicts), "each verdict is a Verdict, and a drop has a reason"
    assert component.judge(candidates, sample) == verdicts, "the same candidates must get the same verdicts"
    if component.scope == "row":
        alone = [component.judge([c], sample)[0] for c in candidates]
        assert alone == verdicts, 'with scope "row" a verdict may not depend on other candidates'
    kept = [c for c, v in zip(candidates, verdicts, strict=True) if v.keep]
    assert all(v.keep for v in component.judge(kept, sample)), "what was kept must be kept again"


def check_metric(component: Metric) -> None:
    """Measures with names, n and, where there is no value, a reason; the same numbers twice; nothing kept gives no value and no crash."""
    _check_settings(component)
    sample = tiny_sample()
    kept = [Example(f"k{i}", e.fields) for i, e in enumerate(sample.dev)]
    measures = component.measure(sample, kept, 0)
    assert measures and all(isinstance(m, Measure) and m.name for m in measures), "measure() gives at least one named Measure"
    for m in [*measures, *component.measure(sample, [], 0)]:
        assert m.value is not None or m.note, f"{m.name}: no value needs a reason in note"
        assert m.better in ("higher", "lower", "closer"), f"{m.name}: better is {m.better!r}"
    assert component.measure(sample, kept, 0) == measures, "the same rows and seed must give the same numbers"


def check_engine(component: Engine, model: ModelRef = ModelRef("seedling"), session: Session | None = None) -> None:  # noqa: B008 (frozen)
    """Every prompt is completed once, within max_tokens, equally twice; scores are log-likelihoods.

    session: one that the engine opened before, where opening takes long.
    """
    _check_settings(component)
    session = session or component.open(model)
    prompts = [(i, Prompt(f"{text}\n---\n", seed=i, stop="\n---")) for i, text in enumerate(WORDS["music"])]
    sampling = Sampling(1.0, 0.9, 12)
    first = dict(session.complete(iter(prompts), sampling))
    assert first.keys() == dict(prompts).keys(), "each prompt must be completed exactly once"
    assert all(0 <= c.tokens <= 12 for c in first.values()), "a completion may not be longer than max_tokens"
    assert dict(session.complete(iter(prompts), sampling)) == first, "the same seeds must give the same completions"
    assert list(session.complete(iter([]), sampling)) == [], "no prompts, no completions"
    if "score:text" in component.can:
        scores = session.score(prompts[0][1], ["play", "play a slow song"])
        assert len(scores) == 2 and all(value <= 0 and n > 0 for value, n in scores), "a score is a log-likelihood (at most 0) and a number of tokens"
        ended = session.score(prompts[0][1], ["play", "play a slow song"], ended=True)
        assert all(b[1] == a[1] + 1 and b[0] <= a[0] for a, b in zip(scores, ended, strict=True)), "end-of-text is one more token"


def check_generator(component: Generator, model: str = "seedling") -> None:
    """A fitted folder loads to the same prompts; row i is the same for every count; reading is pure."""
    _check_settings(component)
    sample = tiny_sample()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        component.fit(sample, model, 0, folder, NEVER)
        teacher, again = component.load(folder, sample.task, model), component.load(folder, sample.task, model)
        rows = list(teacher.rows(sample, 30, 0))
        assert [r.index for r in rows] == list(range(30)), "rows are numbered from 0"
        assert rows[:7] == list(teacher.rows(sample, 7, 0)), "row i must be the same whatever the count"
        assert [teacher.prompt(r) for r in rows] == [again.prompt(r) for r in rows], "a loaded teacher must give the same prompts"
        assert all(teacher.prompt(r) is not None for r in rows), "a fresh row needs a prompt"
        _check_reading(teacher.read, teacher.prompt, rows[0])


def _check_reading(read: Callable[[Row], list[Candidate]], prompt: Callable[[Row], Prompt | None], row: Row) -> None:
    from seedbed.types import Completion

    turns = 0
    while prompt(row) is not None:
        row = dataclasses.replace(row, turns=(*row.turns, Completion("Label: music\nText: play it again", 9, True)))
        turns += 1
        assert turns < 100, "a row must be finished after some turns"
    assert read(row) == read(row), "reading must be pure"
    assert all(c.index == row.index for c in read(row)), "a candidate carries its row's index"
    assert len({c.id for c in read(row)}) == len(read(row)), "each candidate has an id of its own"


def check_student(component: Student) -> None:
    """Learns a tiny task better than chance, one answer an example, equally twice, and says of a task without a target that it cannot.

    A student of labels alone gets a task of two labels and may answer nothing else; one that writes texts gets one of two replies.
    """
    _check_settings(component)
    sample = tiny_texts()
    if component.supports(sample.task):
        sample = tiny_sample()
        assert component.supports(sample.task) == "", "a student must do a tiny task of labels or of texts"
    assert component.supports(Task("plain", ("text",))), "a plain task has no target: supports() must say so"
    predictor = component.learn(sample.task, sample.fit, sample.dev, 0)
    answers = predictor.predict(sample.test)
    assert len(answers) == len(sample.test), "one prediction an example"
    assert not sample.task.labels or set(answers) <= set(sample.task.labels), "predictions are labels of the task"
    assert component.learn(sample.task, sample.fit, sample.dev, 0).predict(sample.test) == answers, "the same seed must give the same student"
    right = sum(a == e.fields[str(sample.task.target)] for a, e in zip(answers, sample.test, strict=True))
    assert right > len(sample.test) / 2, f"{right} of {len(sample.test)} right on a task with clear words"
    assert predictor.predict([]) == [], "no examples, no predictions"


def check_annotator(component: Annotator) -> None:
    """One distribution a candidate, from its inputs alone: not from its target, nor from `test`; the same twice; none without fields.

    One that asks is given few-shot prompts and the toy engine; one that says in `needs` and `asks_teacher` that it does not, nobody.
    """
    _check_settings(component)
    if getattr(component, "needs", None) or getattr(component, "asks_teacher", False):
        from seedbed.engines.toy import Toy
        from seedbed.generators.hard import Hard

        with tempfile.TemporaryDirectory() as name:
            Hard().fit(tiny_sample(), "toy", 0, Path(name))
            _check_annotator(component, Backing("toy", Hard().load(Path(name), tiny_sample().task, "toy"), Toy().open))
    else:
        _check_annotator(component, NOBODY)


def _check_annotator(component: Annotator, backing: Backing) -> None:
    sample = tiny_sample()
    assert component.supports(sample.task) == "", "an annotator must do the tiny task"
    candidates = tiny_candidates(sample)
    found = component.annotate(candidates, sample, 0, backing)
    assert isinstance(found, Annotations) and len(found.rows) == len(candidates), f"{len(found.rows)} distributions for {len(candidates)} candidates"
    assert any(found.rows), "no candidate got a distribution"
    for candidate, row in zip(candidates, found.rows, strict=True):
        assert not row or candidate.fields is not None, "a candidate without fields gets an empty distribution"
        assert not row or (min(row.values()) >= 0 and abs(sum(row.values()) - 1) < 1e-3), "probabilities are 0 or more and sum to 1"
        assert set(row) <= set(sample.task.labels), "only labels of the task have a probability"

    def said(rows: list[Candidate], part: Sample) -> list[Mapping[str, float]]:
        return list(component.annotate(rows, part, 0, backing).rows)

    assert said(candidates, sample) == list(found.rows), "the same candidates and seed must get the same distributions"
    turned = [dataclasses.replace(c, fields=c.fields and dict(c.fields) | {"label": "music"}, annotations={}) for c in candidates]
    assert said(turned, sample) == list(found.rows), "a candidate's own label may not be looked at"
    assert said(candidates, dataclasses.replace(sample, test=())) == list(found.rows), "an annotator may not read test"
    assert list(component.annotate([], sample, 0, backing).rows) == [], "no candidates, no distributions"

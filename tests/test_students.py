"""What the linear student promises."""

from __future__ import annotations

import random
import warnings
from dataclasses import replace
from typing import Any

import pytest

from seedbed.errors import ComponentError, ModelError
from seedbed.lm.classify import DEFAULT_C, GRID
from seedbed.students.linear import Linear
from seedbed.task import Task
from seedbed.types import Example, Student

TASK = Task("classification", ("text",), "label")
PAIR = Task("pair", ("premise", "hypothesis"), "label")
WORDS = {
    "food": ("bread", "soup", "rice", "cheese"),
    "travel": ("train", "ticket", "airport", "luggage"),
    "music": ("guitar", "chord", "melody", "drum"),
}


def ex(text: str, label: str, weight: float = 1.0) -> Example:
    return Example(f"{text}/{label}", {"text": text, "label": label}, weight)


def toy(n: int, seed: int, labels: tuple[str, ...] = tuple(WORDS)) -> list[Example]:
    """Every text holds two words of its label's own."""
    rng = random.Random(seed)
    picked = [labels[i % len(labels)] for i in range(n)]
    return [ex(" ".join(["please", *rng.sample(WORDS[label], 2), "now"]), label) for label in picked]


def labels(examples: list[Example]) -> list[Any]:
    return [e.fields["label"] for e in examples]


@pytest.fixture
def student() -> Linear:
    return Linear(features="tfidf")


def test_it_is_a_student(student: Linear) -> None:
    assert isinstance(student, Student)


def test_it_learns_a_separable_task_perfectly(student: Linear) -> None:
    test = toy(60, 2)
    assert student.learn(TASK, toy(60, 0), toy(15, 1), 0).predict(test) == labels(test)
    assert student.learn(TASK, toy(60, 0), [], 0).predict(test) == labels(test)


def test_it_reads_every_input_column(student: Linear) -> None:
    rng = random.Random(0)
    rows = [Example(str(i), {"premise": "same", "hypothesis": rng.choice(WORDS[w]), "label": w}) for i, w in enumerate(["food", "music"] * 20)]
    assert student.learn(PAIR, rows[:30], [], 0).predict(rows[30:]) == labels(rows[30:])


def test_the_heavier_rows_win(student: Linear) -> None:
    for winner, loser in (("food", "travel"), ("travel", "food")):
        rows = [ex("the same text", winner, 5.0), ex("the same text", loser, 0.5)]
        assert student.learn(TASK, rows, [], 0).predict([ex("the same text", "?")]) == [winner]


def test_a_row_of_weight_zero_is_no_row(student: Linear) -> None:
    rows, test = toy(12, 0), toy(30, 1)
    with_it = student.learn(TASK, [*rows, ex("bread soup rice cheese", "travel", 0.0)], [], 0)
    without = student.learn(TASK, rows, [], 0)
    assert (with_it.model.coef_ == without.model.coef_).all()
    assert with_it.predict(test) == without.predict(test)


def test_one_class_makes_a_constant_answer(student: Linear) -> None:
    learned = student.learn(TASK, toy(5, 0, ("food",)), toy(3, 1), 0)
    assert learned.predict(toy(4, 2)) == ["food"] * 4
    assert learned.predict([]) == []


def test_a_label_without_training_rows_is_never_predicted(student: Linear) -> None:
    learned = student.learn(TASK, toy(20, 0, ("food", "travel")), toy(30, 1), 0)
    assert set(learned.predict(toy(60, 2))) == {"food", "travel"}
    assert learned.predict([]) == []


def test_dev_chooses_c_by_its_likelihood(student: Linear) -> None:
    rows, dev = toy(60, 0), toy(15, 1)
    sure = student.learn(TASK, rows, dev, 0).model.C
    assert sure == GRID[-1]  # where training is right, the surest answers are the likeliest
    turned = [replace(e, fields={**e.fields, "label": {"food": "travel", "travel": "music", "music": "food"}[e.fields["label"]]}) for e in dev]
    unsure = student.learn(TASK, rows, turned, 0).model.C
    assert unsure == GRID[0]  # where it is wrong, the least sure ones
    for nothing in ([], [ex("bread", "never seen")]):
        assert student.learn(TASK, rows, nothing, 0).model.C == DEFAULT_C


def test_the_seed_changes_nothing(student: Linear) -> None:
    first, second = (student.learn(TASK, toy(12, 0), toy(9, 1), seed) for seed in (0, 1))
    assert (first.model.coef_ == second.model.coef_).all()


def test_as_many_labels_as_rows_is_nothing_to_warn_of(student: Linear) -> None:
    rows = [ex(f"word{i}", f"label{i}") for i in range(30)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert student.learn(TASK, rows, [], 0).predict(rows) == labels(rows)


def test_texts_without_a_word_can_be_learned(student: Linear) -> None:
    rows = [ex("!!!", "shout"), ex("???", "ask")]
    assert student.learn(TASK, rows, [], 0).predict(rows) == ["shout", "ask"]


@pytest.mark.parametrize("sure", [1.0, 0.7])
def test_in_the_span_of_its_rows_it_learns_what_it_learns_from_all_terms(student: Linear, monkeypatch: pytest.MonkeyPatch, sure: float) -> None:
    rows, other = toy(45, 0), [replace(e, weight=2.0) for e in toy(15, 5)]
    soft = [
        replace(e, target_probs={label: sure if label == e.fields["label"] else (1 - sure) / 2 for label in WORDS}) for e in (*rows, *other, rows[0])
    ]
    monkeypatch.setattr("seedbed.lm.classify.TOLERANCE", 1e-7)
    spanned = student.learn(TASK, soft, toy(15, 1), 0)
    monkeypatch.setattr("seedbed.lm.classify.SPANNED", 0)
    every = student.learn(TASK, soft, toy(15, 1), 0)
    test = toy(60, 2)
    assert spanned.model.C == every.model.C
    assert spanned.probabilities(test) == pytest.approx(every.probabilities(test), abs=1e-4)


@pytest.mark.parametrize("kind", ["data2text", "text2text", "math", "code"])
def test_a_task_without_labels_is_refused_with_the_reason(student: Linear, kind: Any) -> None:
    task = Task(kind, ("a",), "b")
    assert kind in student.supports(task)
    with pytest.raises(ComponentError, match=f"a {kind} task has none.*Choose another student"):
        student.learn(task, [], [], 0)


@pytest.mark.parametrize("task", [TASK, PAIR, Task("qa", ("passage", "question"), "answer")])
def test_a_task_with_labels_is_supported(student: Linear, task: Task) -> None:
    assert student.supports(task) == ""


@pytest.mark.parametrize(
    ("rows", "message"), [([], "Got none among 0"), ([ex("a", "x", 0.0)], "Got none among 1"), ([ex("a", "x", -1.0)], "Got -1.0")]
)
def test_rows_that_cannot_be_learned_from_are_refused(student: Linear, rows: list[Example], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        student.learn(TASK, rows, [], 0)


@pytest.fixture
def minilm() -> None:
    from seedbed.lm.embed import minilm_folder

    try:
        minilm_folder()
    except ModelError as error:
        pytest.skip(str(error))


def test_sentence_features_know_words_never_trained_on(minilm: None) -> None:
    rows = [ex(w, k) for k in ("food", "travel", "music") for w in WORDS[k]]
    test = [ex("a plate of spaghetti", "food"), ex("a flight to Paris", "travel"), ex("a violin concerto", "music")]
    assert Linear().learn(TASK, rows, [], 0).predict(test) == labels(test)


def test_rows_with_a_column_that_is_too_long_are_counted(minilm: None) -> None:
    rows = [ex("play a song", "a"), ex("rain", "b"), ex("song " * 300, "a")]
    assert Linear().learn(TASK, rows, [], 0).cut(rows) == 1
    assert Linear(features="tfidf").learn(TASK, rows, [], 0).cut(rows) == 0


def test_a_row_of_weight_two_is_a_row_twice(minilm: None) -> None:
    rows = [ex(w, k) for k in ("food", "travel", "music") for w in WORDS[k]]
    once = Linear().learn(TASK, [replace(rows[0], weight=2.0), *rows[1:]], [], 0)
    twice, plain = (Linear().learn(TASK, extra + rows, [], 0) for extra in ([rows[0]], []))
    assert once.model.coef_ == pytest.approx(twice.model.coef_, abs=1e-3)
    assert abs(once.model.coef_ - plain.model.coef_).max() > 1e-2


def test_sentence_features_compare_the_columns_of_a_pair(minilm: None) -> None:
    words = [w for group in WORDS.values() for w in group]
    rows = [
        Example(f"{a}-{b}", {"premise": a, "hypothesis": b, "label": "same" if a == b else "other"})
        for i, a in enumerate(words)
        for b in (a, words[(i + 5) % 12])
    ]
    learned = Linear().learn(PAIR, rows, [], 0)
    test = [Example(w, {"premise": w, "hypothesis": w, "label": "same"}) for w in ("river", "window", "doctor")]
    test += [Example(w, {"premise": w, "hypothesis": "a loud engine", "label": "other"}) for w in ("river", "window", "doctor")]
    assert learned.predict(test) == labels(test)

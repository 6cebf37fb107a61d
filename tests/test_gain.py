"""Laws of the gain: what must come out as a gain, what must not, and what may never be trained on."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from seedbed.gain import FULL_ROWS, Arm, Gain, decisive, measure_gain
from seedbed.scores import nothing_right
from seedbed.stats import DRAWS, Difference
from seedbed.students.linear import Linear
from seedbed.task import Task
from seedbed.types import Example, Sample

TASK = Task("classification", ("text",), "label")
TEXT = Task("text2text", ("source",), "target")
STUDENT = Linear(features="tfidf")
LABELS = ("a", "b", "c")


def rows(n: int, seed: int, name: str) -> list[Example]:
    """Each text holds two of its label's twenty words, so that few rows do not teach them all."""
    rng = random.Random(f"{seed} {name}")
    made = []
    for i in range(n):
        label = LABELS[i % 3]
        words = [f"{label}{rng.randrange(20)}", f"{label}{rng.randrange(20)}", f"common{rng.randrange(9)}"]
        rng.shuffle(words)
        made.append(Example(f"{name}-{i}", {"text": " ".join(words), "label": label}))
    return made


def sample(fit: int = 12, dev: int = 6, test: int = 120, more: int = 0, seed: int = 0) -> Sample:
    return Sample(
        TASK,
        tuple(rows(fit, seed, "fit")),
        tuple(rows(dev, seed, "dev")),
        tuple(rows(test, seed, "test")),
        more=tuple(rows(more, seed, "more")),
    )


def renamed(examples: Sequence[Example]) -> list[Example]:
    return [replace(e, id=f"new-{i}") for i, e in enumerate(examples)]


@dataclass(frozen=True)
class Scripted:
    """A student that gets the first `share(real rows, synthetic rows)` of the test right; it notes what it was given."""

    share: Callable[[int, int], float] = lambda real, synthetic: 0.5
    calls: list[tuple[list[str], list[str], int]] = field(default_factory=list)

    def supports(self, task: Task) -> str:
        return ""

    def learn(self, task: Task, examples: Sequence[Example], dev: Sequence[Example], seed: int) -> Answers:
        ids = [e.id for e in examples]
        self.calls.append((ids, [e.id for e in dev], seed))
        made = sum(i.startswith("new") for i in ids)
        return Answers(str(task.target), self.share(len(ids) - made, made))


@dataclass(frozen=True)
class Answers:
    target: str
    share: float

    def predict(self, examples: Sequence[Example]) -> list[str]:
        right = round(self.share * len(examples))
        return [str(e.fields[self.target]) if i < right else "wrong" for i, e in enumerate(examples)]


class Notebook:
    """A memoising unit that keeps JSON text alone, as a journal does."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.made: list[str] = []

    def __call__(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.kept:
            self.made.append(name)
            self.kept[name] = json.dumps(make())
        return json.loads(self.kept[name])


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the bootstrap draws: most laws here are not about the intervals' last digit."""
    monkeypatch.setattr("seedbed.gain.DRAWS", 200)


@pytest.fixture
def all_draws(few_draws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seedbed.gain.DRAWS", DRAWS)


# What must come out


@pytest.mark.parametrize("seed", range(3))
def test_copies_of_the_fit_rows_are_no_gain(seed: int, all_draws: None) -> None:
    s = sample(fit=30, seed=seed)
    gain = measure_gain(s, renamed(s.fit), STUDENT, seed, volumes=())
    assert gain.difference is not None and gain.difference.low <= 0 <= gain.difference.high
    assert gain.verdict.startswith("no gain could be shown")


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_labels_are_no_gain(seed: int, all_draws: None) -> None:
    s = sample(fit=30, seed=seed)
    real = rows(120, seed, "new")
    shuffled = random.Random(seed).sample([e.fields["label"] for e in real], len(real))
    kept = [replace(e, fields={**e.fields, "label": label}) for e, label in zip(real, shuffled, strict=True)]
    gain = measure_gain(s, kept, STUDENT, seed, volumes=())
    assert gain.difference is not None and gain.difference.low <= 0
    assert "beats" not in gain.verdict
    assert "behave like" not in gain.note or gain.difference.high < 0


@pytest.mark.parametrize("seed", range(3))
def test_more_real_rows_by_another_name_are_a_gain(seed: int, all_draws: None) -> None:
    s = sample(seed=seed)
    gain = measure_gain(s, rows(180, seed, "new"), STUDENT, seed, volumes=())
    assert gain.difference is not None and gain.difference.low > 0
    assert gain.verdict.startswith("real + synthetic beats real by")
    assert gain.difference.mean > (gain.smallest_detectable or math.inf)
    assert gain.arms["both"].mean is not None and gain.arms["both"].mean > 90


@pytest.mark.slow
def test_the_difference_is_both_minus_real_and_every_mean_lies_in_its_interval() -> None:
    gain = measure_gain(sample(more=60), rows(90, 0, "new"), STUDENT, 0)
    mean = {name: arm.mean for name, arm in gain.arms.items()}
    assert gain.difference is not None
    assert gain.difference.mean == pytest.approx(mean["both"] - mean["real"])
    assert gain.difference.low <= gain.difference.mean <= gain.difference.high
    for entry in [*gain.curve, *gain.to_json()["arms"].values()]:
        assert 0 <= entry["low"] <= entry["mean"] <= entry["high"] <= 100


def test_the_intervals_agree_with_the_closed_form(all_draws: None) -> None:
    student = Scripted(lambda real, synthetic: 0.6 if synthetic else 0.5)
    gain = measure_gain(sample(test=400), rows(18, 0, "new"), student, 0)
    se = 100 * math.sqrt(0.1 * 0.9 / 400)
    assert gain.difference is not None
    assert gain.difference.mean == pytest.approx(10)
    assert (gain.difference.low, gain.difference.high) == pytest.approx((10 - 1.96 * se, 10 + 1.96 * se), abs=0.2 * se)
    assert gain.smallest_detectable == pytest.approx(2.8 * se, rel=0.06)
    real = gain.arms["real"]
    half = 1.96 * 100 * math.sqrt(0.5 * 0.5 / 400)  # three equal seeds make the interval no narrower
    assert (real.mean, real.low, real.high) == pytest.approx((50, 50 - half, 50 + half), abs=0.15 * half)


def test_the_spread_over_seeds_widens_the_interval() -> None:
    @dataclass(frozen=True)
    class Moody(Scripted):
        def learn(self, task: Task, examples: Sequence[Example], dev: Sequence[Example], seed: int) -> Answers:
            return Answers("label", [0.2, 0.5, 0.8][seed % 3])

    s, kept = sample(test=300), rows(18, 0, "new")
    calm, moody = (measure_gain(s, kept, student, 0, seeds=6, volumes=()).arms["real"] for student in (Scripted(), Moody()))
    assert moody.high - moody.low > 1.5 * (calm.high - calm.low)


def test_a_test_that_nothing_changes_still_has_a_smallest_gain_above_zero() -> None:
    gain = measure_gain(sample(test=200), rows(18, 0, "new"), Scripted(), 0)
    assert gain.difference == Difference(0.0, 0.0, 0.0, 0.0)
    assert gain.smallest_detectable == 100 * 4 / 200
    assert gain.verdict.endswith("points, 95 % interval 0.0 to 0.0); the smallest this test could show is 2.0 points")


@pytest.mark.parametrize(("least", "said"), [(2.04, "2.0 points"), (2.06, "2.1 points, more than the 2.0 that real rows alone leave")])
def test_a_ceiling_is_named_where_it_is_lower_as_printed(least: float, said: str) -> None:
    arm = Arm(98.0, 98.0, 98.0, 1, 30)
    gain = Gain("accuracy", {"real": arm}, Difference(-0.03, -0.04, 0.04, 0.0), least, (), "")
    assert gain.verdict == f"no gain could be shown (0.0 points, 95 % interval 0.0 to 0.0); the smallest this test could show is {said}"
    whole = replace(gain, arms={"real": replace(arm, mean=100.00000000000004)})  # as a score of perfect answers may come out
    assert whole.verdict.endswith("more than the 0.0 that real rows alone leave")


def test_the_verdicts() -> None:
    blank = Gain("accuracy", {}, None, None, (), "why not")
    up = replace(blank, difference=Difference(4.1, 2.8, 5.4, 0.7), smallest_detectable=2.0)
    down = replace(blank, difference=Difference(-4.1, -5.4, -2.8, 0.7), smallest_detectable=2.0)
    real = {"real": Arm(97.0, 95.0, 99.0, 3, 100)}
    none = replace(blank, arms=real, difference=Difference(1.0, -1.1, 3.1, 1.07), smallest_detectable=3.0)
    assert up.verdict == "real + synthetic beats real by 4.1 points (95 % interval 2.8 to 5.4)"
    assert down.verdict == "real + synthetic is worse than real by 4.1 points (95 % interval 2.8 to 5.4)"
    seen = "1.0 points, 95 % interval -1.1 to 3.1"
    assert none.verdict == f"no gain could be shown ({seen}); the smallest this test could show is 3.0 points"
    blind = replace(none, smallest_detectable=3.5)
    assert blind.verdict.endswith("the smallest this test could show is 3.5 points, more than the 3.0 that real rows alone leave")
    assert blank.verdict == "the gain could not be measured: why not"


# What is trained on


def test_every_arm_has_its_rows() -> None:
    s = sample(fit=12, dev=6, more=20)
    gain = measure_gain(s, rows(40, 0, "new"), Scripted(), 0)
    assert {name: arm.n_train for name, arm in gain.arms.items()} == {"real": 12, "synthetic": 40, "both": 52, "full": 32}
    assert {arm.seeds for arm in gain.arms.values()} == {3}
    assert "full" not in measure_gain(sample(), rows(40, 0, "new"), Scripted(), 0).arms


def test_the_full_arm_has_a_limit() -> None:
    gain = measure_gain(sample(fit=12, more=FULL_ROWS), rows(3, 0, "new"), Scripted(), 0, seeds=1)
    assert gain.arms["full"].n_train == FULL_ROWS


def test_no_row_of_test_is_ever_learned_from_and_dev_is_for_choices_alone() -> None:
    s, student = sample(more=50), Scripted()
    kept = rows(40, 0, "new")
    measure_gain(s, kept, student, 0)
    allowed = {e.id for e in (*s.fit, *s.more, *kept)}
    assert student.calls
    for ids, dev, _ in student.calls:
        assert set(ids) <= allowed and len(set(ids)) == len(ids)
        assert dev == [e.id for e in s.dev]


def test_a_seed_redraws_a_part_and_cannot_redraw_a_whole() -> None:
    s, student, book = sample(), Scripted(), Notebook()
    measure_gain(s, rows(36, 0, "new"), student, 0, volumes=(1,), unit=book)
    given = dict(zip(book.made, student.calls, strict=True))
    assert {name.rsplit("/", 1)[0] for name in given} == {"real/3", "real/6", "real/12", "synthetic/36", "both/30", "both/48"}
    for part in ("real/3", "both/30"):
        assert len({tuple(given[f"{part}/{s}"][0]) for s in range(3)}) == 3
    for whole in ("real/12", "synthetic/36", "both/48"):
        assert len({tuple(given[f"{whole}/{s}"][0]) for s in range(3)}) == 1
    assert len({call[2] for call in student.calls}) == 3


def test_the_run_seed_decides_the_draws() -> None:
    def calls(seed: int) -> list[Any]:
        student = Scripted()
        measure_gain(sample(), rows(36, 0, "new"), student, seed)
        return student.calls

    assert calls(1) == calls(1) != calls(2)


def test_rows_longer_than_the_student_reads_are_said() -> None:
    class Short(Scripted):
        def learn(self, task: Task, examples: Sequence[Example], dev: Sequence[Example], seed: int) -> Any:
            learned = super().learn(task, examples, dev, seed)

            class Reader:
                predict = staticmethod(learned.predict)

                def cut(self, rows: Sequence[Example]) -> int:
                    return sum(len(str(e.fields["text"])) > 40 for e in rows)

            return Reader()

    s, kept, book = sample(), rows(36, 0, "new"), Notebook()
    assert "longer" not in measure_gain(s, kept, Short(), 0).note
    long = [replace(e, fields={**e.fields, "text": "word " * 9}) for e in s.test[:7]]
    s, kept = replace(s, test=(*long, *s.test[7:])), [replace(e, fields={**e.fields, "text": "word " * 9}) for e in kept[:5]] + kept[5:]
    told = "5 of 48 training rows and 7 of 120 test rows are longer than the student reads"
    assert told in measure_gain(s, kept, Short(), 0, unit=book).note
    assert told in measure_gain(s, kept, Scripted(), 0, unit=book).note, "told again without training again"


def test_each_unit_is_made_once_and_a_second_call_trains_nothing() -> None:
    s, kept, book = sample(more=50), rows(40, 0, "new"), Notebook()
    student = Scripted(lambda real, synthetic: min(0.9, 0.01 * (real + synthetic)))
    first = measure_gain(s, kept, student, 0, unit=book)
    assert len(book.made) == len(set(book.made)) == len(student.calls) == 3 * (len(first.curve) + 1)  # and the synthetic arm
    assert all(len(json.loads(text)) == len(s.test) for text in book.kept.values())
    again = Scripted()
    assert measure_gain(s, kept, again, 0, unit=book) == first
    assert again.calls == []
    assert measure_gain(s, kept, student, 0) == first


# The curve


def test_the_curve_has_the_volumes_that_there_are_rows_for() -> None:
    curve = measure_gain(sample(fit=12, dev=6, more=50), rows(50, 0, "new"), Scripted(), 0).curve
    assert [(c["arm"], c["n_train"]) for c in curve if c["arm"] != "both"] == [
        ("real", 3),
        ("real", 6),
        ("real", 12),
        ("real", 24),
        ("real", 48),
        ("full", 62),
    ]
    assert [(c["volume"], c["n_train"]) for c in curve if c["arm"] == "both"] == [(0.5, 21), (1, 30), (2, 48), (50 / 18, 62)]
    assert [c["volume"] for c in curve if c["arm"] == "real"] == [0.25, 0.5, 1, 2, 4]


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (lambda real, synthetic: 0.5, "flat from the start"),
        (lambda real, synthetic: 0.5 - 0.001 * synthetic, "flat from the start"),
        (
            lambda real, synthetic: 0.3 + 0.2 * min(synthetic, 36) / 36,
            "flat from 2 times the real rows (36 synthetic) on: no larger volume did better",
        ),
        (
            lambda real, synthetic: 0.3 + 0.2 * min(synthetic, 36) / 36 + 0.002 * (synthetic == 360),
            "flat from 2 times the real rows (36 synthetic) on: more could not be told apart from the best, 20 times (360 synthetic)",
        ),
        (lambda real, synthetic: 0.2 + 0.002 * synthetic, "not flat yet: 20 times the real rows (360 synthetic), the largest volume, beats every"),
    ],
)
def test_the_note_says_where_the_curve_is_flat(share: Callable[[int, int], float], words: str) -> None:
    note = measure_gain(sample(test=1000), rows(360, 0, "new"), Scripted(share), 0, seeds=1).note
    assert note.startswith(words)


def test_the_note_does_not_gainsay_what_was_shown() -> None:
    """The smaller volume has the higher mean, and loses rows too: it is not shown to beat real rows, the larger one is."""

    class Churn(Scripted):
        def learn(self, task: Task, rows: Sequence[Example], dev: Sequence[Example], seed: int) -> Any:
            new = sum(e.id.startswith("new") for e in rows)
            right: Callable[[int], bool] = lambda i: i >= 30  # noqa: E731
            if len(rows) > new > 0:
                right = (lambda i: i >= 24) if new == 24 else (lambda i: i < 20 or i >= 43)

            class Picked:
                def predict(self, rows: Sequence[Example]) -> list[str]:
                    return [str(e.fields[str(task.target)]) if right(i) else "wrong" for i, e in enumerate(rows)]

            return Picked()

    found = measure_gain(sample(fit=12, test=120), rows(24, 0, "new"), Churn(), 3, volumes=(1,))
    assert found.difference is not None and found.difference.low > 0
    assert found.note.startswith("1.33 times the real rows (24 synthetic) beats the real rows alone, the volume with the highest mean, 1 times"), (
        found.note
    )


def test_test_rows_whose_asserts_cannot_be_judged_are_left_out_and_counted() -> None:
    task = Task("code", ("text",), "code", tests="tests")
    good = {"text": "q", "code": "def f(x):\n    return x + 1", "tests": ["assert f(1) == 2"]}
    odd = good | {"tests": ["assert all([f(i) == i + 1 for i in range(3)])"]}
    made = lambda name, fields: tuple(Example(f"{name}{i}", f) for i, f in enumerate(fields))  # noqa: E731
    fit = made("f", [good] * 3)
    for test, reason in (([odd] * 2 + [good] * 119, ""), ([odd] + [good] * 99, "a gain needs at least 100 test rows, got 99")):
        assert decisive(Sample(task, fit, (), made("t", test)), Scripted()) == ("pass@1", reason)


def log_curve(real: int, synthetic: int) -> float:
    """10 points a doubling; 4 synthetic rows do what 1 real row does."""
    return 0.3 + 0.1 * math.log2((real + synthetic / 4) / 12)


def test_synthetic_rows_are_worth_as_many_real_rows_as_the_real_curve_says() -> None:
    gain = measure_gain(sample(test=1000, more=180), rows(96, 0, "new"), Scripted(log_curve), 0, seeds=1)
    assert "your 12 training rows + 96 synthetic behave like 36 real rows (3" in gain.note


def test_nothing_is_said_of_worth_where_the_real_curve_does_not_reach_or_nothing_was_shown() -> None:
    reached = measure_gain(sample(test=1000, more=20), rows(96, 0, "new"), Scripted(log_curve), 0, seeds=1)
    assert reached.difference is not None and reached.difference.low > 0
    for gain in (reached, measure_gain(sample(test=1000, more=180), rows(96, 0, "new"), Scripted(), 0, seeds=1)):
        assert "behave like" not in gain.note


def test_harmful_rows_are_worth_fewer_real_rows_and_below_the_curve_nothing_is_said() -> None:
    def harmed(by: float) -> Gain:
        student = Scripted(lambda real, synthetic: 0.3 + 0.1 * math.log2(max(1, real) / 12) - by * bool(synthetic))
        return measure_gain(sample(test=1000), rows(18, 0, "new"), student, 0, seeds=1)

    assert "is worse than real by 10.0 points" in harmed(0.1).verdict
    assert "behave like 6 real rows" in harmed(0.1).note
    assert "is worse than real by 25.0 points" in harmed(0.25).verdict  # 3 real rows are 20 points worse
    assert "behave like" not in harmed(0.25).note


# Other tasks and scores


def grouped(labels: tuple[str, str], test: int, size: int) -> Sample:
    task = Task("qa", ("passage", "answer"), "label", group="question")

    def made(n: int, name: str) -> tuple[Example, ...]:
        rng = random.Random(name)
        return tuple(
            Example(f"{name}-{i}", {"passage": "p", "answer": f"w{rng.randrange(30)}", "label": labels[i // size % 2], "question": i // size})
            for i in range(n)
        )

    return Sample(task, made(12, "fit"), (), made(test, "test"))


DATA = Task("data2text", ("source",), "target")


@pytest.mark.parametrize("make", [lambda: grouped(("true", "false"), 120, 3), lambda: sample(), lambda: text_sample(TEXT), lambda: text_sample(DATA)])
def test_an_arm_is_the_mean_of_the_tasks_own_score_over_the_seeds(make: Callable[[], Sample]) -> None:
    s, book = make(), Notebook()

    @dataclass(frozen=True)
    class Guess(Scripted):
        def learn(self, task: Task, examples: Sequence[Example], dev: Sequence[Example], seed: int) -> Any:
            rng = random.Random(seed)

            class Mixed:
                def predict(self, rows: Sequence[Example]) -> list[str]:
                    return [str(rng.choice(rows).fields[str(task.target)]) for _ in rows]

            return Mixed()

    gain = measure_gain(s, renamed(s.fit), Guess(), 0, unit=book)
    if gain.metric == "bleu":
        pytest.importorskip("sacrebleu")
    for name, arm in gain.arms.items():
        scores = [s.task.score(json.loads(book.kept[f"{name}/{arm.n_train}/{k}"]), s.test)[0] for k in range(3)]
        assert gain.metric == scores[0].name
        assert arm.mean == pytest.approx(np.mean([m.value for m in scores]))


def text_sample(task: Task) -> Sample:
    def made(n: int, name: str) -> tuple[Example, ...]:
        words = [f"{i % 7} {i % 5}" for i in range(n)]
        inputs = {task.inputs[0]: ["x"] if task.kind == "data2text" else "x"}
        return tuple(Example(f"{name}-{i}", {**inputs, str(task.target): f"the river {w} runs #### {w[0]}"}) for i, w in enumerate(words))

    return Sample(task, made(10, "fit"), made(5, "dev"), made(120, "test"))


@pytest.mark.parametrize(("kind", "metric"), [("text2text", "exact_match"), ("math", "accuracy"), ("data2text", "bleu")])
def test_tasks_without_labels_are_measured_by_their_own_score(kind: Any, metric: str) -> None:
    if metric == "bleu":
        pytest.importorskip("sacrebleu")
    s = text_sample(Task(kind, ("source",), "target"))
    student = Scripted(lambda real, synthetic: 0.9 if synthetic else 0.4)
    gain = measure_gain(s, renamed(s.fit), student, 0, seeds=1, volumes=())
    assert gain.metric == metric
    assert gain.difference is not None and gain.difference.low > 0


def test_rows_of_one_group_are_drawn_together(all_draws: None) -> None:
    def width(s: Sample) -> float:
        real = measure_gain(s, renamed(s.fit), Scripted(), 0, seeds=1).arms["real"]
        return float(real.high or 0) - float(real.low or 0)

    apart, together = grouped(("yes", "no"), 1000, 1), grouped(("yes", "no"), 1000, 10)
    assert width(together) / width(apart) == pytest.approx(math.sqrt(10), rel=0.15)


# What cannot be measured is None with its reason

NOTHING = {"mean": None, "low": None, "high": None, "seeds": 0}


def check_nothing_measured(gain: Gain, reason: str) -> None:
    out = gain.to_json()
    assert reason in gain.note and gain.verdict == f"the gain could not be measured: {gain.note}"
    assert {name: {k: v for k, v in arm.items() if k != "n_train"} for name, arm in out["arms"].items()} == dict.fromkeys(
        ("real", "synthetic", "both"), NOTHING
    )
    assert out["difference"] == {"mean": None, "low": None, "high": None}
    assert out["smallest_detectable"] is None and out["curve"] == []


def test_a_test_that_no_student_gets_a_row_of_right_says_nothing_of_a_gain() -> None:
    said = "no student got a test row right: this test says nothing of a gain"
    never, once = (measure_gain(sample(), rows(20, 1, "new"), Scripted(lambda real, synthetic, s=s: s if synthetic else 0.0), 0) for s in (0.0, 0.01))
    assert never.verdict == said and said in never.note
    assert said not in once.verdict and said not in once.note
    assert nothing_right("f1a", [0.0, None]) == "every student scored 0: this test says nothing of a gain"
    assert nothing_right("accuracy", [None]) == nothing_right("accuracy", []) == nothing_right("bleu", [0.0, 0.1]) == ""


def test_a_test_of_fewer_than_100_rows_measures_nothing() -> None:
    student = Scripted()
    check_nothing_measured(measure_gain(sample(test=99), rows(9, 0, "new"), student, 0), "at least 100 test rows, got 99")
    check_nothing_measured(measure_gain(sample(test=0), rows(9, 0, "new"), student, 0), "at least 100 test rows, got 0")
    assert student.calls == []
    assert measure_gain(sample(test=100), rows(9, 0, "new"), student, 0).difference is not None


def test_a_plain_task_measures_nothing() -> None:
    plain = tuple(Example(str(i), {"text": "words"}) for i in range(200))
    s = Sample(Task("plain", ("text",)), plain[:20], (), plain[20:])
    check_nothing_measured(measure_gain(s, list(plain[:5]), STUDENT, 0), "a plain task has no target")


def test_a_student_that_cannot_do_the_task_measures_nothing() -> None:
    s = text_sample(TEXT)
    check_nothing_measured(measure_gain(s, renamed(s.fit), STUDENT, 0), STUDENT.supports(TEXT))


def test_a_score_that_cannot_be_computed_measures_nothing() -> None:
    task = Task("code", ("text",), "code")
    s = Sample(task, *(tuple(Example(f"{k}{i}", {"text": "t", "code": "c"}) for i in range(n)) for k, n in (("f", 9), ("d", 3), ("t", 120))))
    check_nothing_measured(measure_gain(s, renamed(s.fit), Scripted(), 0), "needs the column of asserts")


def test_a_sample_without_fit_rows_measures_nothing() -> None:
    check_nothing_measured(measure_gain(sample(fit=0, more=9), rows(9, 0, "new"), Scripted(), 0), "no fit row")


def test_without_kept_rows_the_real_arms_alone_are_measured() -> None:
    gain = measure_gain(sample(more=20), [], Scripted(), 0)
    assert {name: arm.mean for name, arm in gain.arms.items()} == {"real": 50, "synthetic": None, "both": None, "full": 50}
    assert gain.difference is None and gain.smallest_detectable is None
    assert gain.verdict == "the gain could not be measured: no synthetic rows were kept"


def test_the_json_has_the_keys_that_scripts_read() -> None:
    out = json.loads(json.dumps(measure_gain(sample(), rows(18, 0, "new"), STUDENT, 0).to_json(), allow_nan=False))
    assert list(out) == ["metric", "arms", "difference", "smallest_detectable", "curve", "note"]
    assert list(out["arms"]) == ["real", "synthetic", "both"]
    assert all(list(arm) == ["mean", "low", "high", "seeds", "n_train"] for arm in out["arms"].values())
    assert list(out["difference"]) == ["mean", "low", "high"]
    assert all(set(entry) == {"arm", "volume", "n_train", "mean", "low", "high", "seeds"} for entry in out["curve"])

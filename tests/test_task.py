"""A rendered record parses back to itself, whatever it holds; known scores; what a task refuses."""

from __future__ import annotations

import random
from typing import Any

import pytest
from conftest import shared_data

from seedbed.arithmetic import final_number
from seedbed.data import examples, read
from seedbed.errors import ParseError
from seedbed.task import Task, columns_used, labels_of
from seedbed.types import Example

SETS = {
    "slurp": Task("classification", ("text",), "label"),
    "rte": Task("pair", ("premise", "hypothesis"), "label"),
    "boolq": Task("qa", ("passage", "question"), "label"),
    "multirc": Task("qa", ("passage", "question", "answer"), "label", group="group"),
    "sgd": Task("data2text", ("acts", "context"), "text"),
    "webnlg": Task("data2text", ("triples",), "text", references="references"),
    "gsm8k": Task("math", ("question",), "answer"),
    "mbpp": Task("code", ("text",), "code", tests="test_list"),
}
NO_TESTS = Task("code", ("text",), "code")
TASKS = [
    *SETS.values(),
    Task("plain", ("text",)),
    Task("text2text", ("source",), "target"),
    Task("text2text", ("a", "a_b"), "b a", given=("a_b",)),
    Task("text2text", ("x: y", "x"), ".*"),
    Task("classification", ("message", "user_name"), "queue", given=("user_name",)),
    Task("pair", ("first", "second"), "label", given=()),
]


def check_inverse(task: Task, fields: dict[str, Any]) -> None:
    text = task.render(fields)
    assert task.parse(text) == fields
    assert task.parse(f"\n{text}\n") == fields
    known, rest = task.split(fields)
    assert known + rest == text
    assert task.kind == "plain" or known == task.prefix({name: fields[name] for name in task.given_columns})


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_every_real_row_parses_back_to_itself(name: str) -> None:
    task = SETS[name]
    files = sorted((shared_data() / name).glob("*.jsonl.gz"))
    assert len(files) >= 3
    for file in files:
        table = read(file)
        found = examples(table, task)
        assert len(found) == len(table.rows)
        for example in found:
            fields = {name: example.fields[name] for name in task.columns}
            assert task.parse(task.render(fields)) == fields


def nasty(task: Task, rng: random.Random) -> str:
    """A stripped text full of what could be taken for a section's beginning or for an escape."""
    titles = [line.partition(":")[0] for line in task.render({c: [] if c in task.structured else "v" for c in task.columns}).splitlines()]
    bits = [
        "\n",
        "\n\n",
        "\\",
        "\\\\",
        "\n\\",
        ":",
        " ",
        "\r\n",
        "\t",
        "\u2028",
        "\x85",
        "\x1c",
        "\x00",
        "é",
        "\U0001f600",
        '"',
        "[",
        "}",
        "0",
    ]
    bits += [piece for title in titles for piece in (title, f"{title}:", f"\n{title}:", f"\n{title}: ", f"\n\\{title}:", title.lower())]
    while not (text := "".join(rng.choices(bits, k=rng.randint(1, 12))).strip()):
        pass
    return text


@pytest.mark.parametrize("task", TASKS, ids=[f"{t.kind}-{'-'.join(t.columns)}" for t in TASKS])
def test_nasty_values_parse_back_to_themselves(task: Task) -> None:
    rng = random.Random(7)
    for _ in range(400):
        texts = {name: nasty(task, rng) for name in task.columns}
        check_inverse(task, {n: [v, {"k": [v, 1, 2.5, None, True]}] if n in task.structured else v for n, v in texts.items()})


@pytest.mark.parametrize(
    "value", ["a\nMessage: b", "a\n\\Message: b", "a\n\\\\Queue:\nMessage:", "Message: Queue: x", "\\", "a\n\\", "é:\\:\u2028Queue:"]
)
def test_a_value_that_looks_like_a_section_parses_back(value: str) -> None:
    task = Task("classification", ("message",), "queue")
    check_inverse(task, {"message": value, "queue": value})


def test_the_order_puts_what_is_known_first() -> None:
    assert SETS["slurp"].render({"text": "play", "label": "music"}) == "Label: music\nText: play"
    assert SETS["boolq"].split({"passage": "p", "question": "q", "label": "yes"}) == ("Passage: p\n", "Question: q\nLabel: yes")
    assert SETS["webnlg"].split({"triples": [["é", "b", "c"]], "text": "t"}) == ('Triples: [["é", "b", "c"]]\n', "Text: t")
    assert SETS["mbpp"].order == ("text", "test_list", "code")
    assert Task("plain", ("text",)).render({"text": "as it is"}) == "as it is"


PARSE = [
    (SETS["slurp"], "Text: a", "section missing"),
    (SETS["slurp"], "Label: a", "section missing"),
    (SETS["slurp"], "Here you are:\nLabel: a\nText: b", "section missing"),
    (SETS["slurp"], "Label: a\nText: \n", "empty section"),
    (SETS["slurp"], "Label:\nText: b", "empty section"),
    (Task("plain", ("text",)), " \n", "empty"),
    (SETS["webnlg"], "Triples: [1\nText: b", "broken JSON"),
    (SETS["webnlg"], f"Triples: {'[' * 200_000}\nText: b", "broken JSON"),
    (SETS["webnlg"], f"Triples: [{'1' * 5000}]\nText: b", "broken JSON"),
    (SETS["webnlg"], 'Triples: {"a": 1}\nText: b', "not a list"),
    (Task("pair", ("a", "b"), "label", labels=("yes", "no")), "A: x\nB: y\nLabel: maybe", "unknown label"),
]


@pytest.mark.parametrize(("task", "text", "reason"), PARSE, ids=range(len(PARSE)))
def test_a_text_of_another_form_has_a_reason(task: Task, text: str, reason: str) -> None:
    with pytest.raises(ParseError) as caught:
        task.parse(text)
    assert caught.value.reason == reason


def test_known_labels_pass_and_no_labels_mean_any() -> None:
    task = Task("pair", ("a", "b"), "label", labels=("yes", "no"))
    assert task.parse("A: x\nB: y\nLabel: no")["label"] == "no"
    assert SETS["rte"].parse("Premise: x\nHypothesis: y\nLabel: whatever")["label"] == "whatever"


# --- scores -------------------------------------------------------------------------------------------------------------------------


def rows(task: Task, targets: list[Any], **extra: list[Any]) -> list[Example]:
    names = {task.target: targets, **extra}
    return [Example(str(i), {name: values[i] for name, values in names.items() if name}) for i in range(len(targets))]


def scores(task: Task, predictions: list[str], targets: list[Any], **extra: list[Any]) -> dict[str, Any]:
    return {m.name: None if m.value is None else round(m.value, 6) for m in task.score(predictions, rows(task, targets, **extra))}


def test_accuracy_and_macro_f1_of_a_hand_case() -> None:
    # a: precision 2/3, recall 1, F1 0.8; b: 1, 1/2, 2/3; c: 1, 1, 1.
    found = scores(SETS["slurp"], ["a", "a", "a", "b", "c"], ["a", "a", "b", "b", "c"])
    assert found == {"accuracy": 80.0, "macro_f1": round(100 * (0.8 + 2 / 3 + 1) / 3, 6)}


def test_f1a_and_em_of_a_hand_case() -> None:
    # Question 1 is all right, question 2 is not. true: 2 of 3 predicted are right, 2 of 2 found.
    gold, groups = ["true", "false", "true", "false"], ["q1", "q1", "q2", "q2"]
    found = scores(SETS["multirc"], ["true", "false", "true", "true"], gold, group=groups)
    assert found == {"f1a": 80.0, "em": 50.0, "accuracy": 75.0, "macro_f1": round(100 * (0.8 + 2 / 3) / 2, 6)}
    assert next(iter(found)) == "f1a"
    other = scores(SETS["multirc"], ["true", "false", "perhaps", "false"], gold, group=groups)
    assert (other["f1a"], other["em"]) == (round(200 / 3, 6), 50.0)
    assert scores(SETS["multirc"], ["false"], ["false"], group=["q"])["f1a"] == 0.0
    assert scores(SETS["multirc"], ["yes"], ["no"], group=["q"])["f1a"] is None


def test_bleu_of_equal_texts_is_100_whatever_reference_they_equal() -> None:
    pytest.importorskip("sacrebleu")
    texts = ["the cat sat on the mat", "one two three four five"]
    none: list[Any] = [[], []]
    assert scores(SETS["sgd"], texts, texts, acts=none, context=none)["bleu"] == 100.0
    assert scores(SETS["webnlg"], texts, ["x", "y"], triples=none, references=[["no cat at all", texts[0]], [texts[1]]])["bleu"] == 100.0
    assert scores(SETS["sgd"], ["nothing in common here", "nor in this one"], texts, acts=none, context=none)["bleu"] < 10


NUMBERS = [
    ("so 3 + 4 = 7\n#### 7", "7"),
    ("#### 1,234", "1234"),
    ("it costs $1,000.00.", "1000"),
    ("#### -5", "-5"),
    ("no number", None),
    ("1 #### x", None),
    ("it is .50", "0.5"),
    ("007.0", "7"),
]


@pytest.mark.parametrize(("answer", "number"), NUMBERS)
def test_final_number(answer: str, number: str | None) -> None:
    assert final_number(answer) == number


def test_other_kinds_have_their_scores() -> None:
    assert scores(SETS["gsm8k"], ["I say 72.0", "none", "3"], ["#### 72", "#### 5", "#### 4"]) == {"accuracy": round(100 / 3, 6)}
    assert scores(Task("text2text", ("a",), "b"), [" x ", "y"], ["x", "z"])["exact_match"] == 50.0


def test_what_cannot_be_scored_is_none_with_its_reason() -> None:
    for task, found in (
        (NO_TESTS, NO_TESTS.score(["x"], rows(NO_TESTS, ["x"]))),
        (Task("plain", ("text",)), Task("plain", ("text",)).score(["x"], [Example("1", {"text": "x"})])),
        (SETS["slurp"], SETS["slurp"].score([], [])),
    ):
        assert [m.value for m in found] == [None], task.kind
        assert found[0].note
    with pytest.raises(ValueError, match="Got 1 predictions, 0 examples"):
        SETS["slurp"].score(["x"], [])


def test_labels_and_roles() -> None:
    assert labels_of(SETS["rte"], rows(SETS["rte"], ["b", "a", "b"])) == ("a", "b")
    assert labels_of(Task("qa", ("p", "q"), "l", labels=("z", "y")), []) == ("z", "y")
    assert labels_of(SETS["gsm8k"], rows(SETS["gsm8k"], ["b"])) == ()
    roles = {"text": "input", "code": "target", "test_list": "scoring"}
    assert columns_used(SETS["mbpp"]) == roles


def test_a_body_leaves_out_what_was_given_and_the_label() -> None:
    fields = {"passage": "p", "question": "q", "answer": "a", "label": "true"}
    assert SETS["multirc"].body(fields) == "q\na"
    assert SETS["multirc"].input_text(Example("1", fields)) == "p\nq\na"
    assert SETS["webnlg"].body({"triples": [1], "text": "t"}) == "t"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"kind": "classification", "inputs": (), "target": "a"}, "'inputs' must name at least one column"),
    ({"kind": "plain", "inputs": ("a",), "target": "b"}, "one input column and no target"),
    ({"kind": "plain", "inputs": ("a", "b")}, "one input column and no target"),
    ({"kind": "math", "inputs": ("a",)}, "a math task needs 'target'"),
    ({"kind": "qa", "inputs": ("a",), "target": "b"}, "at least two input columns"),
    ({"kind": "pair", "inputs": ("a", "b"), "target": "c", "given": ("d",)}, "'given' names 'd', which is no input"),
    ({"kind": "math", "inputs": ("a",), "target": "a"}, "each column may be named once"),
    ({"kind": "math", "inputs": ("a_b",), "target": "A B"}, "differ in more than case and underscores"),
    ({"kind": "math", "inputs": ("\\1",), "target": "1"}, "begin with a backslash"),
    ({"kind": "math", "inputs": (" ",), "target": "1"}, "may not be empty"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_a_task_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Task(**settings)


def test_all_that_is_wrong_with_a_task_is_said_at_once() -> None:
    with pytest.raises(ValueError, match=r"(?s)needs 'target'.*two input columns.*'given' names"):
        Task("qa", ("a",), given=("b",))

"""Which test rows nearly repeat a row that is learned from."""

from __future__ import annotations

from dataclasses import replace

from seedbed.copies import LOOKED_AT, repeated
from seedbed.task import Task
from seedbed.types import Example, Sample

TASK = Task("classification", ("text",), "label")
LONG = "the green door of the old house by the river does not close any more since the storm of last week"


def test_test_rows_that_nearly_repeat_a_row_learned_from_are_named() -> None:
    def row(name: str, text: str) -> Example:
        return Example(name, {"text": text, "label": "a"})

    fit, dev = (row("f1", LONG), row("f2", "nothing alike")), (row("d1", LONG.upper().replace("green", "blue")),)
    test = (row("t1", LONG + "!"), row("t2", LONG.replace("storm", "rain")), row("t3", "a text of its own, with no like among the others"))
    apart = Sample(TASK, fit, dev, test)
    assert repeated(apart).startswith("2 of 3 test rows nearly repeat a row that is learned from, such as 't1' and 'd1'")
    assert repeated(replace(apart, test=test[2:])) == ""
    folds = (Sample(TASK, fit, dev, test[:1]), Sample(TASK, (row("f3", "unlike"),), dev[:0], test[1:]))
    assert repeated(replace(apart, test=(), folds=folds)).startswith("1 of 3 test rows")


def test_rows_that_share_one_of_two_inputs_do_not_repeat() -> None:
    task = Task("qa", ("passage", "question"), "label")

    def row(name: str, passage: str, question: str) -> Example:
        return Example(name, {"passage": passage, "question": question, "label": "yes"})

    asked = "does the door of the house close?"
    learned = row("f1", LONG, asked)
    other_passage, other_question = row("t1", "rain fell on the hills", asked), row("t2", LONG, "who lives there?")
    apart = Sample(task, (learned,), (), (other_passage, other_question))
    assert repeated(apart) == ""
    assert repeated(replace(apart, test=(other_passage, row("t3", LONG + ".", asked.upper())))).startswith("1 of 2 test rows")


def test_targets_that_are_alike_are_no_repeats() -> None:
    task = Task("text2text", ("source",), "target")

    def rows(name: str) -> tuple[Example, ...]:
        return tuple(Example(f"{name}{i}", {"source": f"{name} {i} {i * 7919}", "target": "Sorry, I do not know."}) for i in range(9))

    assert repeated(Sample(task, rows("a"), (), rows("b"))) == ""


def test_of_many_test_rows_some_are_looked_at_and_the_sentence_says_so() -> None:
    rows = tuple(Example(f"t{i}", {"text": f"{LONG} {i}", "label": "a"}) for i in range(2 * LOOKED_AT))
    found = repeated(Sample(TASK, (Example("f", {"text": LONG, "label": "a"}),), (), rows))
    assert found.startswith(f"{LOOKED_AT} of {LOOKED_AT} test rows that were looked at, of {2 * LOOKED_AT:,}, nearly repeat")

"""Rows of other tools' layouts become the task's columns; what is none is refused with its place."""

from __future__ import annotations

from typing import Any

import pytest
from fuzzing import soon

from seedbed.errors import DataError
from seedbed.export import _alpaca, _chat
from seedbed.layouts import _sections, chats, reading, unfold
from seedbed.readers import Table
from seedbed.task import Task

ONE = Task("classification", ("message",), "queue", ("billing", "orders"))
PAIR = Task("pair", ("premise", "hypothesis"), "label", ("no", "yes"))
PLAIN = Task("plain", ("text",))
ROWS = [{"message": "my card was declined", "queue": "billing"}, {"message": "where is\nmy parcel", "queue": "orders"}]


def table(rows: list[dict[str, Any]]) -> Table:
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table("their.jsonl", "their", columns, tuple(rows), tuple(range(1, len(rows) + 1)), "line")


def read(rows: list[dict[str, Any]], task: Task = ONE, columns: dict[str, str] | None = None, labels: dict[str, str] | None = None) -> list[Any]:
    found = chats(unfold(table(rows)))
    how = reading(found, task, columns or {}, labels or {})
    return [how.row(task, row) for row in found.rows]


def wrapped(**names: str) -> list[dict[str, Any]]:
    return [{new: row[old] for new, old in names.items()} for row in ROWS]


SHAPES: dict[str, list[dict[str, Any]]] = {
    "by name": [{**row, "topic": "x"} for row in ROWS],
    "by name but for case": wrapped(Message="message", QUEUE="queue"),
    "distilabel, classification": [{"text": row["message"], "labels": [row["queue"]], "model_name": "m"} for row in ROWS],
    "distilabel, generation": [{**pair, "distilabel_metadata": {}} for pair in wrapped(instruction="message", generation="queue")],
    "synthetic-data-kit": wrapped(question="message", answer="queue"),
    "prompt and completion": wrapped(prompt="message", completion="queue"),
    "alpaca": [{**pair, "input": ""} for pair in wrapped(instruction="message", output="queue")],
    "alpaca with one instruction": [{"instruction": "Which queue?", "input": row["message"], "output": row["queue"]} for row in ROWS],
    "our own alpaca": [_alpaca(ONE, row, ["billing"]) for row in ROWS],
    "messages": [_chat(ONE, row) for row in ROWS],
    "sharegpt": [
        {"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": r["message"]}, {"from": "gpt", "value": r["queue"]}]}
        for r in ROWS
    ],
    "datatrove": [{"text": row["message"], "id": "a", "metadata": {"queue": row["queue"]}} for row in ROWS],
    "curator's log": [
        {"response_message": "{}", "parsed_response_message": ROWS[:1], "generic_request": {"original_row": {"topic": "x"}}},
        {"response_message": ROWS[1], "parsed_response_message": None, "generic_request": {}},
    ],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_layout_holds_the_same_rows(shape: str) -> None:
    assert read(SHAPES[shape]) == ROWS


def test_several_inputs_in_one_text_are_taken_apart() -> None:
    rows = [{"premise": "It rains.", "hypothesis": "It is wet.\nPremise: no", "label": "yes"}, {"premise": "a\nb", "hypothesis": "c", "label": "no"}]
    for form in (lambda row: _chat(PAIR, row), lambda row: _alpaca(PAIR, row, ["no", "yes"])):
        assert read([form(row) for row in rows], PAIR) == rows
    assert read([*map(SHAPES["messages"].__getitem__, [0]), _chat(PAIR, rows[0])], PAIR)[0] == {"label": "billing"}, "a row of another form"


def test_texts_alone_are_found() -> None:
    for column in ("text", "content", "generation", "Text"):
        assert read([{column: "so", "n": 1}], PLAIN) == [{"text": "so"}]
    assert read([{"messages": [{"role": "assistant", "content": "so"}]}], PLAIN) == [{"text": "so"}]


def test_a_longer_chat_is_all_that_was_said_before_its_last_answer() -> None:
    turns = [("system", "Be kind."), ("user", "hi"), ("assistant", "yes?"), ("user", "my card"), ("assistant", "billing"), ("user", "bye")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    assert read([row]) == [{"message": "User: hi\nAssistant: yes?\nUser: my card", "queue": "billing"}]


def test_a_recipe_says_where_columns_and_labels_are() -> None:
    rows = [{"a": {"b": row["message"]}, "queue": i, "text": "no"} for i, row in enumerate(ROWS)]
    assert read(rows, columns={"message": "a.b"}, labels={"0": "billing", "1": "orders"}) == ROWS
    with pytest.raises(DataError, match=r"names 'mesage', which is no column of the task\. Did you mean 'message'"):
        read(rows, columns={"mesage": "a.b"})
    with pytest.raises(DataError, match=r"no column 'txt'.*Did you mean 'text'"):
        read(rows, columns={"message": "txt"})


def test_what_cannot_be_found_is_said() -> None:
    with pytest.raises(DataError, match=r"no column for 'message', 'queue' of the task\. The columns are \['a'\].*\[evaluate\] columns"):
        read([{"a": "x"}])
    with pytest.raises(DataError, match="no column for 'premise', 'hypothesis', 'label'"):
        read([_chat(ONE, ROWS[0])], PAIR)


@pytest.mark.parametrize(
    ("value", "message", "reason"),
    [
        ("hello", "line 2, column 'messages': must be a list of turns", "no chat"),
        ([], "must be a list of turns", "no chat"),
        ([{"role": "user"}], "must be a list of turns", "no chat"),
        ([{"role": "tool", "content": "x"}], "with roles of", "no chat"),
        ([{"role": "user", "content": "x"}], "nobody answers", "no answer"),
    ],
)
def test_a_row_that_is_no_chat_is_refused_with_its_place(value: Any, message: str, reason: str) -> None:
    rows = table([_chat(ONE, ROWS[0]), {"messages": value}])
    with pytest.raises(DataError, match=message) as error:
        chats(rows)
    assert error.value.reason == reason
    refused: dict[int, DataError] = {}
    found = chats(rows, refused.__setitem__)
    assert list(refused) == [1] and "prompt" in found.rows[0] and "prompt" not in found.rows[1]


def test_a_table_without_chats_stays_as_it_is() -> None:
    for rows in ([{"messages": "a text"}], [{"a": 1}], [{"messages": [{"role": "user", "content": "x"}], "prompt": "mine"}]):
        assert chats(table(rows)) == unfold(table(rows)) == table(rows)


def test_a_text_of_many_heads_and_no_last_one_is_refused_soon() -> None:
    task = Task("qa", ("passage", "question", "answer"), "label")
    with soon():
        assert _sections(task, "Passage: a" + "\nQuestion: b" * 40_000) == {}
    assert _sections(task, "Passage: a\nb\nQuestion: c\nAnswer:  d") == {"passage": "a\nb", "question": "c", "answer": " d"}
    assert _sections(task, "x\nPassage: a\nQuestion: c\nAnswer: d") == {}

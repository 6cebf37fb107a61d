"""Other tools' layouts of a row as plain columns: chats (messages, ShareGPT), Alpaca, and the pairs that generators write.

`chats` gives a table with chats the columns `prompt` and `response`, whoever reads it. `Reading` says from which columns of somebody's table
those of a task are read: by the recipe, by name, or by role where the table's layout is known and the task has one text in and one out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from seedbed.errors import DataError, did_you_mean
from seedbed.readers import Record, Table
from seedbed.task import Task

Refuse = Callable[[int, DataError], None]
"""What is done with a row, by its index, that cannot be read."""
CHATS = ("messages", "conversations", "conversation", "chat")
"""Columns that hold a list of turns."""
ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
}  # fmt: skip
"""Names of who speaks, in messages (role, content) and in ShareGPT (from, value)."""
PAIRS = (
    ("prompt", "response"), ("prompt", "completion"), ("instruction", "output"), ("instruction", "generation"), ("instruction", "response"),
    ("question", "answer"), ("problem", "solution"), ("input_text", "label"), ("text", "label"), ("text", "labels"), ("input", "output"),
)  # fmt: skip
"""Columns of one text in and one out, as others name them: distilabel, synthetic-data-kit, curator, TRL, Alpaca."""
TEXTS = ("text", "content", "generation", "response", "output", "completion")
"""Columns of texts alone, as others name them: datatrove, distilabel."""


def chats(table: Table, refuse: Refuse | None = None) -> Table:
    """The table with `prompt`, all turns before the last answer (the speakers named where there are several), and `response`, that answer.

    A table without chats, or with columns of these names, as it is. refuse: what is done with a row that is no chat; None: its DataError is
    raised. Such a row has neither column.
    """
    column = next((c for c in CHATS if c in table.columns and any(_turns(row.get(c)) is not None for row in table.rows)), None)
    if column is None or {"prompt", "response"} & set(table.columns):
        return table
    rows: list[Record] = []
    for i, row in enumerate(table.rows):
        try:
            prompt, response = _exchange(table.at(i, column), row.get(column))
        except DataError as error:
            if refuse is None:
                raise
            refuse(i, error)
            rows.append(row)
        else:
            rows.append({**row, "prompt": prompt, "response": response})
    return replace(table, columns=(*table.columns, "prompt", "response"), rows=tuple(rows))


def _turns(value: Any) -> list[tuple[str, str]] | None:
    """(role, text) of each turn; None where the value is no chat."""
    if not isinstance(value, list) or not value:
        return None
    found = []
    for turn in value:
        if not isinstance(turn, Mapping):
            return None
        role, text = (turn.get(a, turn.get(b)) for a, b in (("role", "from"), ("content", "value")))
        if not isinstance(role, str) or not isinstance(text, str) or role.lower() not in ROLES:
            return None
        found.append((ROLES[role.lower()], text.strip()))
    return found


def _exchange(where: str, value: Any) -> tuple[str, str]:
    turns = _turns(value)
    if turns is None:
        allowed = ", ".join(sorted(ROLES))
        raise DataError(
            f"{where}: must be a list of turns {{role, content}} or {{from, value}} with roles of {allowed}. Got {value!r:.60}. Correct the row.",
            "no chat",
        )
    spoken = [turn for turn in turns if turn[0] != "system"]
    last = max((i for i, (role, _) in enumerate(spoken) if role == "assistant"), default=None)
    if last is None:
        raise DataError(f"{where}: nobody answers in this chat. Delete the row, or name the columns in [evaluate] of a recipe.", "no answer")
    asked = spoken[:last]
    texts = [text for _, text in asked] if len(asked) == 1 else [f"{role.capitalize()}: {text}" for role, text in asked]
    return "\n".join(texts), spoken[last][1]


@dataclass(frozen=True)
class Reading:
    """From where each column of a task is read. sources: task column -> the table's, `a.b` being a field b of a struct a. how: of that, in words.

    joined: the columns whose values, one after the other, are the one input of the task (Alpaca's instruction and input). sections: the input
    and target texts hold all columns of the task, each after its name, as `seedbed export` writes them. labels: how they are written -> the task's.
    """

    sources: Mapping[str, str]
    how: str
    joined: tuple[str, ...] = ()
    sections: bool = False
    labels: Mapping[str, str] | None = None

    def row(self, task: Task, row: Record) -> dict[str, Any]:
        """The task's columns of one row; what is not there is left out."""
        found = {name: _at(row, source) for name, source in self.sources.items()}
        if self.joined:
            parts = [str(v).strip() for v in (_at(row, c) for c in self.joined) if v is not None and str(v).strip()]
            found[task.inputs[0]] = "\n".join(parts) or None
        if self.sections:
            found |= _sections(task, str(found.pop("", "")))
        target = str(task.target)
        value = found.get(target)
        if isinstance(value, list) and len(value) == 1 and task.has_labels:
            value = found[target] = value[0]
        if self.labels and str(value) in self.labels:
            found[target] = self.labels[str(value)]
        return {name: value for name, value in found.items() if value is not None}


def _at(row: Any, source: str) -> Any:
    """The value of a column, or of a field of a struct: the whole name first."""
    if not isinstance(row, Mapping):
        return None
    if source in row:
        return row[source]
    head, dot, rest = source.partition(".")
    return _at(row.get(head), rest) if dot else None


def _sections(task: Task, text: str) -> dict[str, str]:
    """`Name: value` lines of all inputs in their order; {} where the text is of another form."""
    before, rest, found = "", f"\n{text.strip()}", []
    for name in task.inputs:
        before, mark, rest = rest.partition(f"\n{task.mark(name)}")
        if not mark:
            return {}
        found.append(before)
    values = [*found[1:], rest]
    return {name: re.sub(r"^\s", "", value) for name, value in zip(task.inputs, values, strict=True)} if not found[0] else {}


def reading(table: Table, task: Task, columns: Mapping[str, str], labels: Mapping[str, str]) -> Reading:
    """How the task's columns are read from the table. columns: task column -> the table's, as a recipe says it. Raises DataError where one
    cannot be found."""
    unknown = [name for name in columns if name not in (*task.columns, *task.extras)]
    if unknown:
        hints = "".join(did_you_mean(name, task.columns) for name in unknown)
        raise DataError(f"[evaluate] columns names {', '.join(map(repr, unknown))}, which is no column of the task.{hints}")
    missing = [c for c in columns.values() if not any(_at(row, c) is not None for row in table.rows)]
    if missing:
        table.require(missing)
        raise DataError(f"{table.source}: no row has a value of {', '.join(map(repr, missing))}. Name another column in [evaluate] columns.")
    found = dict(columns)
    for name in (*task.columns, *task.extras):
        if name not in found and (source := _named(table, name)):
            found[name] = source
    if all(name in found for name in task.columns):
        return Reading(found, _words(found), labels=labels)
    guess = _by_role(table, task, found)
    if guess is None:
        lacking = [name for name in task.columns if name not in found]
        hints, said = "".join(did_you_mean(name, table.columns) for name in lacking), ", ".join(f'{name} = "..."' for name in lacking)
        raise DataError(
            f"{table.source}: no column for {', '.join(map(repr, lacking))} of the task. The columns are {list(table.columns)}.{hints} "
            f"Say which in a recipe: [evaluate] columns = {{{said}}}."
        )
    return replace(guess, labels=labels)


def _named(table: Table, name: str) -> str | None:
    """The column of that name, but for case and separators; or the field of `metadata`, where datatrove keeps what is no text."""
    if name in table.columns:
        return name
    alike = [c for c in table.columns if _plain(c) == _plain(name)]
    if len(alike) == 1:
        return alike[0]
    inside = f"metadata.{name}"
    return inside if any(_at(row, inside) is not None for row in table.rows) else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def _by_role(table: Table, task: Task, found: Mapping[str, str]) -> Reading | None:
    """The task's columns by what they are for, where the table has a known layout. found: those that are known already."""
    lacking = [name for name in task.columns if name not in found]
    if len(lacking) == 1 and (len(found) > 0 or task.target is None):
        usual = [told for _, told in PAIRS] if lacking[0] == task.target else [*(asked for asked, _ in PAIRS), *TEXTS]
        free = [c for c in (TEXTS if task.target is None else usual) if c in table.columns and c not in found.values()]
        sources = {**found, lacking[0]: free[0]} if free else None
        return Reading(sources, _words(sources)) if sources else None
    pair = next((p for p in PAIRS if set(p) <= set(table.columns)), None)
    if found or pair is None or task.target is None or task.tests:
        return None
    asked, told = pair
    if len(task.inputs) > 1:  # all inputs stand in one text, after their names
        asked = "input" if pair == ("instruction", "output") and _filled(table, "input") else asked
        if not any(_sections(task, str(row.get(asked, ""))) for row in table.rows):
            return None
        return Reading({"": asked, task.target: told}, f"{', '.join(task.inputs)} from {asked}, {task.target} from {told}", sections=True)
    source = task.inputs[0]
    if asked == "instruction" and _filled(table, "input"):
        instructions = {str(row.get(asked)) for row in table.rows}
        used = ("input",) if len(instructions) == 1 else (asked, "input")  # one instruction for all rows says nothing of a row
        return Reading({task.target: told}, f"{source} from {' and '.join(used)}, {task.target} from {told}", used)
    return Reading({source: asked, task.target: told}, _words({source: asked, task.target: told}))


def _filled(table: Table, column: str) -> bool:
    return any(str(row.get(column) or "").strip() for row in table.rows)


def _words(sources: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} from {source}" for name, source in sources.items())


def unfold(table: Table) -> Table:
    """Rows of a log of responses (curator's `responses_*.jsonl`): each parsed response a row, with what its request was made from."""
    if not {"generic_request", "response_message"} <= set(table.columns):
        return table
    rows: list[Record] = []
    places: list[int] = []
    files: list[str] = []
    for i, row in enumerate(table.rows):
        request = row.get("generic_request")
        given = request.get("original_row") if isinstance(request, Mapping) else None
        parsed = row.get("parsed_response_message")
        answers: Sequence[Any] = parsed if isinstance(parsed, list) else [row.get("response_message")]
        for answer in answers:
            rows.append({**(given if isinstance(given, Mapping) else {}), **(answer if isinstance(answer, Mapping) else {"response": answer})})
            places.append(table.places[i])
            files.extend(table.files[i : i + 1])
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(table.source, table.stem, names, tuple(rows), tuple(places), table.unit, tuple(files))

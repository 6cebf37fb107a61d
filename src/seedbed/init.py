"""A commented recipe, guessed from a labelled file, on a budget that a CPU carries."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from seedbed.errors import DataError, RecipeError, did_you_mean
from seedbed.layouts import CHATS, chats
from seedbed.parts import toml_lines, toml_string
from seedbed.readers import Table, read
from seedbed.task import Kind, Task

TARGETS = (
    "label",
    "target",
    "queue",
    "class",
    "category",
    "intent",
    "topic",
    "team",
    "sentiment",
    "answer",
    "output",
    "response",
    "summary",
    "code",
    "text",
)
"""Usual names of target columns, most telling first."""
SKIPPED = ("id", "idx", "index", "split")
MOST_LABELS = 200

RECIPE = """\
# A recipe of seedbed. `seedbed check {file}` names problems, `seedbed run {file}` carries it out.
name = {name}
seed = 7

[sample]                     # what is real: fit (learned from), dev (choices) and test (measured)
{main} = {path}
dev_share = 0.2              # of what is not test: choices are made on it, such as when a fit ends
{test}

[task]                       # guessed where you did not say: --task, --inputs, --target
{task}

[model]
name = "seedling"            # shipped; a folder or a hub name works too

[engine]
kind = "local"
cache = {cache}                  # tokens of prompt and completion together

[generator]
kind = "soft"                # contextual soft prompts; "hard" for prompts in words
{prompt}
epochs = {epochs}                  # at most: it ends when dev no longer improves

[generate]
count = {count:<21}# a budget for a CPU; raise it and run again with --replace: only the new rows are made
temperature = 0.5            # at 1.0 so small a model writes words that are none; variety comes from the contexts
top_p = 0.95                 # of each next token the likeliest that together reach this probability
{max_tokens:<29}# a row's room, from the longest of yours; a text that does not end within it is dropped
{relabel}
{annotate}{annotator}[[filter]]
kind = "form"                # parseable, finished, of usual length
{checked}[[filter]]
kind = "dedup"
[[filter]]
kind = "overlap"             # never ship a copy of a real row
{select}

[[metric]]
kind = "mauve"               # how near to real text
[[metric]]
kind = "diversity"           # how different from one another
[[metric]]
kind = "coverage"            # where real rows lie, in the same shares of labels
[[metric]]
kind = "memorisation"        # how much is copied
[[metric]]
kind = "pii"                 # personal data: a kept row with some of a real row's fails the run

[student]                    # trained with and without the synthetic rows: does it help?
{student}

[gain]
seeds = 3                    # students trained, each by another seed: they are averaged
"""
DATE = re.compile(r"(\d{4}([-/.])\d{1,2}\2\d{1,2}|\d{1,2}([-/.])\d{1,2}\3(\d\d){1,2})([T ][\d:.,+Z -]*)?")
FEW_ROWS = 256
"""Up to here the shipped decoder, adapted: from 32 and 128 rows it had the lowest loss and kept most of its rows (docs/results/lowrow.md)."""
FEW = {
    "prompt": """\
prompt = "amortised-lora"    # a decoder of embeddings and the model, adapted together; "amortised" leaves the model as it is, in four times
                             # the time; nsp | mp | mc need more rows; auto fits amortised and these three and keeps the best on dev""",
    "count": 600,
    "select": """\
# Texts nearer to yours: count = 1800 above, and of what is left the rows that are together most like fit (docs/results/softsrv.md).
# [[filter]]
# kind = "select"
# rows = 300""",
}
MANY = {
    "prompt": 'prompt = "mc"                # nsp | mp | mc | amortised | amortised-lora | auto (fits the first four, keeps the best on dev)',
    "count": 1800,
    "select": """\
[[filter]]
kind = "select"              # of what is left the rows that are together most like yours: much nearer to real text, for more writing
rows = 300""",
}
READ, MOST_EPOCHS = 20_000, 50
"""Rows that a fit reads, about: with so many contextual prompts come nearest to real text (docs/results/softsrv.md)."""
LINEAR = """\
kind = "linear"
features = """
MINILM = f'{LINEAR}"minilm"          # frozen sentence embeddings; "tfidf" needs no encoder'
WORDS = f'{LINEAR}"tfidf"           # words alone; "minilm" reads as the annotator above does, which has nothing to teach it'
WRITER = """\
kind = "causal"              # writes its answers; "linear" and "encoder" name labels
layers = 2                   # the first so many blocks of seedling: fewer are trained sooner, and it is smaller than its teacher"""
CHECKED = """\
# Only texts that name as much of their data as yours do; a small model writes few of them:
# [[filter]]
# kind = "verified"
"""
RELABEL = """\
relabel = true               # the annotator below names the labels: a model's texts are often of another label than it was asked for
"""
ANNOTATE = """\
[annotate]                   # inputs without a target get one, by the annotator below: often worth more than new texts
path = {pool}

"""
ANNOTATOR = """\
[[annotator]]                # what a classifier of your real rows reads in each candidate
kind = "classifier"

"""


def recipe_for(
    file: Path,
    kind: str | None = None,
    inputs: Sequence[str] | None = None,
    target: str | None = None,
    test: Path | None = None,
    pool: Path | None = None,
) -> str:
    """The text of a recipe. test: labelled rows to measure on, where `file` is split already. pool: inputs to label. Raises DataError for an
    unreadable file or one without the task's columns, RecipeError when the options do not fit the columns or the task."""
    table = chats(read(file))
    task = guess(table, kind, inputs, target)
    if pool and not task.has_labels:
        raise RecipeError([f"--pool {pool}: its inputs would get labels, and a {task.kind} task has none. Leave it out; see docs/compare.md."])
    for other, columns in ((test, task.columns), (pool, task.inputs)):
        if other:
            chats(read(other)).require(columns)
    words = sorted(len(str(r.get(c, "")).split()) for r in table.rows for c in task.columns)
    # A word of English is about 1.6 tokens of the shipped model; the 95th percentile of a column, times the columns, and room for names.
    tokens = int(1.6 * words[int(0.95 * (len(words) - 1))] * len(task.columns)) + 16
    max_tokens = min(400, max(48, tokens // 16 * 16 + 16))
    roles = ("target", "tests", "references")
    lines = toml_lines({"kind": task.kind, "inputs": task.inputs} | {role: name for role in roles if (name := getattr(task, role))})
    lines += _otherwise(table, task, given=bool(inputs or target))
    name = re.sub(r"[^\w-]+", "-", file.name.split(".")[0]).strip("-")[:80] or "run"
    return RECIPE.format(
        file=f"{name}.toml", name=toml_string(name), main="fit" if test else "path", path=toml_string(str(file)), task="\n".join(lines),
        test=f"test = {toml_string(str(test))}" if test else _test(task, len(table.rows)),
        annotate=ANNOTATE.format(pool=toml_string(str(pool))) if pool else "",
        **(FEW if len(table.rows) <= FEW_ROWS else MANY), epochs=min(MOST_EPOCHS, max(1, READ // len(table.rows))),
        annotator=ANNOTATOR * task.has_labels, relabel=RELABEL * task.has_labels,
        checked=CHECKED * (task.kind == "data2text"), student=WORDS if task.has_labels else WRITER if task.target else MINILM,
        max_tokens=f"max_tokens = {max_tokens}", cache=min(512, max_tokens * (3 if task.given_columns else 1) + 32),
    )  # fmt: skip


def _otherwise(table: Table, task: Task, given: bool) -> list[str]:
    """Comments on what was guessed: columns left out, what texts among them are good for, and inputs that could be the label as well."""
    left, values = [c for c in table.columns if c not in (*task.columns, *task.extras, *CHATS)], _values(table.rows, task.inputs)
    found = [f"# left out: {', '.join(left)}"] if left and not given else []
    texts = [c for c in _free(table) if c in left and any(" " in str(r.get(c)) for r in table.rows)] if task.kind == "plain" and not given else []
    found += [f"# {c} is a text too: --inputs {c} writes it alone, --inputs {task.inputs[0]} --target {c} one from the other" for c in texts]
    labels = [c for c in task.inputs if len(values[c]) <= min(MOST_LABELS, len(table.rows) // 2)] if task.has_labels and not given else []
    found += [f"# {c} has {len(values[c])} values: --target {c} would predict it" for c in labels]
    return ["".join(sign if sign.isprintable() else " " for sign in line) for line in found]  # a comment is one line


def _values(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, set[str]]:
    return {c: {str(r.get(c)) for r in rows} for c in columns}


def _test(task: Task, rows: int) -> str:
    """The line that says which rows are tested: of few ones each, in folds."""
    from seedbed.gain import FOLDS, MIN_FOLDED, MIN_TEST

    if task.target and MIN_FOLDED <= rows < 2 * MIN_TEST:
        return f"folds = {FOLDS}                    # few rows: each is tested once, by rows grown without it, and none is given up"
    share = max(0.25, math.ceil(100 * MIN_TEST / rows) / 100) if rows >= 2 * MIN_TEST else 0.25
    return f"{f'test_share = {share:g}':<29}# measured on and never learned from; the more rows, the smaller the gains that can be shown"


def guess(table: Table, kind: str | None = None, inputs: Sequence[str] | None = None, target: str | None = None) -> Task:
    """The task of a labelled table; what is given is not guessed. Raises as `recipe_for`."""
    file, rows = table.source, table.rows
    columns = list(table.columns)
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
        raise DataError(f"{file}: the header {columns[0]!r} holds no comma: is the file separated by another sign? Save it with commas.")
    problems = [f"--{o} {c!r}: {Path(file).name} has no such column. Allowed: {', '.join(columns)}.{did_you_mean(c, columns)}"
                for o, cs in (("inputs", inputs or []), ("target", [target] if target else [])) for c in cs if c not in columns]  # fmt: skip
    if kind is not None and kind not in get_args(Kind):
        problems.append(f"--task {kind!r} is no kind of task. Allowed: {', '.join(get_args(Kind))}.{did_you_mean(kind, get_args(Kind))}")
    if problems:
        raise RecipeError(problems)
    free = _free(table)
    if kind != "plain":
        target = target or _guess_target(rows, free)
    names = list(inputs) if inputs else [c for c in free if c != target]
    if not names:
        raise DataError(f"{file}: no column is left to be an input. It has: {', '.join(columns)}. Name them with --inputs and --target.")
    kind = kind or _guess_kind(rows, names, target)
    lists = [] if inputs else _lists(rows, names)
    references = next((c for c in lists if c.lower() == "references" and kind == "data2text"), None)
    if lists and kind in ("data2text", "code"):  # of code the only list is its asserts
        names = [c for c in names if (c in lists) == (kind == "data2text") and c != references] or names
    tests = lists[0] if kind == "code" and len(lists) == 1 else None
    if kind == "plain":
        names, target = names[:1] if inputs else [max(names, key=lambda c: sum(len(str(r.get(c))) for r in rows))], None
    try:
        return Task(kind=kind, inputs=tuple(names), target=target, tests=tests, references=references)  # type: ignore[arg-type]
    except ValueError as error:
        raise RecipeError([f"{file}: {error} Name the columns with --inputs and --target."]) from error


def _free(table: Table) -> list[str]:
    """Columns that can be inputs or target by their names and values."""
    free = [c for c in table.columns if c.lower() not in SKIPPED and c not in CHATS]
    return [c for c in free if c.lower() in TARGETS or not _no_text(table.rows, c)] or free  # answers may be numbers


def _no_text(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Whether the column only tells rows apart (each value is another, and a number or a word with a digit in it), holds dates or is mostly blank."""
    values = [str(r.get(column)) for r in rows]
    if sum(r.get(column) is None or not str(r[column]).strip() for r in rows) > len(rows) / 2:
        return True
    apart = len(set(values)) == len(values) > 1 and all(re.fullmatch(r"\S*\d\S*", v) for v in values)
    return apart or all(DATE.fullmatch(v) for v in values)


def _guess_target(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str | None:
    """A column with a target's name, the only text beside lists before others; else such a text of any name; else the one with the fewest values,
    when they repeat; else none."""
    lowered = {c.lower(): c for c in columns}
    texts = [c for c in columns if any(isinstance(r.get(c), str) and " " in r[c] for r in rows)]
    lone = texts[0] if len(texts) == 1 and _lists(rows, columns) else ""
    if lone.lower() in TARGETS:
        return lone
    for name in TARGETS[:-1]:
        if name in lowered and len(columns) > 1:
            return lowered[name]
    if lone:
        return lone
    counts = {c: len(found) for c, found in _values(rows, columns).items()}
    best = min(counts, key=lambda c: counts[c]) if len(counts) > 1 else None
    return best if best and counts[best] <= min(MOST_LABELS, len(rows) // 2) else None


def _lists(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    return [c for c in columns if isinstance(rows[0].get(c), list)]


def _guess_kind(rows: Sequence[Mapping[str, Any]], inputs: Sequence[str], target: str | None) -> str:
    if target is None:
        return "plain"
    lowered = {c.lower() for c in inputs}
    if "code" in target.lower():
        return "code"
    if _lists(rows, inputs):
        return "data2text"
    if "question" in lowered and "####" in str(rows[0].get(target)):
        return "math"
    values = {str(r.get(target)) for r in rows}
    if len(values) <= min(MOST_LABELS, max(2, len(rows) // 2)):
        if "question" in lowered and len(inputs) > 1:
            return "qa"
        return "pair" if lowered & {"premise", "hypothesis", "sentence2"} and len(inputs) > 1 else "classification"
    return "text2text"

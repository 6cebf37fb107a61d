"""What must hold of every input, however broken: a value or a typed error that says where, soon, and never a traceback.

`TARGETS` take bytes (atheris finds them by coverage), `STRUCTURED` are hypothesis tests of inputs that are nearly right. Few inputs of both run in
test_fuzz.py, a million in benchmarks/fuzz.py.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import signal
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from seedbed import arithmetic, cli, recipe
from seedbed.errors import DataError, ParseError, RecipeError
from seedbed.evaluate import read_rows
from seedbed.jsonfile import rows_of
from seedbed.programs import trial
from seedbed.recipe import Recipe
from seedbed.task import Task

FOLDER = Path(tempfile.mkdtemp(prefix="seedbed-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
SOON = 10.0
"""Seconds of CPU after which an input counts as a hang."""
TASKS = (
    Task("classification", ("text",), "label", ("no", "yes")),
    Task("pair", ("premise", "hypothesis"), "label", ("no", "yes")),
    Task("data2text", ("triples",), "text", references="refs"),
    Task("code", ("text",), "code", tests="tests"),
    Task("plain", ("text",)),
)
RECIPE: dict[str, Any] = {
    "name": "a", "seed": 1, "sample": {"path": "a.csv", "dev_share": 0.2}, "task": {"kind": "classification", "inputs": ["text"], "target": "label"},
    "engine": {"kind": "toy"}, "generator": {"kind": "soft", "prompt": "mc", "tokens": 4}, "generate": {"count": 5, "temperature": 1.0, "top_p": 0.9},
    "filter": [{"kind": "form"}, {"kind": "dedup"}], "metric": [{"kind": "memorisation"}], "student": {"kind": "linear", "features": "tfidf"},
    "gain": {"seeds": 1, "volumes": [1, 2.5]}, "evaluate": {"columns": {"text": "a.b"}, "labels": {"0": "no"}},
}  # fmt: skip
counted: Counter[str] = Counter()
"""`target: what became of it` -> inputs."""


def count(name: str, outcome: str) -> None:
    counted[f"{name}: {outcome}"] += 1


@contextlib.contextmanager
def soon() -> Iterator[None]:
    """Raises TimeoutError where the block takes more than `SOON` of this process's CPU."""

    def late(*_: object) -> None:
        raise TimeoutError(f"over {SOON} s of CPU")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, SOON)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def measuring(task: Task) -> Recipe:
    """A recipe around a task."""
    (FOLDER / "a.csv").write_text("text,label\na,no\n")
    values = {"kind": task.kind, "inputs": list(task.inputs), "target": task.target, "tests": task.tests, "references": task.references}
    return recipe.build({"sample": {"path": "a.csv"}, "task": {k: v for k, v in values.items() if v}}, FOLDER)


RECIPES = [measuring(task) for task in TASKS]


def table(name: str, path: Path, kind: int) -> None:
    """A file is read as rows of a task, refused row by row with the place, or refused with its name."""
    task = TASKS[kind % len(TASKS)]
    try:
        judged, _ = read_rows(str(path), task, RECIPES[kind % len(TASKS)])
    except DataError as error:
        assert str(path) in str(error), f"the error does not name the file: {error}"
        count(name, "refused")
        return
    for row in judged.refused:
        assert str(path) in row["text"] and row["reason"], row
    for candidate in judged.rows:
        assert candidate.fields is not None and task.parse(task.render(candidate.fields)) == candidate.fields
    count(name, "read" if judged.rows else "every row refused")


def file(suffix: str) -> Callable[[bytes], None]:
    def read_file(data: bytes) -> None:
        path = FOLDER / f"file{suffix}"
        # Of gzipped files one in two is whole, so that what is inside is read too.
        path.write_bytes(gzip.compress(data[1:], 1) if suffix.endswith(".gz") and data[:1] < b"\x80" else data)
        with soon():
            table(suffix, path, len(data))

    return read_file


def rows(data: bytes) -> None:
    """JSON: the items that json itself reads, or its own kind of error."""
    text = data.decode("utf-8", "replace")
    with soon():
        try:
            found = [row for row, _ in rows_of(text)]
        except (ValueError, RecursionError):
            count("json rows", "refused")
            return
    whole = json.loads(text)
    lists = [whole] if isinstance(whole, list) else [v for v in whole.values() if isinstance(v, list) and v and all(isinstance(x, dict) for x in v)]
    assert json.dumps(found) in map(json.dumps, lists)
    count("json rows", "read")


def written(data: bytes) -> None:
    """A generated text is parsed to fields that render to the same again, or has a reason; so are programs and marks of arithmetic."""
    text = data.decode("utf-8", "replace")
    with soon():
        task = TASKS[len(data) % len(TASKS)]
        try:
            fields = task.parse(text)
        except ParseError as error:
            assert error.reason
            count("texts", "refused")
        else:
            assert task.parse(task.render(fields)) == fields
            count("texts", "read")
        for mark in arithmetic.marks(text):
            arithmetic.true(mark)
            arithmetic.result(mark)
        arithmetic.final_number(text)
        arithmetic.results(text)


def programs(data: bytes) -> None:
    """A program and its asserts are taken apart, or have a problem."""
    program, _, asserts = data.decode("utf-8", "replace").partition("\n\n")
    with soon():
        try:
            trial(program, asserts.split("\n")).emptied()
        except ParseError as error:
            assert error.reason
            count("programs", "refused")
        else:
            count("programs", "read")


def toml(data: bytes) -> None:
    """A recipe's file is a recipe that writes itself down, or has problems."""
    path = FOLDER / "recipe.toml"
    path.write_bytes(data)
    with soon():
        try:
            found = recipe.load(path)
        except RecipeError as error:
            assert error.problems and all(error.problems)
            count("recipes", "refused")
            return
        assert same(found)
    count("recipes", "read")


def same(found: Recipe) -> bool:
    return recipe.build(tomllib.loads(found.to_toml()), FOLDER) == found


def status(*words: str) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of the command line."""
    before, out, err = sys.argv, io.StringIO(), io.StringIO()
    sys.argv = ["seedbed", *words]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
        code: object = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = before
    assert isinstance(code, int)
    return code, out.getvalue(), err.getvalue()


def commands(data: bytes) -> None:
    """`check` and `init` end with the status that belongs to what they say."""
    path = FOLDER / "given.toml"
    path.write_bytes(data)
    with soon():
        code, _, said = status("check", str(path))
    assert code in (0, 2) and "Traceback" not in said and (code == 0) == (not said), (code, said)
    count("seedbed check", f"status {code}")
    suffix = (".csv", ".jsonl", ".json")[len(data) % 3]
    path = FOLDER / f"given{suffix}"
    path.write_bytes(data)
    with soon():
        code, printed, said = status("init", str(path))
    assert code in (0, 1, 2) and "Traceback" not in said and (code == 0) == (not said), (code, said)
    assert code or tomllib.loads(printed)["task"]
    count("seedbed init", f"status {code}")


SEEDS = {
    ".csv": [b'text,label\n"a, ""b""\nc",yes\n', b"premise,hypothesis,label\na,b,no\n", b"\xef\xbb\xbftext;label\r\na;no\r\n"],
    ".tsv": [b"text\tlabel\na\tyes\n"],
    ".jsonl": [
        b'{"text": "a", "label": "yes"}\n{"text": 1.5}\n',
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "no"}]}\n',
        b'{"triples": [["a", "b", "c"]], "text": "x", "refs": ["y"]}\n',
        b'{"generic_request": {"original_row": {"a": 1}}, "response_message": "no"}\n',
        b'{"text": "a", "metadata": {"label": "yes"}}\n',
        b'{"instruction": "a", "input": "Premise: b\\nHypothesis: c", "output": "no"}\n',
    ],
    ".json": [b'[{"text": "a", "label": "yes"},\n{"text": "b"}]', b'{"s": 1, "qa_pairs": [{"question": "a", "answer": "no"}], "t": [1]}'],
    ".jsonl.gz": [b'\x00{"text": "a", "label": "yes"}\n'],
    "rows": [b'[{"a": 1}, [], "b\\u00e9", null, -1.5e3]', b'{"a": [{}], "b": {"c": [1]}}'],
    "written": [
        b"Label: yes\nText: a\n\\Label: b",
        b"Premise: a\nHypothesis: b\nLabel: no",
        b"48/2 <<48/2=24>>24\n<<2**3%5=3>>\n#### 1,000.50",
        b'Triples: [["a"]]\nText: b',
        b'Text: a\nTests: ["assert f(1) == 2"]\nCode: x',
    ],
    "programs": [
        b"def f(a, *, b=1):\n    return [a for a in b]\n\nassert f(1) == 2\nassert f([1, {'a': (2,)}]) == f(3)",
        b"import math\n\nassert math.isclose(1, 1)",
    ],
    "toml": [RECIPES[0].to_toml().encode(), RECIPES[3].to_toml().encode()],
    "commands": [
        b'name = "a"\n[sample]\npath = "a.csv"\n[task]\nkind = "classification"\ninputs = ["text"]\ntarget = "label"\n',
        b"text,label\na,yes\nb,no\n",
        b'{"question": "a", "answer": "#### 1"}\n',
        b'[{"premise": "a", "hypothesis": "b", "label": "c"}]',
    ],
}
"""What atheris starts from."""
TARGETS: dict[str, Callable[[bytes], None]] = {
    **{suffix: file(suffix) for suffix in (".csv", ".tsv", ".jsonl", ".json", ".jsonl.gz")},
    "rows": rows, "written": written, "programs": programs, "toml": toml, "commands": commands,
}  # fmt: skip


# --- inputs that are nearly right: hypothesis

TEXT = st.text(max_size=12)
ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from(["yes", "no", "Label: yes", "Premise: a\nHypothesis: b", ""])
VALUES = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6)
TURNS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": TEXT})
    | st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt", "x"]), "value": TEXT | st.none()}),
    max_size=4,
)
NAMES = (
    "text label labels message premise hypothesis triples refs code tests id prompt response completion instruction input output generation "
    "question answer messages conversations metadata generic_request response_message parsed_response_message Text content"
).split()
CELLS = VALUES | TURNS | st.fixed_dictionaries({"label": ATOMS}) | st.sampled_from(["yes", "no", "a text"]) | st.lists(TURNS, max_size=1)
RECORDS = st.lists(st.dictionaries(st.sampled_from(NAMES), CELLS, max_size=6), min_size=1, max_size=4)
FORMS = st.sampled_from([".json", ".jsonl", "pairs", ".parquet", ".arrow"])


def stored(records: list[dict[str, Any]], form: str) -> Path:
    """A file of the records; JSON lines where Arrow has no type for them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = FOLDER / f"stored{form if form.startswith('.') else '.json'}"
    if form in (".parquet", ".arrow"):
        try:
            content = pa.Table.from_pylist(records)
            if form == ".parquet":
                pq.write_table(content, path)
            else:
                with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, content.schema) as stream:
                    stream.write_table(content)
            return path
        except (pa.ArrowException, UnicodeEncodeError, OverflowError, ValueError, TypeError):
            path, form = FOLDER / "stored.jsonl", ".jsonl"
    if form == ".jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in records))
    else:
        path.write_text(json.dumps({"n": 1, "qa_pairs": records} if form == "pairs" else records, indent=len(records) % 2 or None))
    return path


def records(found: list[dict[str, Any]], form: str) -> None:
    path = stored(found, form)
    with soon():
        table("records", path, len(json.dumps(found)))


def fields(values: list[str], kind: int) -> None:
    """What is rendered is parsed to the same, for stripped texts that are not empty."""
    task = TASKS[kind]
    texts = iter(values)
    given: dict[str, Any] = {name: [[next(texts)]] if name in task.structured else next(texts).strip() or "x" for name in task.columns}
    if task.has_labels:
        given[str(task.target)] = "yes"
    with soon():
        assert task.parse(task.render(given)) == given
    count("records rendered and parsed", "read")


PLACES = st.sampled_from(
    [(section, key) for section, inside in RECIPE.items() for key in (inside if isinstance(inside, dict) else [""])] + [("x", "y")]
)
CHANGES = st.lists(st.tuples(PLACES, st.sampled_from(["set", "drop", "rename"]), VALUES), max_size=3)


def changed(changes: list[tuple[tuple[str, str], str, Any]]) -> None:
    """A recipe with a few wrong places is a recipe that writes itself down, or has problems."""
    values = json.loads(json.dumps(RECIPE))
    for (section, key), how, value in changes:
        inside = values.setdefault(section, {})
        place, name = (inside, key) if key and isinstance(inside, dict) else (values, section)
        old = place.pop(name, None)
        if how != "drop":
            place[f"{name}s" if how == "rename" else name] = value if how == "set" else old
    with soon():
        try:
            found = recipe.build(values, FOLDER)
        except RecipeError as error:
            assert error.problems and all(error.problems)
            count("recipes changed", "refused")
        else:
            assert same(found)
            count("recipes changed", "read")


TRICKY = st.sampled_from(["Label: a", "\\Text: b", "a\nText: c\n\\\\Label: d"])
STRUCTURED: dict[str, tuple[Callable[..., None], dict[str, Any]]] = {
    "records": (records, {"found": RECORDS, "form": FORMS}),
    "fields": (fields, {"values": st.lists(st.text(max_size=40) | TRICKY, min_size=3, max_size=3), "kind": st.integers(0, len(TASKS) - 1)}),
    "changed": (changed, {"changes": CHANGES}),
}

"""Rows become examples, errors say where, splits do not leak, and others can open the dataset."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from seedbed.data import SampleSpec, examples, load_sample, read
from seedbed.dataset import ORIGIN, data_file, write_dataset
from seedbed.errors import DataError
from seedbed.task import Task
from seedbed.types import Candidate, Example, Sample

TICKETS = Task("classification", ("message",), "queue")
PASSAGES = Task("qa", ("passage", "question"), "label")
FACTS = Task("data2text", ("triples",), "text")


def put(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8", newline="")
    return path


def lines(rows: Iterable[object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def tickets(counts: dict[str, int]) -> list[dict[str, Any]]:
    return [{"message": f"{queue} message {i}", "queue": queue} for queue, n in counts.items() for i in range(n)]


def sample_of(tmp_path: Path, content: list[dict[str, Any]], task: Task = TICKETS, seed: int = 1, **spec: Any) -> Sample:
    put(tmp_path / "all.jsonl", lines(content))
    return load_sample(SampleSpec(path="all.jsonl", **spec), task, seed, tmp_path)


def ids(part: Iterable[Example]) -> set[str]:
    return {example.id for example in part}


ROWS = [{"message": 'printer, "old"\nand slow', "queue": "it"}, {"message": "é\u2028ü", "queue": "hr"}]
VALUES: list[tuple[Any, str]] = [
    (None, "no value"),
    (float("nan"), "no value"),
    ("", "the text is empty"),
    (" \n", "the text is empty"),
    (["a"], r"must be a text\. Got a list"),
    ("\ud83d", "holds half of a surrogate pair"),
]


@pytest.mark.parametrize(("value", "message"), VALUES, ids=[repr(value) for value, _ in VALUES])
def test_a_bad_text_names_line_and_column(tmp_path: Path, value: Any, message: str) -> None:
    put(tmp_path / "a.jsonl", "\n" + lines([{"message": "a", "queue": "it"}, {"message": value, "queue": "it"}]))
    with pytest.raises(DataError, match=rf"a\.jsonl, line 3, column 'message': {message}"):
        examples(read(tmp_path / "a.jsonl"), TICKETS)


def test_a_key_absent_from_one_row_and_an_empty_cell_are_named(tmp_path: Path) -> None:
    put(tmp_path / "a.jsonl", lines([{"message": "a", "queue": "it"}, {"message": "a"}]))
    with pytest.raises(DataError, match=r"a\.jsonl, line 2, column 'queue': no value"):
        examples(read(tmp_path / "a.jsonl"), TICKETS)
    with pytest.raises(DataError, match=r"b\.csv, line 4, column 'queue': the text is empty"):
        examples(read(put(tmp_path / "b.csv", 'message,queue\n"a\nb",it\nb,\n')), TICKETS)
    pq.write_table(pa.Table.from_pylist([*ROWS, {"message": "a", "queue": None}]), tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"c\.parquet, row 3, column 'queue': no value"):
        examples(read(tmp_path / "c.parquet"), TICKETS)


def test_numbers_become_texts_and_texts_are_stripped(tmp_path: Path) -> None:
    rows = [{"message": m, "queue": q} for m, q in [(" a\n", 1), (2.5, True), (10**20, False)]]
    found = examples(read(put(tmp_path / "a.jsonl", lines(rows))), TICKETS)
    assert [tuple(e.fields.values()) for e in found] == [("a", "1"), ("2.5", "true"), (str(10**20), "false")]


def test_a_wrong_column_lists_the_columns(tmp_path: Path) -> None:
    table = read(put(tmp_path / "a.csv", "Mesage,queue,Other\na,b,c\n"))
    with pytest.raises(DataError, match=r"a\.csv: no column 'message'\. The columns are \['Mesage', 'queue', 'Other'\]\. Did you mean 'Mesage'\?"):
        examples(table, TICKETS)
    with pytest.raises(DataError, match=r"no columns \['message', 'queue'\].*separated by another sign"):
        examples(read(put(tmp_path / "b.csv", "message;queue\na;b\n")), TICKETS)


def test_an_unknown_label_lists_the_labels(tmp_path: Path) -> None:
    table = read(put(tmp_path / "a.csv", "message,queue\na,billing\nb,biling\n"))
    task = Task("classification", ("message",), "queue", labels=("billing", "it"))
    with pytest.raises(DataError, match=r"line 3, column 'queue': unknown label 'biling'\. Allowed: \['billing', 'it'\]\. Did you mean 'billing'\?"):
        examples(table, task)
    assert len(examples(table, TICKETS)) == 2


def test_ids_come_from_the_file_and_are_unique(tmp_path: Path) -> None:
    table = read(put(tmp_path / "a.csv", "id,message,queue\nx,a,it\n7,b,it\n"))
    assert [e.id for e in examples(table, TICKETS)] == ["x", "7"]
    assert [e.id for e in examples(read(put(tmp_path / "c.csv", "message,queue\na,it\nb,it\n")), TICKETS)] == ["c-1", "c-2"]
    with pytest.raises(DataError, match=r"b\.csv, line 4, column 'id': 'x' stands in line 2 too"):
        examples(read(put(tmp_path / "b.csv", "id,message,queue\nx,a,it\ny,a,it\nx,b,it\n")), TICKETS)


def test_lists_are_lists_or_json(tmp_path: Path) -> None:
    table = read(put(tmp_path / "a.csv", 'triples,text\n"[[""a"", ""b"", ""c""]]",a b c\n'))
    assert examples(table, FACTS)[0].fields["triples"] == [["a", "b", "c"]]
    for value, got in (('{"a": 1}', r"Got \{'a': 1\}"), ("a b c", "Got the text 'a b c'"), ("3", "Got 3")):
        put(tmp_path / "b.jsonl", lines([{"triples": [], "text": "a"}, {"triples": value, "text": "a"}]))
        with pytest.raises(DataError, match=rf"b\.jsonl, line 2, column 'triples': must be a list, in CSV as JSON\. {got}"):
            examples(read(tmp_path / "b.jsonl"), FACTS)


def test_scoring_columns_come_along(tmp_path: Path) -> None:
    task = Task("data2text", ("triples",), "text", references="references")
    put(tmp_path / "a.jsonl", lines({"triples": [i], "text": f"t{i}"} for i in range(9)))
    put(tmp_path / "t.jsonl", lines([{"triples": [1], "text": "t", "references": ["t", "u"]}]))
    sample = load_sample(SampleSpec(fit="a.jsonl", test="t.jsonl"), task, 1, tmp_path)
    assert sample.test[0].fields["references"] == ["t", "u"]
    assert sample.fit[0].fields["references"] == [sample.fit[0].fields["text"]]
    with pytest.raises(DataError, match=r"a\.jsonl: no column 'references'"):
        load_sample(SampleSpec(path="a.jsonl"), task, 1, tmp_path)
    put(tmp_path / "t.jsonl", lines([{"triples": [1], "text": "t", "references": []}]))
    with pytest.raises(DataError, match=r"t\.jsonl, line 1, column 'references': must be a list of one or more texts"):
        load_sample(SampleSpec(fit="a.jsonl", test="t.jsonl"), task, 1, tmp_path)


# --- splits -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [{}, {"rows": 40}, {"fraction": 0.5}, {"test_share": 0.0}])
def test_every_row_is_in_one_part(tmp_path: Path, spec: dict[str, Any]) -> None:
    sample = sample_of(tmp_path, tickets({"a": 60, "b": 30, "c": 10}), **spec)
    parts = [sample.fit, sample.dev, sample.test, sample.more]
    assert sum(map(len, parts)) == 100
    assert len(set().union(*map(ids, parts))) == 100
    assert len(sample.test) == (0 if spec.get("test_share") == 0 else 25)
    assert sample.n == {"rows": 40, "fraction": 38}.get(next(iter(spec), ""), 100 - len(sample.test))


def test_labels_are_spread_in_proportion(tmp_path: Path) -> None:
    sample = sample_of(tmp_path, tickets({"a": 80, "b": 40, "c": 20, "lone": 1, "two": 2}), test_share=0.25, dev_share=0.2)
    count = {part: Counter(e.fields["queue"] for e in getattr(sample, part)) for part in ("fit", "dev", "test")}
    assert count["test"] == {"a": 20, "b": 10, "c": 5, "two": 1}
    assert count["dev"] == {"a": 12, "b": 6, "c": 3}
    assert count["fit"] == {"a": 48, "b": 24, "c": 12, "lone": 1, "two": 1}
    assert sample.task.labels == ("a", "b", "c", "lone", "two")


def test_few_rows_still_show_every_label(tmp_path: Path) -> None:
    counts = {"large": 300} | {f"small {i}": 3 for i in range(15)}
    for seed in range(5):
        sample = sample_of(tmp_path, tickets(counts), seed=seed, rows=30)
        assert sample.n == 30
        assert {e.fields["queue"] for e in sample.fit} == set(counts)


def test_a_seed_redraws_fit_and_dev_and_never_the_test(tmp_path: Path) -> None:
    rows = tickets({"a": 60, "b": 40})
    first, again, other = (sample_of(tmp_path, rows, seed=seed, rows=30) for seed in (1, 1, 2))
    assert first == again
    assert first.test == other.test
    assert ids(first.fit) != ids(other.fit)
    assert ids(first.dev) != ids(other.dev)
    assert ids(first.more) != ids(other.more)


@pytest.mark.parametrize("spec", [{}, {"rows": 50}])
def test_a_passage_never_stands_on_two_sides(tmp_path: Path, spec: dict[str, Any]) -> None:
    rows = [{"passage": f"p{i % 40}", "question": f"q{i}", "label": "yes" if i % 3 else "no"} for i in range(240)]
    sample = sample_of(tmp_path, rows, PASSAGES, **spec)
    fit, dev, test, more = ({e.fields["passage"] for e in part} for part in (sample.fit, sample.dev, sample.test, sample.more))
    assert not fit & dev
    assert not (fit | dev | more) & test
    assert not dev & more
    assert sample.n == spec.get("rows", 240 - len(sample.test))
    assert 54 <= len(sample.test) <= 60
    assert 0.1 <= len(sample.dev) / sample.n <= 0.2


def test_groups_and_passages_are_kept_together_through_each_other(tmp_path: Path) -> None:
    task = Task("qa", ("passage", "question"), "label", group="group")
    rows = [{"passage": f"p{i // 4}", "question": f"q{i}", "group": f"g{(i + 2) // 4}", "label": "ab"[i % 2]} for i in range(8)]
    rows += [{"passage": f"r{i // 2}", "question": f"q{i}", "group": f"h{i // 2}", "label": "ab"[i % 2]} for i in range(40)]
    for seed in range(5):
        sample = sample_of(tmp_path, rows, task, seed=seed)
        for column in ("passage", "group"):
            fit, dev, test = ({e.fields[column] for e in part} for part in (sample.fit, sample.dev, sample.test))
            assert not fit & dev
            assert not (fit | dev) & test
        chain = [{"p0", "p1"} & {e.fields["passage"] for e in part} for part in (sample.fit, sample.dev, sample.test)]
        assert sorted(map(len, chain)) == [0, 0, 2]  # p0 and p1 share group g1


def test_large_passages_still_give_a_dev(tmp_path: Path) -> None:
    rows = [{"passage": f"p{i % 3}", "question": f"q{i}", "label": "ab"[i // 3 % 2]} for i in range(60)]
    sample = sample_of(tmp_path, rows, PASSAGES)
    assert [len(part) for part in (sample.fit, sample.dev, sample.test)] == [20, 20, 20]


def test_a_repeated_input_is_not_split(tmp_path: Path) -> None:
    rows = [row for row in tickets({"a": 40, "b": 40}) for _ in range(2)]
    sample = sample_of(tmp_path, rows)
    fit, dev, test = ({e.fields["message"] for e in part} for part in (sample.fit, sample.dev, sample.test))
    assert not fit & dev
    assert not (fit | dev) & test


def test_given_files_are_used_as_they_are(tmp_path: Path) -> None:
    for name, n in (("fit", 40), ("dev", 20), ("test", 15)):
        (tmp_path / name).mkdir()
        put(tmp_path / name / "data.jsonl", lines(tickets({"a": n, "b": n})))
    put(tmp_path / "pool.jsonl", lines({"message": f"unlabelled {i}"} for i in range(5)))
    files = {name: f"{name}/data.jsonl" for name in ("fit", "dev", "test")}
    sample = load_sample(SampleSpec(**files, pool=str(tmp_path / "pool.jsonl")), TICKETS, 1, tmp_path)
    assert [len(p) for p in (sample.fit, sample.dev, sample.test, sample.pool, sample.more)] == [80, 40, 30, 5, 0]
    assert sample.fit[0].id == "fit:data-1"
    assert dict(sample.pool[0].fields) == {"message": "unlabelled 0"}
    few = load_sample(SampleSpec(**files, rows=10), TICKETS, 1, tmp_path)
    assert [len(p) for p in (few.fit, few.dev, few.test, few.more)] == [10, 10, 30, 70]
    assert Counter(e.fields["queue"] for e in (*few.fit, *few.dev)) == {"a": 10, "b": 10}
    untested = load_sample(SampleSpec(fit=files["fit"], dev=files["dev"]), TICKETS, 1, tmp_path)
    assert [len(p) for p in (untested.fit, untested.dev, untested.test)] == [60, 40, 20]


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"all\.jsonl: 2 rows give .* at least 2 and 1 are needed"):
        sample_of(tmp_path, tickets({"a": 1, "b": 1}))
    with pytest.raises(DataError, match=r"all\.jsonl: 'rows' asks for 50 training rows\. Got 15 beside the test"):
        sample_of(tmp_path, tickets({"a": 10, "b": 10}), rows=50)
    with pytest.raises(DataError, match=r"all\.jsonl, column 'queue': a classification needs two labels or more\. Got \['a'\]"):
        sample_of(tmp_path, tickets({"a": 20}))
    with pytest.raises(DataError, match="'synthetic' has a name that the written dataset needs"):
        sample_of(tmp_path, tickets({"a": 20}), Task("text2text", ("message",), "synthetic"))


SPECS: list[tuple[dict[str, Any], str]] = [
    ({}, "Got neither"),
    ({"path": "a", "fit": "b"}, "Got both"),
    ({"path": "a", "test": "b"}, "'test' without 'fit'"),
    ({"dev": "c", "test": "b"}, "'dev' and 'test' without 'fit'"),
    ({"path": "a", "rows": 5, "fraction": 0.5}, "rows = 5 and fraction = 0.5"),
    ({"fit": "a", "test": "b", "test_share": 0.1}, "'test_share' has no use"),
    ({"path": "a", "rows": 1}, "greater than or equal to 2"),
    ({"path": "a", "fraction": 1.5}, "less than or equal to 1"),
    ({"path": "a", "paht": "b"}, "paht"),
    ({"path": "a", "license": "CC BY 4.0"}, "license"),
]


@pytest.mark.parametrize(("spec", "message"), SPECS)
def test_a_spec_that_contradicts_itself_is_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SampleSpec(**spec)


# --- the written dataset ------------------------------------------------------------------------------------------------------------

CARD = "---\nlicense: cc-by-4.0\n---\n# é\n"


def candidates(rows: Iterable[dict[str, Any]]) -> list[Candidate]:
    origin = {"sources": ["a-1", "a-2"], "weights": [0.25, 0.75], "generator": "soft", "note": "left out"}
    return [Candidate(f"c{i}", i, "", row, True, provenance=origin if i else {}) for i, row in enumerate(rows)]


def test_the_dataset_opens_elsewhere_and_is_equal_byte_for_byte(tmp_path: Path) -> None:
    task = Task("data2text", ("acts", "context"), "text")
    acts = [{"act": "INFORM", "slot": "city", "values": ["Bonn", 'a "b"']}, {"act": "REQUEST", "slot": "", "values": []}]
    rows = [{"acts": acts, "context": ["U: hi"], "text": f"line {i}\nü", "extra": "x"} for i in range(3)]
    for folder in ("one", "two"):
        write_dataset(tmp_path / folder, task, candidates(rows), lambda _: CARD)
    names = ["README.md", data_file(candidates(rows))]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert sorted(p.relative_to(tmp_path / "one").as_posix() for p in (tmp_path / "one").rglob("*") if p.is_file()) == names
    datasets = pytest.importorskip("datasets")
    opened = datasets.load_dataset(str(tmp_path / "one"), split="train", cache_dir=str(tmp_path / "cache"))
    assert opened.column_names == ["acts", "context", "text", "provenance", "synthetic"]
    unknown = dict.fromkeys(("sources", "weights", "generator", "model", "seed", "label", *ORIGIN))
    assert opened[0]["provenance"] == {"candidate": "c0", "index": 0, "annotations": [], **unknown}
    assert opened[1]["provenance"]["weights"] == [0.25, 0.75]
    assert set(opened["synthetic"]) == {True}
    again = examples(read(tmp_path / "one"), task)
    assert [dict(e.fields) for e in again] == [{k: row[k] for k in task.columns} for row in rows]


@pytest.mark.parametrize("triples", [[["a", 1]], [[1], [1.5]], [{"a": 1}, {"b": 2}], []])
def test_lists_of_mixed_types_come_back_as_they_were(tmp_path: Path, triples: list[Any]) -> None:
    write_dataset(tmp_path, FACTS, candidates([{"triples": triples, "text": "t"}]), lambda _: CARD)
    assert json.dumps(examples(read(tmp_path), FACTS)[0].fields["triples"]) == json.dumps(triples)


def test_a_candidate_without_fields_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without fields"):
        write_dataset(tmp_path, TICKETS, [Candidate("c", 0, "", None, True, "empty")], lambda _: CARD)
    assert not list(tmp_path.iterdir())

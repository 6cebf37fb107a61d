"""Every form of file holds the same rows, and every broken one says where it breaks."""

from __future__ import annotations

import gzip
import json
import sys
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seedbed.errors import DataError
from seedbed.readers import read


def put(path: Path, content: str | bytes) -> Path:
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def lines(rows: Iterable[object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


ROWS = [{"message": 'printer, "old"\nand slow', "queue": "it"}, {"message": "é\u2028ü", "queue": "hr"}]
CSV = '\ufeffmessage,queue\r\n"printer, ""old""\nand slow",it\r\n\r\né\u2028ü,hr\r\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.csv.gz", CSV),
        ("a.tsv", CSV.replace("e,q", "e\tq").replace('",it', '"\tit').replace(",hr", "\thr")),
        ("a.jsonl", lines(ROWS) + "\n"),
        ("a.JSONL.gz", "\n" + lines(ROWS)),
        ("a.json", json.dumps(ROWS)),
        ("a.json.gz", json.dumps(ROWS, indent=2)),
        ("a.json", lines(ROWS)),
        ("a.json", json.dumps({"summary": "s", "qa_pairs": ROWS, "talks": [[1]], "n": 2})),
    ],
)
def test_text_files_hold_the_same_rows(tmp_path: Path, name: str, content: str) -> None:
    table = read(put(tmp_path / name, content))
    assert [dict(row) for row in table.rows] == ROWS
    assert (table.stem, table.columns) == ("a", ("message", "queue"))


def test_parquet_folders_and_saved_datasets_hold_the_same_rows(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    (tmp_path / "parts").mkdir()
    for i, row in enumerate(ROWS):
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "parts" / f"train-{i:05}-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "b.parquet")
    saved = datasets.Dataset.from_list(ROWS).cast_column("queue", datasets.ClassLabel(names=["hr", "it"]))
    datasets.DatasetDict(train=saved).save_to_disk(tmp_path / "saved")
    saved.to_parquet(tmp_path / "classes.parquet")
    for place in ("parts", "b.parquet", "saved/train", "saved", "classes.parquet", "saved/train/data-00000-of-00001.arrow"):
        assert [dict(row) for row in read(tmp_path / place).rows] == ROWS, place
    datasets.DatasetDict(train=saved, test=saved).save_to_disk(tmp_path / "two")
    with pytest.raises(DataError, match=r"two: holds the splits \['test', 'train'\]"):
        read(tmp_path / "two")


def test_the_folders_of_other_tools_hold_rows(tmp_path: Path) -> None:
    for name in ("trove", "designer/parquet-files", "designer/more", "kit"):
        (tmp_path / name).mkdir(parents=True)
    for i, row in enumerate(ROWS):
        put(tmp_path / "trove" / f"{i:05}.jsonl.gz", "\n" + lines([row]))
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "designer/parquet-files" / f"batch_{i:05}.parquet")
        put(tmp_path / "kit" / f"{'ab'[i]}_qa_pairs.json", json.dumps({"qa_pairs": [row]}))
    put(tmp_path / "designer/metadata.json", "{}")
    put(tmp_path / "designer/more/notes.jsonl", GOOD)
    tables = [read(tmp_path / name) for name in ("trove", "designer", "kit")]
    assert [[dict(row) for row in table.rows] for table in tables] == [ROWS] * 3
    assert tables[0].at(1, "queue") == f"{tmp_path}/trove/00001.jsonl.gz, line 2, column 'queue'"
    (tmp_path / "designer/parquet-files").rename(tmp_path / "designer/other")
    with pytest.raises(DataError, match=r"designer: its folders \['more', 'other'\] each hold rows"):
        read(tmp_path / "designer")


def test_rows_of_json_keep_their_lines(tmp_path: Path) -> None:
    table = read(put(tmp_path / "a.json", '{"n": [1],\n "rows":\n [{"a": "[\\n"},\n\n  {"a":\n 2}, {"a": 3}\n]}'))
    assert ([row["a"] for row in table.rows], table.places) == (["[\n", 2, 3], (3, 5, 6))


def test_rows_of_json_that_share_a_line_are_named_by_their_number(tmp_path: Path) -> None:
    (tmp_path / "j").mkdir()
    one = read(put(tmp_path / "j/a.json", '[{"a": 1}, {"a": 2},\n {"a": 3}]'))
    assert [one.place(i) for i in range(3)] == [f"{tmp_path}/j/a.json, row {i}" for i in (1, 2, 3)]
    with pytest.raises(DataError, match=r"b\.json, row 2: must be one JSON object"):
        read(put(tmp_path / "b.json", '[{"a": 1}, 2]'))
    put(tmp_path / "j/b.json", '\n[{"a": 4},\n{"a": 5}]')
    both = read(tmp_path / "j")
    assert [both.place(i).rpartition("/")[2] for i in range(5)] == [f"a.json, row {i}" for i in (1, 2, 3)] + ["b.json, row 1", "b.json, row 2"]


def test_a_folder_of_several_splits_is_not_mixed(tmp_path: Path) -> None:
    for split in ("train", "test"):
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / f"{split}-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"several splits, \['test', 'train'\]"):
        read(tmp_path)


GOOD = '{"message": "a", "queue": "it"}\n'
BROKEN: list[tuple[str, str | bytes, str]] = [
    ("empty.csv", "", r"empty\.csv: is empty"),
    ("empty.jsonl", "\n \n", r"empty\.jsonl: holds no rows"),
    ("head.csv", "message,queue\n", r"head\.csv: holds a header and no rows"),
    ("twice.csv", "message,queue,queue\na,b,c\n", r"twice\.csv, line 1: the header names \['queue'\] more than once"),
    ("ragged.csv", "message,queue\na,it\nb,it,more\n", r"ragged\.csv, line 3: 3 cells, but the header has 2"),
    ("short.csv", 'message,queue\n"a\nb",it\nc\n', r"short\.csv, line 4: 1 cells, but the header has 2"),
    ("quote.csv", 'message,queue\na,it\n"b,it\nc,it\n', r"quote\.csv, line 3: .* a quote is never closed"),
    ("quote2.csv", 'message,queue\n"a"b,it\n', r"quote2\.csv, line 2: .*broken quoting"),
    ("bytes.csv", b"message,queue\nok,it\na\xffb,it\n", r"bytes\.csv, line 3: not UTF-8 at byte 21, counted from 0 \(0xff\)"),
    ("mac.csv", b"message,queue\ra,it\r", r"mac\.csv, line 1: holds a carriage return that ends no line\. Save the file with line ends LF"),
    ("bom.csv", b"\xef\xbb\xbfm\xff\n", r"bom\.csv, line 1: not UTF-8 at byte 4"),
    ("bytes.jsonl.gz", GOOD.encode() + b'"\xe9"\n', rf"bytes\.jsonl\.gz, line 2: not UTF-8 at byte {len(GOOD) + 1}"),
    ("broken.jsonl", GOOD + '{"message": "a", }\n', r"broken\.jsonl, line 2: broken JSON, .* at character 18"),
    ("array.jsonl", GOOD + "\n[1, 2]\n", r"array\.jsonl, line 3: must be one JSON object .* Got a list"),
    ("deep.jsonl", '{"a": ' + "[" * 200_000 + "\n", r"deep\.jsonl, line 1: "),
    ("digits.jsonl", '{"a": ' + "1" * 5000 + "}\n", r"digits\.jsonl, line 1: JSON that cannot be read"),
    (
        "key.jsonl",
        GOOD + '{"message": "a", "message": "b"}\n',
        r"key\.jsonl, line 2: JSON that cannot be read \(an object with the key 'message' twice\)",
    ),
    ("key.json", '[{"a": {"b": 1, "b": 2}}]', r"key\.json: JSON that cannot be read \(an object with the key 'b' twice\)"),
    ("none.parquet", b"PAR1 and no more", r"none\.parquet: a damaged Parquet file"),
    ("none2.parquet", b"", r"none2\.parquet: a damaged Parquet file"),
    ("none.arrow", b"ARROW1", r"none\.arrow: a damaged Arrow file"),
    ("a.txt", "[]", r"a\.txt: files of this kind are not read.*\.jsonl"),
    ("empty.json", "[]", r"empty\.json: holds no rows"),
    ("cut.json", '[{"a": 1},\n{"a": 2}', r"cut\.json, line 2: broken JSON, Expecting ',' or ']' at character 9"),
    ("more.json", "[{}]\n[{}]", r"more\.json, line 2: broken JSON, Extra data at character 1"),
    ("word.json", "  rows", r"word\.json, line 1: broken JSON, Expecting a list or an object at character 3"),
    ("names.json", "{1: [{}]}", r"names\.json, line 1: broken JSON, Expecting a name"),
    ("list.json", "[{},\n 2]", r"list\.json, line 2: must be one JSON object .* Got a int"),
    ("lists.json", '{"a": [{}], "b": [{}]}', r"lists\.json: JSON that cannot be read \(an object must hold one list of objects\. Got 2: a, b\)"),
    ("twice.json", '{"a": [{}], "a": 1}', r"twice\.json: JSON that cannot be read \(.* Got 0\)"),
    ("lists2.json", "{}", r"lists2\.json: JSON that cannot be read \(.* Got 0\)"),
    ("deep.json", "[" * 200_000, r"deep\.json: JSON that cannot be read"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN, ids=[name for name, _, _ in BROKEN])
def test_a_broken_file_says_where(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(put(tmp_path / name, content))


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    put(tmp_path / "tickets.csv", CSV)
    with pytest.raises(DataError, match=r"ticket\.csv: no such file\. Did you mean 'tickets\.csv'\?"):
        read(tmp_path / "ticket.csv")
    (tmp_path / "gone.csv").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"gone\.csv: no such file\. Correct the path"):
        read(tmp_path / "gone.csv")
    with pytest.raises(DataError, match="There is no folder"):
        read(tmp_path / "no" / "tickets.csv")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no file of rows is in it"):
        read(tmp_path / "none")


@pytest.mark.parametrize("keep", [10, 40, -4])
def test_a_cut_gzip_file_is_named(tmp_path: Path, keep: int) -> None:
    whole = gzip.compress(lines({"message": f"{i * 7919}", "queue": "it"} for i in range(2000)).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:keep])
    with pytest.raises(DataError, match=r"cut\.jsonl\.gz, after line \d+: the gzip file is damaged or cut short"):
        read(tmp_path / "cut.jsonl.gz")
    (tmp_path / "plain.csv.gz").write_text("message,queue\n")
    with pytest.raises(DataError, match=r"plain\.csv\.gz, after line 0: the gzip file is damaged"):
        read(tmp_path / "plain.csv.gz")


@pytest.mark.parametrize("name", ["long.jsonl", "long.csv", "long.jsonl.gz"])
def test_a_line_of_100_mb_is_refused_unread(tmp_path: Path, name: str) -> None:
    with gzip.open(tmp_path / name, "wb", 1) if name.endswith("gz") else (tmp_path / name).open("wb") as file:
        file.write(b"message,queue\n" if "csv" in name else b"{}\n")
        for _ in range(100):
            file.write(b"a" * 1_000_000)
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"{name}, line 2: over 10,000,000 bytes"):
        read(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


def test_a_quote_never_closed_in_a_large_file_ends_at_the_limit(tmp_path: Path) -> None:
    put(tmp_path / "open.csv", 'message,queue\n"a,it\n' + "b,it\n" * 3_000_000)
    with pytest.raises(DataError, match=r"open\.csv, line 2: .*over 10,000,000 characters"):
        read(tmp_path / "open.csv")


def test_a_long_document_is_no_error(tmp_path: Path) -> None:
    table = read(put(tmp_path / "long.csv", f"message,queue\n{'word ' * 100_000},it\n"))
    assert len(table.rows[0]["message"]) == 500_000


def test_hub_names_need_the_library_and_a_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"hub:owner/name: needs the library datasets\. Run: pip install 'seedbed\[datasets\]'"):
        read("hub:owner/name")
    with pytest.raises(DataError, match="not the name of a hub dataset"):
        read("hub:../secret/x:train")

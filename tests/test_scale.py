"""Many rows: what waits on disk is the same as what was held in memory, and what is held does not grow with the rows."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_run import AGREEING, LIGHT, ROOT, _snapshot

from seedbed import candidates as candidates_module
from seedbed import dataset, gain
from seedbed import recipe as recipes
from seedbed.candidates import complete, each_candidate, read_candidates
from seedbed.engines.toy import END, START, Toy, _Chain
from seedbed.errors import StoreError
from seedbed.filters.dedup import Dedup
from seedbed.gain import measure_gain
from seedbed.generators.hard import Hard
from seedbed.metrics.draws import in_order
from seedbed.run import run
from seedbed.store import Journal, Lines, read_parts, spilled, write_part
from seedbed.students.linear import Linear
from seedbed.testing import tiny_sample
from seedbed.types import Candidate, Completion, Example, Sampling, Teacher


def test_lines_on_disk_are_the_list(tmp_path: Path) -> None:
    rng = random.Random(1)
    records = [{"i": i, "text": rng.choice("aé\u2028\n") * rng.randrange(40)} for i in range(2500)]
    lines = spilled(tmp_path / "x.jsonl", records, dict)
    assert list(lines) == records and len(lines) == 2500
    assert [lines[0], lines[-1], lines[1777]] == [records[0], records[-1], records[1777]]
    assert lines[3:9] == records[3:9] and lines[::-500] == records[::-500]
    some = lines.take([5, 6, 2400])
    assert list(some) == [records[i] for i in (5, 6, 2400)] and some[-1] == records[2400]
    assert b"".join(lines.raw()) == (tmp_path / "x.jsonl").read_bytes()
    (tmp_path / "x.jsonl").unlink()
    assert lines[7] == records[7], "an open file is there under any name"
    with pytest.raises(StoreError, match="missing or damaged"):
        Lines(tmp_path / "x.jsonl", dict)


def test_a_chain_looked_up_is_the_chain_counted() -> None:
    texts, order = ["abcab", "ab", "", "bcabcabab"], 3
    counted: dict[str, Counter[str]] = {}
    for text in texts:
        padded = START * order + text + END
        for i in range(order, len(padded)):
            for length in range(1, order + 1):
                counted.setdefault(padded[i - length : i], Counter())[padded[i]] += 1
    chain = _Chain(texts, order)
    for seen in (START * 3, START * 2 + "a", START + "ab", "abc", "cab", "bab", "zab", "zzb"):
        known = next(counted[seen[-n:]] for n in (3, 2, 1) if seen[-n:] in counted)
        assert chain.after(seen) == known, seen
    assert chain.after("zzz") == Counter() and _Chain([], order).after(START * 3) == Counter()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    folder, sample = tmp_path_factory.mktemp("teacher"), tiny_sample()
    Hard(shots=4).fit(sample, "toy", 0, folder)
    return Hard(shots=4).load(folder, sample.task, "toy")


class Stops:
    """The toy engine, which stops for good after so many rows."""

    def __init__(self, teacher: Teacher, rows: int) -> None:
        self.session, self.rows = Toy().open(teacher.model), rows

    def complete(self, prompts: Any, sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        for i, found in enumerate(self.session.complete(prompts, sampling)):
            if i == self.rows:
                raise KeyboardInterrupt
            yield found


def test_a_journal_forgets_what_stands_in_parts(teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates_module, "JOURNAL", 2000)
    how: tuple[Any, ...] = (tiny_sample(), 300, 1, Sampling(1.0, 1.0, 60), 20)
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    complete(tmp_path / "whole", teacher, Toy().open(teacher.model), *how)
    for rows in (117, 3, 90):
        with pytest.raises(KeyboardInterrupt):
            complete(tmp_path / "cut", teacher, Stops(teacher, rows), *how)  # type: ignore[arg-type]
        held = [r["index"] for r in Journal(tmp_path / "cut/journal.jsonl").records]
        in_parts = {r["index"] for r in read_parts(tmp_path / "cut")}
        assert len(set(held) - in_parts) + len(in_parts) == {117: 117, 3: 120, 90: 210}[rows], "a finished row was lost"
        assert len(held) < 60, "the journal holds what parts hold"
    complete(tmp_path / "cut", teacher, Toy().open(teacher.model), *how)
    assert _snapshot(tmp_path / "cut") == _snapshot(tmp_path / "whole")


def test_every_bit_of_a_part_counts(tmp_path: Path) -> None:
    """A part with a bit flipped is refused or reads as it was; never as other rows."""
    path = tmp_path / "part-00000.parquet"
    rows = [{"index": i, "tokens": i, "candidates": [{"text": f"row {i * i}"}]} for i in range(30)]
    write_part(path, rows)
    whole, refused = path.read_bytes(), 0
    rng = random.Random(0)
    for place in rng.sample(range(len(whole)), 300):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
        try:
            assert list(read_parts(tmp_path)) == rows
        except StoreError:
            refused += 1
    assert refused > 100


@pytest.mark.slow
def test_rows_in_memory_do_not_grow_with_the_rows(teacher: Teacher, tmp_path: Path) -> None:
    peaks = []
    for rows in (500, 3000):
        folder = tmp_path / str(rows)
        folder.mkdir()
        tracemalloc.start()
        complete(folder, teacher, Toy().open(teacher.model), tiny_sample(), rows, 1, Sampling(1.0, 1.0, 12), 100)
        assert sum(1 for _ in each_candidate(folder, rows)) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_dedup_judges_what_waits_on_disk_alike(tmp_path: Path) -> None:
    rng = random.Random(2)
    words = ["mar", "tol", "ked", "sun", "vir"]
    texts = [" ".join(rng.choices(words, k=rng.randrange(1, 9))) for _ in range(600)]
    rows = [Candidate(f"c{i}", i, t, None if i % 50 == 7 else {"text": t, "label": "music"}, True) for i, t in enumerate(texts)]
    held = Dedup().judge(rows, tiny_sample())
    assert Dedup().judge(spilled(tmp_path / "x.jsonl", map(vars, rows), lambda r: Candidate(**r)), tiny_sample()) == held
    first: dict[str, int] = {}
    for i, (text, verdict) in enumerate(zip(texts, held, strict=True)):
        if rows[i].fields is None:
            assert verdict.keep
        elif text in first and held[first[text]].keep:
            assert verdict.reason == "exact duplicate"
        first.setdefault(text, i) if rows[i].fields else None
    assert {v.reason for v in held} == {"", "near duplicate", "exact duplicate"}
    assert [p.name for p in tmp_path.iterdir()] == ["x.jsonl"], "scratch files stay nowhere"


def test_rows_are_put_in_the_order_of_their_texts() -> None:
    sample, rng = tiny_sample(), random.Random(3)
    rows = [Example(str(i), {"text": rng.choice("aéß𐍈\uffff zZ") * rng.randrange(1, 4), "label": rng.choice("ab")}) for i in range(200)]
    ours = sorted(rows, key=lambda e: (e.fields["text"], e.fields["label"]))
    assert list(in_order(sample.task, rows)) == ours


@pytest.mark.slow
def test_smaller_groups_of_a_dataset_are_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    run(recipes.build(LIGHT, ROOT), tmp_path)
    file = next((tmp_path / "tiny/dataset/data").iterdir())
    rows, name = pq.read_table(file).to_pylist(), file.name
    monkeypatch.setattr(dataset, "GROUP", 7)
    run(recipes.build(LIGHT, ROOT), tmp_path)
    file = next((tmp_path / "tiny/dataset/data").iterdir())
    assert (file.name, pq.read_table(file).to_pylist()) == (name, rows) and pq.ParquetFile(file).num_row_groups > 5


def test_a_student_learns_from_so_many_rows_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = tiny_sample()
    sample = replace(sample, test=tuple(replace(e, id=f"{e.id}.{i}") for i in range(30) for e in sample.test))
    kept = [Example(f"k{i}", e.fields) for i in range(5) for e in sample.fit]
    monkeypatch.setattr(gain, "MOST_KEPT", 40)
    found = measure_gain(sample, kept, Linear("tfidf"), 0, seeds=1, volumes=(1, 100))
    assert found.arms["synthetic"].n_train == 40 and found.arms["both"].n_train == 40 + len(sample.fit)
    assert f"learns from 40 of the {len(kept)} kept rows" in found.note


@pytest.mark.slow
def test_a_million_rows_recipe_in_small(tmp_path: Path) -> None:
    """TF-IDF agreement, which a million rows can afford, through a whole run; the journal's batches change nothing."""
    raw = AGREEING | {"annotator": [{"kind": "classifier", "features": "tfidf"}], "metric": []}
    run(recipes.build(raw, ROOT), tmp_path / "a")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("annotations.TOGETHER", "annotators.classifier.TOGETHER", "sifting.JUDGED_TOGETHER"):
            patch.setattr(f"seedbed.{name}", 7)
        run(recipes.build(raw, ROOT), tmp_path / "b")
    assert _snapshot(tmp_path / "a") == _snapshot(tmp_path / "b")
    dropped = [json.loads(line) for line in next(tmp_path.glob("a/tiny/kept-*/dropped.jsonl")).read_text().splitlines()]
    order = [d["filter"] for d in dropped]
    assert order == sorted(order, key=["form", "agreement", "dedup"].index) and "agreement" in order
    assert len(read_candidates(next(tmp_path.glob("a/tiny/candidates-*")), 120)) == 120

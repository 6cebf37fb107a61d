"""filter select: the chosen rows lie where fit rows lie."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from seedbed.filters.select import Select, _shares
from seedbed.testing import tiny_sample
from seedbed.types import Candidate, Sample


def made(sample: Sample, rows: list[tuple[str, str]]) -> list[Candidate]:
    fields: list[dict[str, Any]] = [{"text": text, "label": label} for text, label in rows]
    return [Candidate(f"c{i}", i, sample.task.render(f), f, True) for i, f in enumerate(fields)]


NEAR = [
    ("will it rain by the sea today", "weather"),
    ("play a slow tune for supper", "music"),
    ("is there snow in the north now", "weather"),
    ("turn the radio off", "music"),
]
FAR = [
    ("integral of a smooth function", "weather"),
    ("the senate passed the bill", "music"),
    ("mitochondria divide in two", "weather"),
    ("buy low and sell high", "music"),
]


@pytest.mark.parametrize("method", ["mmd", "ngrams"])
def test_rows_like_fit_are_chosen_before_others(method: Any) -> None:
    sample = tiny_sample()
    candidates = made(sample, [*FAR, *NEAR])
    kept = [c.id for c, v in zip(candidates, Select(method, rows=4).judge(candidates, sample), strict=True) if v.keep]
    assert kept == [c.id for c in candidates[4:]]


def test_herding_spreads_instead_of_choosing_the_likest_row_again_and_again() -> None:
    sample = tiny_sample()
    same = [("will it rain in the north", "weather")] * 6
    candidates = made(sample, [*same, ("how warm is it by the sea", "weather"), ("tell me if the wind drops tonight", "weather")])
    kept = [i for i, v in enumerate(Select(rows=3).judge(candidates, sample)) if v.keep]
    assert {6, 7} <= set(kept)


@pytest.mark.parametrize("real", [["will it rain in the north"], ["will it rain in the north"] * 3])
def test_of_a_label_whose_fit_rows_are_all_one_the_likest_candidate_is_chosen_first(real: list[str]) -> None:
    sample = tiny_sample()
    of_label = [e for e in sample.fit if e.fields["label"] == "weather"]
    fit = [e for e in sample.fit if e.fields["label"] == "music"]
    fit += [replace(e, fields=dict(e.fields) | {"text": text}) for e, text in zip(of_label, real, strict=False)]
    candidates = made(sample, [*((text, "weather") for text, _ in [*FAR, *NEAR[1::2]]), ("will it rain in the north today", "weather")])
    verdicts = Select(rows=1).judge(candidates, replace(sample, fit=tuple(fit)))
    assert [i for i, v in enumerate(verdicts) if v.keep] == [6]


@pytest.mark.parametrize("method", ["mmd", "ngrams"])
def test_a_candidate_takes_few_bytes_more(method: Any) -> None:
    sample = tiny_sample()
    sample = replace(sample, fit=(sample.fit * 1000)[:1000])

    def peak(candidates: list[Candidate]) -> int:
        tracemalloc.start()
        try:
            Select(method, rows=1, by_label=False).judge(candidates, sample)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    candidates = made(sample, NEAR * 150)
    Select(method, rows=1).judge(candidates[:4], sample)  # what is loaded once
    assert (peak(candidates) - peak(candidates[:300])) / 300 < 8000  # of which 1,536 are the features of a sentence


def test_labels_keep_the_shares_of_fit() -> None:
    sample = tiny_sample()
    fit = tuple(e for e in sample.fit if e.fields["label"] == "music") + tuple(e for e in sample.fit if e.fields["label"] == "weather")[:4]
    candidates = made(sample, [(f"{text} {i}", label) for i in range(10) for text, label in NEAR])
    verdicts = Select(rows=16).judge(candidates, replace(sample, fit=fit))
    kept = Counter(str((c.fields or {})["label"]) for c, v in zip(candidates, verdicts, strict=True) if v.keep)
    assert kept == {"music": 12, "weather": 4}


@pytest.mark.parametrize(
    ("there", "real", "rows", "found"),
    [
        ({"a": 9, "b": 9}, {"a": 3, "b": 1}, 8, {"a": 6, "b": 2}),
        ({"a": 2, "b": 9}, {"a": 3, "b": 1}, 8, {"a": 2, "b": 6}),
        ({"a": 2, "b": 3}, {"a": 3, "b": 1}, 8, {"a": 2, "b": 3}),
        ({"a": 5, "b": 5, "c": 5}, {"a": 1, "b": 1, "c": 1}, 4, {"a": 2, "b": 1, "c": 1}),
        ({"a": 99, "b": 99, "c": 99}, {"a": 50, "b": 30, "c": 20}, 3, {"a": 1, "b": 1, "c": 1}),
        ({"a": 99, "b": 1, "c": 99}, {"a": 50, "b": 30, "c": 20}, 10, {"a": 6, "b": 1, "c": 3}),
        ({"a": 5, "x": 5}, {"a": 1}, 6, {"a": 5, "x": 1}),
    ],
)
def test_rows_are_shared_out_as_far_as_there_are_candidates(there: dict[str, int], real: dict[str, int], rows: int, found: dict[str, int]) -> None:
    assert _shares(there, real, rows) == found


def test_no_part_is_a_row_from_its_share_where_there_are_candidates_enough() -> None:
    real = {f"{i:02d}": 300 // (i + 1) for i in range(60)}
    found = _shares(dict.fromkeys(real, 999), real, 100)
    assert sum(found.values()) == 100
    assert all(abs(found[name] - 100 * count / sum(real.values())) < 1 for name, count in real.items())


def test_dev_and_test_are_not_read() -> None:
    sample = tiny_sample()
    candidates = made(sample, [*FAR, *NEAR])
    assert Select(rows=3).judge(candidates, sample) == Select(rows=3).judge(candidates, replace(sample, dev=(), test=()))

"""Known answers and laws of distinct-n, self-BLEU, the Vendi score and the compression ratio."""

from __future__ import annotations

import math
import random
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from seedbed.metrics.diversity import UNITS, Diversity, Grams, compression_ratio, vendi
from seedbed.task import Task
from seedbed.types import Example, Measure, Sample

VERBS, THINGS = ["set", "stop", "play", "find", "lose", "send"], ["lamp", "radio", "alarm", "door", "song", "train", "mail", "oven", "list", "game"]


def texts_of(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join([draw.choice(VERBS), "the", *(draw.choice(THINGS) for _ in range(draw.randint(1, 5)))]) for _ in range(count)]


def examples(texts: Sequence[str]) -> tuple[Example, ...]:
    return tuple(Example(str(i), {"text": text}) for i, text in enumerate(texts))


def sample(fit: Sequence[str], test: Sequence[str]) -> Sample:
    return Sample(Task("plain", ("text",)), examples(fit), (), examples(test))


def measured(kept: Sequence[str], test: Sequence[str], fit: Sequence[str], metric: Diversity | None = None) -> dict[str, Measure]:
    return {m.name: m for m in (metric or Diversity(draws=1)).measure(sample(fit, test), examples(kept), 1)}


def brute_bleu(text: list[str], others: list[list[str]]) -> float:
    """Sentence BLEU from the formula, with plain loops."""
    total = 0.0
    for n in (1, 2, 3, 4):
        own = Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
        held = [Counter(tuple(o[i : i + n]) for i in range(len(o) - n + 1)) for o in others]
        matched = sum(min(c, max(h[gram] for h in held)) for gram, c in own.items())
        if n == 1 and not matched:
            return 0.0
        total += math.log((matched or 0.1) / max(1, sum(own.values()))) / 4
    nearest = min((abs(len(o) - len(text)), len(o)) for o in others)[1]
    return math.exp(total + min(0.0, 1 - nearest / len(text)))


def test_distinct_by_hand() -> None:
    grams = Grams([["a", "b", "a"], ["a", "b"], ["c"], []])
    everything = np.arange(4)
    assert grams.distinct(everything, 1) == 3 / 6
    assert grams.distinct(everything, 2) == 2 / 3  # ab, ba, ab
    assert grams.distinct(everything, 3) == 1.0
    assert grams.distinct(np.array([1, 2]), 3) == 0.0, "no run of three words"
    assert grams.distinct(np.array([0]), 1) == 2 / 3


def test_self_bleu_is_that_of_the_formula_for_any_rows() -> None:
    texts = [*(text.split() for text in texts_of(40, 1)), ["lamp"], ["never", "seen"], ["set", "the", "set", "the", "set"]]
    grams = Grams(texts)
    for rows in (np.arange(len(texts)), np.array([0, 3, 5, 40, 41, 42]), np.array([7, 1])):
        chosen = [texts[i] for i in rows]
        hand = [brute_bleu(text, chosen[:i] + chosen[i + 1 :]) for i, text in enumerate(chosen)]
        assert grams.self_bleu(rows) == pytest.approx(np.mean(hand), abs=1e-12)
    tie = [["set", "the"], ["set", "the", "lamp"], ["set", "the", "lamp", "radio"]]  # lengths 2 and 4 are as near to 3: the shorter counts
    assert Grams(tie).self_bleu(np.arange(3)) == pytest.approx(np.mean([brute_bleu(t, [o for o in tie if o is not t]) for t in tie]))
    assert Grams([["a", "b", "c", "d"]] * 3).self_bleu(np.arange(3)) == pytest.approx(1.0)
    assert Grams([["a", "b"], ["c", "d"]]).self_bleu(np.arange(2)) == 0.0


@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_vendi_score_of_k_equal_groups_is_k(k: int) -> None:
    features = np.repeat(np.eye(k), 12, axis=0)
    assert vendi(features @ features.T) == pytest.approx(k)


def test_the_vendi_score_of_two_rows_by_hand() -> None:
    a, b = 0.5 + 0.3, 0.5 - 0.3  # eigenvalues of [[1, s], [s, 1]] / 2 with s = 0.6
    assert vendi(np.array([[1, 0.6], [0.6, 1]])) == pytest.approx(math.exp(-a * math.log(a) - b * math.log(b)))


def test_the_compression_ratio_is_bytes_over_bytes() -> None:
    assert compression_ratio([b"ab", b"cd"]) == 5 / len(zlib.compress(b"ab\ncd", 6))
    assert compression_ratio([b"the same line"] * 50) > 10 > 3 > compression_ratio([text.encode() for text in texts_of(9, 1)])


def test_rows_twice_are_less_diverse_and_an_alarm() -> None:
    test, fit = texts_of(80, 2), texts_of(80, 3)
    fresh = [f"{text} {i}" for i, text in enumerate(texts_of(80, 1))]
    test, fit = ([f"{text} {i + 100 * k}" for i, text in enumerate(side)] for k, side in enumerate((test, fit), 1))
    good, twice = measured(fresh, test, fit), measured(fresh[:40] * 2, test, fit)
    assert list(good) == list(UNITS)
    for name in UNITS:
        value, p = twice[name].value, twice[name].p
        assert value is not None and p is not None and good[name].value is not None and good[name].real == twice[name].real
        assert (value > good[name].value) == (name in ("self_bleu", "compression_ratio")), name  # type: ignore[operator]
        assert p <= 0.01 < (good[name].p or 0), name
    assert twice["distinct_3"].value == pytest.approx((good["distinct_3"].value or 0) / 2, abs=0.06), "every run stands twice"
    assert all(m.note and m.better == "closer" and m.n == 80 and m.low < m.value < m.high for m in good.values())  # type: ignore[operator]


def test_neither_order_nor_spare_rows_matter_at_equal_n() -> None:
    kept, test, fit = texts_of(300, 1), texts_of(30, 2), texts_of(30, 3)
    found = measured(kept, test, fit, Diversity(draws=2))
    assert measured(kept[::-1], test[::-1], fit, Diversity(draws=2)) == found
    assert all(m.n == 30 and abs((m.value or 0) - (m.real or 0)) < 0.25 * (m.real or 0) for m in found.values()), "300 rows are compared as 30"
    assert all(m.n == 20 for m in measured(kept, test, fit, Diversity(draws=1, rows=20)).values())


def test_too_few_rows_are_none_with_the_reason() -> None:
    for kept in ([], ["a", "b", "c"]):
        found = measured(kept, ["a b"] * 9, ["c d"] * 9)
        assert all(m.value is None and m.p is None and f"got {len(kept)} kept" in m.note for m in found.values())


def test_runs_that_no_text_has_are_none() -> None:
    found = measured([f"word{i}" for i in range(9)], ["a b c"] * 9, ["d e f"] * 9)
    assert [name for name, m in found.items() if m.value is None] == ["distinct_2", "distinct_3"]
    assert found["distinct_2"].note == "no text of one side has 2 words"


def test_blank_texts_do_not_stop_it() -> None:
    found = measured(["", "!", "a", "a b c d"] * 2, ["", "x y z", "x", "y"] * 2, ["q"] * 8)
    assert all(m.value is not None and np.isfinite(m.value) for m in found.values())

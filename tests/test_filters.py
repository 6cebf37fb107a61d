"""Laws of the filters, and of how texts are compared."""

from __future__ import annotations

import random
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from seedbed.filters import dedup
from seedbed.filters.dedup import MISSED, PERMUTATIONS, Dedup, banding, near_duplicates
from seedbed.filters.form import Form
from seedbed.filters.overlap import Overlap
from seedbed.task import Task
from seedbed.text import jaccard, longest_runs, normalise, real_texts, shingles, word_runs, words
from seedbed.types import Candidate, Example, Fields, Sample, Verdict

TASK = Task("classification", ("text",), "label", ("a", "b"))
PAIR = Task("pair", ("premise", "hypothesis"), "label", ("yes", "no"))
VOCABULARY = [f"{first}{last}" for first in ("mar", "tol", "ked", "sun", "vir", "pol") for last in ("a", "en", "ish", "or", "ul")]


def candidates(*texts: str) -> list[Candidate]:
    return [made(i, {"text": text, "label": "a"}) for i, text in enumerate(texts)]


def made(index: int, fields: Fields | None, finished: bool = True, problem: str = "") -> Candidate:
    return Candidate(f"c{index}", index, "", fields, finished, problem)


def sample(fit: Sequence[str], dev: Sequence[str] = (), test: Sequence[str] = (), more: Sequence[str] = ()) -> Sample:
    sides = {"fit": fit, "dev": dev, "test": test, "more": more}
    return Sample(TASK, **{name: tuple(Example(f"{name}{i}", {"text": t, "label": "b"}) for i, t in enumerate(ts)) for name, ts in sides.items()})


def random_texts(count: int, seed: int) -> list[str]:
    """Texts of 4 to 20 words, every other one a change of one word of an earlier one."""
    draw = random.Random(seed)
    texts: list[str] = []
    for i in range(count):
        if i % 2 and draw.random() < 0.9:
            changed = draw.choice(texts).split()
            changed[draw.randrange(len(changed))] = draw.choice(VOCABULARY)
            texts.append(" ".join(changed))
        else:
            texts.append(" ".join(draw.choices(VOCABULARY, k=draw.randint(4, 20))))
    return texts


def reasons(verdicts: list[Verdict]) -> list[str]:
    assert all(v.keep == (not v.reason) for v in verdicts)
    return [v.reason for v in verdicts]


# Form


def test_form_gives_each_reason() -> None:
    real = sample(["one two three four"] * 5, ["one two three four five six"] * 5)
    rows = [
        made(0, None, problem="section missing"),
        made(1, None, finished=False, problem="unknown label"),
        made(2, {"text": "one two three four", "label": "a"}, finished=False),
        made(3, {"text": "  ", "label": "a"}),
        made(4, {"text": "one two", "label": "a"}),
        made(5, {"text": "one two three", "label": "a"}),
        made(6, {"text": "x " * 9, "label": "a"}),
        made(7, {"text": "x " * 10, "label": "a"}),
    ]
    expected = ["section missing", "unknown label", "unfinished", "empty", "too short", "", "", "too long"]
    assert reasons(Form(slack=1.5).judge(rows, real)) == expected


def test_form_learns_its_band_from_fit_and_dev_alone() -> None:
    real = sample([" ".join("x" * n) for n in range(1, 101)], [" ".join("x" * 201)])
    assert Form(low=0.105, high=0.895, slack=2.0).band(real) == (11 / 2, 91 * 2), "outwards"
    assert Form(low=0.0, high=1.0, slack=1.0).band(real) == (1, 201)
    assert Form().band(replace(real, test=real.fit[:1], more=real.fit[:1])) == Form().band(real)
    assert reasons(Form().judge(candidates("x " * 500), sample([]))) == [""], "no real row, no band"


@pytest.mark.parametrize("filter_", [Form(), Overlap()], ids=lambda f: type(f).__name__)
def test_a_row_is_judged_without_its_neighbours(filter_: Form | Overlap) -> None:
    assert filter_.scope == "row"
    texts = random_texts(80, 1)
    real, rows = sample(texts[:20], texts[20:30], texts[30:40]), candidates(*texts, "", "x " * 900)
    together = filter_.judge(rows, real)
    assert together == [filter_.judge([row], real)[0] for row in rows]
    assert together[::-1] == filter_.judge(rows[::-1], real)
    assert {v.keep for v in together} == {True, False}


@pytest.mark.parametrize("filter_", [Form(), Overlap(), Dedup()], ids=lambda f: type(f).__name__)
def test_nothing_in_gives_nothing_out(filter_: Form | Overlap | Dedup) -> None:
    assert filter_.judge([], sample(["one real row"])) == []
    assert filter_.judge([], sample([])) == []


# Dedup


def test_dedup_keeps_the_first_of_equal_texts_whatever_their_label() -> None:
    rows = [
        made(0, {"text": "Play some jazz, please!", "label": "a"}),
        made(1, {"text": "wake me up at seven", "label": "a"}),
        made(2, {"text": "play  some JAZZ please", "label": "b"}),
        made(3, None, problem="section missing"),
        made(4, None, problem="section missing"),
    ]
    assert reasons(Dedup().judge(rows, sample([]))) == ["", "", "exact duplicate", "", ""]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_dedup_drops_what_exact_similarity_to_a_kept_one_says(threshold: float) -> None:
    texts = random_texts(300, 2)
    kept: dict[str, frozenset[str]] = {}
    expected = []
    for text in texts:
        near = any(jaccard(shingles(text), other) >= threshold for other in kept.values())
        expected.append("" if not near else "exact duplicate" if text in kept else "near duplicate")
        kept |= {} if near else {text: shingles(text)}
    found = reasons(Dedup(threshold).judge(candidates(*texts), sample([])))
    assert found == expected
    assert threshold == 1.0 or "near duplicate" in found


def test_a_second_dedup_drops_nothing() -> None:
    rows = candidates(*random_texts(300, 3), "", "", "?", "!")
    kept = [row for row, v in zip(rows, Dedup().judge(rows, sample([])), strict=True) if v.keep]
    assert 0 < len(kept) < len(rows)
    assert all(v.keep for v in Dedup().judge(kept, sample([])))


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_overlook_few_pairs_at_the_threshold(threshold: float) -> None:
    bands, rows = banding(threshold)
    assert (1 - threshold**rows) ** bands <= MISSED
    assert bands * rows <= PERMUTATIONS or rows == 1
    assert threshold == 1.0 or (1 - threshold**rows) ** (bands - 1) > MISSED, "fewer bands would do"


def test_texts_of_the_same_shingles_are_near_at_threshold_1() -> None:
    assert reasons(Dedup(1.0).judge(candidates("haha haha haha", "haha haha", "hahaha haha"), sample([]))) == ["", "near duplicate", ""]


def test_dedup_compares_only_rows_of_the_same_given_part() -> None:
    premise = "A very long premise that many generated hypotheses share. " * 5
    texts = [("p", "It rained."), ("q", "It rained."), ("q", "it rained"), (premise, "She left."), (premise, "He stayed.")]
    rows = [made(i, {"premise": p, "hypothesis": h, "label": "yes"}) for i, (p, h) in enumerate(texts)]
    assert reasons(Dedup().judge(rows, Sample(PAIR, (), (), ()))) == ["", "", "exact duplicate", "", ""]


@pytest.mark.parametrize(("block", "pairs"), [(16, 2**20), (64, 8), (2**14, 1)])
def test_dedup_says_the_same_however_many_texts_it_looks_at_together(block: int, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [normalise(text) for text in [*random_texts(200, 4), "", "ab", "abc", "ab", *random_texts(100, 4)]]
    groups = [f"given {i % 2}" for i in range(len(texts))]
    expected = near_duplicates(texts, groups, 0.7)
    alone = [near_duplicates(texts[g::2], groups[g::2], 0.7) for g in (0, 1)]
    assert (expected[::2], expected[1::2]) == tuple(alone) and 0 < sum(expected) < len(expected)
    monkeypatch.setattr(dedup, "BLOCK", block)
    monkeypatch.setattr(dedup, "PAIRS", pairs)
    assert near_duplicates(texts, groups, 0.7) == expected


def test_dedup_of_one_text_many_times_over() -> None:
    draw = random.Random(5)
    start = " ".join(draw.choices(VOCABULARY, k=60))
    verdicts = Dedup().judge(candidates(*(f"{start} {i}" for i in range(3000))), sample([]))
    assert [v.keep for v in verdicts] == [True] + [False] * 2999


# Overlap


def test_every_copied_row_is_dropped_and_its_split_named() -> None:
    texts = random_texts(200, 4)
    real = sample(texts[:50], texts[50:100], texts[100:150], texts[150:])
    shouted = candidates(*(f"  {t.upper()}! " for t in texts))
    counts = Counter(reasons(Overlap().judge(shouted, real)))
    assert set(counts) <= {f"copy of {split}" for split in ("fit", "dev", "test", "other real row")} and sum(counts.values()) == 200
    assert len(counts) == 4


def test_the_gravest_place_and_kind_is_named() -> None:
    long = " ".join(VOCABULARY[:14])
    cases = {
        "same in all": "copy of test",
        "same in two": "copy of dev",
        "set an alarm for seven in the mornings": "near copy of test",
        f"now {long} and something else that is quite different from all that stands there today": "shared run with dev",
        "nothing like any of them": "",
        f"{long} {' '.join(VOCABULARY[15:])}": "shared run with test",
    }
    more = ["same in two", f"{long} {' '.join(VOCABULARY[20:])} {' '.join(VOCABULARY[:5])}"]
    alarm = "set an alarm for seven in the morning"
    real = sample(
        ["same in all", alarm, *more], ["same in all", *more], ["same in all", f"{alarm}!!", " ".join(["other", *VOCABULARY[15:]] + ["words"] * 9)]
    )
    assert reasons(Overlap().judge(candidates(*cases), real)) == list(cases.values())


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.7, 0.8, 1.0])
def test_overlap_finds_every_near_copy(threshold: float) -> None:
    texts = random_texts(300, 5)
    real, rows = texts[:150], texts[150:]
    sets = [shingles(text) for text in real]
    expected = [any(jaccard(shingles(t), other) >= threshold for other in sets) for t in rows]
    found = Overlap(threshold, run=1000).judge(candidates(*rows), sample(real))
    assert [not v.keep for v in found] == expected


def test_a_run_counts_from_its_length_on() -> None:
    shared = "a b c d e f g"
    real = sample([f"{shared} and here the real text goes on in its own way"])
    row = candidates(f"quite another beginning that stands before {shared}")
    assert reasons(Overlap(run=7).judge(row, real)) == ["shared run with fit"]
    assert reasons(Overlap(run=8).judge(row, real)) == [""]


def test_given_fields_do_not_count_as_copied() -> None:
    real = Sample(PAIR, (Example("0", {"premise": "The long premise of a row.", "hypothesis": "It is short.", "label": "yes"}),), (), ())
    given = "The long premise of a row."
    rows = [made(i, {"premise": p, "hypothesis": h, "label": "no"}) for i, (p, h) in enumerate([(given, "Unlike it."), ("x", "it is short")])]
    assert reasons(Overlap().judge(rows, real)) == ["", "copy of fit"]


def test_pool_rows_lack_the_target_and_references_are_real_texts_too() -> None:
    task = Task("data2text", ("triples",), "text", references="references")
    test = Example("t", {"triples": [["a", "b", "c"]], "text": "first wording", "references": ["first wording", "the second way to say it"]})
    pool = Example("p", {"triples": [["x", "y", "z"]]})
    real = Sample(task, (), (), (test,), pool=(pool,))
    assert list(real_texts(real)) == [
        ("test", "t", "first wording"), ("test", "t", "first wording"), ("test", "t", "the second way to say it"), ("other", "p", ""),
    ]  # fmt: skip
    rows = [made(i, {"triples": [], "text": text}) for i, text in enumerate(["The second way to say it.", "", "a third"])]
    assert reasons(Overlap().judge(rows, real)) == ["copy of test", "", ""]
    summary = Task("text2text", ("source",), "target")
    pooled = Sample(summary, (), (), (), pool=(Example("p", {"source": "an input without its answer"}),))
    row = [made(0, {"source": "an input without its answer", "target": "x"})]
    assert reasons(Overlap().judge(row, pooled)) == ["near copy of other real row"]
    assert reasons(Overlap(others=False).judge(row, pooled)) == [""]


def test_overlap_forgets_the_sample_before() -> None:
    row, filter_ = candidates("play the radio"), Overlap()
    assert reasons(filter_.judge(row, sample(["play the radio"]))) == ["copy of fit"]
    assert reasons(filter_.judge(row, sample(["something else"]))) == [""]
    assert reasons(filter_.judge(row, sample([]))) == [""]
    near = sample(["play the radios"])
    assert reasons(Overlap(0.8).judge(row, near)) == ["near copy of fit"]
    assert reasons(Overlap(1.0).judge(row, near)) == [""]


def test_a_text_that_could_not_be_parsed_is_left_to_form() -> None:
    assert reasons(Overlap().judge([made(0, None, problem="empty")], sample(["x"]))) == [""]


SIGNATURE = " ".join(VOCABULARY[:15])
MAIL = " ".join(VOCABULARY[15:])
PASSAGES = Task("qa", ("passage", "question"), "label", ("yes", "no"), given=())
REPLIES = Task("text2text", ("mail",), "reply")


def labelled(*texts: str) -> list[Candidate]:
    """Real inputs that got a target."""
    return [replace(c, provenance={"generator": "annotate"}) for c in candidates(*texts)]


def written(task: Task, *rows: Fields) -> list[Candidate]:
    return [replace(made(i, fields), provenance={"generator": "annotate"}) for i, fields in enumerate(rows)]


def test_a_real_input_may_hold_what_fit_holds_and_no_run_of_test_alone() -> None:
    fit, test = f"the parcel never came thanks\n{SIGNATURE}", f"where do i find the bill\n{SIGNATURE}"
    rows = [f"my phone is broken and does not ring\n{SIGNATURE}", f"please send to my new house a copy of the bill\n{SIGNATURE}", f"{MAIL} {fit}"]
    for real in (sample([fit]), sample([fit], [test]), sample([fit], (), [test])):
        assert reasons(Overlap().judge(labelled(*rows), real)) == ["", "", ""]
        assert "" not in reasons(Overlap().judge(candidates(*rows), real)), "generated ones were made of it"
    assert reasons(Overlap().judge(labelled(*rows), sample([], (), [test]))) == ["shared run with test"] * 3
    assert reasons(Overlap().judge(labelled(*rows), sample([], [test], [], [test]))) == ["shared run with dev"] * 3
    assert reasons(Overlap().judge(labelled(*rows), sample([], more=[test]))) == ["", "", ""]
    assert reasons(Overlap().judge(labelled(fit, f"{fit}s"), sample([fit]))) == ["copy of fit", "near copy of fit"]


def test_a_real_input_that_quotes_all_of_a_test_row_leaks_it_though_fit_quotes_it_too() -> None:
    reply, other = (f"{text} > {MAIL}" for text in ("i agree with all that stands below", "nobody ever wants to hear of such plans again"))
    assert reasons(Overlap().judge(labelled(reply), sample([other], (), [MAIL]))) == ["shared run with test"]
    assert reasons(Overlap().judge(labelled(reply), sample([other, MAIL], (), [f"{MAIL} or"]))) == [""]
    short = " ".join(MAIL.split()[:12])
    assert reasons(Overlap().judge(labelled(f"{short} {SIGNATURE}"), sample([], (), [short]))) == [""]


def test_a_passage_of_several_questions_is_no_copy_where_a_question_is_another() -> None:
    def row(question: str, label: str = "yes", passage: str = f"{SIGNATURE} {MAIL}") -> Fields:
        return {"passage": passage, "question": question, "label": label}

    fit, test = Example("f", row("was it a parcel")), Example("t", row("who sent the letter"))
    rows = [row("why did they cry"), row("who sent the letter!", "no"), row("who sent the letters"), row("was it a parcel", "no")]
    copies = ["", "copy of test", "near copy of test", "copy of fit"]
    for task in (PASSAGES, replace(PASSAGES, given=None), replace(REPLIES, inputs=("passage", "question"), target="label")):
        found = reasons(Overlap().judge(written(task, *rows), Sample(task, (fit,), (), (test,))))
        assert found[:3] == copies[:3] and found[3] in ("copy of fit", "near copy of fit")
    elsewhere = row("who sent the letter", passage="quite another passage than the one of test")
    given = replace(PASSAGES, given=None)
    assert reasons(Overlap().judge(written(given, elsewhere), Sample(given, (fit,), (), (test,)))) == [""]


def test_a_test_rows_inputs_are_dropped_whatever_was_written_to_them() -> None:
    fit, test = ({"mail": mail, "reply": f"{mail} is what you wrote"} for mail in ("the parcel never came", "where do i find the bill"))
    real = Sample(REPLIES, (Example("f", fit),), (), (Example("t", test),), pool=(Example("p", {"mail": "the pool has this one"}),))
    texts = [MAIL, "a reply that is longer than the mail itself and nothing like the one that test has"]
    rows = [
        {"mail": mail, "reply": text}
        for mail in ("where do I find the bill?", "where do i find the bills", "the parcel never came")
        for text in texts
    ]
    assert reasons(Overlap().judge(written(REPLIES, *rows), real)) == ["copy of test"] * 2 + ["near copy of test"] * 2 + [""] * 2
    assert reasons(Overlap().judge([replace(c, provenance={}) for c in written(REPLIES, *rows)], real)) == [""] * 6, "generated ones, as whole texts"
    pooled = {"mail": "the pool has this one", "reply": "yes"}
    assert reasons(Overlap().judge(written(REPLIES, fit, test, pooled), real)) == ["copy of fit", "copy of test", ""]
    data = Task("data2text", ("triples",), "text")
    triples = [["alan", "born", str(year)] for year in (1, 2, 3, 4, 5)]
    rows = [
        {"triples": t, "text": text}
        for t, text in ((triples, MAIL), (triples[:1], MAIL), (triples[1:3], "Alan flew."), ([*triples, MAIL.split()], SIGNATURE))
    ]
    real = Sample(
        data, (Example("f", {"triples": [["x", "y", "z"]], "text": "alan flew"}),), (), (Example("t", {"triples": triples, "text": "he flew"}),)
    )
    assert reasons(Overlap().judge(written(data, *rows), real)) == ["copy of test", "", "copy of fit", ""]


def test_a_written_text_may_share_with_a_real_row_what_its_own_input_has() -> None:
    fit = Example("f", {"mail": "the parcel never came", "reply": f"we are sorry to hear it {SIGNATURE}"})
    rows = [{"mail": mail, "reply": f"thanks {SIGNATURE}"} for mail in ("call me back at noon", f"call me back at noon\n{SIGNATURE}")]
    assert reasons(Overlap().judge(written(REPLIES, *rows), Sample(REPLIES, (fit,), (), ()))) == ["shared run with fit", ""]


# How texts are compared


def test_normalise_ignores_case_marks_and_spaces_and_nothing_else() -> None:
    assert normalise("  Don't\tSTOP -- it’s 5 o'clock!\n") == "don t stop it s 5 o clock"
    assert normalise("STRASSE ﬁn") == normalise("straße fin")
    assert normalise("?") == "?" != normalise("!")
    assert normalise("कि") != normalise("की"), "vowel signs are no punctuation"
    assert normalise("good 😀") != normalise("good 😡")
    assert words("我喜欢, 好") == ["我", "喜", "欢", "好"]
    assert normalise(" \n") == "" == normalise("")


def test_normalise_is_idempotent_on_every_sign() -> None:
    for char in map(chr, range(sys.maxunicode + 1)):
        if unicodedata.category(char) not in ("Cn", "Co", "Cs"):  # assigned ones
            once = normalise(f"{char}a{char}")
            assert normalise(once) == once, hex(ord(char))


def test_shingles_and_similarity() -> None:
    assert shingles("Abc def") == {"abc d", "bc de", "c def"}
    assert shingles("hi") == {"hi"} and shingles(" ") == frozenset()
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 0.5
    assert jaccard(frozenset(), frozenset()) == 0.0
    assert word_runs("a b, c d", 3) == ["a b c", "b c d"] and word_runs("a b", 3) == []


def brute_run(text: str, other: str) -> int:
    a, b = words(text), words(other)
    runs = {tuple(b[i:j]) for i in range(len(b)) for j in range(i + 1, len(b) + 1)}
    return max((j - i for i in range(len(a)) for j in range(i + 1, len(a) + 1) if tuple(a[i:j]) in runs), default=0)


@pytest.mark.parametrize("seed", range(5))
def test_longest_runs_against_all_pairs(seed: int) -> None:
    draw = random.Random(seed)
    texts = [" ".join(draw.choices("abc", k=draw.randint(0, 12))) for _ in range(30)]
    mine, others = texts[:15], texts[15:]
    assert longest_runs(mine, others) == [max(brute_run(t, o) for o in others) for t in mine]


def test_longest_runs_at_the_edges() -> None:
    assert longest_runs([], ["a b"]) == [] == longest_runs([], [])
    assert longest_runs(["a b", ""], []) == [0, 0]
    assert longest_runs(["a b c d"], ["x a b", "c d y"]) == [2], "a run does not go on in the next text"
    assert longest_runs(["a b c", "a b c"], ["q"]) == [0, 0], "what the texts share among themselves does not count"
    assert longest_runs(["One two. Three"], ["one TWO three"]) == [3]

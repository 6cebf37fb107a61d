"""Membership from the kept rows alone, planted canaries and near copies: known answers, and nothing found where nothing leaked."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, kstest
from test_run import TOY

from seedbed import recipe as recipes
from seedbed.canaries import ends, halves, learned, plant
from seedbed.data import load_sample
from seedbed.grow import step_names
from seedbed.metrics.membership import ENDS, Membership, auc, exposures, power
from seedbed.metrics.memorisation import Memorisation, _nearer
from seedbed.metrics.ngram import Ngram
from seedbed.run import run
from seedbed.task import Task
from seedbed.text import words
from seedbed.types import Example, Measure, Sample

ROOT = Path(__file__).resolve().parent.parent
TASK = Task("plain", ("text",))
VERBS = "set stop play find open close call send show start".split()
THINGS = "lamp radio alarm door song train mail oven list game bread shirt river cloud table glass stone paper horse clock".split()


def texts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [f"{rng.choice(VERBS)} the {' '.join(rng.choices(THINGS, k=4))} near the {rng.choice(THINGS)}" for _ in range(count)]


def rows(name: str, found: list[str]) -> tuple[Example, ...]:
    return tuple(Example(f"{name}{i}", {"text": text}) for i, text in enumerate(found))


def by_name(measures: list[Measure]) -> dict[str, Measure]:
    return {m.name: m for m in measures}


def test_the_language_model_is_a_distribution_and_knows_what_it_read() -> None:
    """Sums to 1 behind every history; p of a word behind a known history is Witten and Bell's by hand."""
    model = Ngram([["a", "b"], ["a", "c"]], 4, order=2)
    for history in ("a", "b", "never"):
        assert sum(math.exp(model.scores([w], [history])[0]) for w in ("a", "b", "c", "unseen")) == pytest.approx(1)
    first = (1 + 3 * 1 / 4) / (4 + 3)  # c(b) = 1 of 4 words, 3 different ones, V = 4
    assert math.exp(model.scores(["b"], ["a"])[0]) == pytest.approx((1 + 2 * first) / (2 + 2))
    assert model.scores(["b"], ["x", "a"]) == model.scores(["b"], ["a"])


def test_auc_and_power_by_hand() -> None:
    scores = np.array([[3.0, 1.0, 2.0, 0.0], [1, 1, 1, 1]])
    assert auc(scores, 2).tolist() == [0.75, 0.5]
    many = np.concatenate([np.full(10, 5.0), np.full(10, 0.0), np.arange(20) / 10])[None]
    assert power(many, 20).tolist() == [0.5]


def test_copies_of_fit_are_seen_and_rows_of_neither_are_not() -> None:
    fit, test, fresh = texts(80, 1), texts(80, 2), texts(300, 3)
    sample = Sample(TASK, rows("fit", fit), (), rows("test", test))
    leaky = by_name(Membership().measure(sample, rows("k", fit[:40] + fresh[:200]), 0))
    auc_of, tpr = leaky["membership_auc"], leaky["membership_tpr"]
    assert auc_of.value is not None and auc_of.low is not None and auc_of.low > 0.6 and auc_of.p is not None and auc_of.p <= 0.01
    assert tpr.value is not None and tpr.value > 0.3 and tpr.p is not None and tpr.p <= 0.01
    assert auc_of.rows and {row.split for row in auc_of.rows} == {"fit"} and {int(row.real[3:]) for row in auc_of.rows} <= set(range(40))
    assert leaky["canary_exposure"].value is None and "canaries = 5" in leaky["canary_exposure"].note


def test_rows_of_neither_side_raise_no_alarm_beyond_chance() -> None:
    found: dict[str, list[float]] = {"membership_auc": [], "membership_tpr": [], "nearer": []}
    values = []
    for i in range(30):
        fit, test, fresh = (texts(40, 3 * i + j + 100) for j in range(3))
        for m in Membership().measure(Sample(TASK, rows("f", fit), (), rows("t", test)), rows("k", fresh), i)[:2]:
            assert m.p is not None and m.value is not None and m.low is not None and m.high is not None and m.low <= m.value <= m.high
            found[m.name].append(m.p)
            values += [m.value] if m.name == "membership_auc" else []
        cloud = np.random.default_rng(i).normal(size=(3, 40, 5))
        nearer = _nearer(list(cloud), i)
        assert nearer is not None and nearer.p is not None
        found["nearer"].append(nearer.p)
    assert np.mean(values) == pytest.approx(0.5, abs=0.02)
    for name, p in found.items():
        assert sum(x <= 0.01 for x in p) <= binom.isf(1e-3, 30, 0.01), name
        assert kstest(p, "uniform", alternative="greater").pvalue > 1e-3, name


def test_nearer_to_fit_is_half_for_neither_and_one_for_copies() -> None:
    a, b, c = np.random.default_rng(0).normal(size=(3, 200, 6))
    clean, copied = _nearer([a, b, c], 0), _nearer([c, b, c], 0)
    assert clean is not None and clean.value == pytest.approx(0.5, abs=0.1) and clean.real == pytest.approx(0.5, abs=0.1)
    assert copied is not None and copied.value == 1 and copied.p == pytest.approx(1 / 200)
    assert _nearer([a[:10], b, c], 0) is None


def test_near_copies_are_counted_split_by_split_and_shown() -> None:
    fit, test, fresh = texts(60, 5), texts(60, 6), texts(90, 7)
    near = [f"{text} now" for text in test[:5]]
    sample = Sample(TASK, rows("fit", fit), (), rows("test", test))
    found = by_name(Memorisation().measure(sample, rows("k", [*near, fit[0], *fresh]), 0))
    assert found["verbatim_rate"].value == found["verbatim_rate_fit"].value == pytest.approx(1 / 96)
    assert found["near_verbatim_rate_test"].value == pytest.approx(5 / 96) and found["near_verbatim_rate_fit"].value == pytest.approx(1 / 96)
    whole = found["near_verbatim_rate"]
    assert whole.value == pytest.approx(6 / 96) and whole.low is not None and whole.high is not None and whole.low < 6 / 96 < whole.high
    shown = [(row.id, row.real, row.split) for row in whole.rows]
    assert sorted(shown[:5]) == [(f"k{i}", f"test{i}", "test") for i in range(5)] and shown[5:] == [("k5", "fit0", "fit")]
    assert {row.text for row in whole.rows[:5]} == set(near) and whole.rows[-1].what == "the same text"


# Canaries


def test_canaries_begin_like_a_real_row_and_end_in_words_of_the_sample() -> None:
    fit = rows("f", texts(30, 1))
    planted = plant(TASK, fit, 5, 7)
    assert plant(TASK, fit, 5, 7) == planted != plant(TASK, fit, 5, 8) and len({e.id for e in planted}) == 5
    for e in planted:
        begin, end = halves(TASK, e)
        assert any(str(row.fields["text"]).startswith(" ".join(begin)) for row in fit) and set(end) <= {w for t in texts(30, 1) for w in t.split()}
    task = Task("classification", ("text",), "label")
    labelled = [Example("a", {"text": "one two three four", "label": "x"})]
    assert plant(task, labelled, 1, 0)[0].fields["label"] == "x"
    sample = replace(Sample(TASK, fit, (), ()), canaries=planted, canary_repeats=3)
    assert len(learned(sample).fit) == 30 + 15 == len({e.id for e in learned(sample).fit}) and learned(Sample(TASK, fit, (), ())).fit == fit


def test_five_planted_canaries_are_each_found_and_shown() -> None:
    fit = rows("f", texts(60, 1))
    planted = plant(TASK, fit, 5, 3)
    sample = replace(Sample(TASK, fit, (), rows("t", texts(60, 2))), canaries=planted)
    kept = rows("k", [*texts(200, 4), *(" ".join(str(e.fields["text"]).split()[-5:]) for e in planted)])
    found = by_name(exposures(sample, [words(str(e.fields["text"])) for e in kept], 0))
    exposure, share = found["canary_exposure"], found["canaries_found"]
    assert share.value == 1 and share.low is not None and share.low < 1 == share.high
    assert exposure.value is not None and exposure.value > 11 and exposure.p is not None and exposure.p < 1e-9
    assert [row.real for row in exposure.rows] == [e.id for e in planted] and "5 of the 6 random words" in exposure.rows[0].what


@pytest.mark.slow
def test_canaries_that_nobody_learned_have_the_exposure_of_chance() -> None:
    found = []
    for i in range(12):
        fit = rows("f", texts(40, i))
        sample = replace(Sample(TASK, fit, (), ()), canaries=plant(TASK, fit, 2, i))
        kept = texts(60, 1000 + i)
        found.append(exposures(sample, [words(t) for t in kept], i)[0])
    p = [m.p for m in found if m.p is not None]
    assert len(p) == 12 and sum(x <= 0.01 for x in p) <= binom.isf(1e-3, 12, 0.01)
    assert np.mean([m.value for m in found]) == pytest.approx(found[0].real, abs=1.0)
    assert found[0].real == pytest.approx(1 / math.log(2), abs=0.01), "Carlini et al. 2019: 1 / ln 2 bits by chance"
    assert len(ends(TASK, rows("f", texts(5, 0)), ENDS, 1)) == 4095


@pytest.mark.slow
def test_a_recipe_plants_them_where_the_teacher_learns_and_nowhere_else(tmp_path: Path) -> None:
    raw = TOY | {"sample": {"path": "examples/helpdesk.csv", "rows": 150, "canaries": 5, "canary_repeats": 2}, "metric": [{"kind": "membership"}]}
    audit, plain = recipes.build(raw, ROOT), recipes.build(TOY, ROOT)
    planted, without = (load_sample(r.sample, r.task, r.seed, r.base) for r in (audit, plain))
    assert planted.fit == without.fit and len(planted.canaries) == 5 and not without.canaries
    assert step_names(audit, planted)["sample"] != step_names(plain, without)["sample"]
    done = run(audit, tmp_path)
    sources = [json.loads(line)["id"] for line in next(done.folder.glob("teacher-*/sources.jsonl")).read_text().splitlines()]
    assert sum(name.startswith("canary-") for name in sources) == 10
    found = {m["name"]: m for m in done.scores["measures"]}
    assert found["canary_exposure"]["value"] is not None and found["membership_auc"]["value"] is not None


def test_fit_and_test_of_two_sources_look_like_members_and_so_does_real() -> None:
    """What the page says fools it: nothing was learned from fit, and `real` gives it away."""
    fit, other = texts(60, 1), [f"could you {text} for us" for text in texts(120, 2)]
    m = Membership().measure(Sample(TASK, rows("f", fit), (), rows("t", other)), rows("k", texts(200, 3)), 0)[0]
    assert m.value is not None and m.value > 0.9 and m.real is not None and m.real < 0.2

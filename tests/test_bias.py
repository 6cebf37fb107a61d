"""Bias: planted skews are found with their size, real rows in the place of kept ones raise no alarm, quotas take a skew away."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom
from test_run import TOY

from seedbed import recipe as recipes
from seedbed.errors import RecipeError
from seedbed.filters.balance import Balance
from seedbed.gates import gates
from seedbed.groups import NONE, SEVERAL, Groups
from seedbed.metrics.bias import Bias, amplification
from seedbed.parts import Component
from seedbed.students.linear import Linear
from seedbed.task import Task
from seedbed.types import Candidate, Example, Measure, Sample

ROOT = Path(__file__).resolve().parent.parent
WORDS = {"women": ("she", "her", "woman"), "men": ("he", "his", "man")}
TASK = Task("classification", ("text",), "label", labels=("nurse", "pilot"))
WORDS_ALONE = Component("linear", "student:linear:1:", Linear(features="tfidf"))
"""Learns the groups' words in a twentieth of the time that embedding takes."""
THINGS = "lamp radio alarm door song train mail oven list game bread shirt river cloud".split()


def rows(name: str, n: int, women: float, seed: int, alike: float = 0.5) -> list[Example]:
    """n rows, a share of which is of women. alike: how often a woman is a nurse, and a man a pilot."""
    rng = random.Random(seed)
    found = []
    for i in range(n):
        group = "women" if i < round(women * n) else "men"
        own = rng.random() < alike
        label = "nurse" if own == (group == "women") else "pilot"
        word = rng.choice(WORDS[group])
        found.append(Example(f"{name}{i}", {"text": f"{word} had a {rng.choice(THINGS)} and a {rng.choice(THINGS)} {label[:3]}", "label": label}))
    rng.shuffle(found)
    return found


def sample(seed: int, n: int = 200, alike: float = 0.5) -> Sample:
    return Sample(TASK, tuple(rows("f", n, 0.5, seed, alike)), (), tuple(rows("t", n, 0.5, seed + 1, alike)))


def measured(real: Sample, kept: list[Example], seed: int = 0, **settings: Any) -> dict[str, Measure]:
    found = Bias(**({"groups": WORDS, "student": WORDS_ALONE} | settings)).measure(real, kept, seed)
    for m in found:
        assert m.note and (m.value is None or m.low is None or m.high is None or m.low <= m.value <= m.high), m
    return {m.name: m for m in found}


def test_a_text_names_a_group_by_whole_words_in_any_case() -> None:
    groups = Groups(WORDS)
    named = {"She left": "women", "THE MAN": "men", "he saw her": SEVERAL, "the sheer theme": NONE, "a he-man": "men"}
    for text, group in named.items():
        assert groups.of(TASK, {"text": text, "label": "nurse"}) == group, text
    assert Groups({}, "label").of(TASK, {"text": "she", "label": "nurse"}) == "nurse"


def test_a_letter_that_is_another_one_in_some_case_is_found_and_swapped() -> None:
    groups = Groups(WORDS)
    for text, swapped in (("\u017fhe left", "he left"), ("H\u0131s hat", "Her hat")):
        fields = {"text": text, "label": "nurse"}
        assert groups.of(TASK, fields) in WORDS and groups.swaps(fields, ["text"]) == [fields | {"text": swapped}]


def test_an_odds_ratio_of_no_fit_row_is_none() -> None:
    found = amplification("women", [["women", "men"] * 15, ["women", "men"] * 15, [NONE] * 9])
    assert found.value is not None and found.real is None


def test_a_swap_changes_the_groups_words_alone_and_back_again() -> None:
    groups = Groups(WORDS)
    fields = {"text": "She put HER hat on a woman, sheer luck", "label": "nurse"}
    (swapped,) = groups.swaps(fields, ["text"])
    assert swapped == {"text": "He put HIS hat on a man, sheer luck", "label": "nurse"}
    assert groups.swaps(swapped, ["text"]) == [fields]
    assert groups.swaps({"text": "he saw her"}, ["text"]) == groups.swaps({"text": "nobody"}, ["text"]) == []
    assert len(Groups(WORDS | {"others": ("they", "their", "person")}).swaps(fields, ["text"])) == 2


@pytest.mark.slow
def test_a_skew_of_three_to_one_is_found_and_its_size_lies_in_the_interval() -> None:
    held = {"group_skew": 0, "amplification:women": 0}
    for i in range(10):
        found = measured(sample(10 * i), rows("k", 200, 0.75, 1000 + i), i)
        for name, size in (("group_skew", 0.25), ("amplification:women", 3.0)):
            m = found[name]
            assert m.p is not None and m.p <= 0.01 and m.low is not None and m.high is not None and m.real is not None
            held[name] += m.low <= size <= m.high
        assert found["amplification:men"].value == pytest.approx(1 / (found["amplification:women"].value or 1), rel=1e-3)
    assert min(held.values()) >= 7


def test_labels_that_go_with_a_group_more_than_they_did_are_found() -> None:
    """Real: a woman is a nurse half of the time; kept: 9 times of 10. Each label's group gains 0.4."""
    found = measured(sample(1, 300), rows("k", 300, 0.5, 9, alike=0.9))
    m = found["bias_amplification"]
    assert m.p is not None and m.p <= 0.01 and m.value is not None and abs(m.value) == pytest.approx(0.4, abs=0.1)
    assert m.low is not None and m.high is not None and m.low <= np.sign(m.value) * 0.4 <= m.high
    assert found["group_skew"].p is not None and found["group_skew"].p > 0.01


@pytest.mark.slow
def test_real_rows_in_the_place_of_kept_ones_raise_no_alarm_beyond_chance() -> None:
    p: dict[str, list[float]] = {}
    for i in range(25):
        rng = random.Random(i)
        pool = [e for part in (0.5, 0.5, 0.5) for e in rows(f"{part}", 60, part, rng.randrange(10**6), 0.8)]
        rng.shuffle(pool)
        real = Sample(TASK, tuple(pool[:60]), (), tuple(pool[60:120]))
        for m in measured(real, pool[120:], i).values():
            p.setdefault(m.name, []).append(1.0 if m.p is None else m.p)
    assert set(p) == {"group_skew", "amplification:women", "amplification:men", "bias_amplification", "counterfactual_flips"}
    assert all(sum(x <= 0.01 for x in found) <= binom.isf(1e-3, 25, 0.01) for found in p.values()), p


def test_groups_that_no_row_names_are_not_measured_and_a_text_that_stopped_naming_them_is() -> None:
    real = sample(0)
    none = measured(real, rows("k", 200, 0.5, 9), groups={"cats": ("meow",), "dogs": ("woof",)})["group_skew"]
    assert (none.value, none.p) == (None, None) and "0 of 200 kept and 0 of 200 dev + test rows do" in none.note
    silent = [Example(f"k{i}", {"text": "it had a lamp", "label": "pilot"}) for i in range(200)]
    assert measured(real, silent)["group_skew"].value == 1.0


@pytest.mark.slow
def test_a_gate_over_thirty_groups_can_fail_and_does_where_one_of_them_took_the_place_of_all() -> None:
    groups = {f"g{i}": (f"word{i}",) for i in range(30)}

    def named(side: str, pick: Callable[[random.Random], int]) -> list[Example]:
        rng = random.Random(side)
        return [Example(f"{side}{i}", {"text": f"word{pick(rng)} and a lamp", "label": rng.choice("ab")}) for i in range(300)]

    task = Task("classification", ("text",), "label", labels=("a", "b"))
    real = Sample(task, tuple(named("f", lambda rng: rng.randrange(30))), (), tuple(named("t", lambda rng: rng.randrange(30))))
    found = Bias(groups=groups, student=WORDS_ALONE)
    for pick, passed in ((lambda rng: rng.randrange(30), True), (lambda rng: 0, False)):
        measures = [asdict(m) for m in found.measure(real, named("k", pick), 3) if not m.name.startswith("amplification")]
        measures += [{"name": f"amplification:g{i}", "value": 1.0, "p": 0.5, "note": ""} for i in range(30)]  # else these fail it, by exact tests
        assert [g["passed"] for g in gates(measures, True) if g["name"] == "bias"] == [passed]


def test_a_student_that_reads_the_group_flips_and_one_that_need_not_does_not() -> None:
    """Kept rows whose label is the group's: the student learns to look at the group, the one of fit alone does not."""

    def unsaid(part: Iterable[Example]) -> tuple[Example, ...]:
        return tuple(Example(e.id, {"text": str(e.fields["text"]).rsplit(" ", 1)[0], "label": e.fields["label"]}) for e in part)

    real, kept = sample(3, 200), list(unsaid(rows("k", 600, 0.5, 4, alike=1.0)))
    real = Sample(TASK, unsaid(real.fit), (), unsaid(real.test))
    m = measured(real, kept)["counterfactual_flips"]
    assert m.value is not None and m.real is not None and m.low is not None and m.low > m.real and m.p is None
    assert m.rows and "becomes" in m.rows[0].what
    unpaired = measured(real, kept, groups={"women": ("she",), "men": ("he", "his")})["counterfactual_flips"]
    assert unpaired.value is None and "in pairs" in unpaired.note


def test_quotas_take_the_skew_away_and_measuring_again_shows_it() -> None:
    real, kept = sample(5, 300), rows("k", 300, 0.75, 6, alike=0.9)
    made = [Candidate(e.id, i, TASK.render(e.fields), e.fields, True) for i, e in enumerate(kept)]
    for to in ("real", "equal"):
        verdicts = Balance(groups=WORDS, to=to).judge(made, real)  # type: ignore[arg-type]
        left = [e for e, v in zip(kept, verdicts, strict=True) if v.keep]
        assert {v.reason for v in verdicts} == {"", "over the group's share"} and len(left) >= 30
        before, after = measured(real, kept), measured(real, left)
        for name in ("group_skew", "bias_amplification"):
            old, new = before[name].value, after[name].value
            assert old is not None and new is not None and abs(new) < abs(old) / 2, (to, name, old, new)
        assert before["amplification:women"].p is not None and before["amplification:women"].p <= 0.01 < (after["amplification:women"].p or 0)


def test_a_quota_of_a_columns_values_does_not_depend_on_test_rows() -> None:
    made = [Candidate(str(i), i, "", {"text": "a", "label": "nurse", "who": who}, True) for i, who in enumerate("aaaaabbbz")]
    fit = tuple(Example(who, {"text": "a", "label": "nurse", "who": who}) for who in "ab")
    task, other = Task("classification", ("text", "who"), "label", labels=("nurse",)), Example("t", {"text": "a", "label": "nurse", "who": "z"})
    without, having = (Balance(column="who", to="equal").judge(made, Sample(task, fit, (), test)) for test in ((), (other,)))
    assert without == having and sum(v.keep for v in without) == 7


def test_an_odds_ratio_without_bound_is_none_with_its_reason() -> None:
    side = ["women"] * 30
    m = amplification("women", [side, ["women"] * 15 + ["men"] * 15, side])
    assert m.value is None and m.note.startswith("without bound")
    assert amplification("women", [side, side, side]).note.startswith("the group, or every other, is in no row")
    assert amplification("women", [side[:5], side, side]).note.startswith("needs 20 rows")


def test_wrong_groups_are_named_before_anything_runs() -> None:
    for groups, problem in (
        ({}, "needs groups"),
        ({"women": ["she"]}, "two groups or more"),
        ({"women": ["she"], "men": ["She"]}, "'she' is of two groups"),
        ({"a:b": ["x"], "c": ["y"]}, "colon"),
    ):
        with pytest.raises(RecipeError, match=problem):
            recipes.build(TOY | {"metric": [{"kind": "bias", "groups": groups}]}, ROOT)


def test_a_sensitive_recipe_needs_groups_and_gets_the_audits() -> None:
    with pytest.raises(RecipeError, match="sensitive = true looks for bias") as caught:
        recipes.build(TOY | {"sensitive": True}, ROOT)
    assert len(caught.value.problems) == 1
    with pytest.raises(RecipeError, match="sensitive must be true or false"):
        recipes.build(TOY | {"sensitive": "yes"}, ROOT)
    groups = {"women": ["she", "her"], "men": ["he", "his"]}
    good = recipes.build(TOY | {"sensitive": True, "metric": [{"kind": "bias", "groups": groups}]}, ROOT)
    assert [m.kind for m in good.metrics] == ["bias", "pii", "membership"]
    assert recipes.build(tomllib.loads(good.to_toml()), ROOT) == good

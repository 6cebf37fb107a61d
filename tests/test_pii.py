"""Personal data: what is found and what is not, what fails a run, and that the report says so without saying it again."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from test_run import TOY

from seedbed import recipe as recipes
from seedbed.compare import compare
from seedbed.errors import ComponentError, GateFailed
from seedbed.filters.personal import Personal
from seedbed.gates import failed, gates
from seedbed.metrics.pii import Pii
from seedbed.pii import IBAN_LENGTHS, POOLED, allowed, find, hidden, luhn
from seedbed.run import run
from seedbed.stats import more_p
from seedbed.task import Task
from seedbed.types import Candidate, Example, Measure, Sample

ROOT = Path(__file__).resolve().parent.parent
RIGHT = {
    "email": ["anna.b+x@mail.example.co.uk", "Write to O'Neill_9@ex-ample.org.", "<jürgen@müller.de>"],
    "phone": ["+44 20 7946 0958", "call 0049 30 901820", "(212) 555-0187", "1-212-555-0187", "212.555.0187"],
    "iban": ["GB82 WEST 1234 5698 7654 32 is mine", "DE89370400440532013000", "nl91 abna 0417 1643 00"],
    "card": ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "6011000990139424"],
    "ssn": ["123-45-6789", "856 45 6789"],
    "ip": ["from 8.8.8.8.", "2001:4860:4860::8888", "８.８.８.８"],
    "mac": ["00:1a:2B:3c:4d:5e", "00-1A-2B-3C-4D-5E"],
    "secret": ["AKIAIOSFODNN7EXAMPLE", "ghp_" + "a" * 36, "-----BEGIN RSA PRIVATE KEY-----"],
}
WRONG = [
    "a@b", "@name", "x..y@example.org", ".x@example.org", "anna at example dot com",
    "212-911-1234", "112-555-0187", "on 2023-10-12 at 10:20", "1000-2000", "+1 23", "0800 1111",
    "GB82 WEST 1234 5698 7654 33", "GB82 WEST 1234 5698 7654", "XX82 WEST 1234 5698 7654 32",
    "4111 1111 1111 1112", "1234567812345670", "0000 0000 0000 0000",
    "078-05-1120", "666-12-1234", "900-12-1234", "123-00-6789", "123456789",
    "192.168.0.1", "127.0.0.1", "version 1.2.3.4.5", "300.1.1.1", "12:30:45", "::", "192.0.2.7",
    "ff:ff:ff:ff:ff:ff", "AKIA", "ghp_short",
]  # fmt: skip


def test_every_kind_is_found_whatever_its_spelling() -> None:
    for kind, texts in RIGHT.items():
        for text in texts:
            assert {k for k, _ in find(text)} == {kind}, text
    assert find("GB82 WEST 1234 5698 7654 32") == find("gb82west12345698765432") == {("iban", "GB82WEST12345698765432")}
    assert find("(212) 555-0187") == find("+1 212 555 0187") == {("phone", "12125550187")}


@pytest.mark.parametrize("text", WRONG)
def test_what_fails_its_check_is_not_found(text: str) -> None:
    assert find(text) == set()


def test_checksums_are_those_of_the_standards() -> None:
    rng = random.Random(3)
    for _ in range(200):
        digits = "".join(rng.choices("0123456789", k=15))
        assert sum(luhn(digits + str(d)) for d in range(10)) == 1
    assert luhn("79927398713") and len(IBAN_LENGTHS) > 80 and min(IBAN_LENGTHS.values()) == 15


def test_a_hostile_text_takes_no_long_time() -> None:
    """Each of these would hang a pattern that backtracks; 100,000 characters of each are read in a fraction of a second."""
    for piece in ("a", "a@", "1 ", "a.-", "(((( ", "+1", "GB82 ", ":", "x@" + "a" * 62 + ".", "0:"):
        assert not find(piece * (100_000 // len(piece))) or piece == "1 "


def test_allow_names_a_kind_a_value_or_a_domain() -> None:
    found = ("email", "anna@example.org")
    assert allowed(found, ["email"]) and allowed(found, ["Anna@Example.org"]) and allowed(found, ["@example.org"])
    assert not allowed(found, ["phone", "@org", "example.org", "bob@example.org"])
    for text in (
        "+44 20 7946 0958",
        "+44 (0)20 7946 0958",
        "(415) 555-2671",
        "GB82 WEST 1234 5698 7654 32",
        "00:1B:44:11:3A:B7",
        "4111 1111 1111 1111",
    ):
        (one,) = find(f"see {text} please")
        assert allowed(one, [text]) and not allowed(one, [text[:-1] + "x"])
    assert find("+44 (0)20 7946 0958") == find("0044 20 7946 0958")
    assert "nna" not in hidden("anna@example.org")


TASK = Task("plain", ("text",))


def rows(name: str, texts: list[str]) -> tuple[Example, ...]:
    return tuple(Example(f"{name}{i}", {"text": text}) for i, text in enumerate(texts))


def test_twenty_planted_addresses_are_each_found_and_their_rate_lies_in_the_interval() -> None:
    plain = [f"play song {i} in the kitchen" for i in range(300)]
    real = [f"write to user{i}@example.org about song {i}" for i in range(30)]
    sample = Sample(TASK, rows("fit", real + plain[:100]), (), rows("test", plain[100:200]))
    kept = rows("kept", [f"please tell user{i}@example.org that it is late" for i in range(20)] + plain[:180] + ["mine is new@example.org"])
    rate, leak = Pii().measure(sample, kept, 0)
    assert (rate.name, leak.name) == ("pii_rate", "pii_leak_rate")
    assert leak.value == 20 / 201 and leak.low is not None and leak.high is not None and leak.low < 0.1 < leak.high
    assert rate.value == 21 / 201 and rate.real == 0 and rate.p == pytest.approx(more_p(21, 201, 0, 100)) and rate.p < 0.01
    assert sorted((row.id, row.real, row.split) for row in leak.rows) == sorted((f"kept{i}", f"fit{i}", "fit") for i in range(20))
    assert not any("@" in row.what or row.text or row.near for row in leak.rows), "the value itself is not shown again"
    assert "21 of 201 rows (email 21): kept0, kept1, kept10, kept11, kept12 and 16 more; " in rate.note and "@" not in rate.note
    spared = Pii(allow=("@example.org",)).measure(sample, kept, 0)
    assert [m.value for m in spared] == [0, 0] and "0 of 201 rows; " in spared[0].note
    empty = Pii().measure(sample, (), 0)
    assert all(m.value is None and m.note for m in empty)


def test_an_input_of_the_pool_is_the_users_own() -> None:
    task = Task("text2text", ("text",), "reply")
    asked = Example("p", {"text": "mail me at me@example.org"})
    sample = Sample(task, (Example("f", {"text": "hi", "reply": "hello you@example.org"}),), (), (), (asked,))
    answered = Example("a", asked.fields | {"reply": "ok"})
    assert Pii().measure(sample, [answered], 0)[1].value == 0
    assert Pii().measure(sample, [replace(answered, fields=asked.fields | {"reply": "to you@example.org"})], 0)[1].value == 1


def test_real_inputs_that_were_labelled_are_said_to_hold_personal_data_and_count_for_no_rate() -> None:
    task = Task("classification", ("text",), "label", ("a", "b"))
    asked, made, real = (
        tuple(Example(name + str(i), {"text": text, "label": "a"}) for i, text in enumerate(texts))
        for name, texts in (("p", ["mail me at me@example.org", "nothing"]), ("made", ["new@example.org", "none"]), ("real", ["hi"]))
    )
    sample = Sample(task, real, (), real, tuple(Example(e.id, {"text": e.fields["text"]}) for e in asked))
    for kept, rate in (((*asked, *made), 0.5), (asked, None)):
        measures = Pii().measure(sample, kept, 0)
        assert measures[0].value == rate and all(f"1 of 2 {POOLED} (email 1): p0" in m.note for m in measures)
        gate = gates([asdict(m) for m in measures], False)[0]
        assert gate["passed"] is (None if rate is None else True) and POOLED in gate["why"]
    labelled = Candidate("c", 0, "", asked[0].fields, True, provenance={"generator": "annotate"})
    assert [which.judge([labelled], sample)[0].keep for which in (Personal(), Personal(which="any"))] == [True, False]


def test_the_filter_drops_what_would_fail_the_run() -> None:
    sample = Sample(TASK, rows("fit", ["write to a@example.org", "or +44 20 7946 0958"]), (), rows("test", ["b@example.org"]))
    texts = ["tell A@example.org", "call +442079460958 or b@example.org", "new@example.org", "nothing"]
    made = [Candidate(f"c{i}", i, text, {"text": text}, True) for i, text in enumerate(texts)]
    assert [v.reason for v in Personal().judge(made, sample)] == ["email of fit", "email of test", "", ""]
    assert [v.reason for v in Personal(which="any").judge(made, sample)] == ["email of fit", "email of test", "email", ""]
    kept = [Example(c.id, c.fields or {}) for c, v in zip(made, Personal().judge(made, sample), strict=True) if v.keep]
    assert Pii().measure(sample, kept, 0)[1].value == 0


def test_presidio_is_named_where_it_is_not_installed() -> None:
    import importlib.util

    if importlib.util.find_spec("presidio_analyzer"):
        assert ("us_ssn", "123-45-6789") in find("my social security number is 123-45-6789", "patterns")
        with pytest.raises(ComponentError, match="no such spaCy model"):
            find("anna", "xx_nothing")
    else:
        with pytest.raises(ComponentError, match=r"seedbed\[presidio\]"):
            find("anna", "patterns")


# Gates


def measure(name: str, value: float | None, p: float | None = None, note: str = "why") -> dict[str, Any]:
    return {"name": name, "value": value, "p": p, "note": note}


def test_a_gate_fails_on_a_leak_an_alarm_or_a_missing_number() -> None:
    leak, clean = measure("pii_leak_rate", 0.1, note="2 values; more"), measure("pii_leak_rate", 0.0)
    assert gates([], False) == []
    assert gates([clean], False) == [{"name": "pii", "passed": True, "why": ""}]
    assert failed(gates([leak], False)) == "gate pii: 2 values"
    unseen = [measure("pii_leak_rate", None)]
    assert gates(unseen, False) == [{"name": "pii", "passed": None, "why": "pii_leak_rate was not measured: why"}]
    assert failed(gates(unseen, False)) == "" and "pii_leak_rate was not measured" in failed(gates(unseen, True))
    whole = [clean, measure("membership_auc", 0.51, 0.3), measure("group_skew", 0.1, 0.2)]
    assert [g["passed"] for g in gates(whole, True)] == [True, True, True]
    assert "membership_auc was not measured" in failed(gates([clean, measure("membership_auc", None), whole[2]], True))
    assert "the recipe has no such metric" in failed(gates(whole[:2], True))
    assert "membership_auc is 0.7" in failed(gates([clean, measure("membership_auc", 0.7, 0.004), whole[2]], True))
    several = [measure(f"amplification:g{i}", 1.2, 0.004) for i in range(3)]
    assert "amplification" not in failed(gates([*whole, *several], True)), "0.004 is above 0.01 / 4"
    assert "amplification:g0" in failed(gates([*whole, measure("amplification:g0", 3.0, 0.002), *several[1:]], True))


@pytest.mark.slow
def test_a_run_that_leaks_fails_and_leaves_everything_with_the_warning(tmp_path: Path) -> None:
    import csv

    with (ROOT / "examples/helpdesk.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))[:240]
    for row in table:
        row["message"] += " mail me at desk.user@example.org"
    with (tmp_path / "leaky.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    raw = TOY | {
        "sample": {"path": "leaky.csv"},
        "metric": [{"kind": "pii"}],
        "filter": [{"kind": "form"}, {"kind": "dedup"}],
        "generate": {"count": 60, "max_tokens": 200, "temperature": 0.7},
    }
    with pytest.raises(GateFailed, match="gate pii: 1 values of real rows") as caught:
        run(recipes.build(raw, tmp_path), tmp_path)
    done = caught.value.run
    assert done.verdict.startswith("do not use these rows: gate pii")
    scores = json.loads((done.folder / "scores.json").read_text())
    assert scores["gates"] == [{"name": "pii", "passed": False, "why": scores["gates"][0]["why"]}]
    page, card = (done.folder / "report.html").read_text(), (done.folder / "dataset/README.md").read_text()
    assert "Do not use" in page and "What leaked" in page and "desk.user@" not in json.dumps(scores["measures"])
    assert "| pii | NO |" in card
    allowing = raw | {"name": "allowing", "metric": [{"kind": "pii", "allow": ["@example.org"]}]}
    assert run(recipes.build(allowing, tmp_path), tmp_path).scores["gates"][0]["passed"]
    beside = raw | {"name": "beside", "arm": [{"name": "one"}]}
    notes = {r["arm"]: r["note"] for r in compare(recipes.build(beside, tmp_path), (), seeds=1, out=tmp_path).rows}
    assert "personal data of real rows in" in notes["one"] and "would fail its gate" in notes["one"] and "personal" not in notes["real only"]


def test_a_leak_of_measures_is_a_value_like_others() -> None:
    assert Measure("x", 1.0).rows == ()

"""Programs are kept where they pass, worked answers where their arithmetic is true; the shipped candidates end as they say; real rows are kept."""

from __future__ import annotations

import gzip
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, shared_data

from seedbed import sandbox
from seedbed.arithmetic import evaluate, final_number, results, true
from seedbed.errors import RecipeError, SandboxError
from seedbed.filters.verified import Verified
from seedbed.naming import Naming
from seedbed.recipe import build
from seedbed.sifting import sift, sifted
from seedbed.task import Task, read_candidate
from seedbed.types import Candidate, Example, Row, Sample

TASKS = {"code": Task("code", ("text",), "code", tests="tests"), "math": Task("math", ("question",), "answer")}


def recorded(kind: str) -> tuple[list[Candidate], list[str]]:
    """The shipped candidates of a kind, and why each is dropped."""
    lines = [json.loads(line) for line in (ROOT / f"examples/recorded/{kind}.jsonl").read_text(encoding="utf-8").splitlines()]
    made = [read_candidate(TASKS[kind], Row(i, i), line["text"], True, line.get("provenance", {})) for i, line in enumerate(lines)]
    return made, [line["expect"] for line in lines]


@pytest.fixture
def isolated() -> None:
    try:
        sandbox.ready()
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("isolated")
@pytest.mark.parametrize("kind", TASKS)
def test_recorded_candidates_end_as_they_say(kind: str, tmp_path: Path) -> None:
    """From texts to kept.jsonl and dropped.jsonl; each kind of reason is there, and at least four good ones."""
    made, expected = recorded(kind)
    task: dict[str, Any] = {"kind": kind, "inputs": list(TASKS[kind].inputs), "target": TASKS[kind].target}
    (tmp_path / "rows.csv").write_text("text,code,tests,question,answer\n", encoding="utf-8")
    recipe = build(
        {
            "sample": {"path": "rows.csv"},
            "task": task | ({"tests": "tests"} if kind == "code" else {}),
            "filter": [{"kind": "verified"} | ({"seconds": 1} if kind == "code" else {})],
        },
        tmp_path,
    )
    sift(tmp_path, made, recipe, Sample(TASKS[kind], (), (), ()))
    kept, dropped = sifted(tmp_path)
    reasons = {d["id"]: d["reason"] for d in dropped}
    assert [reasons.get(c.id, "") for c in made] == expected
    assert len(kept) == expected.count("") >= 4
    assert len(set(expected)) >= 6
    assert {d["filter"] for d in dropped} == {"parse", "verified"}


@pytest.mark.parametrize(
    ("mark", "holds"),
    [
        ("48/2=24", True),
        ("48/2=25", False),
        ("10/3=3.33", True),
        ("10/3=3.34", False),
        ("1/3=0.34", False),
        ("2/3=0.66", True),
        ("2/3=0.67", True),
        ("1/8=0.12", True),
        ("1/8=0.13", True),
        ("1/8=0.11", False),
        ("1-10/6=-.66", True),
        ("1-10/6=-.67", True),
        ("1-10/6=-.68", False),
        ("1-10/6=.66", False),
        ("10/3=3.3", True),
        ("10/3=3.35", False),
        ("7/2=3", False),
        ("0.1+0.2=0.3", True),
        ("$1,200*15%=$180", True),
        ("1,200 x .5 = 600", True),
        ("20%*50=10", True),
        ("50%=.5", True),
        ("7%4=3", True),
        ("(2+3)*4=20", True),
        ("2(3+4)=14", False),
        ("2**10=1024", True),
        ("2^3=8", True),
        ("2**10**10=1", False),
        ("1/0=0", False),
        ("5=5", True),
        ("1+1=2=2.0", True),
        ("1+1=2=3", False),
        ("05+05=10", True),
        ("-3+5=2", True),
        ("x=3", False),
        ("48", False),
        ("", False),
        ("=", False),
        ("__import__('os').getpid()=1", False),
        ("'a'*3=3", False),
        ("1j*1j=-1", False),
        ("True=1", False),
        ("(" * 300 + "1" + ")" * 300 + "=1", False),
    ],
)
def test_a_mark_is_true_where_both_sides_are_the_same_number(mark: str, holds: bool) -> None:
    assert true(mark) is holds


def test_arithmetic_is_exact() -> None:
    assert evaluate("0.1*3") == Fraction(3, 10)
    assert evaluate("1e400") is None or evaluate("1e400") == Fraction(10**400)
    assert evaluate("9**64**2") is None


def test_a_number_without_end_and_powers_of_powers_are_no_arithmetic() -> None:
    assert Verified().check_answer("So #### " + "1" * 5000) == "no final number"
    assert Verified().check_answer("It is " + "1" * 5000 + " = 7.\n#### 7") == ""
    tower = "9"
    for _ in range(9):
        tower = f"({tower}**64)"
    assert evaluate(tower) is None and evaluate(f"{tower}-{tower}") is None
    assert evaluate("2**64*2**64") == 2**128


def test_what_a_worked_answer_comes_to() -> None:
    assert results("2*3=<<2*3=6>>6\nIn all 6 + 4 apples = $1,010 or 1,010.50 each\n#### 10") == {Fraction(6), Fraction(1010), Fraction("1010.5")}
    assert results("") == set()
    assert final_number("1,000.50") == "1000.5"
    assert final_number("about .50") == "0.5"
    assert final_number("-007.0") == "-7"
    assert final_number("-0.00") == final_number("0") == "0"


def answers(confidence: Any, agree: float = 0.6) -> str:
    provenance = {"confidence": confidence} if confidence else {}
    candidate = Candidate("c", 0, "", {"question": "q", "answer": "It is 4.\n#### 4"}, True, provenance=provenance)
    return Verified(agree=agree).judge([candidate], Sample(TASKS["math"], (), (), ()))[0].reason


def test_answers_that_disagree() -> None:
    assert [answers({"answers": 5, "agreeing": k}) for k in range(6)] == ["answers disagree"] * 3 + [""] * 3
    assert answers(None) == ""
    assert answers({"answers": 5, "agreeing": 1}, agree=0.2) == ""


def test_marks_can_be_asked_for() -> None:
    assert Verified().check_answer("It is 4.\n#### 4") == ""
    assert Verified(marks=1).check_answer("It is 4.\n#### 4") == "fewer than 1 marks"


TRIPLES = Task("data2text", ("triples",), "text")
TOLD = [
    ([["Turin_Airport", "cityServed", "Turin"]], "Turin Airport serves the city of Turin."),
    ([["Oulu", "leader", "Anna Kask"]], "Anna Kask leads Oulu."),
    ([["Oulu", "country", "Finland"], ["Finland", "capital", "Helsinki"]], "Oulu is in Finland, whose capital is Helsinki."),
]


def _texts(rows: list[tuple[Any, str]], task: Task = TRIPLES) -> list[dict[str, Any]]:
    return [{task.inputs[0]: data, "text": text} for data, text in rows]


def test_a_text_that_leaves_out_what_its_data_says_is_dropped() -> None:
    """What relates subject and object is not asked for: real texts say it in other words."""
    sample = Sample(TRIPLES, tuple(Example(str(i), fields) for i, fields in enumerate(_texts(TOLD))), (), ())
    data = [["Bergen_Airport", "operator", "Avinor"]]
    said = {"AVINOR runs Bergen Airport.": "", "Oslo runs Bergen Airport.": "leaves out its data", "The operator is Avinor.": "leaves out its data"}
    made = [Candidate(str(i), i, "", {"triples": data, "text": text}, True) for i, text in enumerate(said)]
    assert [v.reason for v in Verified().judge([*made, Candidate("x", 9, "", None, True)], sample)] == [*said.values(), ""]
    assert [v.keep for v in Verified(told=0.6).judge(made, sample)] == [True, True, False]  # 3, 2 and 1 of three words
    assert all(v.keep for v in Verified(told=0.0).judge(made, sample))


def test_places_are_keys_and_positions_within_an_item() -> None:
    acts = Task("data2text", ("acts",), "text")
    rows: list[tuple[Any, str]] = [
        ([{"act": "INFORM", "slot": "city", "values": ["Oulu", "now"]}, {"act": "OFFER", "slot": "day", "values": ["May 4"]}], "In Oulu on May 4."),
        ([{"act": "INFORM", "slot": "time", "values": ["noon"]}], "At noon."),
    ]
    naming = Naming(acts, _texts(rows, acts))
    assert naming.told == {("acts", "values", 0)}
    assert naming.share({"acts": [{"slot": "city", "values": ["Lake Inari", "x"]}], "text": "To Inari!"}) == 0.5
    assert naming.share({"acts": [{"slot": "city"}], "text": "To Inari!"}) is None
    assert naming.share({"acts": [], "text": ""}) is None


def test_nine_of_ten_real_texts_name_as_much_as_is_asked() -> None:
    texts = ["Oulu and Turku", *["Oulu"] * 3, *["Oulu, Turku, Lahti, Espoo"] * 26]
    naming = Naming(TRIPLES, _texts([([["Oulu", "", "Turku"], ["Lahti", "", "Espoo"]], text) for text in texts]))
    assert naming.least == 0.5
    assert Verified().check_texts(naming, _texts([([["a", "", "b"]], text) for text in ("a", "c")])) == ["", "leaves out its data"]
    assert Verified().check_texts(Naming(TRIPLES, []), _texts(TOLD)) == ["", "", ""]


def test_real_texts_are_kept_and_those_of_other_rows_are_not() -> None:
    rows = real("webnlg", 3000)
    naming = Naming(TRIPLES, rows[:2000])
    assert sum(not why for why in Verified().check_texts(naming, rows[2000:])) >= 800
    others = [row | {"text": other["text"]} for row, other in zip(rows[2000:], rows[2500:] + rows[2000:2500], strict=True)]
    assert sum(not why for why in Verified().check_texts(naming, others)) <= 20


def test_a_recipe_of_another_task_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n", encoding="utf-8")
    raw = {"sample": {"path": "rows.csv"}, "task": {"kind": "text2text", "inputs": ["a"], "target": "b"}, "filter": [{"kind": "verified"}]}
    with pytest.raises(RecipeError, match=r"\[filter 1\] verified looks at tasks of kind code, math and data2text, got text2text"):
        build(raw, tmp_path)
    with pytest.raises(RecipeError, match=r"\[filter 1\] verified needs the column of asserts"):
        build(raw | {"task": {"kind": "code", "inputs": ["a"], "target": "b"}}, tmp_path)


def test_without_a_sandbox_the_filter_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox.ready.cache_clear()
    made, expected = recorded("code")
    try:
        with pytest.raises(SandboxError, match="bwrap is not installed"):
            Verified().judge(made, Sample(TASKS["code"], (), (), ()))
        few = [(c, e) for c, e in zip(made, expected, strict=True) if e in ("", "asserts fail", "fewer than 3 asserts")]
        said = Verified(isolation="none").judge([c for c, _ in few], Sample(TASKS["code"], (), (), ()))
        assert [v.reason for v in said] == [e for _, e in few]
    finally:
        sandbox.ready.cache_clear()


def real(name: str, rows: int) -> list[dict[str, Any]]:
    with gzip.open(shared_data() / name / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(rows), strict=False)]


@pytest.mark.usefixtures("isolated")
def test_real_rows_are_kept_and_corrupted_ones_are_not() -> None:
    """A few here; all of them in benchmarks/verifier.py."""
    code = real("mbpp", 12)
    assert Verified().check_programs([(row["code"], row["test_list"]) for row in code]) == [""] * 12
    others = [(row["code"], other["test_list"]) for row, other in zip(code, code[1:] + code[:1], strict=True)]
    assert "" not in Verified().check_programs(others)
    math = [row["answer"] for row in real("gsm8k", 200)]
    assert sum(Verified().check_answer(answer) == "" for answer in math) >= 198
    assert all(Verified().check_answer(answer.replace("=", "=1", 1)) for answer in math if "<<" in answer.partition("=")[0])

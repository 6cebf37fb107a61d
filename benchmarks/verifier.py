"""Is the filter `verified` right about real rows? Gold must be kept, corrupted rows must be dropped: each in at least 99 %.

`python benchmarks/verifier.py [--rows N]`. Real rows: all splits of MBPP and GSM8K, from the folder that SEEDBED_SHARED names or `../shared` beside
the checkout. Prints a table with Wilson's 95 % intervals, writes nothing; the last line is one JSON object; exit status 1 where a share of all
splits is under 99 %, but for marks that the default does not ask for.

What makes a row wrong is decided without the verifier:
- another row's asserts: they are about another function;
- an assert's answer changed: the program gives the old one, and one call has one answer;
- an operator or a constant of the program changed: wrong where plain Python, asked to run the program and then the asserts as they stand, raises.
  Mutants that it runs through (they are equivalent, or the asserts too weak to tell) must be kept like gold;
- a program that gives an object equal to everything;
- GSM8K: one digit of a mark's result, or of the final number, changed; another row's final number.
GSM8K's rules were chosen on train and dev, MBPP's on train; test is measured beside them.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seedbed import sandbox
from seedbed.arithmetic import MARK, final_number
from seedbed.filters.verified import Verified
from seedbed.stats import wilson
from seedbed.types import seed_for

SPLITS = ("train", "dev", "test", "fewshot")
LEAST = 0.99
MARKED = "gold, at least one mark asked for"
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
}  # fmt: skip
ANY = "class Any(int):\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"
Rows = list[dict[str, Any]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, help="at most so many of each split: the program works; too few to judge by")
    rows, start = parser.parse_args().rows, time.monotonic()
    results: list[dict[str, Any]] = []
    for name, measure in (("mbpp", programs), ("gsm8k", answers)):
        for split in SPLITS:
            found = load(name, split, rows)
            judged = measure(found, random.Random(seed_for(1, name, split))) if found else []
            results += [row(f"{name} {split}", *one) for one in judged if one[2]]
    for what in dict.fromkeys((r["what"], r["set"].split()[0], r["keep"]) for r in results):
        parts = [r for r in results if (r["what"], r["set"].split()[0], r["keep"]) == what]
        results.append(total(f"{what[1]} all", what[0], what[2], sum(r["right"] for r in parts), sum(r["n"] for r in parts)))
    failed = [r for r in results if r["set"].endswith(" all") and r["share"] < LEAST and r["what"] != MARKED]
    print(json.dumps({"results": results, "failed": len(failed), "seconds": round(time.monotonic() - start)}))
    return 1 if failed else 0


def load(name: str, split: str, rows: int | None) -> Rows:
    shared = Path(os.environ.get("SEEDBED_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    path = shared / "data" / name / f"{split}.jsonl.gz"
    if not path.is_file():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return list(map(json.loads, file))[:rows]


def row(where: str, what: str, keep: bool, reasons: Sequence[str]) -> dict[str, Any]:
    """Counts and prints one line, with the reasons of what went the wrong way."""
    wrong = Counter(r or "kept" for r in reasons if bool(r) is keep)
    return total(where, what, keep, len(reasons) - sum(wrong.values()), len(reasons), dict(wrong))


def total(where: str, what: str, keep: bool, right: int, n: int, wrong: dict[str, int] | None = None) -> dict[str, Any]:
    low, high = wilson(right, n)
    print(
        f"| {where} | {what} | {'kept' if keep else 'dropped'} | {100 * right / n:.1f} | {100 * low:.1f} to {100 * high:.1f} | {n} | {wrong or ''} |",
        flush=True,
    )
    return {"set": where, "what": what, "keep": keep, "right": right, "n": n, "share": right / n, "low": low, "high": high, "wrong": wrong or {}}


def programs(rows: Rows, rng: random.Random) -> list[tuple[str, bool, list[str]]]:
    judge = Verified().check_programs
    gold = judge([(r["code"], r["test_list"]) for r in rows])
    good = [r for r, reason in zip(rows, gold, strict=True) if not reason]
    shifted = good[1:] + good[:1]
    changed = [(r["code"], [wrong_answer(r["test_list"][0]), *r["test_list"][1:]]) for r in good if wrong_answer(r["test_list"][0])]
    mutants = [(mutant(r["code"], rng), r["test_list"]) for r in good]
    mutants = [(program, tests) for program, tests in mutants if program]
    plain = sandbox.each(lambda pair: sandbox.run("\n".join([pair[0], *pair[1]])).ok, mutants)
    found = judge(mutants)
    return [
        ("gold", True, gold),
        ("another row's asserts", False, judge([(r["code"], other["test_list"]) for r, other in zip(good, shifted, strict=True)])),
        ("an answer changed", False, judge(changed)),
        ("a program changed, plain Python raises", False, [f for f, ok in zip(found, plain, strict=True) if not ok]),
        ("a program changed, plain Python does not", True, [f for f, ok in zip(found, plain, strict=True) if ok]),
        ("equal to everything", False, judge([(equal_to_all(r["code"]), r["test_list"]) for r in good])),
    ]


def wrong_answer(test: str) -> str | None:
    """The assert with another constant on the right of its ==; None where it has another form."""
    step = ast.parse(test).body[0]
    if not (isinstance(step, ast.Assert) and isinstance(step.test, ast.Compare) and isinstance(step.test.ops[0], ast.Eq)):
        return None
    try:
        value = ast.literal_eval(step.test.comparators[0])
    except ValueError:
        return None
    other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int | float) else [value, "else"]
    return f"assert {ast.unparse(step.test.left)} == {other!r}"


def mutant(program: str, rng: random.Random) -> str | None:
    """The program with one operator or constant changed inside a function; None where it has neither."""
    tree = ast.parse(program)
    places: list[tuple[Any, str, int | None, Any]] = []
    for function in (f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)):
        for node in ast.walk(function):
            if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in SWAPS:
                places.append((node, "op", None, SWAPS[type(node.op)]()))
            elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
                places.append((node, "ops", 0, SWAPS[type(node.ops[0])]()))
            elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
                places.append((node, "value", None, not node.value if isinstance(node.value, bool) else node.value + 1))
    if not places:
        return None
    node, field, index, value = rng.choice(places)
    if index is None:
        setattr(node, field, value)
    else:
        getattr(node, field)[index] = value
    return ast.unparse(ast.fix_missing_locations(tree))


def equal_to_all(program: str) -> str:
    tree = ast.parse(program)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body = [ast.parse("return Any(0)").body[0]] if node.name != "__init__" else node.body
    return ANY + ast.unparse(tree)


def answers(rows: Rows, rng: random.Random) -> list[tuple[str, bool, list[str]]]:
    texts = [r["answer"] for r in rows]
    marked = [text for text in texts if MARK.search(text)]
    finals = [str(final_number(text)) for text in texts]
    others = [(text, other) for text, own, other in zip(texts, finals, finals[1:] + finals[:1], strict=True) if own != other]
    check = Verified().check_answer
    return [
        ("gold", True, list(map(check, texts))),
        (MARKED, True, list(map(Verified(marks=1).check_answer, texts))),
        ("a mark's result changed", False, [check(wrong_mark(text, rng)) for text in marked]),
        (
            "the final number changed",
            False,
            [check(f"{text.rpartition('#### ')[0]}#### {digit_changed(text.rpartition('#### ')[2], rng)}") for text in texts],
        ),
        ("another row's final number", False, [check(f"{text.rpartition('#### ')[0]}#### {other}") for text, other in others]),
    ]


def wrong_mark(text: str, rng: random.Random) -> str:
    mark = rng.choice(list(MARK.finditer(text)))
    left, _, right = mark[1].rpartition("=")
    return f"{text[: mark.start()]}<<{left}={digit_changed(right, rng)}>>{text[mark.end() :]}"


def digit_changed(number: str, rng: random.Random) -> str:
    """One digit is another one from 1 to 9."""
    digits = [m.start() for m in re.finditer(r"\d", number)]
    place = rng.choice(digits)
    return f"{number[:place]}{rng.choice([d for d in '123456789' if d != number[place]])}{number[place + 1 :]}"


if __name__ == "__main__":
    sys.exit(main())

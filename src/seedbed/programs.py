"""Whether a program passes its asserts, judged so that the program cannot say so itself.

An assert is taken apart. What calls the program (`area(2, 3)`) is a question, answered in the sandbox by the program; what the answer is compared
with (`== 6`) never gets there. Plain comparisons are made here, on plain data; any other claim (`math.isclose(_v0, 6.0)`) is evaluated in a second
sandbox, which has the answers and no program. So sys.exit(0) before the asserts, os._exit(0), a patched `assert`, an object that equals everything,
or an answer written into the channel pass nothing: see `sandbox`.
"""

from __future__ import annotations

import ast
import builtins
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from seedbed import sandbox
from seedbed.errors import ParseError
from seedbed.sandbox import LIMITS, Isolation, Limits, Opaque

LONGEST = 20_000
"""Characters of a program, or of an assert, that are parsed; more could exhaust the parser's stack."""
WRAPS = frozenset("all any bool dict float frozenset int len list max min next round set sorted str sum tuple".split())
"""Builtins that belong to the question when they stand around it: a generator is no plain data, its list is."""
UNJUDGED = ("asserts do not parse", "asserts of another form")
"""Reasons that say nothing of the program."""
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda, ast.NamedExpr)
VALUES = "from collections import deque\nfrom math import inf, nan\n"


@dataclass(frozen=True)
class Claim:
    """One assert. test: its expression, with the name `_v0`, `_v1`, ... for each of the questions."""

    test: ast.expr
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """A program and what its asserts claim. imports: the asserts' own, as source."""

    program: str
    claims: tuple[Claim, ...]
    imports: str = ""

    @property
    def different(self) -> int:
        """Asserts that ask the program something, those with the same questions counted once."""
        return len({c.questions for c in self.claims if c.questions})

    def emptied(self) -> Trial:
        """The same claims of the program with `return None` as the body of every function."""
        return replace(self, program=emptied(self.program))


def trial(program: str, tests: Sequence[str]) -> Trial:
    """Takes the asserts apart. Raises ParseError: program or asserts are no Python or too long, or an assert is of a form that cannot be taken apart.

    A test is any number of asserts and imports. A call of the program inside a comprehension or lambda cannot be taken out of it.
    """
    body = _parse(program, "program does not parse").body
    if not all(isinstance(test, str) for test in tests):
        raise ParseError("asserts do not parse")
    steps = [step for test in tests for step in _parse(test, "asserts do not parse").body]
    imports = [step for step in steps if isinstance(step, ast.Import | ast.ImportFrom)]
    asserts = [step for step in steps if isinstance(step, ast.Assert)]
    if len(imports) + len(asserts) < len(steps):
        raise ParseError("asserts of another form")
    known = frozenset(dir(builtins)) | sys.stdlib_module_names | {a.asname or a.name.partition(".")[0] for step in imports for a in step.names}
    outside = known - _bound(body)
    return Trial(program, tuple(_claim(step.test, outside) for step in asserts), "\n".join(map(ast.unparse, imports)))


def judge(trials: Sequence[Trial], limits: Limits = LIMITS, isolation: Isolation = "sandbox") -> list[str]:
    """For each, "" where every assert holds, else why not: "asserts fail", "program fails" (it raised), "timeout", "memory", "output", "killed",
    "ended early". Each in a sandbox of its own. Raises SandboxError where isolation is asked for and this machine has none."""
    if isolation == "sandbox" and trials:
        sandbox.ready()
    return sandbox.each(lambda one: _judge(one, limits, isolation), trials)


def emptied(program: str) -> str:
    """The program with `return None` as the body of every function."""
    tree = _parse(program, "program does not parse")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [ast.Return(ast.Constant(None))]
        elif isinstance(node, ast.Lambda):
            node.body = ast.Constant(None)
    return ast.unparse(ast.fix_missing_locations(tree))


def _parse(text: str, problem: str) -> ast.Module:
    if len(text) > LONGEST:
        raise ParseError("too long")
    try:
        with warnings.catch_warnings():  # of escapes that Python will refuse one day
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ParseError(problem) from error


def _bound(body: Sequence[ast.AST]) -> set[str]:
    """Names that a module binds itself, locals of its functions apart; what it imports is not its own."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif not isinstance(node, ast.Lambda):
            names |= _bound(list(ast.iter_child_nodes(node)))
    return names


def _claim(test: ast.expr, outside: frozenset[str]) -> Claim:
    lift = _Lift(outside)
    return Claim(lift.visit(test), tuple(lift.questions))


class _Lift(ast.NodeTransformer):
    """Puts a name in the place of each expression that only the program can answer."""

    def __init__(self, outside: frozenset[str]) -> None:
        self.outside = outside
        self.questions: list[str] = []

    def visit(self, node: ast.AST) -> Any:
        """The node where it names nothing of the program's, a name where it is a question, else its parts' turn. Raises ParseError."""
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        bound = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
        if names <= self.outside | bound:
            return node
        if isinstance(node, COMPREHENSIONS):
            raise ParseError("asserts of another form")
        if self._asks(node):
            self.questions.append(ast.unparse(node))
            return ast.Name(f"_v{len(self.questions) - 1}", ast.Load())
        return self.generic_visit(node)

    def _asks(self, node: ast.AST) -> bool:
        """Whether it is the program's name, something of it or a call of it, or a builtin that makes plain data of such a one."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in WRAPS & self.outside and len(node.args) == 1:
            return not node.keywords and self._asks(node.args[0])
        while isinstance(node, ast.Call | ast.Attribute | ast.Subscript):
            node = node.func if isinstance(node, ast.Call) else node.value
        return isinstance(node, ast.Name) and node.id not in self.outside


def _judge(one: Trial, limits: Limits, isolation: Isolation) -> str:
    questions = [question for claim in one.claims for question in claim.questions]
    found = sandbox.run(one.program, questions, limits, isolation)
    if not found.ok:
        return "program fails" if found.reason == "failed" else found.reason
    values, others = list(found.values), []
    for claim in one.claims:
        own, values = values[: len(claim.questions)], values[len(claim.questions) :]
        try:
            holds = bool(_plain(claim.test, own))
        except _Other:
            others.append((claim.test, own))
            continue
        except (TypeError, RecursionError):
            return "asserts fail"
        if not holds:
            return "asserts fail"
    return _elsewhere(one, others, limits, isolation) if others else ""


class _Other(Exception):
    """A claim that is no plain comparison."""


def _plain(test: ast.expr, values: Sequence[Any]) -> Any:
    """The value of a plain comparison. Raises _Other for anything else."""
    if isinstance(test, ast.Name) and test.id.startswith("_v"):
        return values[int(test.id[2:])]
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return not _plain(test.operand, values)
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        a, op, b = _plain(test.left, values), test.ops[0], _plain(test.comparators[0], values)
        if isinstance(op, ast.Eq | ast.NotEq):
            return (a == b) is isinstance(op, ast.Eq)
        if isinstance(op, ast.Is | ast.IsNot) and (b is None or isinstance(b, bool)):
            return (a is b) is isinstance(op, ast.Is)
        raise _Other
    try:
        return ast.literal_eval(test)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise _Other from error


def _elsewhere(one: Trial, claims: Sequence[tuple[ast.expr, Sequence[Any]]], limits: Limits, isolation: Isolation) -> str:
    """The same for claims that are no plain comparisons, in a sandbox that never saw the program."""
    lines, tests = [VALUES, one.imports], []
    for number, (test, values) in enumerate(claims):
        if any(map(_opaque, values)):
            return "asserts fail"
        named = ", ".join(f"_v{i}=({value!r})" for i, value in enumerate(values))
        lines += [f"import {name}" for name in sorted({n.id for n in ast.walk(test) if isinstance(n, ast.Name)} & sys.stdlib_module_names)]
        lines.append(f"def _claim{number}({named}): return bool({ast.unparse(test)})")
        tests.append(f"_claim{number}()")
    found = sandbox.run("\n".join(lines), tests, limits, isolation)
    return "" if found.ok and all(value is True for value in found.values) else "asserts fail"


def _opaque(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_opaque(part) for pair in value.items() for part in pair)
    return isinstance(value, Opaque) or (not isinstance(value, str | bytes) and hasattr(value, "__iter__") and any(map(_opaque, value)))

"""Arithmetic that stands in a text, such as GSM8K's calculator marks `<<48/2=24>>` (Cobbe et al. 2021): read, and evaluated without `eval`."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction

MARK = re.compile(r"<<([^<>]*)>>")
NUMBER = re.compile(r"-?(?:\d(?:[\d,]*\d)?(?:\.\d+)?|\.\d+)")
BEHIND = re.compile(rf"=\s*[$€£]?({NUMBER.pattern})")
LONGEST = 500
"""Characters of an expression that are parsed, and of a number."""
POWER = 64
"""The largest exponent, either way."""
BITS = 10_000
"""Of a power: powers of powers grow without end."""
OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: operator.mod,
}


def marks(text: str) -> list[str]:
    """What stands between << and >>, in order."""
    return MARK.findall(text)


def true(mark: str) -> bool:
    """Whether all sides of `a=b` are the same number, rounded or cut to the decimals that a side is written with: 10/3=3.33 is true; 10/3=3.34 and
    7/2=3 are not."""
    sides = mark.split("=")
    values = [evaluate(side) for side in sides]
    if len(sides) < 2 or values[0] is None:
        return False
    return all(value is not None and _same(values[0], value, side) for side, value in zip(sides[1:], values[1:], strict=True))


def result(mark: str) -> Fraction | None:
    """The number behind the last `=`; None where there is none."""
    _, equals, right = mark.rpartition("=")
    return evaluate(right) if equals else None


def final_number(text: str) -> str | None:
    """The number behind `####`, or the text's last number, in its shortest form: 1,000.50 is 1000.5; None where it has none."""
    found = _numbers(text.rsplit("####", 1)[-1])
    if not found:
        return None
    whole, point, decimals = found[-1].replace(",", "").partition(".")
    decimals = decimals.rstrip("0")
    digits = whole.lstrip("-").lstrip("0") or "0"
    number = f"{digits}{point}{decimals}" if decimals else digits
    return f"-{number}" if whole.startswith("-") and number != "0" else number


def results(text: str) -> set[Fraction]:
    """What a worked answer comes to: the result of its last mark; in the last line before `####`, what stands behind the last `=`, and the last
    number. In GSM8K's train and dev rows the last step is often without a mark."""
    found = [result(mark) for mark in marks(text)[-1:]]
    lines = MARK.sub("", text.rsplit("####", 1)[0]).strip().splitlines()
    last = lines[-1] if lines else ""
    found += [Fraction(number.replace(",", "")) for number in BEHIND.findall(last)[-1:] + _numbers(last)[-1:] if len(number) <= LONGEST]
    return {value for value in found if value is not None}


def _numbers(text: str) -> list[str]:
    return [number for number in NUMBER.findall(text) if len(number) <= LONGEST]


def evaluate(text: str) -> Fraction | None:
    """The exact value of numbers, + - * / // % ** and parentheses; None for anything else, for a division by 0, for
    exponents over 64 and for powers of over 3,000 digits.

    Currency signs, thousands separators and white space count for nothing; x and ÷ are * and /; `20%` before an operator or the end is 20/100.
    """
    plain = re.sub(r"[$€£\s]", "", text).replace("×", "*").replace("÷", "/").replace("−", "-").replace("^", "**")
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain)
    plain = re.sub(r"(?<=[\d)])[xX](?=[\d(.])", "*", plain)
    plain = re.sub(r"(\d+(?:\.\d+)?|\.\d+)%(?![\d(.])", r"(\1/100)", plain)
    plain = re.sub(r"(?<![\d.])0+(?=\d)", "", plain)  # Python reads no 05
    if len(plain) > LONGEST:
        return None
    try:
        return _value(ast.parse(plain, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))  # 0.1 is a tenth
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return -_value(node.operand) if isinstance(node.op, ast.USub) else _value(node.operand)
    if isinstance(node, ast.BinOp):
        a, b = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow):
            if b.denominator != 1 or abs(b) > POWER or abs(b) * max(a.numerator.bit_length(), a.denominator.bit_length()) > BITS:
                raise ValueError("too large a power")
            return Fraction(a**b)
        if type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](a, b)
    raise ValueError("no arithmetic")


def _same(value: Fraction, written: Fraction, text: str) -> bool:
    """Equal, or equal once rounded (a half either way) or cut to the decimals that `text` is written with, where it has any."""
    decimals = re.fullmatch(r"\D*[\d,]*\.(\d+)\D*", text.strip())
    if decimals is None:
        return value == written
    off, last = abs(value - written), Fraction(1, 10 ** len(decimals[1]))
    return 2 * off <= last or (off < last and abs(written) < abs(value))

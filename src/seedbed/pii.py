"""Personal data in texts, by patterns that are checked where they can be: checksums, number plans, address ranges. Filter and metric both read this.

What has no fixed form is not found: names, postal addresses, dates of birth, "anna at example dot com". presidio-analyzer (extra) knows more
patterns, and names where a spaCy model is installed.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from seedbed.errors import ComponentError

Found = tuple[str, str]
"""(kind, the value in one spelling)."""
POOLED = "real inputs of the pool hold personal data, as they came"
"""In the notes of the metric `pii`, and beside its gate."""
_LENGTHS = (
    "15 NO; 16 BE; 18 DK FI FK FO GL NL SD; 19 MK SI; 20 AT BA EE KZ LT LU MN XK; 21 CH HR LI LV; 22 BG BH CR DE GB GE IE ME RS VA; "
    "23 AE GI IL IQ OM SO TL; 24 AD CZ ES MD PK RO SA SE SK TN VG; 25 LY PT ST; 26 IS TR; 27 BI DJ FR GR IT MC MR SM; "
    "28 AL AZ BY CY DO GT HN HU LB NI PL; 29 BR EG PS QA UA; 30 JO KW MU YE; 31 MT SC; 32 LC; 33 RU"
)
IBAN_LENGTHS = {country: int(length) for length, *countries in map(str.split, _LENGTHS.split(";")) for country in countries}
"""Characters of an IBAN by country (SWIFT's IBAN registry)."""
CARDS = re.compile(
    r"4\d{12}(?:\d{3}(?:\d{3})?)?|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"  # Visa, Mastercard, Amex
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|62\d{14,17}"  # Discover, JCB, Diners, UnionPay
)
"""Numbers that issuers give out: prefix and length."""
SPECIMENS = ("078051120", "219099999")
"""Social security numbers that were printed in advertisements."""


def email(text: str) -> Iterator[str]:
    """Addresses as mailboxes take them, quoted local parts apart; in lower case."""
    for match in re.finditer(r"(?<![\w.%+-])[\w.%+'-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-])", text):
        local = match[0].partition("@")[0]
        if not (local.startswith(".") or local.endswith(".") or ".." in local):
            yield match[0].lower().strip("'")


def phone(text: str) -> Iterator[str]:
    """Numbers with a country code (+44 20 7946 0958, 0049 ...; 8 to 15 digits: E.164) and North American ones; digits alone."""
    for match in re.finditer(r"(?<![\w+.])(?<!\d[ -])(?:\+|00)(?=[1-9])\d{1,3}(?:[ ().-]{0,3}\d){6,14}(?!\w)", text):
        digits = re.sub(r"\D", "", match[0].replace("(0)", "")).removeprefix("00")  # +44 (0)20 is +44 20
        if 8 <= len(digits) <= 15 and (digits[0] != "1" or _american(digits[1:])):
            yield digits
    for match in re.finditer(r"(?<![\w+.-])(?:1[ .-])?(?:\(([2-9]\d\d)\) ?|([2-9]\d\d)[ .-])([2-9]\d\d)[ .-](\d{4})(?![\w-])", text):
        digits = "".join(part or "" for part in match.groups())
        if _american(digits):
            yield "1" + digits


def _american(digits: str) -> bool:
    """Ten digits NXX-NXX-XXXX, and no N11 in the first two places, which are services."""
    return bool(re.fullmatch(r"(?:[2-9](?!11)\d\d){2}\d{4}", digits))


def iban(text: str) -> Iterator[str]:
    """International bank account numbers: known country, its length, remainder 1 modulo 97 (ISO 13616, ISO 7064)."""
    for match in re.finditer(r"(?<![^\W_])[A-Za-z]{2}\d{2}(?=(?:[ -]?[^\W_]){11})", text):
        wanted = IBAN_LENGTHS.get(match[0][:2].upper(), 0)
        whole = re.compile(rf"(?:[^\W_][ -]?){{{max(0, wanted - 1)}}}[^\W_](?![^\W_])").match(text, match.start()) if wanted else None
        plain = re.sub(r"[ -]", "", whole[0]).upper() if whole else ""
        if plain.isascii() and plain and int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1:
            yield plain


def card(text: str) -> Iterator[str]:
    """Card numbers: an issuer's prefix and length, and Luhn's check digit (ISO 7812)."""
    for match in re.finditer(r"(?<![\w.+-])\d(?:[ -]?\d){12,18}(?![\w-])", text):
        digits = re.sub(r"\D", "", match[0])
        if CARDS.fullmatch(digits) and luhn(digits):
            yield digits


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others."""
    return sum(sum(divmod(2 * int(d), 10)) if i % 2 else int(d) for i, d in enumerate(reversed(digits))) % 10 == 0


def ssn(text: str) -> Iterator[str]:
    """United States social security numbers with their separators: no area 000, 666 or 9xx, no group 00, no serial 0000, no known specimen."""
    for match in re.finditer(r"(?<![\w.-])(?!000|666|9)(\d{3})([ -])(?!00)(\d\d)\2(?!0000)(\d{4})(?![\w-])", text):
        if (digits := match[1] + match[3] + match[4]) not in SPECIMENS:
            yield digits


def ip(text: str) -> Iterator[str]:
    """Public IPv4 and IPv6 addresses; private, local and documentation ranges name nobody."""
    for match in re.finditer(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}(?![\w:]|\.\d)|[0-9A-Fa-f:]{6,39}(?![\w:]))", text):
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            continue
        if address.is_global:
            yield str(address)


def mac(text: str) -> Iterator[str]:
    """Hardware addresses, but for those of all zeros or ones."""
    for match in re.finditer(r"(?<![\w:-])[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![\w:-])", text):
        if (plain := re.sub(r"[:-]", "", match[0]).lower()) not in ("0" * 12, "f" * 12):
            yield plain


def secret(text: str) -> Iterator[str]:
    """Keys of services in their documented forms (AWS, GitHub, GitLab, Slack, Stripe, Google), and private keys."""
    form = (
        r"(?<!\w)(?:AKIA[0-9A-Z]{16}|gh[pousr]_\w{36,255}|glpat-[\w-]{20}|xox[abprs]-[\w-]{10,250}|[sr]k_live_\w{20,250}|AIza[\w-]{35})(?!\w)"
        r"|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"
    )
    yield from (match[0] for match in re.finditer(form, text))


KINDS: dict[str, Callable[[str], Iterator[str]]] = {f.__name__: f for f in (email, phone, iban, card, ssn, ip, mac, secret)}


def find(text: str, presidio: str = "") -> set[Found]:
    """All of `KINDS` in the text, in Unicode's compatible form (NFKC: full-width digits count). presidio: see `by_presidio`."""
    plain = unicodedata.normalize("NFKC", text)
    found = {(kind, value) for kind, values in KINDS.items() if _worth(kind, plain) for value in values(plain)}
    return found | by_presidio(plain, presidio) if presidio else found


def _worth(kind: str, text: str) -> bool:
    """Whether a look is worth the while: most texts have no sign of any kind."""
    return "@" in text if kind == "email" else kind == "secret" or any(c.isdigit() or c == ":" for c in text)


def allowed(found: Found, allow: Iterable[str]) -> bool:
    """Whether a kind, a value in any spelling, or the `@domain` that an address ends in, is in the list."""
    kind, value = found
    names = {kind, value, value[value.find("@") :] if "@" in value else value}
    return any(name in names or name.lower() in names or any(v == value for _, v in find(name)) for name in allow)


def hidden(value: str) -> str:
    """Enough to find a value in a file, and too little to use it: its first and last character, and its length."""
    return f"{value[0]}...{value[-1]} ({len(value)} characters)"


def by_presidio(text: str, model: str) -> set[Found]:
    """What presidio-analyzer finds with a score of 0.5 or more. model: "patterns" (no language model), or the name of an installed spaCy model,
    which finds names, places and dates too. Raises ComponentError where either is not installed; nothing is fetched."""
    return {(kind, " ".join(text[a:b].casefold().split())) for kind, a, b in _presidio(model)(text)}


@cache
def _presidio(model: str) -> Callable[[str], Sequence[tuple[str, int, int]]]:
    if importlib.util.find_spec("presidio_analyzer") is None:
        raise ComponentError("presidio needs presidio-analyzer, which is not installed. Install it: pip install 'seedbed[presidio]'.")
    if model == "patterns":
        from presidio_analyzer import RecognizerRegistry

        registry = RecognizerRegistry()
        registry.load_predefined_recognizers(languages=["en"])
        recognizers = [r for r in registry.recognizers if not type(r).__name__.endswith("NlpEngineRecognizer") and "Spacy" not in type(r).__name__]

        def look(text: str) -> list[Any]:
            return [r for one in recognizers for r in one.analyze(text, one.supported_entities, None)]
    else:
        if importlib.util.find_spec(model) is None:
            raise ComponentError(f'presidio = {model!r}: no such spaCy model is installed. Install it, or write presidio = "patterns".')
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import SpacyNlpEngine

        engine = AnalyzerEngine(nlp_engine=SpacyNlpEngine(models=[{"lang_code": "en", "model_name": model}]), supported_languages=["en"])

        def look(text: str) -> list[Any]:
            return list(engine.analyze(text, language="en"))

    return lambda text: [(r.entity_type.lower(), r.start, r.end) for r in look(text) if r.score >= 0.5]

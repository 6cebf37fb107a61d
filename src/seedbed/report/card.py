"""The README.md of the dataset folder: a Hugging Face dataset card. It holds no time and no date, so that equal runs give equal bytes."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedbed.data import data_file
from seedbed.report import tables
from seedbed.report.facts import Facts

if TYPE_CHECKING:
    from markupsafe import Markup

CATEGORIES = {
    "classification": "text-classification",
    "pair": "text-classification",
    "qa": "question-answering",
    "data2text": "table-to-text",
}
"""Kind of task -> the Hub's name; the other kinds are text-generation."""
SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M", 10**8: "10M<n<100M"}


def card(facts: Facts) -> str:
    """Front matter (YAML) and Markdown. Every text is escaped for the place where it stands."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    home = FileSystemLoader(Path(__file__).resolve().parent)
    # autoescape would write HTML; finalize escapes for Markdown whatever no filter has made safe already.
    environment = Environment(
        loader=home, finalize=_markdown, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"yaml": _yaml, "grid": _grid}
    gain, manifest, rows = facts.scores["gain"], facts.manifest, len(facts.kept)
    return environment.get_template("card.md.jinja").render(
        facts=facts,
        rows=rows,
        data_file=data_file(facts.kept),
        category=CATEGORIES.get(facts.task.kind, "text-generation"),
        size=next((name for limit, name in SIZES.items() if rows < limit), "100M<n<1B"),
        verdict=tables.sentence(facts.verdict),
        columns=tables.columns(facts.task),
        method=tables.method(facts.recipe_toml, facts.sizes),
        overlap=any(f["kind"] == "overlap" for f in tomllib.loads(facts.recipe_toml).get("filter", [])),
        counts=tables.counts(facts.scores["counts"]),
        measures=tables.measures(facts.scores),
        arms=tables.arms(gain),
        difference=tables.difference(gain),
        smallest=tables.smallest(gain),
        note=gain["note"],
        engine=tables.pairs(("engine", ""), manifest["engine"]),
        versions=tables.pairs(("package", "version"), manifest["versions"]),
    )


def _yaml(text: str) -> Markup:
    """A double-quoted YAML scalar. JSON's is one too, but for characters that YAML forbids raw and JSON writes as surrogate pairs."""
    from markupsafe import Markup

    return Markup("".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in json.dumps(text, ensure_ascii=False)))


def _markdown(value: Any) -> str:
    """Text as it stands: on one line, and no character of it is markup."""
    from markupsafe import Markup

    if isinstance(value, Markup):
        return value
    # An underscore inside a word is never markup; unescaped, the names of measures stay easy to search for.
    return re.sub(r"[\\`*\[\]|<>&#~$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", " ".join(str(value).split()))


def _grid(table: tables.Table) -> Markup:
    from markupsafe import Markup

    head, *rows = ([_markdown(cell) for cell in row] for row in (table.head, *table.rows))
    lines = [head, ["---"] * len(head), *rows]
    return Markup("\n".join(f"| {' | '.join(line)} |" for line in lines))

"""The report of a run: one HTML file that needs no script, no network and no other file."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seedbed.report import plots, tables
from seedbed.report.facts import Facts
from seedbed.types import seed_for

SHOWN = 10
"""Kept rows and dropped rows to read, each."""


def page(facts: Facts) -> str:
    """A whole HTML document. Equal facts give equal bytes; every text is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    home = FileSystemLoader(Path(__file__).resolve().parent)
    template = Environment(loader=home, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).get_template(
        "page.html.jinja"
    )
    gain, training, manifest = facts.scores["gain"], facts.training, facts.manifest
    return template.render(
        facts=facts,
        verdict=tables.sentence(facts.verdict),
        measures=tables.measures(facts.scores),
        arms=tables.arms(gain),
        difference=tables.difference(gain),
        smallest=tables.smallest(gain),
        gain=gain,
        curve=Markup(plots.curve(gain)),
        training=training and tables.training(training),
        losses=Markup(plots.losses(training)) if training else "",
        counted=facts.scores["counts"],
        counts=tables.counts(facts.scores["counts"]),
        kept=_some(facts.kept, facts, "kept"),
        dropped=_some(facts.dropped, facts, "dropped"),
        method=tables.method(facts.recipe_toml, facts.sizes),
        versions=tables.pairs(("package", "version"), manifest["versions"]),
        engine=tables.pairs(("engine", ""), manifest["engine"]),
        steps=tables.pairs(("step", "folder"), manifest["steps"]),
        seconds=tables.pairs(("step", "seconds"), manifest["seconds"]),
    )


def _some(rows: Sequence[Any], facts: Facts, what: str) -> list[Any]:
    """`SHOWN` of the rows at random, or all when there are fewer, in their order."""
    rng = random.Random(seed_for(facts.manifest["seed"], "report", what))
    return [rows[i] for i in sorted(rng.sample(range(len(rows)), min(SHOWN, len(rows))))]

"""What is lost, and what is done twice, when everything around a run fails. Goal: nothing, and nothing.

`python benchmarks/faults.py [--quick] [--only requests]`. Each section is a module beside this one with `measure(quick) -> Section`; the page
docs/results/faults.md gets the sections that ran, the others stay as they are. --quick: fewer of everything, under 50 s, no page. Exit status 1
where a promise was broken; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import SAYS, asked, write_page

SECTIONS = {"requests": "faults_requests", "runs": "faults_runs"}
"""Name -> module."""
PAGE = Path(__file__).resolve().parent.parent / "docs/results/faults.md"
HEAD = f"""# Faults

What is lost, and what is done twice, when everything around a run fails: `python benchmarks/faults.py`.
{os.cpu_count()} cores, shared with other work."""


@dataclass(frozen=True)
class Section:
    """What was found. title: of the page's section. lines: Markdown under it. facts: for the last line. broken: promises that did not hold."""

    title: str
    lines: list[str]
    facts: dict[str, Any]
    broken: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer of everything, no page")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"sections, separated by commas; of {', '.join(SECTIONS)}")
    given, facts, broken, made = parser.parse_args(), {}, [], {}
    names = given.only.split(",")
    modules = [importlib.import_module(SECTIONS[name]) for name in names]

    def measured(module: Any) -> tuple[Section, float]:
        start = time.monotonic()
        return module.measure(given.quick), round(time.monotonic() - start, 1)

    with ThreadPoolExecutor(len(names) if given.quick else 1) as pool:  # the server waits more than it works
        all_found = list(pool.map(measured, modules))
    for name, (found, seconds) in zip(names, all_found, strict=True):
        print(f"## {found.title}\n\n" + "\n".join(found.lines) + f"\n\n{name}: {seconds} s", flush=True)
        facts[name], broken = {**found.facts, "seconds": seconds}, broken + [f"{name}: {what}" for what in found.broken]
        made[found.title] = "\n".join([*found.lines, "", f"`{asked()}`, {datetime.now(UTC):%Y-%m-%d}, {seconds:.0f} s."])
    if not given.quick and not broken:
        write_page(PAGE, "\n\n".join([HEAD, *(f"## {title}\n\n{text}" for title, text in (_sections() | made).items())]))
    print(json.dumps({"name": "faults", "quick": given.quick, "broken": broken, **facts}))
    return 1 if broken else 0


def _sections() -> dict[str, str]:
    """Title -> text, of the page as it is; without what was written by hand."""
    text = PAGE.read_text(encoding="utf-8").partition(SAYS)[0] if PAGE.exists() else ""
    parts = [part.partition("\n") for part in text.split("\n## ")[1:]]
    return {title.strip(): body.strip() for title, _, body in parts}


if __name__ == "__main__":
    sys.modules["faults"] = sys.modules["__main__"]  # the sections import Section from here
    sys.exit(main())

"""The README.md of the dataset folder: a Hugging Face dataset card. It holds no time and no date, so that equal runs give equal bytes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedbed.dataset import Written
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


def card(facts: Facts, written: Written) -> str:
    """Front matter (YAML) and Markdown. Every text is escaped for the place where it stands."""
    made, annotated = tomllib.loads(facts.recipe_toml), facts.scores["counts"].get("annotated", 0)
    return _rendered(
        "card.md.jinja",
        facts,
        front=_front(facts, written),
        license=_license(facts),
        columns=tables.columns(facts.task, annotated, annotated == len(facts.kept)),
        annotated=annotated,
        whole=annotated == len(facts.kept) > 0,
        method=tables.method(facts.recipe_toml, facts.sizes),
        overlap=any(f["kind"] == "overlap" for f in made.get("filter", [])),
        soft_labels=made.get("gain", {}).get("soft_labels", True) and facts.task.has_labels and any(c.annotations for c in facts.kept),
        engine=tables.pairs(("engine", ""), facts.manifest["engine"]),
        steps=tables.pairs(("step", "named after all that it depends on"), facts.manifest["steps"]),
    )


def evaluated(facts: Facts) -> str:
    """A card for rows that were not made here, to lie beside them: what was read and measured, not how they came about."""
    from huggingface_hub import DatasetCardData
    from markupsafe import Markup

    name = Path(str(facts.data["from"])).name
    category, size = CATEGORIES.get(facts.task.kind, "text-generation"), _size(len(facts.kept))
    front = DatasetCardData(pretty_name=name, license="other", tags=["synthetic"], task_categories=[category], size_categories=[size])
    sizes = ", ".join(f"{part} {tables.number(n)}" for part, n in facts.sizes.items() if n)
    origin = tables.pairs(("rows", ""), facts.data)
    return _rendered("evaluated.md.jinja", facts, front=Markup(front.to_yaml()), name=name, sizes=sizes, origin=origin)


def _rendered(template: str, facts: Facts, **parts: Any) -> str:
    """A template with the parts that all cards have, and its own."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    home = FileSystemLoader(Path(__file__).resolve().parent)
    # autoescape would write HTML; finalize escapes for Markdown whatever no filter has made safe already.
    environment = Environment(
        loader=home, finalize=_markdown, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["grid"] = _grid
    gain = facts.scores["gain"]
    return environment.get_template(template).render(
        facts=facts,
        verdict=tables.sentence(facts.verdict),
        counts=tables.counts(facts.scores["counts"]),
        measures=tables.measures(facts.scores),
        gates=tables.gates(facts.scores),
        arms=tables.arms(gain),
        difference=tables.difference(gain),
        gained=any(arm["mean"] is not None for arm in gain["arms"].values()),
        smallest=tables.smallest(gain),
        note=gain["note"],
        versions=tables.pairs(("package", "version"), facts.manifest["versions"]),
        **parts,
    )


def _size(rows: int) -> str:
    return next((name for limit, name in SIZES.items() if rows < limit), "100M<n<1B")


def _front(facts: Facts, written: Written) -> Markup:
    """What the Hub and `datasets` read: YAML, without the lines that fence it."""
    from huggingface_hub import DatasetCardData
    from markupsafe import Markup

    info = {
        "features": _features(written.schema),
        "splits": [{"name": "train", "num_bytes": written.nbytes, "num_examples": written.rows}],
        "download_size": written.size,
        "dataset_size": written.nbytes,
    }
    data = DatasetCardData(
        pretty_name=facts.name,
        license=_license(facts),
        tags=["synthetic", "seedbed"],
        task_categories=[CATEGORIES.get(facts.task.kind, "text-generation")],
        size_categories=[_size(written.rows)],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": written.file}]}],
        dataset_info=info,
    )
    return Markup(data.to_yaml())


def _license(facts: Facts) -> str:
    """The sample's: the rows are made after it. Whether the model's allows that is for a person to say, and the card names both."""
    return facts.licenses["sample"] or "other"


def _features(fields: Any) -> list[dict[str, Any]]:
    """An Arrow schema, or the fields of a struct, as `datasets.Features` writes it in a card."""
    return [{"name": field.name, **_feature(field.type)} for field in fields]


def _feature(kind: Any) -> dict[str, Any]:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return {"struct": _features(kind)}
    if pa.types.is_list(kind):
        inner = _feature(kind.value_type)
        return {"list": inner.get("dtype") or inner.get("struct") or inner}
    return {"dtype": "float64" if pa.types.is_float64(kind) else str(kind)}  # Arrow calls it double; other names are the same


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

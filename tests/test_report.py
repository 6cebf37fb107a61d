"""The page and the card: nothing escapes, nothing unknown looks like a number, equal facts give equal bytes."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from seedbed.dataset import Written, write_dataset
from seedbed.report import plots, tables
from seedbed.report.card import card as card_of
from seedbed.report.facts import Facts
from seedbed.report.page import _filters as filters_of_page
from seedbed.report.page import _labels as labels_of_page
from seedbed.report.page import page
from seedbed.task import Task
from seedbed.types import Candidate, Measure

EVIL = "<script>alert(1)</script>"
NAMES = [
    "tickets",
    'a "b": c',
    "- x # y",
    "{{ 7*7 }}",
    "'",
    "yes",
    "1.0",
    "tab\tand\nline",
    "\x7f\x85\u2028",
    "größe 🌱",
    "\\ud83c",
    "*&|>%@`",
    "---",
]
RECIPE = """name = "tickets"
seed = 7

[sample]
path = "private/tickets.csv"

[task]
kind = "classification"
inputs = ["message"]
target = "queue"

[model]
name = "seedling"

[engine]
kind = "local"

[generator]
kind = "soft"
prompt = "auto"

[generate]
count = 40
temperature = 1.0
top_p = 0.95
max_tokens = 96

[[filter]]
kind = "overlap"
run = 13

[student]
kind = "linear"
"""
PROVENANCE = [
    {"name": "candidate", "dtype": "string"},
    {"name": "index", "dtype": "int64"},
    {"name": "sources", "list": "string"},
    {"name": "weights", "list": "float64"},
    {"name": "generator", "dtype": "string"},
    {"name": "model", "dtype": "string"},
    {"name": "seed", "dtype": "int64"},
    {"name": "label", "dtype": "string"},
    {"name": "model_hash", "dtype": "string"},
    {"name": "adapter_hash", "dtype": "string"},
    {
        "name": "sampling",
        "struct": [
            {"name": "temperature", "dtype": "float64"},
            {"name": "top_p", "dtype": "float64"},
            {"name": "max_tokens", "dtype": "int64"},
        ],
    },
    {"name": "filters", "list": "string"},
    {
        "name": "annotations",
        "list": [{"name": "annotator", "dtype": "string"}, {"name": "labels", "list": "string"}, {"name": "probabilities", "list": "float64"}],
    },
]
NONE_ARM = {"mean": None, "low": None, "high": None, "seeds": 0, "n_train": 10}
UNMEASURED = {
    "metric": "accuracy",
    "arms": {"real": NONE_ARM, "synthetic": NONE_ARM, "both": NONE_ARM},
    "difference": {"mean": None, "low": None, "high": None},
    "smallest_detectable": None,
    "curve": [],
    "note": "a gain needs at least 100 test rows, got 12",
}
LOG = [{"step": 20 * i, "epoch": 1.25 * i, "train": 5 - i / 2, "dev": 4.6 - i / 3} for i in (1, 2, 3)]


def arm(mean: float, n_train: int) -> dict[str, Any]:
    return {"mean": mean, "low": mean - 2.5, "high": mean + 2.5, "seeds": 3, "n_train": n_train}


def gain() -> dict[str, Any]:
    curve = [{"arm": "real", "volume": n / 80, **arm(50 + n / 20, n)} for n in (20, 40, 80)]
    curve += [{"arm": "both", "volume": m / 100, **arm(55 + m / 50, 80 + m)} for m in (50, 100)]
    return {
        "metric": "accuracy",
        "arms": {"real": arm(54.0, 80), "synthetic": arm(41.5, 100), "both": arm(57.0, 180)},
        "difference": {"mean": 3.0, "low": -0.5, "high": 6.5},
        "smallest_detectable": 4.75,
        "curve": curve,
        "note": "flat from 0.5 times the real rows on",
    }


VERDICT = "no gain could be shown; the smallest gain this test could show is 4.8 points"


def facts(**changes: Any) -> Facts:
    kept = [Candidate(f"c{i:07d}", i, f"Queue: billing\nMessage: row {i}", {"message": f"row {i}", "queue": "billing"}, True) for i in range(30)]
    measures = [
        Measure("verbatim_rate", 0.0, "share", "lower", 30, 0.0, 0.114, 0.02, "0 of 30; Wilson interval"),
        Measure("mauve", None, n=30, note="needs 100 texts on each side, got 30"),
        Measure("neighbour_ratio", 0.93, "", "closer", 30, None, None, 1.01),
    ]
    counts = {"candidates": 40, "kept": 30, "dropped": {"overlap:copy of fit": 3, "x.py:Polite:too polite": 7}, "failed": {"fit rows too long": 2}}
    base = Facts(
        name="tickets",
        recipe_toml=RECIPE,
        task=Task("classification", ("message",), "queue", ("billing", "other")),
        sizes={"fit": 80, "dev": 20, "test": 300, "pool": 0, "more": 0},
        scores={"measures": [asdict(m) for m in measures], "gain": gain(), "counts": counts, "verdict": VERDICT},
        manifest={
            "seed": 7,
            "steps": {"sample": "sample-00aa11"},
            "engine": {"engine": "local", "model_hash": "sha256:beef", "device": "cpu"},
            "versions": {"python": "3.11.9", "torch": "2.13.0"},
            "seconds": {"teacher": 81.25},
        },
        training={
            "chosen": "mc",
            "unit": "nats a token",
            "forms": {
                "none": {"dev": 5.19},
                "nsp": {"dev": 3.6, "dev_shuffled": 3.6, "train": 3.5, "epoch": 3.75, "parameters": 6144, "log": LOG},
                "mc": {"dev": 2.82, "dev_shuffled": 3.32, "train": 2.78, "epoch": 3.75, "parameters": 385345, "log": LOG},
            },
        },
        kept=kept,
        dropped=[{"id": f"c{i:07d}", "text": f"sorry {i}", "filter": "x.py:Polite", "reason": "too polite", "label": "other"} for i in range(30, 40)],
        labels={"billing": 60, "other": 40},
        closeup={
            "map": {"real": [[0.1, 0.2], [-0.3, 0.1], [0.0, 0.4]], "synthetic": [[0.2, 0.2], [0.1, 0.0], [0.3, -0.1]], "share": 0.14, "note": ""},
            "nearest": [{"id": f"c{i:07d}", "real": f"t-{i}", "split": "fit", "text": f"true {i}", "cosine": 0.5 + i / 100} for i in range(4, 24)],
            "searched": 400,
        },
        licenses={"sample": None, "model": "apache-2.0"},
    )
    return replace(base, **changes)


@cache
def written() -> Written:
    """What `write_dataset` says of the usual rows."""
    found: list[Written] = []
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), facts().task, facts().kept, lambda w: found.append(w) or "")
    return found[0]


def card(of: Facts, **changes: Any) -> str:
    return card_of(of, replace(written(), rows=len(of.kept), **changes))


def nearest(*kept: int) -> dict[str, Any]:
    """The usual closeup, with these kept rows shown alone."""
    found = facts().closeup
    return {**found, "nearest": [e for e in found["nearest"] if int(e["id"][1:]) in kept]}


def scores(**changes: Any) -> dict[str, Any]:
    return {**facts().scores, **changes}


@cache
def whole(word: str = "") -> str:
    """The page of the usual facts, or with the word everywhere."""
    return page(everywhere(word) if word else facts())


class Reader(HTMLParser):
    """Tags that are left open, all start tags with their attributes, and the visible text."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data


def front(text: str) -> dict[str, Any]:
    start, matter, _ = text.split("---\n", 2)
    assert start == ""
    found: dict[str, Any] = yaml.safe_load(matter)
    return found


def everywhere(evil: str) -> Facts:
    """The text in each place that a user, a model or a plug-in can write to."""
    base = facts()
    measure = asdict(Measure(evil, 1.0, evil, note=evil))
    counts = {"candidates": 1, "kept": 1, "dropped": {f"{evil}:{evil}": 1}, "failed": {evil: 1}}
    training = {"chosen": evil, "unit": evil, "forms": {"none": {"dev": 5.0}, evil: {**asdict_form(), "log": LOG}}}
    return replace(
        base,
        name=evil,
        recipe_toml=base.recipe_toml.replace('"seedling"', json.dumps(evil)),
        task=Task("classification", (evil,), "queue"),
        scores={"measures": [measure], "gain": {**gain(), "metric": evil, "note": evil}, "counts": counts, "verdict": evil},
        manifest={**base.manifest, "engine": {evil: evil}, "versions": {evil: evil}, "seconds": {evil: 1.0}, "steps": {evil: evil}},
        training=training,
        kept=[Candidate(evil, 0, evil, {}, True, provenance={"sources": [evil]})],
        dropped=[{"id": evil, "text": evil, "filter": evil, "reason": evil, "label": evil}],
        labels={evil: 1},
        closeup={
            "map": {"real": [], "synthetic": [], "share": None, "note": evil},
            "nearest": [{"id": evil, "real": evil, "split": evil, "text": evil, "cosine": 0.5}],
            "searched": 1,
        },
        licenses={"sample": None, "model": evil},
    )


def asdict_form() -> dict[str, float]:
    return {"dev": 3.0, "dev_shuffled": 3.1, "train": 2.9, "epoch": 1.25, "parameters": 10}


@pytest.mark.parametrize("evil", [EVIL, '"><img src=http://x onerror=y>', "{{ 7*7 }}", "</style></pre>", "$x^2$ & <b>"])
def test_the_page_shows_any_text_as_it_is(evil: str) -> None:
    read, plain = Reader(page(everywhere(evil))), Reader(whole("words"))
    assert [tag for tag, _ in read.tags] == [tag for tag, _ in plain.tags]
    assert read.words.count(evil) >= plain.words.count("words") - 1  # the verdict's first letter


def test_a_kept_text_is_escaped() -> None:
    text = page(facts(kept=[Candidate("c0000004", 0, EVIL, {}, True)], closeup=nearest(4)))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script" not in text


def test_the_page_loads_nothing() -> None:
    for tag, attributes in Reader(whole()).tags:
        assert tag not in {"script", "link", "iframe", "img", "object", "embed", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href", "srcset", "action"}:
                assert str(value).startswith("#")
    assert "@import" not in whole()
    assert re.findall(r"url\((?!#)", whole()) == []


def test_the_page_fits_a_phone_and_a_dark_screen() -> None:
    read = Reader(whole())
    metas = {a.get("name"): a.get("content") for tag, a in read.tags if tag == "meta"}
    assert metas["color-scheme"] == "light dark"
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert "prefers-color-scheme: dark" in whole()
    assert re.findall(r'(?<!tabindex="0">\n)<table', whole()) == []  # each in a box that scrolls by itself
    figures = " ".join(re.findall(r"<svg.*?</svg>", whole(), re.S))
    assert set(re.findall(r"(?:fill|stroke): ([^;\"]*)", figures)) <= {
        "none",
        "currentColor",
        *(f"var(--c{i}, {c})" for i, c in enumerate(plots.COLOURS)),
    }


def test_the_verdict_comes_first() -> None:
    words = Reader(whole()).words.split("seedbed report", 1)[1].strip()  # after the title of the window
    said = " ".join(words.split())
    assert said.startswith("Skip to the numbers No gain shown tickets, a classification task No gain could be shown; the smallest")


@pytest.mark.parametrize("write", [page, card])
def test_what_could_not_be_measured_says_why(write: Any) -> None:
    text = write(facts())
    assert "not measured: needs 100 texts on each side, got 30" in text
    text = write(facts(scores=scores(gain=UNMEASURED, verdict=f"the gain could not be measured: {UNMEASURED['note']}")))
    assert text.count("not measured: a gain needs at least 100 test rows, got 12") == 2  # the difference, the smallest gain
    assert "None" not in text


def test_an_unknown_number_is_no_number() -> None:
    rows = {row[0]: row for row in tables.measures(facts().scores).rows}
    assert rows["verbatim_rate"][1:6] == ("0.000 share", "0.000 to 0.114", "0.020", "", "30")
    assert rows["mauve"][1:6] == ("not measured: needs 100 texts on each side, got 30", "", "", "", "30")
    assert rows["neighbour_ratio"][1:7] == ("0.930", "not measured", "1.010", "", "30", "closer to real")
    assert [row[1] for row in tables.arms(UNMEASURED).rows] == ["not measured"] * 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (-0.05, "-0.050"),
        (0.12345, "0.123"),
        (-0.00026, "-0.0003"),
        (1.0, "1.000"),
        (54.04, "54.0"),
        (12345.6, "12,345.6"),
        (385345, "385,345"),
        (None, "not measured"),
    ],
)
def test_numbers_line_up_and_none_is_rounded_to_nothing(value: float | None, text: str) -> None:
    assert tables.number(value) == text


@pytest.mark.parametrize("write", [page, card])
@pytest.mark.parametrize(
    "changes",
    [
        {"training": None},
        {"dropped": [], "scores": scores(counts={"candidates": 30, "kept": 30, "dropped": {}, "failed": {}})},
        {"scores": scores(measures=[])},
        {"scores": scores(gain={**gain(), "note": ""})},
        {"kept": facts().kept[4:5], "dropped": facts().dropped[:1], "closeup": nearest(4)},
        {"recipe_toml": RECIPE.replace('[[filter]]\nkind = "overlap"\nrun = 13\n', "")},
    ],
    ids=["no training", "nothing dropped", "no metric", "no note", "few rows", "no filter"],
)
def test_parts_may_be_missing(write: Any, changes: Mapping[str, Any]) -> None:
    text = write(facts(**changes))
    assert ("oft prompt" in text) == ("training" not in changes)
    assert ("Nothing was dropped" in text) == ("dropped" in changes and not changes["dropped"])
    assert ("for no metric" in text or "no metric." in text) == (changes.get("scores", {}).get("measures") == [])
    assert write is page or ("No overlap filter was used" in text) == ("recipe_toml" in changes)


def test_the_card_says_only_what_was_tried_and_set() -> None:
    assert "the lowest of those tried" in card(facts())
    training = facts().training or {}
    alone = card(facts(training={**training, "forms": {name: form for name, form in training["forms"].items() if name != "nsp"}}))
    assert "of those tried" not in alone and "form is mc. It was fitted up to the lowest loss on dev rows." in alone
    without = card(facts(recipe_toml=RECIPE.replace('prompt = "auto"', 'prompt = "auto"\ndecoder = ""')))
    assert "soft (prompt = auto)" in without and "decoder" not in without


@pytest.mark.slow
def test_dropped_rows_are_drawn_by_the_seed() -> None:
    dropped = [{"id": f"c{i}", "text": f"sorry {i}", "filter": "form", "reason": "r", "label": None} for i in range(30, 90)]

    def shown(seed: int) -> list[str]:
        return re.findall(r"sorry (\d+)", page(facts(dropped=dropped, manifest={**facts().manifest, "seed": seed})))

    assert len(shown(7)) == len(set(shown(7))) == 20
    assert shown(7) == sorted(shown(7), key=int)
    assert shown(7) != shown(8)


def test_kept_rows_stand_beside_their_nearest_real_row() -> None:
    words = " ".join(Reader(page(facts(closeup=nearest(9)))).words.split())
    assert "Synthetic c0000009 Queue: billing Message: row 9 Nearest real t-9 (fit), cosine 0.59 true 9" in words
    assert "1 of 30 kept rows, drawn at random" in words and "among 400 real rows" in words


def test_a_long_text_is_whole_and_unfolds() -> None:
    long = " ".join(f"word{i}" for i in range(1000))
    rows = [replace(facts().kept[4], text=long)]
    text = page(facts(kept=rows, closeup=nearest(4)))
    assert long in re.sub(r"</div>\s*<details>.*?</summary><div[^>]*>", "", text)
    assert len(re.findall(r"<details>", text)) == 1


def test_labels_are_counted_as_they_were_generated_and_kept() -> None:
    dropped = [*facts().dropped, {"id": "c90", "text": "?", "filter": "form", "reason": "section missing", "label": None}]
    rows = {row["label"]: row for row in labels_of_page(facts(dropped=dropped))}
    assert {name: [row[k] for k in ("real", "made", "kept")] for name, row in rows.items()} == {"billing": [60, 30, 30], "other": [40, 10, 0]}
    assert rows["billing"]["kept_width"] == 100 and rows["billing"]["real_width"] == 60 and rows["other"]["kept_width"] == 0
    assert "<h2>Labels</h2>" in whole() and "<h2>Labels</h2>" not in page(facts(labels={}))


def test_filters_stand_in_the_order_of_the_recipe() -> None:
    recipe = RECIPE.replace("[[filter]]", '[[filter]]\nkind = "x.py:Polite"\n[[filter]]\nkind = "dedup"\n[[filter]]', 1)
    extra = [{"id": f"c{i}", "text": "", "filter": "overlap", "reason": r, "label": None} for i, r in enumerate(["copy of fit", *["near copy"] * 12])]
    rows = filters_of_page(facts(recipe_toml=recipe, dropped=[*extra, *facts().dropped]))
    assert [(r["filter"], r["reason"], r["rows"]) for r in rows] == [
        ("candidates", "", 40),
        ("x.py:Polite", "too polite", 10),
        ("dedup", "", 0),
        ("overlap", "near copy", 12),
        ("overlap", "copy of fit", 1),
        ("kept", "", 30),
    ]
    assert rows[1]["share"] == "25.0 %"


def test_a_p_value_is_shown_where_there_is_one() -> None:
    plain = facts().scores["measures"]
    assert ">p</th>" not in whole()
    tested = [plain[0] | {"p": 0.03}, *(m | {"p": None} for m in plain[1:])]
    text = page(facts(scores=scores(measures=tested)))
    assert ">p</th>" in text and ">0.030</td>" in text
    assert ">0.010 (alarm)</td>" in page(facts(scores=scores(measures=[plain[0] | {"p": 0.01}])))
    bare = [{k: v for k, v in m.items() if k != "p"} for m in plain]
    assert page(facts(scores=scores(measures=bare))) == whole()


@pytest.mark.parametrize(("low", "high", "look"), [(0.5, 6.5, "better"), (-6.5, -0.5, "worse"), (-0.5, 6.5, "open"), (None, None, "unknown")])
def test_the_band_follows_the_result(low: float | None, high: float | None, look: str) -> None:
    changed = {**gain(), "difference": {"mean": low and 3.0, "low": low, "high": high}}
    assert f'<header class="band {look}">' in page(facts(scores=scores(gain=changed)))


def test_no_map_says_why() -> None:
    nothing = {"real": [], "synthetic": [], "share": None, "note": "a map needs at least 3 rows on each side, got 1"}
    text = page(facts(closeup={**facts().closeup, "map": nothing}))
    assert "No map: a map needs at least 3 rows on each side, got 1." in text and "14 %" not in text
    assert "hold 14 % of the variance" in whole()


@pytest.mark.slow
@pytest.mark.parametrize("write", [page, card])
def test_equal_facts_give_equal_bytes(write: Any) -> None:
    """In this process with a drawn-from generator, and in a new one with other hashes."""
    first = write(facts())
    random.random()
    assert write(facts()) == first
    here, name = str(Path(__file__).parent), "page" if write is page else "card"
    script = f"import sys; sys.path.insert(0, {here!r}); import test_report as t; sys.stdout.buffer.write(t.{name}(t.facts()).encode())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": "1"})
    assert done.stdout.decode() == first


def test_the_card_does_not_know_the_time() -> None:
    other = {**facts().manifest, "seconds": {"teacher": 1.0, "kept": 2.0}}
    assert card(facts(manifest=other)) == card(facts())
    assert "81.25" in whole()


def test_the_card_names_no_file_of_the_user() -> None:
    assert "tickets.csv" not in card(facts())


@pytest.mark.parametrize("name", NAMES)
def test_front_matter_is_yaml_for_any_name(name: str) -> None:
    matter = front(card(facts(name=name)))
    assert matter == {
        "pretty_name": name,
        "license": "other",
        "tags": ["synthetic", "seedbed"],
        "task_categories": ["text-classification"],
        "size_categories": ["n<1K"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": written().file}]}],
        "dataset_info": {
            "features": [
                {"name": "message", "dtype": "string"},
                {"name": "queue", "dtype": "string"},
                {"name": "provenance", "struct": PROVENANCE},
                {"name": "synthetic", "dtype": "bool"},
            ],
            "splits": [{"name": "train", "num_bytes": written().nbytes, "num_examples": 30}],
            "download_size": written().size,
            "dataset_size": written().nbytes,
        },
    }


@pytest.mark.parametrize("name", NAMES)
def test_huggingface_hub_reads_the_card(name: str) -> None:
    hub = pytest.importorskip("huggingface_hub")
    read = hub.DatasetCard(card(facts(name=name)))
    assert read.data.pretty_name == name
    assert read.text.startswith("# ")


STRUCTURED: list[tuple[Any, ...]] = [
    ([["a", "b", "c"], ["d"]],),
    ([{"act": "INFORM", "values": ["Bonn"]}], [{"act": "BYE", "values": []}]),
    ([],),
    ([1, 2.5],),
]


@pytest.mark.parametrize("values", STRUCTURED)
def test_dataset_info_is_what_datasets_itself_writes(values: tuple[Any, ...], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    hub = pytest.importorskip("huggingface_hub")
    task = Task("data2text", ("triples",), "text")
    rows = [{"triples": value, "text": f"grüße {i}"} for i, value in enumerate(values * 20)]
    kept = [Candidate(f"c{i}", i, "", row, True, provenance={"sources": ["a"], "weights": [1.0]}) for i, row in enumerate(rows)]
    write_dataset(tmp_path / "made", task, kept, lambda w: card_of(facts(kept=kept, task=task), w))
    read = hub.DatasetCard.load(tmp_path / "made/README.md").data
    shutil.copytree(tmp_path / "made/data", tmp_path / "bare/data")  # no card: `datasets` finds out for itself
    opened = [datasets.load_dataset(str(tmp_path / name), split="train", cache_dir=str(tmp_path / "cache")) for name in ("made", "bare")]
    assert opened[0].features == opened[1].features
    assert read.dataset_info["features"] == opened[1].features._to_yaml_list()
    info = opened[1].info
    assert read.dataset_info["splits"] == [{"name": "train", "num_bytes": info.splits["train"].num_bytes, "num_examples": len(kept)}]
    assert (read.dataset_info["download_size"], read.dataset_info["dataset_size"]) == (info.download_size, info.dataset_size)
    assert opened[0].to_list() == opened[1].to_list()


def test_the_card_names_both_licences() -> None:
    known = card(facts(licenses={"sample": "cc-by-4.0", "model": "apache-2.0"}))
    assert front(known)["license"] == "cc-by-4.0"
    assert "| the real sample | cc-by-4.0 |" in known and "| the language model | apache-2.0 |" in known
    unknown = card(facts(licenses={"sample": None, "model": None}))
    assert front(unknown)["license"] == "other"
    assert "| the real sample | not given in the recipe |" in unknown and "| the language model | not known" in unknown


@pytest.mark.parametrize(
    ("kind", "category"), [("pair", "text-classification"), ("qa", "question-answering"), ("data2text", "table-to-text"), ("math", "text-generation")]
)
def test_the_kind_of_task_gives_the_category(kind: Any, category: str) -> None:
    text = card(facts(task=Task(kind, ("premise", "hypothesis"), "label")))
    assert front(text)["task_categories"] == [category]


def test_given_columns_are_said_to_be_real() -> None:
    text = card(facts(task=Task("pair", ("premise", "hypothesis"), "label")))
    assert "| premise | input | taken from real rows |" in text
    assert "| hypothesis | input | generated |" in text
    assert "The column(s) premise hold values of real rows" in text
    assert "of real rows, not generated" not in card(facts())


def of_the_pool(n: int) -> Facts:
    """The usual rows, n of the 30 real inputs with given targets."""
    made, counts = facts(), facts().scores["counts"]
    kept = [replace(c, provenance={"generator": "annotate"} if i < n else {}) for i, c in enumerate(made.kept)]
    return replace(made, kept=kept, scores=scores(counts=counts | {"annotated": n}))


def test_a_card_of_annotated_rows_speaks_of_no_generated_ones() -> None:
    text = card(of_the_pool(30))
    prose = text[text.index("# tickets") :]
    assert "30 rows for a classification task: real inputs of the pool that seedbed gave targets" in prose and "synthetic rows for" not in prose
    assert "| message | input | real, from the pool |" in prose and "| queue | target | named by an annotator |" in prose
    assert "All rows are real inputs of the pool" in prose and "The texts lean as the pool does" in prose
    assert not any(words in prose for words in ("generated", "copies of real rows", "no promise of privacy", "language model adds", "30 of the rows"))
    assert "copies of real rows" not in card(replace(of_the_pool(30), recipe_toml=RECIPE.replace("overlap", "dedup")))


def test_a_card_of_both_kinds_of_rows_speaks_of_each_and_one_of_generated_rows_of_these() -> None:
    both, none = card(of_the_pool(12)), card(of_the_pool(0))
    assert "30 synthetic rows for a classification task" in both and "but for 12 inputs of its pool" in both
    assert "| message | input | generated; of 12 rows real, from the pool |" in both
    assert "| queue | target | generated; of 12 rows named by an annotator |" in both
    assert "12 of the rows are real inputs of the pool" in both and "the texts of the pool's rows lean as the pool does" in both
    for text in (both, none):
        assert "the language model adds leanings of its own" in text and "no promise of privacy" in text
    assert "pool" not in none.replace("| pool |", "") and "| queue | target | generated |" in none and none == card(facts())
    written = card(replace(of_the_pool(30), task=Task("text2text", ("message",), "queue")))
    assert "| queue | target | generated |" in written and "| message | input | real, from the pool |" in written


def test_a_card_without_students_speaks_of_none() -> None:
    said = ("A small student was trained", "The gain holds for one kind of student")
    text = card(facts(scores=scores(gain=UNMEASURED)))
    assert not any(words in text for words in said) and all(words in card(facts()) for words in said)


def test_the_card_says_that_the_student_learned_probabilities_where_it_did() -> None:
    read = facts(kept=[replace(c, annotations={"classifier": {"billing": 0.6, "returns": 0.4}}) for c in facts().kept])
    said = "not the label column alone"
    assert said in card(read) and said not in card(facts())
    assert said not in card(replace(read, recipe_toml=f"{read.recipe_toml}\n[gain]\nsoft_labels = false\n"))


@pytest.mark.parametrize(("rows", "size"), [(999, "n<1K"), (1000, "1K<n<10K"), (10000, "10K<n<100K")])
def test_the_number_of_rows_gives_the_size(rows: int, size: str) -> None:
    assert front(card(facts(kept=facts().kept[:1] * rows)))["size_categories"] == [size]


def parsed(text: str) -> tuple[list[str], str]:
    """(the kinds of all parts, the text) of a card's Markdown, tables included."""
    from markdown_it import MarkdownIt  # a dependency of rich

    blocks = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text.split("\n---\n", 1)[1])
    parts = [part for block in blocks for part in (block, *(block.children or ()))]
    return [part.type for part in parts], "\n".join(part.content for part in parts if part.type == "text")


MARKUP = ["a | b", "x\n\n# y", "[a](http://x)", "![a](x)", "`a`", "**a**", "_a_", "~~a~~", "&lt;", "<https://x>", "a\\", "a\\|b", "# a"]


@pytest.mark.parametrize("evil", [EVIL, *MARKUP])
def test_the_card_shows_any_text_as_it_is(evil: str) -> None:
    (kinds, text), (plain_kinds, plain) = parsed(card(everywhere(evil))), parsed(card(everywhere("words")))
    assert kinds == plain_kinds
    assert text.count(" ".join(evil.split())) >= plain.count("words") - 2  # the verdict, twice, begins with a capital


def test_names_of_measures_are_searchable_in_the_card() -> None:
    assert "| verbatim_rate | 0.000 share | 0.000 to 0.114 | 0.020 |  | 30 | lower |" in card(facts())


def test_counts_name_who_dropped_and_keep_the_sum() -> None:
    rows = tables.counts(facts().scores["counts"]).rows
    assert rows[1:4] == [("kept", "30", "75.0 %"), ("dropped, x.py:Polite:too polite", "7", "17.5 %"), ("dropped, overlap:copy of fit", "3", "7.5 %")]
    assert rows[4] == ("failed, fit rows too long", "2", "")


def test_figures_are_svg_and_share_no_id() -> None:
    both = [plots.curve(gain()), plots.losses(facts().training or {})]
    ids = [re.findall(r'\bid="([^"]+)"', svg) for svg in both]
    for svg, own in zip(both, ids, strict=True):
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert len(set(own)) == len(own) > 0
        assert set(re.findall(r'(?:href="|url\()#([\w-]+)', svg)) <= set(own)
    assert not set(ids[0]) & set(ids[1])


def test_the_loss_curve_draws_each_form_over_no_prompt() -> None:
    svg = plots.losses(facts().training or {})
    for label in ("nsp", "mc", "no prompt", "epoch", "dev loss (nats a token)"):
        assert f">{label}</text>" in svg
    assert plots.losses({"unit": "x", "forms": {"none": {"dev": 1.0}}}) == ""


def test_the_curve_draws_both_lines_and_nothing_unmeasured() -> None:
    svg = plots.curve(gain())
    assert ">real only</text>" in svg and ">real + synthetic</text>" in svg
    assert plots.curve(UNMEASURED) == ""
    lone = {**gain(), "curve": [{"arm": "both", "volume": 1.0, **NONE_ARM}, {"arm": "real", "volume": 1.0, **arm(50.0, 80)}]}
    assert ">real only</text>" in plots.curve(lone) and ">real + synthetic</text>" not in plots.curve(lone)

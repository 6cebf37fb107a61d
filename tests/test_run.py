"""Whole runs: from a file to a dataset; nothing lost when a run dies; the same bytes whatever happened on the way."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from seedbed import recipe as recipes
from seedbed.candidates import complete, read_candidates
from seedbed.errors import ComponentError, DataError, RunFailed, StoreError
from seedbed.grow import step_names
from seedbed.limits import Limits
from seedbed.parts import model_identity
from seedbed.run import model_license, run
from seedbed.show import rows_of
from seedbed.store import Journal, Store, read_parts
from seedbed.testing import tiny_sample
from seedbed.types import Sampling

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from common import started  # noqa: E402

TOY: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "sample": {"path": "examples/helpdesk.csv", "rows": 150},
    "task": {"kind": "classification", "inputs": ["message"], "target": "queue"},
    "engine": {"kind": "toy", "order": 5},
    "generator": {"kind": "hard", "shots": 8},
    "generate": {"count": 120, "max_tokens": 200, "temperature": 0.7},
    "metric": [{"kind": "memorisation"}],
    "gain": {"seeds": 1, "volumes": [0.5]},
}
LIGHT: dict[str, Any] = TOY | {"sample": {"path": "examples/helpdesk.csv", "rows": 150, "test_share": 0.1}, "metric": []}
"""Nothing is measured: no metric, and too few test rows for a gain."""
REAL: dict[str, Any] = TOY | {
    "sample": {"path": "examples/helpdesk.csv", "rows": 24},
    "engine": {"kind": "local", "slots": 8, "cache": 96},
    "generator": {"kind": "soft", "prompt": "mc", "tokens": 4, "epochs": 2, "batch": 4},
    "generate": {"count": 48, "max_tokens": 24},
    "task": {"kind": "plain", "inputs": ["message"]},
    "filter": [{"kind": "dedup"}, {"kind": "overlap"}],
}
"""Plain text, and no filter of form: so short a fit and cap would leave nothing."""
AGREEING: dict[str, Any] = LIGHT | {"annotator": [{"kind": "classifier"}], "filter": [{"kind": "form"}, {"kind": "agreement"}, {"kind": "dedup"}]}
FINAL = ("scores.json", "recipe.toml", "dataset/README.md")


def _snapshot(folder: Path) -> dict[str, bytes]:
    """The bytes of all that a run leaves, but timings and the page that prints them."""
    skip = {"manifest.json", ".seconds.json", "report.html", ".lock"}
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in skip}


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toy")
    run(recipes.build(TOY, ROOT), out)
    return out / "tiny"


@pytest.mark.slow
def test_a_recipe_whose_rows_cannot_be_read_takes_no_folder_and_no_result(tmp_path: Path, toy_run: Path) -> None:
    shutil.copytree(toy_run, tmp_path / "tiny")
    before = _snapshot(tmp_path / "tiny")
    wrong = recipes.build(TOY | {"task": TOY["task"] | {"target": "quue"}}, ROOT)
    for out, replace in ((tmp_path, True), (tmp_path / "fresh", False)):
        with pytest.raises(DataError, match="no column 'quue'"):
            run(wrong, out, replace=replace)
    assert _snapshot(tmp_path / "tiny") == before
    run(recipes.build(TOY, ROOT), tmp_path / "fresh", limits=Limits(tokens=400))  # the corrected one asks for no --replace


def test_a_run_leaves_the_files_of_the_contract(toy_run: Path) -> None:
    for name in (*FINAL, "manifest.json", "report.html"):
        assert (toy_run / name).is_file(), name
    scores = json.loads((toy_run / "scores.json").read_text())
    assert {"measures", "gain", "counts", "gates", "verdict"} == scores.keys()
    assert "verbatim_rate" in {m["name"] for m in scores["measures"]}
    assert set(scores["measures"][0]) == {"name", "value", "unit", "better", "n", "low", "high", "real", "note", "p", "rows"}
    assert {"metric", "arms", "difference", "smallest_detectable", "curve", "note"} <= scores["gain"].keys()
    counts = scores["counts"]
    assert counts["candidates"] == counts["kept"] + sum(counts["dropped"].values()) == 120
    filters = {f["kind"] for f in tomllib.loads((toy_run / "recipe.toml").read_text())["filter"]}
    assert {name.partition(":")[0] for name in counts["dropped"]} == filters, "one that dropped nothing stands with 0"


def test_the_dataset_opens_and_is_synthetic_only(toy_run: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_dataset(str(toy_run / "dataset"), split="train", cache_dir=str(tmp_path))
    kept = [json.loads(line) for line in next(toy_run.glob("kept-*/kept.jsonl")).read_text().splitlines()]
    assert len(rows) == len(kept)
    assert set(rows.column_names) == {"message", "queue", "provenance", "synthetic"}
    assert all(rows["synthetic"])
    real = set((ROOT / "examples" / "helpdesk.csv").read_text().splitlines())
    assert not {f"{r['message']},{r['queue']}" for r in rows} & real


@pytest.mark.slow
def test_two_datasets_in_one_cache_are_not_taken_for_each_other(tmp_path: Path) -> None:
    """`datasets` names its cache after card and file names: a run made anew in the same folder must not open as the old one."""
    datasets = pytest.importorskip("datasets")
    found = []
    for seed in (3, 4):
        run(recipes.build(LIGHT | {"seed": seed}, ROOT), tmp_path, replace=True)
        found.append(datasets.load_dataset(str(tmp_path / "tiny/dataset"), split="train", cache_dir=str(tmp_path / "cache"))["message"])
        kept = sorted((tmp_path / "tiny").glob("kept-*/kept.jsonl"), key=lambda p: p.stat().st_mtime_ns)[-1]
        assert list(found[-1]) == [json.loads(line)["fields"]["message"] for line in kept.read_text().splitlines()]
    assert list(found[0]) != list(found[1])


def test_running_again_changes_nothing(toy_run: Path) -> None:
    times = {p: p.stat().st_mtime_ns for p in toy_run.rglob("*") if p.is_file() and "-" in p.parent.name}
    before = _snapshot(toy_run)
    run(recipes.build(TOY, ROOT), toy_run.parent)
    assert _snapshot(toy_run) == before
    assert {p: p.stat().st_mtime_ns for p in times} == times


def test_other_weights_under_the_same_name_are_another_model(tmp_path: Path) -> None:
    weights, found = tmp_path / "model.safetensors", set[str]()
    for content, moment in ((b"weights", 0), (b"changed", 1), (b"longer than before", 1)):  # the time alone tells, then the size alone
        weights.write_bytes(content)
        os.utime(weights, (moment, moment))
        found |= {model_identity(str(tmp_path)), model_identity(str(tmp_path))}
    os.utime(weights, (5, 5))
    assert len(found) == 3 and model_identity(str(tmp_path)) in found, "the same bytes at another time are the same model"


def test_names_follow_the_weights_of_the_users_own_folders(tmp_path: Path) -> None:
    own, sample = tmp_path / "own", tiny_sample()
    own.mkdir()

    def renamed(file: str, **sections: Any) -> set[str]:
        made, found = recipes.build({**LIGHT, **sections}, ROOT), []
        for content in (b"weights", b"changed!"):
            (own / file).parent.mkdir(exist_ok=True)
            (own / file).write_bytes(content)
            found.append(step_names(made, sample))
        return {step for step in found[0] if found[0][step] != found[1][step]}

    weights, decoder, soft = "model.safetensors", "decoder/decoder.safetensors", {"kind": "soft", "embedder": str(own)}
    below = {"candidates", "kept", "scores"}
    assert renamed(weights, student={"kind": "causal", "model": str(own)}) == {"scores"}
    assert renamed(weights, metric=[{"kind": "coverage", "embedder": str(own)}]) == {"scores"}
    assert renamed(weights, metric=[{"kind": "heldout", "model": str(own)}]) == {"scores"}
    assert renamed(weights, filter=[{"kind": "select", "embedder": str(own)}]) == {"kept", "scores"}
    assert renamed(weights, annotator=[{"kind": "classifier", "model": str(own)}]) == {"annotations", "kept", "scores"}
    assert renamed(weights, generator=soft) == renamed(weights, generator={"kind": "refine", "draft": soft}) == {"teacher", *below}
    assert renamed(weights, generator={"kind": "refine", "engine": {"kind": "local"}, "model": str(own)}) == below
    served = {"kind": "refine", "engine": {"kind": "openai", "base_url": "http://localhost:1/v1"}, "model": str(own)}
    assert renamed(weights, generator=served) == set(), "a server's own word for a model"
    amortised, model = {"kind": "soft", "prompt": "amortised"}, {"name": str(own)}
    assert renamed(decoder, model=model, generator=amortised) == {"teacher", *below}
    assert renamed(decoder, model=model, generator={"kind": "refine", "draft": amortised}) == {"teacher", *below}
    assert renamed(decoder, model=model, generator=amortised | {"prompt": "mc"}) == set(), "a form that reads no decoder"


def test_names_of_shipped_models_are_their_own_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = LIGHT | {"sample": {"path": str(ROOT / "examples/helpdesk.csv")}, "generator": {"kind": "soft", "prompt": "amortised"}}
    raw |= {"model": {"name": "seedling"}, "metric": [{"kind": "coverage"}, {"kind": "heldout"}]}
    before = step_names(recipes.build(raw, tmp_path), tiny_sample())
    for name in ("minilm", "seedling/decoder"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "decoder.safetensors").write_bytes(b"of somebody")
    monkeypatch.chdir(tmp_path)
    made = recipes.build(raw, tmp_path)
    assert step_names(made, tiny_sample()) == before and made.lm == "seedling"
    assert [m.facts()[1].get("embedder") for m in made.metrics[:2]] == ["minilm", None] and made.metrics[1].facts()[1]["model"] == "seedling"


def test_equal_seeds_equal_bytes_other_seeds_not(toy_run: Path, tmp_path: Path) -> None:
    run(recipes.build(TOY, ROOT), tmp_path)
    assert _snapshot(tmp_path / "tiny") == _snapshot(toy_run)
    run(recipes.build(TOY | {"seed": 4}, ROOT), tmp_path / "other")
    assert (tmp_path / "other/tiny/scores.json").read_bytes() != (toy_run / "scores.json").read_bytes()


def test_the_licences_of_rows_and_model_reach_the_card(tmp_path: Path) -> None:
    raw = LIGHT | {"sample": LIGHT["sample"] | {"license": "cc-by-4.0"}}
    card = (run(recipes.build(raw, ROOT), tmp_path).folder / "dataset/README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n") and "| the language model | apache-2.0 |" in card


@pytest.mark.parametrize(
    ("text", "found"),
    [("---\nlicense: mit\n---\n# x\n", "mit"), ("# x\n", None), ("---\nlicense: [a, b]\n---\n", None), ("---\n- a\n---\n", None), (None, None)],
)
def test_a_models_licence_is_its_cards(text: str | None, found: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert model_license(str(tmp_path)) == found
    assert model_license("owner/name") is None


@pytest.mark.slow
def test_a_longer_run_extends_and_a_new_filter_repays_nothing(toy_run: Path, tmp_path: Path) -> None:
    longer = TOY | {"generate": TOY["generate"] | {"count": 170}}
    shutil.copytree(toy_run, tmp_path / "tiny")
    first = next((tmp_path / "tiny").glob("candidates-*/part-00000.parquet"))
    stamp = first.stat().st_mtime_ns
    run(recipes.build(longer, ROOT), tmp_path, replace=True)
    assert first.stat().st_mtime_ns == stamp, "a committed part is never rewritten"
    run(recipes.build(longer, ROOT), tmp_path / "afresh")
    grown, afresh = (next((folder / "tiny/dataset/data").iterdir()) for folder in (tmp_path, tmp_path / "afresh"))
    assert (grown.name, grown.read_bytes()) == (afresh.name, afresh.read_bytes())
    for name in FINAL:
        assert (tmp_path / "tiny" / name).read_bytes() == (tmp_path / "afresh/tiny" / name).read_bytes(), name
    run(recipes.build(longer | {"filter": [{"kind": "dedup"}]}, ROOT), tmp_path, replace=True)
    assert first.stat().st_mtime_ns == stamp
    assert len(list((tmp_path / "tiny").glob("candidates-*"))) == 1


def test_another_recipe_is_refused_unless_replaced(toy_run: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_run, tmp_path / "tiny")
    before = _snapshot(tmp_path / "tiny")
    with pytest.raises(StoreError, match="--replace"):
        run(recipes.build(TOY | {"seed": 9}, ROOT), tmp_path)
    assert _snapshot(tmp_path / "tiny") == before


def test_the_refusal_of_another_recipe_names_the_settings_that_differ(toy_run: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_run, tmp_path / "tiny")

    def refused(**sections: Any) -> str:
        with pytest.raises(StoreError, match="another recipe") as error:
            run(recipes.build(TOY | sections, ROOT), tmp_path)
        return str(error.value)

    assert "It differs in generate.count (was 120, is 130). " in refused(generate=TOY["generate"] | {"count": 130})
    found = refused(seed=9, annotator=[{"kind": "classifier"}], generate={"count": 120}, filter=[{"kind": "form"}])
    assert "It differs in seed (was 3, is 9), generate.temperature (was 0.7, is 1.0), generate.max_tokens (was 200, is 96), " in found
    assert "and " in found and " more. Give --replace" in found and found.count("(was") == 5
    assert 'annotator.1.kind (was nothing, is "classifier")' in refused(annotator=[{"kind": "classifier"}])
    (tmp_path / "tiny/recipe.toml").write_text("name = ")
    assert "It differs" not in refused(seed=9)


def test_a_run_that_keeps_no_row_fails(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="no row was kept of 20"):
        run(recipes.build(TOY | {"generate": {"count": 20, "max_tokens": 2}}, ROOT), tmp_path)
    scores = json.loads((tmp_path / "tiny/scores.json").read_text())
    assert scores["counts"]["kept"] == 0 and scores["verdict"].startswith("no row was kept of 20")
    assert sum(scores["counts"]["dropped"].values()) == 20


def test_names_follow_what_a_step_depends_on() -> None:
    sample = tiny_sample()
    base = step_names(recipes.build(TOY, ROOT), sample)

    def changed(**sections: Any) -> set[str]:
        now = step_names(recipes.build({**TOY, **sections}, ROOT), sample)
        return {step for step in base if now[step] != base[step]}

    assert changed(generate=TOY["generate"] | {"count": 500}) == {"kept", "scores"}
    assert changed(filter=[{"kind": "dedup", "threshold": 0.7}]) == {"kept", "scores"}
    assert changed(student={"kind": "linear", "features": "tfidf"}) == {"scores"}
    assert changed(generate=TOY["generate"] | {"temperature": 0.1}) == {"candidates", "kept", "scores"}
    assert changed(generator={"kind": "hard", "shots": 2}) == {"teacher", "candidates", "kept", "scores"}
    assert changed(seed=8) == set(base)
    assert changed(annotator=[{"kind": "classifier"}]) == {"kept", "scores"}
    base = step_names(recipes.build(AGREEING, ROOT), sample)
    assert changed(**AGREEING | {"filter": []}) == {"kept", "scores"}
    assert changed(**AGREEING | {"annotator": [{"kind": "classifier", "tune": True}]}) == {"annotations", "kept", "scores"}
    assert changed(**AGREEING | {"generate": TOY["generate"] | {"count": 500}}) == {"annotations", "kept", "scores"}


def test_part_sizes_do_not_change_the_rows(tmp_path: Path) -> None:
    from seedbed.engines.toy import Toy
    from seedbed.generators.hard import Hard

    sample, hard = tiny_sample(), Hard(shots=4)
    (tmp_path / "teacher").mkdir()
    hard.fit(sample, "toy", 0, tmp_path / "teacher")
    teacher = hard.load(tmp_path / "teacher", sample.task, "toy")
    found = []
    for rows in (7, 50, 500):
        folder = tmp_path / str(rows)
        folder.mkdir()
        complete(folder, teacher, Toy().open(teacher.model), sample, 53, 1, Sampling(1.0, 1.0, 60), part_rows=rows)
        found.append(read_candidates(folder, 53))
        assert len(list(folder.glob("part-*"))) == -(-53 // rows)
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_odd_line_ends_in_texts_are_text(tmp_path: Path) -> None:
    """U+2028 and the like end a line for `str.splitlines`, but not in JSON lines."""
    lines = (ROOT / "examples/helpdesk.csv").read_text().splitlines()[:151]
    odd = [lines[0], *(line.replace(" ", "\u2028", 1).replace(" ", "\u0085", 1) for line in lines[1:])]
    (tmp_path / "odd.csv").write_text("\n".join(odd) + "\n")
    run(recipes.build(TOY | {"sample": {"path": "odd.csv"}, "metric": []}, tmp_path), tmp_path / "runs")
    assert "\u2028" in next(tmp_path.glob("runs/tiny/teacher-*/sources.jsonl")).read_text()


def test_damage_is_found_and_named(toy_run: Path, tmp_path: Path) -> None:
    def fresh(name: str) -> Path:
        shutil.copytree(toy_run.parent, tmp_path / name)
        return tmp_path / name

    def again(out: Path, **sections: Any) -> None:
        run(recipes.build(TOY | sections, ROOT), out, replace=bool(sections))

    out = fresh("kept")
    kept = next(out.glob("tiny/kept-*/kept.jsonl"))
    kept.write_text("".join(kept.read_text().splitlines(keepends=True)[2:]))
    with pytest.raises(StoreError, match="was changed after it was made"):
        again(out)
    kept.unlink()
    with pytest.raises(StoreError, match="missing or damaged"):
        again(out)
    out = fresh("part")
    part = next(out.glob("tiny/candidates-*/part-00000.parquet"))
    part.write_bytes(b"")
    with pytest.raises(StoreError, match="is damaged"):
        again(out)
    part.unlink()
    again(out, generate=TOY["generate"] | {"count": 130})
    assert json.loads((out / "tiny/scores.json").read_text())["counts"]["candidates"] == 130
    out = fresh("seconds")
    (out / "tiny/.seconds.json").write_text("")
    again(out)
    with pytest.raises(StoreError, match="cannot be written"):
        again(out / "tiny/scores.json")


def test_other_rows_are_not_put_in_the_place_of_finished_ones(tmp_path: Path) -> None:
    lines = (ROOT / "examples/helpdesk.csv").read_text().splitlines(keepends=True)
    raw = TOY | {"sample": {"path": "mine.csv"}, "metric": []}
    (tmp_path / "mine.csv").write_text("".join(lines[:151]))
    run(recipes.build(raw, tmp_path), tmp_path)
    before = _snapshot(tmp_path / "tiny")
    (tmp_path / "mine.csv").write_text("".join(lines[:140]))
    with pytest.raises(StoreError, match="the data changed since"):
        run(recipes.build(raw, tmp_path), tmp_path)
    assert _snapshot(tmp_path / "tiny") == before


@pytest.mark.parametrize("role", ["filter", "metric"])
@pytest.mark.parametrize("kind", ["Raises", "Nothing"])
def test_a_broken_plugin_is_named(role: str, kind: str, tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match=rf"\[{role}\] kind = 'tests/plugins.py:{kind}'"):
        run(recipes.build(TOY | {role: [{"kind": f"tests/plugins.py:{kind}"}]}, ROOT), tmp_path)


def test_a_measure_that_is_no_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match=r"NoNumber': value of 'mine' must be a finite int or float, or None\. Got nan"):
        run(recipes.build(TOY | {"metric": [{"kind": "tests/plugins.py:NoNumber"}]}, ROOT), tmp_path)


@pytest.mark.parametrize("role", ["generator", "engine", "student"])
def test_a_broken_plugin_of_another_role_is_named(role: str, tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match=rf"\[{role}\] kind = 'tests/plugins.py:Raises' failed: ZeroDivisionError: by a user"):
        run(recipes.build(TOY | {role: {"kind": "tests/plugins.py:Raises"}}, ROOT), tmp_path)


@pytest.fixture(scope="module")
def agreeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("agreeing")
    run(recipes.build(AGREEING, ROOT), out)
    return out / "tiny"


def test_annotations_go_from_their_step_to_the_dataset(agreeing: Path) -> None:
    datasets = pytest.importorskip("datasets")
    said = {row["id"]: row["classifier"] for row in rows_of(agreeing, "annotations", 1000)}
    assert len(said) == 120
    kept, dropped = (rows_of(agreeing, step, 1000) for step in ("kept", "dropped"))
    assert {d["reason"] for d in dropped if d["filter"] == "agreement"} == {"label disagrees"}
    for row in kept:
        assert row["annotations"]["classifier"] == said[row["id"]]
        assert next(iter(said[row["id"]])) == row["fields"]["queue"]
    shipped = datasets.load_dataset(str(agreeing / "dataset"), split="train", cache_dir=str(agreeing.parent / "cache"))["provenance"]
    for row, origin in zip(kept, shipped, strict=True):
        (column,) = origin["annotations"]
        assert column["annotator"] == "classifier"
        assert dict(zip(column["labels"], column["probabilities"], strict=True)) == said[row["id"]]
    (facts,) = json.loads((agreeing / "manifest.json").read_text())["annotators"]
    assert facts["kind"] == "classifier"
    assert facts["C"] > 0


def test_another_filter_repays_neither_candidates_nor_annotations(agreeing: Path, tmp_path: Path) -> None:
    shutil.copytree(agreeing, tmp_path / "tiny")
    folders = {p.name for p in (tmp_path / "tiny").glob("*-*") if p.name.startswith(("candidates", "annotations"))}
    stamps = {p: p.stat().st_mtime_ns for name in folders for p in (tmp_path / "tiny" / name).rglob("*")}
    run(recipes.build(AGREEING | {"filter": [{"kind": "form"}]}, ROOT), tmp_path, replace=True)
    assert len(folders) == 2
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert {p.name for p in (tmp_path / "tiny").glob("*-*") if p.name.startswith(("candidates", "annotations"))} == folders


@pytest.mark.parametrize("stop", ["write_lines", "write_hashes"])
def test_a_stop_in_the_annotations_step_changes_no_byte(agreeing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str) -> None:
    """Stopped after the annotator's answer is accepted, or when all but the hashes is written; the annotator is not asked again."""

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"seedbed.annotations.{stop}", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(recipes.build(AGREEING, ROOT), tmp_path)
    assert next((tmp_path / "tiny").glob("annotations-*.partial/journal.jsonl")).stat().st_size > 1000
    with monkeypatch.context() as patch:
        patch.setattr("seedbed.annotations._said", stopped)
        run(recipes.build(AGREEING, ROOT), tmp_path)
    assert _snapshot(tmp_path / "tiny") == _snapshot(agreeing)


def test_changed_annotations_are_refused(agreeing: Path, tmp_path: Path) -> None:
    shutil.copytree(agreeing, tmp_path / "tiny")
    path = next((tmp_path / "tiny").glob("annotations-*/annotations.jsonl"))
    path.write_text(path.read_text().replace("0.", "0.1", 1))
    with pytest.raises(StoreError, match=r"annotations-.* was changed after it was made"):
        run(recipes.build(AGREEING, ROOT), tmp_path)


@pytest.mark.parametrize("kind", ["Raises", "Nothing"])
def test_a_broken_annotator_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match=rf"\[annotator\] kind = 'tests/plugins.py:{kind}'"):
        run(recipes.build(TOY | {"annotator": [{"kind": f"tests/plugins.py:{kind}"}]}, ROOT), tmp_path)


def test_a_torn_journal_loses_only_its_last_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    for i in range(5):
        journal.add({"i": i, "text": "é\n" * i})
    journal.close()
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        kept = Journal(path).records
        assert [r["i"] for r in kept] == list(range(whole[:cut].count(b"\n")))
    path.write_bytes(whole.replace(b'"i":1', b'"i":7'))
    with pytest.raises(StoreError, match="damaged at byte"):
        Journal(path)


def _carry_out(raw: dict[str, Any], out: str) -> None:
    import torch

    from seedbed.lm import loop

    torch.set_num_threads(1)
    loop.EVERY = 1  # a checkpoint an epoch, so that a fit that is killed again and again gets on
    run(recipes.build(raw, ROOT), out)


def _accepted(folder: Path) -> int:
    """Rows that a candidates step has accepted: in parts and in the journal."""
    rows: set[int] = set()
    for step in folder.glob("candidates-*"):
        rows |= {r["index"] for r in read_parts(step)}
        if (step / "journal.jsonl").exists():
            lines = (step / "journal.jsonl").read_bytes().split(b"\n")
            rows |= {json.loads(line[9:])["index"] for line in lines[:-1]}
    return len(rows)


def test_what_a_kill_inside_save_file_left_is_no_part_of_a_whole_step(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.reopen("teacher-1") / ".tmpVyhfNM").write_bytes(b"half of the tensors")
    made = store.step("teacher-1", lambda folder: (folder / "prompt.safetensors").write_bytes(b"all of them"))
    assert [path.name for path in made.iterdir()] == ["prompt.safetensors"]


def test_killed_twenty_times_and_the_same_bytes(tmp_path: Path) -> None:
    """kill -9 at random moments of real runs (fit, sampling, filters, scores), resumed each time; one that ends is compared and the next begins."""
    started(time.sleep, 0).join()  # what the fork server imports is no part of a run
    start = time.monotonic()
    process = started(_carry_out, REAL, str(tmp_path / "whole"))
    process.join()
    whole_s = time.monotonic() - start
    assert process.exitcode == 0
    rng, whole = random.Random(11), _snapshot(tmp_path / "whole/tiny")
    kills = runs = accepted = 0
    stamps: dict[Path, int] = {}
    while kills < 20 or process.exitcode < 0:
        folder = tmp_path / str(runs) / "tiny"
        process = started(_carry_out, REAL, str(folder.parent))
        process.join(rng.uniform(0.02, 0.4) * whole_s if kills < 20 else None)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
        assert process.exitcode in (0, -signal.SIGKILL)
        assert _accepted(folder) >= accepted, "an accepted row was lost"
        assert {p: p.stat().st_mtime_ns for p in stamps} == stamps, "a whole step was touched"
        if process.exitcode == 0:
            assert _snapshot(folder) == whole
            runs, accepted, stamps = runs + 1, 0, {}
        else:
            steps = [p for p in folder.glob("*-*") if p.is_dir() and not p.name.endswith(".partial")]
            accepted, stamps = _accepted(folder), {p: p.stat().st_mtime_ns for step in steps for p in step.rglob("*")}

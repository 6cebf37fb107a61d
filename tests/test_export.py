"""Exports load in the libraries they are for, hold every synthetic row once, and the adapter answers as our own prompt does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from test_run import ROOT, TOY

from seedbed import recipe as recipes
from seedbed.dataset import write_dataset
from seedbed.errors import ComponentError, StoreError
from seedbed.export import export
from seedbed.generators.soft import Soft
from seedbed.lm.decode import load_soft
from seedbed.lm.load import load, locate
from seedbed.run import run
from seedbed.show import rows_of
from seedbed.task import Task
from seedbed.testing import tiny_sample
from seedbed.types import Candidate, SoftRef


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(recipes.build(TOY | {"metric": []}, ROOT), tmp_path_factory.mktemp("run")).folder


def _loaded(path: Path, cache: Path) -> list[dict[str, Any]]:
    datasets = pytest.importorskip("datasets")
    return list(datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(cache)))


@pytest.mark.slow
def test_rows_round_trip_in_three_forms(finished: Path, tmp_path: Path) -> None:
    kept = [json.loads(line) for line in next(finished.glob("kept-*/kept.jsonl")).read_text().splitlines()]
    pairs = [(k["fields"]["message"], k["fields"]["queue"]) for k in kept]
    plain = _loaded(export(finished, "jsonl", tmp_path / "rows.jsonl"), tmp_path)
    assert [(r["message"], r["queue"]) for r in plain] == pairs
    assert all(r["synthetic"] for r in plain)
    assert [r["provenance"]["candidate"] for r in plain] == [k["id"] for k in kept]
    with pytest.raises(StoreError, match=r"rows\.jsonl is there already"):
        export(finished, "alpaca", tmp_path / "rows.jsonl")
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == len(pairs)
    chats = _loaded(export(finished, "messages"), tmp_path)
    assert [tuple(m["content"] for m in r["messages"]) for r in chats] == pairs
    assert {tuple(m["role"] for m in r["messages"]) for r in chats} == {("user", "assistant")}
    alpaca = _loaded(export(finished, "alpaca"), tmp_path)
    assert [(r["input"], r["output"]) for r in alpaca] == pairs
    assert {r["instruction"] for r in alpaca} == {f"Give the queue. Allowed: {', '.join(sorted({q for _, q in pairs}))}."}
    assert sorted(p.name for p in (finished / "exports").iterdir()) == ["alpaca.jsonl", "messages.jsonl"]


def test_an_export_holds_no_real_row(finished: Path) -> None:
    real = {line.rsplit(",", 1)[0].strip('"') for line in (ROOT / "examples/helpdesk.csv").read_text().splitlines()[1:]}
    for form in ("jsonl", "messages", "alpaca"):
        path = export(finished, form)  # type: ignore[arg-type]
        values = {text for line in path.read_text().splitlines() for text in json.loads(line).values() if isinstance(text, str)}
        assert not values & real


@pytest.mark.parametrize(
    ("task", "fields", "chat", "alpaca"),
    [
        (Task("plain", ("text",)), {"text": "so\nit is"}, ["so\nit is"], ("Write one text.", "", "so\nit is")),
        (
            Task("pair", ("premise", "hypothesis"), "label"),
            {"premise": "a", "hypothesis": "b", "label": "yes"},
            ["Premise: a\nHypothesis: b", "yes"],
            ("Give the label. Allowed: yes.", "Premise: a\nHypothesis: b", "yes"),
        ),
        (
            Task("data2text", ("triples",), "text"),
            {"triples": [["A", "is", "B"]], "text": "A is B."},
            ['[["A", "is", "B"]]', "A is B."],
            ("Describe the data: write the text.", '[["A", "is", "B"]]', "A is B."),
        ),
        (
            Task("math", ("question",), "answer"),
            {"question": "1+1?", "answer": "#### 2"},
            ["1+1?", "#### 2"],
            ("Write the answer.", "1+1?", "#### 2"),
        ),
    ],
)
def test_each_kind_of_task(tmp_path: Path, task: Task, fields: dict[str, Any], chat: list[str], alpaca: tuple[str, str, str]) -> None:
    write_dataset(tmp_path / "dataset", task, [Candidate("c0", 0, "", fields, True)], lambda written: "")
    inputs, target = json.dumps(list(task.inputs)), f'target = "{task.target}"' if task.target else ""
    (tmp_path / "recipe.toml").write_text(f'[task]\nkind = "{task.kind}"\ninputs = {inputs}\n{target}\n')
    assert [m["content"] for m in json.loads(export(tmp_path, "messages").read_text())["messages"]] == chat
    assert tuple(json.loads(export(tmp_path, "alpaca").read_text()).values()) == alpaca


@pytest.mark.parametrize("annotated", [True, False])
def test_an_export_without_the_probabilities_of_labels_says_so(tmp_path: Path, annotated: bool, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"classifier": {"a": 0.7, "b": 0.3}} if annotated else {}
    row = Candidate("c0", 0, "", {"text": "t", "label": "a"}, True, annotations=said)
    write_dataset(tmp_path / "dataset", Task("classification", ("text",), "label"), [row], lambda written: "")
    (tmp_path / "recipe.toml").write_text('[task]\nkind = "classification"\ninputs = ["text"]\ntarget = "label"\n')
    kept = json.loads(export(tmp_path, "jsonl").read_text())["provenance"]["annotations"]
    assert [a["probabilities"] for a in kept] == [[0.7, 0.3]] * annotated and not capsys.readouterr().err
    for form in ("messages", "alpaca"):
        export(tmp_path, form)  # type: ignore[arg-type]
        assert ("probabilities" in capsys.readouterr().err) == annotated


@pytest.mark.parametrize("form", ["nsp", "mc"])
def test_the_adapter_loads_in_peft_and_gives_our_logits(tmp_path: Path, form: Any) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    sample, teacher = tiny_sample(), tmp_path / "run" / "teacher-1"
    teacher.mkdir(parents=True)
    Soft(prompt=form, tokens=3, epochs=2).fit(sample, "seedling", 3, teacher)
    (tmp_path / "run/manifest.json").write_text('{"steps": {"teacher": "teacher-1"}}')
    folder = export(tmp_path / "run", "peft", tmp_path / "adapter")
    assert not [p for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pkl")]
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(locate("seedling"), dtype=torch.float32), str(folder)).eval()
    lm = load("seedling")
    ids = torch.tensor([lm.encode("Label: music\nText: play a slow song")])
    soft = load_soft(teacher, lm.hash, lm.device)
    prompts = soft.resolve([SoftRef((e.id,), (1.0,)) for e in sample.fit])
    if form == "nsp":
        assert torch.equal(prompts[0], prompts[-1])
    with torch.inference_mode():
        ours = lm.model(inputs_embeds=torch.cat([prompts.mean(0, keepdim=True), lm.vectors(ids)], dim=1)).logits
        theirs = model(input_ids=ids).logits
    assert torch.allclose(theirs, ours, atol=1e-4)
    assert not torch.allclose(lm.model(input_ids=ids).logits, ours[:, 3:], atol=1e-1), "the prompt must matter"


def test_what_cannot_be_exported_is_said(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="no soft prompt"):
        export(finished, "peft")
    (tmp_path / "run/teacher-1").mkdir(parents=True)
    (tmp_path / "run/manifest.json").write_text('{"steps": {"teacher": "teacher-1"}}')
    (tmp_path / "run/teacher-1/prompt.json").write_text('{"form": "amortised-lora"}')
    with pytest.raises(ComponentError, match=r"an adapter of its own .*The adapter is teacher-1/adapter"):
        export(tmp_path / "run", "peft")
    with pytest.raises(StoreError, match="no dataset"):
        export(tmp_path, "jsonl")
    with pytest.raises(StoreError, match="no fitted teacher"):
        export(tmp_path, "peft")


def test_damaged_runs_are_named(finished: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(finished, place)
    for content in ("[]", "{", "\udcff"):
        (place / "manifest.json").write_bytes(content.encode(errors="surrogateescape"))
        for work in (lambda: export(place, "peft"), lambda: rows_of(place, "kept", 1)):
            with pytest.raises(StoreError, match=r"manifest.json is .*damaged"):
                work()
    (place / "manifest.json").unlink()
    next(place.glob("sample-*/sample.json")).unlink()
    with pytest.raises(StoreError, match=r"sample.json is missing"):
        rows_of(place, "sample", 1)
    next(place.glob("dataset/data/*")).write_bytes(b"nonsense")
    with pytest.raises(StoreError, match="dataset is damaged"):
        export(place, "jsonl")
    shutil.rmtree(place / "dataset")
    shutil.copytree(finished / "dataset", place / "dataset")
    (place / "recipe.toml").write_text("[[")
    with pytest.raises(StoreError, match=r"recipe.toml is missing or damaged"):
        export(place, "messages")

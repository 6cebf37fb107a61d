"""Laws of fine-tuning, on a small random model and on the shipped one."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stops import stopped_after
from test_run import ROOT, TOY
from test_train import model, some_texts

from seedbed import estimate as estimates
from seedbed import recipe as recipes
from seedbed.computed import computed
from seedbed.data import load_sample
from seedbed.engines.local import Local
from seedbed.errors import ComponentError, DataError, EngineError, ModelError, RecipeError
from seedbed.flops import Shape
from seedbed.generators.finetune import Finetune
from seedbed.limits import Deadline
from seedbed.lm import finetune, loop, train
from seedbed.lm import load as load_module
from seedbed.lm.batches import Text
from seedbed.lm.finetune import Tuning, merged, tune_lm
from seedbed.lm.load import LM, fresh, weights_hash
from seedbed.run import run
from seedbed.task import Task
from seedbed.testing import check_generator, tiny_sample, tiny_texts
from seedbed.types import Completion, Example, ModelRef, Prompt, Row, Sample, Sampling

LORA = Tuning(epochs=2, patience=9, batch=4, warmup=5, lr=0.01, rank=4, dropout=0.2)
FULL = replace(LORA, method="full", lr=0.002)
FAST = Finetune(rank=8, epochs=14, batch=4, warmup=5, lr=0.005)
BOTH = pytest.mark.parametrize("how", [LORA, FULL], ids=lambda how: how.method)


def _logits(lm: LM) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = lm.model(torch.arange(1, 20)[None]).logits
    return logits


def _weights(lm: LM) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in lm.model.state_dict().items()}


def _halves() -> list[Text]:
    """Targets that repeat what is given: a small model learns it in no time."""
    return [Text(t.given, (*[7] * (len(t.target) - 1), 0)) for t in some_texts(16)]


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_an_adapter_whose_b_is_zero_changes_nothing(kind: str) -> None:
    lm = model(kind)
    before = _logits(lm)
    peft = finetune._with_lora(lm, LORA, 0)
    assert sum(p.numel() for p in peft.parameters() if p.requires_grad) > 0
    assert torch.equal(_logits(replace(lm, model=peft.get_base_model())), before)
    assert torch.allclose(_logits(replace(lm, model=peft.merge_and_unload())), before, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "how"),
    [("llama", LORA), ("llama", replace(LORA, targets=("down_proj",))), ("gemma2", LORA), ("llama", FULL)],
    ids=["lora", "one target", "capped logits", "full"],
)
def test_gradients_are_those_of_the_plain_path(kind: str, how: Tuning) -> None:
    """Every weight that learns has the gradient of the whole padded batch through transformers."""
    from test_train import plain_nll

    lm, texts = model(kind), some_texts(9)
    peft = finetune._with_lora(lm, how, 0) if how.method == "lora" else None
    if peft is None:
        lm.model.requires_grad_(True)
    else:
        for name, p in peft.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.1)
    lm = replace(lm, model=peft.get_base_model() if peft else lm.model)
    trainee = finetune._Tuned(lm, peft, texts, texts, replace(how, dropout=0.0))
    found = []
    for path in ("ours", "plain"):
        lm.model.zero_grad()
        if path == "ours":
            total = trainee.gradients(list(range(9)), 10, 0) if peft is None else _undropped(trainee)
        else:
            soft = lm.vectors(torch.full((1, 1), lm.bos))
            loss = plain_nll(lm, soft, texts).sum()
            (loss / 10).backward()
            total = float(loss.detach())
        found.append((total, {name: p.grad.clone() for name, p in trainee.weights().items()}))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for name, slope in found[1][1].items():
        assert slope.abs().sum() > 0, name
        assert torch.allclose(found[0][1][name], slope, rtol=1e-3, atol=1e-5 * float(slope.abs().max())), name


def _undropped(trainee: Any) -> float:
    for name, m in trainee.lm.model.named_modules():
        if name.endswith("lora_dropout.default"):
            m.p = 0.0
    total: float = trainee.gradients(list(range(9)), 10, 0)
    return total


def test_the_output_layer_is_read_in_chunks_although_an_adapter_has_dropout() -> None:
    lm = model("llama")
    peft = finetune._with_lora(lm, LORA, 0)
    for name, p in peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p)
    trainee = finetune._Tuned(replace(lm, model=peft.get_base_model()), peft, some_texts(2), some_texts(2), LORA)
    trainee.gradients([0], 1, 0)
    assert trainee.lm.states.head is not None
    assert trainee.lm.states.quick is None


def test_the_quick_layers_are_for_frozen_models() -> None:
    """Their backward pass goes to the prompt alone."""
    lm = model("llama")
    lm.model.model.norm.weight.requires_grad_(True)
    assert lm.states.quick is None


@BOTH
def test_it_learns_and_touches_what_it_should(how: Tuning) -> None:
    lm, texts = model("llama"), _halves()
    before = _weights(lm)
    tuned = tune_lm(lm, texts[:12], texts[12:], replace(how, epochs=10), 0)
    best = min(entry["dev"] for entry in tuned.log)
    assert best + 1 < tuned.before
    assert train.mean_nll(tuned.lm, None, None, texts[12:]) == pytest.approx(best, rel=1e-4), "before merging too"
    whole = tuned.whole()
    assert train.mean_nll(whole, None, None, texts[12:]) == pytest.approx(best, rel=1e-4), "the best weights are kept, and LoRA merges to the same"
    assert not any(p.requires_grad for p in whole.model.parameters())
    changed = {name for name, value in _weights(whole).items() if not torch.equal(value, before[name])}
    assert changed
    assert how.method == "full" or all(name.endswith("_proj.weight") for name in changed)


def test_base_weights_are_bit_identical_and_a_change_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = model("llama")
    before = weights_hash(lm.model)
    tuned = tune_lm(lm, some_texts(8), some_texts(2), replace(LORA, epochs=1), 0)
    assert weights_hash(tuned.peft.unload()) == before
    honest = loop.fit

    def spoil(trainee: Any, *rest: Any) -> Any:
        log = honest(trainee, *rest)
        with torch.no_grad():
            trainee.lm.model.get_input_embeddings().weight[0, 0] += 1
        return log

    monkeypatch.setattr(loop, "fit", spoil)
    with pytest.raises(ModelError, match="frozen and must not"):
        tune_lm(model("llama"), some_texts(8), some_texts(2), replace(LORA, epochs=1), 0)


@pytest.mark.slow
@BOTH
def test_a_tuning_that_is_stopped_goes_on_to_the_same_bytes(how: Tuning, tmp_path: Path) -> None:
    texts, how = some_texts(12), replace(how, epochs=14)  # 42 steps: evaluations at 20, 40 and 42
    whole = tune_lm(model("llama"), texts[:10], texts[10:], how, 0)
    for _ in range(2):
        with stopped_after(loop, "_save"):
            tune_lm(model("llama"), texts[:10], texts[10:], how, 0, tmp_path / "checkpoint")
    again = tune_lm(model("llama"), texts[:10], texts[10:], how, 0, tmp_path / "checkpoint")
    assert again.log == whole.log
    assert weights_hash(again.whole().model) == weights_hash(whole.whole().model)


@BOTH
def test_in_16_bits_the_losses_are_near_and_what_learns_stays_in_32(how: Tuning, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, lm = _halves(), model("llama")
    fp32 = tune_lm(model("llama"), texts[:12], texts[12:], how, 0)
    monkeypatch.setattr(finetune, "quick_dtype", lambda: torch.bfloat16)
    if how.method == "lora":
        lm.model.to(torch.bfloat16)
    half = tune_lm(lm, texts[:12], texts[12:], how, 0)
    assert half.log[-1]["dev"] != fp32.log[-1]["dev"]
    assert half.log[-1]["dev"] == pytest.approx(fp32.log[-1]["dev"], abs=0.1)
    learned = half.peft.parameters() if half.peft else half.lm.model.parameters()
    assert {p.dtype for p in learned} == ({torch.bfloat16, torch.float32} if half.peft else {torch.float32})


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ModelError, match="Lower lr"):
        tune_lm(model("llama"), some_texts(8), some_texts(2), replace(FULL, lr=1e30, epochs=30), 0)


def test_targets_that_the_model_lacks_are_named() -> None:
    with pytest.raises(ModelError, match=r"down_proj, gate_proj.*q_proj"):
        tune_lm(model("llama"), some_texts(2), some_texts(2), replace(LORA, targets=("c_attn",)), 0)


@pytest.mark.parametrize("copies", [1, 5])
def test_too_little_memory_is_said_before_loading(copies: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """seedling has 5.5 M weights: 22 MB in fp32, 110 MB while all of them learn."""
    fresh("seedling", torch.float32, "cpu")
    monkeypatch.setattr(load_module, "memory", lambda device: 22_000_000 * copies - 1_000_000)
    with pytest.raises(ModelError, match=r"memory is .* GB\. What fits: ") as caught:
        fresh("seedling", torch.float32, "cpu", copies=copies)
    assert ('What fits: method = "lora"' in str(caught.value)) == (copies == 5)
    monkeypatch.setattr(load_module, "memory", lambda device: 22_000_000 * copies)
    fresh("seedling", torch.float32, "cpu", copies=copies)


def test_few_bits_need_a_cuda_device() -> None:
    with pytest.raises(ModelError, match="needs a CUDA device"):
        fresh("seedling", torch.float32, "cpu", "4bit")


def _saved(folder: Path) -> tuple[LM, torch.Tensor]:
    """(the tuned model, its logits): shipped, an adapter whose B is not zero, saved as the generator does."""
    lm = fresh("seedling", torch.float32, "cpu")
    texts = [train.encode(lm, ("", text)) for text in ("play a slow song", "turn the radio up", "will it rain")]
    tuned = tune_lm(lm, texts, texts, replace(LORA, epochs=3), 0)
    (folder / "adapter").mkdir(parents=True)
    tuned.save(folder / "adapter", "seedling")
    (folder / "finetune.json").write_text(json.dumps({"model": "seedling", "model_hash": lm.hash}))
    return tuned.lm, _logits(tuned.lm)


def test_an_adapter_saved_and_loaded_gives_the_same_logits(tmp_path: Path) -> None:
    from peft import PeftModel

    tuned, logits = _saved(tmp_path / "a")
    files = {p.name: p.read_bytes() for p in (tmp_path / "a/adapter").iterdir()}
    assert set(files) == {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads(files["adapter_config.json"])
    assert config["base_model_name_or_path"] == "seedling"
    assert config["target_modules"] == sorted(config["target_modules"])
    plain = PeftModel.from_pretrained(fresh("seedling", torch.float32, "cpu").model, tmp_path / "a/adapter")
    assert torch.equal(_logits(replace(tuned, model=plain)), logits)
    assert not torch.allclose(_logits(fresh("seedling", torch.float32, "cpu")), logits, atol=1e-2)
    joined = merged("seedling", tmp_path / "a/adapter", torch.float32, "cpu")
    assert torch.allclose(_logits(joined), logits, atol=1e-4)
    _saved(tmp_path / "b")
    assert {p.name: p.read_bytes() for p in (tmp_path / "b/adapter").iterdir()} == files


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    _saved(tmp_path)
    (tmp_path / "finetune.json").write_text(json.dumps({"model": "some/other", "model_hash": "0" * 64}))
    with pytest.raises(ModelError, match="made for 'some/other' with weights 000000000000; the loaded model is 'seedling'"):
        merged("seedling", tmp_path / "adapter", torch.float32, "cpu")
    (tmp_path / "adapter/adapter_model.safetensors").unlink()
    (tmp_path / "finetune.json").write_text(json.dumps({"model": "seedling", "model_hash": fresh("seedling", torch.float32, "cpu").hash}))
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        merged("seedling", tmp_path / "adapter", torch.float32, "cpu")


def _fitted(folder: Path, how: Finetune, sample: Sample | None = None) -> tuple[Any, Sample]:
    sample = sample or tiny_sample()
    folder.mkdir(parents=True, exist_ok=True)
    how.fit(sample, "seedling", 0, folder)
    return how.load(folder, sample.task, "seedling"), sample


def _row(fields: dict[str, Any], index: int = 0) -> Row:
    return Row(index, 0, fields)


def test_what_a_row_is_learned_as() -> None:
    task, fields = Task("classification", ("text",), "label", ("music",)), {"text": "play it", "label": "music"}
    assert Finetune().splits(task, fields) == [("", "Text: play it\nLabel:", " music")]
    first = [("", "Label: music\nText: play it"), ("Text: play it\n", "Label:", " music")]
    assert Finetune(order="label-first").splits(task, fields) == first
    given = [("Label: music\n", "Text: play it"), ("Text: play it\n", "Label:", " music")]
    assert Finetune(order="label-first", labels="uniform").splits(task, fields) == given
    pair = Task("pair", ("premise", "hypothesis"), "label", ("yes", "no"))
    fields = {"premise": "it rains", "hypothesis": "it is wet", "label": "yes"}
    assert Finetune().splits(pair, fields) == [("Premise: it rains\n", "Hypothesis: it is wet\nLabel:", " yes")]
    made, answered = Finetune(order="label-first", labels="sample").splits(pair, fields)
    assert made == ("Premise: it rains\nLabel: yes\n", "Hypothesis: it is wet")
    assert answered == ("Premise: it rains\nHypothesis: it is wet\n", "Label:", " yes")
    data = Task("data2text", ("triples",), "text")
    assert Finetune().splits(data, {"triples": [["a", "b", "c"]], "text": "a is c"}) == [('Triples: [["a", "b", "c"]]\nText:', "", " a is c")]
    math = Task("math", ("question",), "answer")
    assert Finetune().splits(math, {"question": "1 + 1", "answer": "2"}) == [("", "Question: 1 + 1\nAnswer:", " 2")]
    assert Finetune().splits(Task("plain", ("text",)), {"text": "so"}) == [("", "so")]


WRITTEN: list[tuple[Task, dict[str, Any]]] = [
    (Task("data2text", ("triples",), "text"), {"triples": [["a", "b", "c"]], "text": "a is c"}),
    (Task("text2text", ("source",), "target"), {"source": "good day", "target": "bonjour"}),
    (Task("text2text", ("source", "tone"), "target", given=("source",)), {"source": "good day", "tone": "calm", "target": "bonjour"}),
    (Task("math", ("question",), "answer"), {"question": "1 + 1", "answer": "2"}),
    (Task("code", ("text",), "code"), {"text": "add", "code": "def add(a, b):\n    return a + b"}),
    (Task("code", ("text",), "code", tests="tests"), {"text": "add", "tests": ["assert add(1, 1) == 2"], "code": "def add(a, b):\n    return a + b"}),
    (
        Task("code", ("text",), "code", tests="tests", given=("text", "tests")),
        {"text": "add", "tests": ["assert add(1, 1) == 2"], "code": "add = sum"},
    ),
]


@pytest.mark.parametrize(("task", "fields"), WRITTEN, ids=lambda case: getattr(case, "kind", ""))
def test_a_text_is_asked_with_its_heading_where_its_row_was_split(task: Task, fields: dict[str, Any], tmp_path: Path) -> None:
    """What is asked is what was learned, token for token; what was learned is the row, once."""
    (tmp_path / "finetune.json").write_text('{"headed": true}')
    teacher, lm, whole = Finetune().load(tmp_path, task, "seedling"), load_module.load("seedling"), task.render(fields)
    (split,) = Finetune().splits(task, fields)
    assert "".join(split) == whole
    learned = [i for piece in split if piece for i in lm.encode(piece)]
    for column, known in ((c, task.columns[:i]) for i, c in enumerate(task.columns) if i >= len(task.inputs)):
        row = Row(0, 0, {c: fields[c] for c in known})
        prompt = teacher.prompt(row)
        assert prompt is not None and prompt.text.endswith(f"\n{task.mark(column)}")
        ids = lm.encode(prompt.text)
        assert learned[: len(ids)] == ids
        (read,) = teacher.read(replace(row, turns=(Completion(whole.removeprefix(prompt.text), 1, True),)))
        assert (read.text, read.fields) == (whole, fields)


def test_a_teacher_of_version_1_is_asked_without_headings_and_one_of_labels_always(tmp_path: Path) -> None:
    row, task = Row(0, 0, {"text": "add"}), Task("text2text", ("text",), "code")
    (tmp_path / "finetune.json").write_text("{}")
    prompt = (old := Finetune().load(tmp_path, task, "seedling")).prompt(row)
    assert prompt is not None and prompt.text == "Text: add\n"
    assert old.read(replace(row, turns=(Completion("Code: add", 1, True),)))[0].fields == {"text": "add", "code": "add"}
    (tmp_path / "finetune.json").write_text('{"headed": true}')
    prompt = Finetune().load(tmp_path, Task("classification", ("text",), "code"), "seedling").prompt(row)
    assert prompt is not None and prompt.text == "Text: add\n"


def test_rows_of_a_hardly_tuned_teacher_with_given_inputs_are_of_the_right_form(tmp_path: Path) -> None:
    sample = tiny_texts()
    sample = replace(sample, task=replace(sample.task, given=("text",)))
    teacher, _ = _fitted(tmp_path, replace(FAST, epochs=1), sample)
    session, rows = Local(slots=8, cache=64).open(teacher.model), list(teacher.rows(sample, 16, 0))
    found = dict(session.complete(((r.index, teacher.prompt(r)) for r in rows), Sampling(0.7, 0.9, 30)))
    made = [c for r in rows for c in teacher.read(replace(r, turns=(found[r.index],)))]
    assert sum(c.fields is not None for c in made) >= 15, [c.text for c in made]
    assert [c.fields["text"] for c in made if c.fields] == [r.given["text"] for r, c in zip(rows, made, strict=True) if c.fields]


@pytest.mark.parametrize(
    ("settings", "words"), [({"labels": "uniform"}, "label-first"), ({"method": "full", "load_in": "4bit"}, "lora"), ({"targets": []}, "auto")]
)
def test_settings_that_do_not_fit_are_a_problem_of_the_recipe(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        recipes.build(TOY | {"generator": {"kind": "finetune", **settings}}, ROOT)


def test_quotas_need_labels(tmp_path: Path) -> None:
    sample = replace(tiny_sample(), task=Task("plain", ("text",)))
    with pytest.raises(ComponentError, match="a plain task has none"):
        Finetune(order="label-first", labels="uniform").fit(sample, "seedling", 0, tmp_path)
    raw = TOY | {"task": {"kind": "plain", "inputs": ["message"]}, "generator": {"kind": "finetune", "order": "label-first", "labels": "sample"}}
    with pytest.raises(RecipeError, match="a plain task has none"):
        recipes.build(raw, ROOT)


def test_rows_longer_than_the_context_are_counted(tmp_path: Path) -> None:
    sample = tiny_sample()
    long = Example("long", {"text": "word " * 600, "label": "music"})
    _fitted(tmp_path, replace(FAST, epochs=1), Sample(sample.task, (*sample.fit[:4], long), sample.dev, ()))
    assert json.loads((tmp_path / "finetune.json").read_text())["too_long"] == {"fit": 1, "dev": 0}
    with pytest.raises(DataError, match="0 of 1 fit rows"):
        FAST.fit(Sample(sample.task, (long,), sample.dev, ()), "seedling", 0, tmp_path)


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Sample, Path]:
    folder = tmp_path_factory.mktemp("lora") / "teacher"
    return (*_fitted(folder, replace(FAST, epochs=10)), folder)


@pytest.mark.slow
def test_one_teacher_makes_rows_and_answers_them(lora: tuple[Any, Sample, Path]) -> None:
    teacher, sample, folder = lora
    training = json.loads((folder / "training.json").read_text())
    assert training["forms"]["lora"]["dev"] + 1 < training["forms"]["none"]["dev"]
    session = Local(slots=4, cache=64).open(teacher.model)
    right, task = 0, sample.task.known({"text": ""})
    for e in sample.test:
        prompt = teacher.prompt(_row({"text": e.fields["text"]}))
        assert prompt is not None and prompt.text == task.prefix(e.fields)
        asked = replace(prompt, text=prompt.text + task.mark("label"))
        scores = [value for value, _ in session.score(asked, [f" {label}" for label in sample.task.labels], ended=True)]
        right += sample.task.labels[scores.index(max(scores))] == e.fields["label"]
    assert right >= 7, "of 8, on a task with clear words"
    rows = list(teacher.rows(sample, 8, 0))
    found = dict(session.complete(((r.index, teacher.prompt(r)) for r in rows), Sampling(0.7, 0.9, 40)))
    made = [c for r in rows for c in teacher.read(replace(r, turns=(found[r.index],)))]
    assert sum(c.fields is not None for c in made) >= 6, [c.text for c in made]
    assert made[0].provenance["model"] == "seedling"
    assert str(folder) not in json.dumps([dict(c.provenance) for c in made] + [dict(session.describe())])
    assert not any(str(folder.parent) in p.read_text(errors="ignore") for p in folder.rglob("*") if p.is_file())


def test_a_moved_teacher_still_works(lora: tuple[Any, Sample, Path], tmp_path: Path) -> None:
    _, sample, folder = lora
    shutil.copytree(folder, tmp_path / "elsewhere")
    moved = FAST.load(tmp_path / "elsewhere", sample.task, "seedling")
    row = next(moved.rows(sample, 1, 0))
    assert len(list(Local(slots=2, cache=64).open(moved.model).complete(iter([(0, moved.prompt(row))]), Sampling(1.0, 1.0, 4)))) == 1


def test_a_prompt_with_another_adapter_is_refused(lora: tuple[Any, Sample, Path]) -> None:
    session = Local(slots=2, cache=64).open(lora[0].model)
    for adapter in (None, "some/other/adapter"):
        with pytest.raises(EngineError, match="opened with teacher/adapter"):
            session.score(Prompt("", 0, adapter=adapter), ["a"])
    with pytest.raises(EngineError, match="opened with none"):
        Local(slots=2, cache=64).open(ModelRef("seedling")).score(lora[0].prompt(_row({})), ["a"])


@pytest.mark.parametrize("labels", ["sample", "uniform"])
def test_quotas_are_met_exactly(labels: Any, tmp_path: Path) -> None:
    """7 music and 3 weather: shares of the sample over whole rounds, or as many of each."""
    sample = tiny_sample()
    of = {label: [e for e in sample.fit if e.fields["label"] == label] for label in sample.task.labels}
    sample = replace(sample, fit=(*of["music"][:7], *of["weather"][:3]))
    teacher, _ = _fitted(tmp_path, replace(FAST, epochs=1, order="label-first", labels=labels), sample)
    rows = list(teacher.rows(sample, 40, 0))
    assert rows[:13] == list(teacher.rows(sample, 13, 0))
    made = [c for r in rows for c in teacher.read(replace(r, turns=(Completion("Text: play it again", 4, True),)))]
    found = Counter(c.fields["label"] for c in made if c.fields)
    assert found == ({"music": 28, "weather": 12} if labels == "sample" else {"music": 20, "weather": 20})
    prompt = teacher.prompt(rows[0])
    assert prompt is not None and prompt.text == f"Label: {rows[0].given['label']}\n"


@pytest.mark.parametrize("settings", [{}, {"method": "full"}, {"order": "label-first", "labels": "uniform"}], ids=str)
def test_conformance(settings: dict[str, Any]) -> None:
    check_generator(replace(FAST, epochs=1, **settings))


def test_a_fit_that_is_stopped_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "EVERY", 4)
    how = replace(FAST, epochs=2, batch=8)  # 6 steps: evaluations at 4 and 6
    _fitted(tmp_path / "whole", how)
    with stopped_after(loop, "_save"):
        _fitted(tmp_path / "stopped", how)
    cut = how.fit(tiny_sample(), "seedling", 0, tmp_path / "cut", Deadline(0.0)) if (tmp_path / "cut").mkdir() is None else {}
    assert cut == {"lora": {"step": 1, "of": 6}}
    for name in ("stopped", "cut"):
        _fitted(tmp_path / name, how)
        assert _bytes(tmp_path / name) == _bytes(tmp_path / "whole")


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


WHOLE: dict[str, Any] = TOY | {
    "sample": {"path": "examples/helpdesk.csv", "rows": 60},
    "generator": {"kind": "finetune", "epochs": 2, "rank": 4, "lr": 0.002, "warmup": 5, "order": "label-first", "labels": "sample"},
    "generate": {"count": 24, "max_tokens": 60, "temperature": 0.7},
    "metric": [],
    "filter": [],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "method"),
    [({"kind": "toy", "order": 5}, "lora"), ({"kind": "local", "slots": 8, "cache": 128}, "full")],
    ids=["toy lora", "local full"],
)
def test_a_whole_run(engine: dict[str, Any], method: str, tmp_path: Path) -> None:
    few = {"path": "examples/helpdesk.csv", "rows": 24, "test_share": 0.1}  # too few test rows for a gain
    raw = WHOLE | {"sample": few, "engine": engine, "generator": WHOLE["generator"] | {"method": method, "batch": 4}}
    done = run(recipes.build(raw, ROOT), tmp_path)
    assert done.scores["counts"]["kept"] == 24
    page = (done.folder / "report.html").read_text()
    assert "How the teacher learned" in page
    assert "oft prompt" not in page
    for path in (p for p in done.folder.rglob("*") if p.is_file()):
        assert not any(str(place) in path.read_text(errors="ignore") for place in (tmp_path, ROOT)), path


@pytest.mark.slow
def test_an_estimate_counts_the_tokens_of_both_texts_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "TRIAL_S", 0.5)
    recipe = recipes.build(WHOLE | {"generator": WHOLE["generator"] | {"batch": 4}}, ROOT)
    sample = load_sample(recipe.sample, recipe.task, recipe.seed, ROOT)
    assumed: list[str] = []
    cost, _, length = estimates._fitting(recipe, sample, tmp_path, assumed)
    texts = [[train.encode(load_module.load("seedling"), text).target for text in _joined(recipe, e)] for e in sample.fit]
    assert cost.tokens == pytest.approx(2 * sum(len(t) for row in texts for t in row), rel=0.15)
    assert length == pytest.approx(sum(min(60, len(made)) for made, _ in texts) / len(texts), rel=0.15)
    assert cost.seconds > 0
    assert "all 2 epochs are trained; early stopping may end sooner" in assumed


def _joined(recipe: Any, example: Example) -> list[tuple[str, str]]:
    return [(given, "".join(rest)) for given, *rest in recipe.generator.settings.splits(recipe.task, example.fields)]


def test_a_shape_is_priced_by_its_method(tmp_path: Path) -> None:
    shape = {"hidden": 6144, "layers": 44, "heads": 64, "intermediate": 24576, "vocab": 50432, "tied": False}
    found, assumed = {}, []
    for method in ("lora", "full"):
        raw = WHOLE | {"engine": {"kind": "local", "precision": "bf16", "slots": 8}, "model": {"name": "some/20b", "shape": shape}}
        recipe = recipes.build(raw | {"generator": WHOLE["generator"] | {"method": method}}, ROOT)
        found[method] = computed(recipe, load_sample(recipe.sample, recipe.task, 3, ROOT), None, tmp_path, assumed := [])
    weights = Shape(**shape).parameters
    assert found["lora"][1] == pytest.approx(2 * weights, rel=0.15)
    assert found["full"][1] > 5 * 4 * weights
    lora, full = (found[method][0]["teacher"] for method in ("lora", "full"))
    assert full.seconds > 1.4 * lora.seconds
    adapter = 44 * 4 * (8 * 6144 + 3 * (6144 + 24576))
    assert (lora.disk, full.disk) == (4 * adapter, 4 * weights)
    assert any("do not fit" in line for line in assumed)

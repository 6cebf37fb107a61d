"""Laws of fine-tuning, on a small random model and on the shipped one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import model, some_texts

from seedbed.errors import ModelError
from seedbed.lm import finetune, loop, train
from seedbed.lm import load as load_module
from seedbed.lm.batches import Text
from seedbed.lm.finetune import Tuning, merged, tune_lm
from seedbed.lm.load import LM, fresh, weights_hash

LORA = Tuning(epochs=2, patience=9, batch=4, warmup=5, lr=0.01, rank=4, dropout=0.2)
FULL = replace(LORA, method="full", lr=0.002)
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


@pytest.mark.parametrize("how", [LORA, replace(LORA, targets=("down_proj",)), FULL], ids=["lora", "one target", "full"])
def test_gradients_are_those_of_the_plain_path(how: Tuning) -> None:
    """Every weight that learns has the gradient of the whole padded batch through transformers."""
    from test_train import plain_nll

    lm, texts = model("llama"), some_texts(9)
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


@BOTH
def test_it_learns_and_touches_what_it_should(how: Tuning) -> None:
    lm, texts = model("llama"), _halves()
    before = _weights(lm)
    tuned = tune_lm(lm, texts[:12], texts[12:], replace(how, epochs=10), 0)
    best = min(entry["dev"] for entry in tuned.log)
    assert best + 1 < tuned.before
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


@BOTH
def test_a_tuning_that_is_stopped_goes_on_to_the_same_bytes(how: Tuning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, how = some_texts(12), replace(how, epochs=14)  # 42 steps: evaluations at 20, 40 and 42
    whole = tune_lm(model("llama"), texts[:10], texts[10:], how, 0)
    honest = loop._save

    def stop_after(*args: Any) -> None:
        honest(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_save", stop_after)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tune_lm(model("llama"), texts[:10], texts[10:], how, 0, tmp_path / "checkpoint")
    monkeypatch.setattr(loop, "_save", honest)
    again = tune_lm(model("llama"), texts[:10], texts[10:], how, 0, tmp_path / "checkpoint")
    assert again.log == whole.log
    assert weights_hash(again.whole().model) == weights_hash(whole.whole().model)


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

"""Laws of the embedding decoder: how it is trained, kept, refused and adapted."""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from stops import stopped_after
from typer.testing import CliRunner

from seedbed import recipe as recipes
from seedbed import written
from seedbed.cli import app
from seedbed.engines.local import Local
from seedbed.errors import ComponentError, DataError, ModelError, StoreError
from seedbed.export import export
from seedbed.generators.soft import Soft, decoder_place
from seedbed.generators.steered import asked
from seedbed.limits import Deadline
from seedbed.lm import loop, train
from seedbed.lm.adapt import LEVELS, Adapted, Rows, adapt_with_lora
from seedbed.lm.decode import load_soft
from seedbed.lm.decoder import load_decoder, shortened
from seedbed.lm.embed import MINILM_SHA256, embed
from seedbed.lm.finetune import Tuning, own
from seedbed.lm.load import load, weights_hash
from seedbed.lm.passages import END, passages
from seedbed.lm.pretrain import Pretraining, pretrain
from seedbed.lm.reconstruction import greedy
from seedbed.parts import Component
from seedbed.run import run
from seedbed.store import Journal, Store
from seedbed.task import Task
from seedbed.testing import check_generator, tiny_sample
from seedbed.types import Completion, Example, Prompt, Sample, SoftRef
from seedbed.verify import verify
from seedbed.written import write_corpus

ROOT = Path(__file__).resolve().parent.parent
TEXT = ROOT / "tests/data/public-domain.txt"
SMALL = Pretraining(passages=60, tokens=8, hidden=6, rank=5, batch=8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of four steps: of no use, but of the right form."""
    out = tmp_path_factory.mktemp("decoder")
    pretrain("seedling", [TEXT], out, how=SMALL, steps=4)
    return out / "decoder.safetensors"


@pytest.mark.slow
def test_training_that_is_stopped_goes_on_to_the_same_bytes(made: Path, tmp_path: Path) -> None:
    for steps in (1, 3, 4):
        pretrain("seedling", [TEXT], tmp_path, how=SMALL, steps=steps)
    assert made.read_bytes() == (tmp_path / "decoder.safetensors").read_bytes()
    with pytest.raises(ModelError, match="another model, embedder, corpus or setting"):
        pretrain("seedling", [TEXT], tmp_path, how=replace(SMALL, batch=9), steps=5)
    for file in ("checkpoint.safetensors", next((tmp_path / "work").glob("held-out*.npy")).name):
        whole = (tmp_path / "work" / file).read_bytes()
        (tmp_path / "work" / file).write_bytes(whole[:-9])
        with pytest.raises(StoreError, match=f"{file} is damaged: .*Remove it"):
            pretrain("seedling", [TEXT], tmp_path, how=SMALL, steps=5)
        (tmp_path / "work" / file).write_bytes(whole)


def test_a_models_own_text_that_was_torn_off_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole = write_corpus("seedling", tmp_path / "whole", count=8)
    text = whole.read_text(encoding="utf-8")
    assert len(set(text.split(END))) == 9  # eight texts, all different, and the end of the last line
    (torn := tmp_path / "torn").mkdir()
    with closing(Journal(torn / whole.with_suffix(".journal").name)) as journal:
        for i, one in reversed(list(enumerate(text.split(f"\n{END}\n")[:5]))):
            journal.add({"document": i, "text": one})
    kept = journal.path.read_bytes()
    journal.path.write_bytes(kept[:-7])
    again = write_corpus("seedling", torn, count=8)
    assert again.name == whole.name
    assert again.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in torn.iterdir()) == [".lock", whole.name]
    again.unlink()
    spoiled = {"damaged at byte": kept.replace(b"a", b"e", 1)}
    for other in ({"key": 1}, [1], {"document": 8, "text": ""}, {"document": 1, "text": 5}):
        journal.path.unlink(missing_ok=True)
        with closing(Journal(journal.path)) as foreign:
            foreign.add(other)
        spoiled[f"no texts of a model: {re.escape(repr(other))}"] = journal.path.read_bytes()
    for complaint, content in spoiled.items():
        journal.path.write_bytes(content)
        with pytest.raises(StoreError, match=f"{whole.stem}.*{complaint}.*Remove this file"):
            write_corpus("seedling", torn, count=8)
        assert journal.path.read_bytes() == content
    journal.path.write_bytes(2 * kept)  # two processes wrote it, before there was a lock
    assert write_corpus("seedling", torn, count=8).read_bytes() == whole.read_bytes()
    with Store(torn).held(), pytest.raises(StoreError, match="in use by another process"):
        write_corpus("seedling", torn, count=8)


def test_without_a_corpus_a_decoder_learns_from_the_models_own_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "write_corpus", partial(write_corpus, count=90))
    done = CliRunner().invoke(app, ["pretrain-prompt", "--model", "seedling", "--minutes", "0", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "writes 90 texts of its own first" in done.output
    (text,) = (tmp_path / "work").glob("written-*.txt")
    facts = json.loads((tmp_path / "decoder.json").read_text())
    assert 10 < facts["passages"] < 90  # one in twenty is held out, some are too short
    assert text.read_text(encoding="utf-8").count(END) == 90
    text.unlink()
    with pytest.raises(ModelError, match="holds training on another text"):
        write_corpus("seedling", text.parent)
    lm = load("seedling")
    load_decoder(tmp_path / "decoder.safetensors", lm, "minilm", MINILM_SHA256)


def test_a_corpus_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("Überall. Ganz überall.\n\n".encode("latin-1") * 9)
    with pytest.raises(DataError, match=r"latin.txt: is not UTF-8 text"):
        passages([tmp_path / "latin.txt"], 4, 4, 0)


def test_held_out_passages_are_of_other_documents_and_lengths_are_mixed(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n".join(f"This is document {i}. It has a number, and it is {i} again." for i in range(400)))
    train, held_out = passages([corpus], 300, 5, 0)
    numbers = [{w for w in p.text.replace(".", " ").split() if w.isdigit()} for p in (*train, *held_out)]
    assert all(numbers) and not set.union(*numbers[: len(train)]) & set.union(*numbers[len(train) :])
    assert {bool(p.given) for p in train} == {True, False} and {p.text == p.text.lower() for p in train} == {True, False}
    assert passages([corpus], 300, 5, 0) == (train, held_out) != passages([corpus], 300, 5, 1)
    corpus.write_text("too little\n")
    with pytest.raises(DataError, match="Add text"):
        passages([corpus], 300, 5, 0)


def test_the_first_vectors_are_a_decoder_by_themselves(made: Path) -> None:
    lm, z = load("seedling"), torch.randn(3, 384)
    whole = load_decoder(made, lm, "minilm", MINILM_SHA256)
    for t in (4, 7, 8):
        part = load_decoder(made, lm, "minilm", MINILM_SHA256, t)
        assert torch.equal(part(z), shortened(whole, t)(z))
        for found in (part(z), whole(z, first=t)):
            assert torch.allclose(found, whole(z)[:, :t], atol=1e-7)


def test_a_decoder_for_other_weights_or_too_many_vectors_is_refused(made: Path) -> None:
    lm = load("seedling")
    with pytest.raises(ModelError, match=r"made for the language model 'seedling'.*pretrain-prompt"):
        load_decoder(made, replace(lm, hash="0" * 64), "minilm", MINILM_SHA256)
    with pytest.raises(ModelError, match="made for the embedder 'minilm'"):
        load_decoder(made, lm, "other", "0" * 64)
    with pytest.raises(ModelError, match="tokens must be 4 to 8"):
        load_decoder(made, lm, "minilm", MINILM_SHA256, 9)
    with pytest.raises(ModelError, match="Make one: seedbed pretrain-prompt"):
        load_decoder(ROOT / "src/seedbed/models/seedling/model.safetensors", lm, "minilm", MINILM_SHA256)


def test_no_change_gives_back_the_decoder_and_a_change_is_merged_exactly(made: Path) -> None:
    decoder = load_decoder(made, load("seedling"), "minilm", MINILM_SHA256)
    with torch.no_grad():
        torch.nn.init.normal_(decoder.head.weight, std=0.1)
    z, before = torch.randn(5, 384), {name: value.clone() for name, value in decoder.state_dict().items()}
    for level in LEVELS[1:]:
        changed = Adapted(decoder, level, 0)
        assert torch.equal(changed(z), changed.merged(decoder)(z)) and torch.equal(changed(z), decoder(z))
        assert all(torch.equal(value, before[name]) for name, value in changed.merged(decoder).state_dict().items())
        for group in changed.groups(1.0, 1.0, 0.0):
            for parameter in group["params"]:
                with torch.no_grad():
                    parameter.add_(0.1 * torch.randn_like(parameter))
        assert torch.allclose(changed(z), changed.merged(decoder)(z), atol=1e-4)
        assert not torch.allclose(changed(z), decoder(z), atol=1e-2)
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(("folded", "epochs"), [(256, 1), (0, 2)])
def test_a_fit_gives_labels_and_is_stopped_and_goes_on_to_the_same_bytes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folded: int, epochs: int
) -> None:
    from seedbed.lm import adapt

    monkeypatch.setattr(adapt, "FOLDED", folded)
    soft, tiny = Soft(prompt="amortised", decoder=str(made), tokens=4, epochs=epochs, batch=8), tiny_sample()
    sample = replace(tiny, fit=tiny.fit[::2], dev=tiny.dev[::2])
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    soft.fit(sample, "seedling", 0, whole)
    for _ in range(3):
        with stopped_after(adapt, "write_json"):
            soft.fit(sample, "seedling", 0, stopped)
    soft.fit(sample, "seedling", 0, stopped)
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == {p.name: p.read_bytes() for p in stopped.iterdir()}
    form = json.loads((whole / "training.json").read_text())["forms"]["amortised"]
    assert form["level"] == min(form["levels"], key=form["levels"].get) and set(form["levels"]) == set(LEVELS)
    if not folded:
        assert form["level"] != "none"
        assert form["dev"] == pytest.approx(form["levels"][form["level"]], abs=1e-4), (
            "judged by dev alone, the best level's fit is the one that stays"
        )
    teacher = soft.load(whole, sample.task, "seedling")
    rows = list(teacher.rows(sample, 20, 0))
    labels = {e.id: e.fields["label"] for e in sample.fit}
    assert all(row.given == {"label": labels[str(row.source)]} for row in rows)
    prompt = teacher.prompt(rows[0])
    assert prompt is not None and prompt.text == f"Label: {labels[str(rows[0].source)]}\nText:"
    candidate = teacher.read(replace(rows[0], turns=(Completion(" play it", 3, True),)))[0]
    assert candidate.fields == {"text": "play it", "label": labels[str(rows[0].source)]} and candidate.provenance["form"] == "amortised"


@pytest.mark.slow
def test_where_the_time_was_up_before_a_level_was_judged_it_is_affine_and_no_loss_is_told(made: Path, tmp_path: Path) -> None:
    soft = Soft(prompt="amortised", decoder=str(made), tokens=4, epochs=1, batch=8)
    soft.fit(tiny_sample(), "seedling", 0, tmp_path, Deadline(0.0))
    form = json.loads((tmp_path / "training.json").read_text())["forms"]["amortised"]
    assert (form["level"], form["levels"]) == ("affine", {}) and form["dev"] > 0


def test_a_loss_that_is_not_finite_names_the_prompt_the_step_and_what_to_lower(made: Path, tmp_path: Path) -> None:
    soft = Soft(prompt="amortised", decoder=str(made), tokens=4, epochs=2, batch=8, prompt_lr=3e38, network_lr=3e38)
    said = r"fit amortised prompt, affine: the loss is not finite at step \d+. Lower generator.prompt_lr \(now 3e\+38\)"
    with pytest.raises(ModelError, match=said):
        soft.fit(tiny_sample(), "seedling", 0, tmp_path)
    with pytest.raises(ModelError, match=r"full and lora: the loss is not finite .*prompt_lr \(now 3e\+38\), network_lr or lora_lr \(now 0.001\)"):
        replace(soft, prompt="amortised-lora").fit(tiny_sample(), "seedling", 0, tmp_path)


@pytest.mark.slow
def test_a_label_that_stands_last_is_given_first(made: Path, tmp_path: Path) -> None:
    task = Task("pair", ("premise", "hypothesis"), "label")
    fields = [{"premise": f"A cat sat on mat {i}.", "hypothesis": f"Cat {i} sat.", "label": "yno"[i % 2 :: 2]} for i in range(8)]
    rows = tuple(Example(str(i), f) for i, f in enumerate(fields))
    soft = Soft(prompt="amortised", decoder=str(made), tokens=4, epochs=1)
    soft.fit(Sample(task, rows[:6], rows[6:], ()), "seedling", 0, tmp_path)
    teacher = soft.load(tmp_path, task, "seedling")
    prompt = teacher.prompt(next(iter(teacher.rows(Sample(task, rows[:6], (), ()), 1, 0))))
    assert prompt is not None and "Premise: " in prompt.text and "Label: " in prompt.text and prompt.text.endswith("\nHypothesis:")


@pytest.mark.parametrize("form", ["amortised", "amortised-lora"])
def test_conformance(made: Path, form: Any) -> None:
    check_generator(Soft(prompt=form, decoder=str(made), tokens=4, epochs=1))


@pytest.mark.slow
def test_auto_tries_it_where_a_decoder_is_at_hand(made: Path, tmp_path: Path) -> None:
    Soft(decoder=str(made), tokens=4, epochs=1, k=2).fit(tiny_sample(), "seedling", 0, tmp_path)
    assert set(json.loads((tmp_path / "training.json").read_text())["forms"]) == {"none", "nsp", "mp", "mc", "amortised"}
    bare = tmp_path / "model"
    bare.mkdir()
    assert Soft()._forms(str(bare)) == Soft(tokens=2)._forms("seedling") == ("nsp", "mp", "mc")
    with pytest.raises(ModelError, match=r"pretrain-prompt --model .*model --out FOLDER"):
        Soft(prompt="amortised")._forms(str(bare))
    with pytest.raises(ModelError, match="amortised-lora"):
        Soft(prompt="amortised-lora")._forms(str(bare))


@pytest.mark.slow
def test_with_lora_a_fit_is_stopped_and_goes_on_to_the_same_bytes_and_the_engine_reads_what_was_fitted(made: Path, tmp_path: Path) -> None:
    soft = Soft(prompt="amortised-lora", decoder=str(made), tokens=4, epochs=12, batch=16)
    sample, frozen = tiny_sample(), weights_hash(load("seedling").model)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    soft.fit(sample, "seedling", 0, whole)
    for _ in range(2):
        with stopped_after(loop, "_save"):
            soft.fit(sample, "seedling", 0, stopped)
    soft.fit(sample, "seedling", 0, stopped)
    files = [{str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} for folder in (whole, stopped)]
    assert files[0] == files[1] and "adapter/adapter_model.safetensors" in files[0]
    form = json.loads((whole / "training.json").read_text())["forms"]
    assert form["amortised-lora"]["dev"] < form["none"]["dev"]
    assert weights_hash(load("seedling").model) == frozen, "the model that others read is another one"
    teacher = soft.load(whole, sample.task, "seedling")
    session, total, tokens = Local().open(teacher.model), 0.0, 0
    vectors = load_soft(whole, load("seedling").hash, torch.device("cpu"))
    for e in sample.dev:  # the teacher knows fit rows alone: dev rows' contexts stand in for theirs
        asking, answer = asked(sample.task, e.fields)
        z = torch.from_numpy(embed([sample.task.body(e.fields)]))
        session = replace(session, soft=replace(vectors, contexts=z, place={"dev": 0}, labels=("",)))
        [(value, count)] = session.score(Prompt(asking, 0, SoftRef(("dev",), (1.0,)), str(whole / "adapter")), [answer], ended=True)
        total, tokens = total - value, tokens + count
    assert total / tokens == pytest.approx(form["amortised-lora"]["dev"], abs=2e-2)  # the fit may have read it in 16 bits
    row = next(iter(teacher.rows(sample, 1, 0)))
    prompt = teacher.prompt(row)
    assert prompt is not None and prompt.adapter == str(whole / "adapter") and row.given["label"] in prompt.text


def test_settings_of_lora_name_the_steps_of_its_form_alone() -> None:
    facts = {form: [Component("soft", "1", Soft(prompt=form, lora_rank=rank)).fit_facts() for rank in (8, 16)] for form in ("mc", "amortised-lora")}
    assert facts["mc"][0] == facts["mc"][1] and facts["amortised-lora"][0] != facts["amortised-lora"][1]


@pytest.mark.slow
def test_a_run_with_lora_ends_and_is_verified(made: Path, tmp_path: Path) -> None:
    small = ["generate.count=12", "generate.max_tokens=12", "student.features=tfidf", "gain.seeds=1", "metric=[]", "generator.epochs=1"]
    at = [f"generator.decoder={made}", "generator.tokens=4", "generator.prompt=amortised-lora", "generate.relabel=false", "annotator=[]", "filter=[]"]
    path = ROOT / "recipes/few-rows.toml"
    done = run(recipes.load(path, [*small, *at]), tmp_path)
    assert done.scores["counts"]["candidates"] == 12 and (done.folder / "report.html").is_file()
    row = export(done.folder, "jsonl", tmp_path / "rows.jsonl").read_text().splitlines()[0]
    assert json.loads(row)["provenance"]["generator"] == "soft"
    assert not [c for c in verify(done.folder, None) if c.passed is False]
    with pytest.raises(ComponentError, match="an adapter of its own"):
        export(done.folder, "peft")


def test_lora_that_has_not_learned_is_the_decoder(made: Path) -> None:
    lm = own("seedling", "lora")
    decoder = load_decoder(made, lm, "minilm", MINILM_SHA256, 4)
    texts = [train.encode(lm, ("", " A text of some words.")), train.encode(lm, ("", " Another."))]
    rows = Rows(texts, torch.randn(2, 384))
    before = train.mean_nll(lm, decoder, rows.z, texts)
    how = train.Fitting(epochs=1, patience=1, batch=2, prompt_lr=0.0, network_lr=0.0, weight_decay=0.0)
    net, tuned = adapt_with_lora(lm, decoder, rows, rows, how, Tuning(1, 1, 2, lr=0.0), 0, None)
    assert [train.mean_nll(tuned.lm, net, rows.z, texts), tuned.log[-1]["dev"]] == pytest.approx([before] * 2, rel=1e-5)
    how = replace(how, epochs=3, prompt_lr=0.1, network_lr=0.01)
    net, tuned = adapt_with_lora(own("seedling", "lora"), decoder, rows, rows, how, Tuning(3, 3, 2, warmup=0, lr=0.002), 0, None)
    after = train.mean_nll(tuned.lm, net, rows.z, texts)
    assert after < before and after == pytest.approx(min(entry["dev"] for entry in tuned.log), rel=1e-5)
    assert train.mean_nll(tuned.lm, decoder, rows.z, texts) < before, "the adapter has learned"
    assert train.mean_nll(lm, net, rows.z, texts) < before, "and so has the prompt"


def test_the_shipped_decoder_writes_what_it_is_told() -> None:
    lm, place = load("seedling"), decoder_place("", "seedling")
    assert place.stat().st_size < 12e6
    texts = ["What time does the museum open on Sunday?", "He was born in London and studied law.", "The dog ran after the ball."]
    texts += ["Please play some quiet music.", "The price of oil fell by three percent.", "She baked a cake for her brother's birthday."]
    z = torch.from_numpy(embed(texts))
    net = load_decoder(place, lm, "minilm", MINILM_SHA256, 16)
    cosines = torch.from_numpy(embed(greedy(lm, net(z), 24))) @ z.T
    own, others = cosines.diagonal().mean(), cosines[~torch.eye(len(z), dtype=torch.bool)].mean()
    assert own > others + 0.15

"""Laws of the contextual soft prompt and of its fit, on the shipped model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stops import stopped_after

from seedbed import recipe as recipes
from seedbed.data import load_sample
from seedbed.engines.local import Local
from seedbed.errors import DataError, EngineError, ModelError
from seedbed.generators.soft import Soft
from seedbed.grow import step_names
from seedbed.lm import load as load_module
from seedbed.lm import loop, train
from seedbed.lm.decode import load_soft
from seedbed.lm.density import Density
from seedbed.lm.embed import embed
from seedbed.lm.load import load, weights_hash
from seedbed.lm.prompts import SoftPrompt
from seedbed.task import Task
from seedbed.testing import check_generator, tiny_sample
from seedbed.types import Completion, Example, ModelRef, Sample, SoftRef

ROOT = Path(__file__).resolve().parent.parent

E, T, D = 12, 5, 8


def _starts(k: int) -> torch.Tensor:
    return torch.randn(k, T, D, generator=torch.Generator().manual_seed(k))


def test_one_matrix_makes_mp_equal_nsp() -> None:
    z = torch.randn(7, E)
    assert torch.equal(SoftPrompt("mp", _starts(1), 0.5, E)(z), SoftPrompt("nsp", _starts(1), 0.5, E)(z))


def test_zero_residual_makes_mc_equal_nsp() -> None:
    z = torch.randn(7, E)
    mc = SoftPrompt("mc", _starts(1), 0.5, E)
    assert torch.equal(mc(z), SoftPrompt("nsp", _starts(1), 0.5, E)(z))
    torch.nn.init.normal_(mc.head.weight)
    assert not torch.allclose(mc(z)[0], mc(z)[1]), "with a residual the context must matter"


def test_a_start_has_the_models_rms() -> None:
    for form, k in (("nsp", 1), ("mc", 1)):
        out = SoftPrompt(form, 40 * _starts(k), 0.5, E)(torch.randn(3, E))  # type: ignore[arg-type]
        assert out.pow(2).mean().sqrt().item() == pytest.approx(0.5, rel=1e-5)


def test_the_gate_mixes_by_softmax() -> None:
    mp = SoftPrompt("mp", _starts(3), 2.0, E)
    torch.nn.init.normal_(mp.gate.weight)
    z = torch.randn(1, E)
    weights = torch.softmax(mp.gate(z), dim=-1)[0]
    expected = 2.0 * sum(w * p for w, p in zip(weights, mp.prompts, strict=True))
    assert torch.allclose(mp(z)[0], expected, atol=1e-6)


def test_dropout_comes_from_its_generator_alone() -> None:
    mc = SoftPrompt("mc", _starts(1), 1.0, E, dropout=0.5)
    torch.nn.init.normal_(mc.head.weight)
    z = torch.randn(4, E)
    once, twice = (mc(z, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(once, twice)
    assert not torch.equal(once, mc(z))


def test_nll_equals_brute_force_and_given_has_no_loss() -> None:
    lm = load("seedling")
    soft = lm.vectors(torch.tensor([[5, 6, 7]])).expand(2, -1, -1)
    texts = [train.encode(lm, ("", "A short text.")), train.encode(lm, ("Question: who\n", "Answer: a rather longer text than the other"))]
    together = train.nll(lm, soft, texts)
    for i, text in enumerate(texts):
        ids = torch.tensor([*text.given, *text.target])
        inputs = torch.cat([soft[i], lm.vectors(ids)])[None]
        logs = torch.log_softmax(lm.model(inputs_embeds=inputs).logits[0].float(), dim=-1)
        brute = -sum(logs[3 + j - 1, ids[j]] for j in range(len(text.given), len(ids)))
        assert together[i].item() == pytest.approx(float(brute), rel=1e-4)
    assert texts[0].target[-1] == lm.eos


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sample]:
    """mc fitted on shipped support messages."""
    from seedbed.data import SampleSpec, load_sample

    root = Path(__file__).resolve().parent.parent
    task = Task("classification", ("message",), "queue")
    sample = load_sample(SampleSpec(path="examples/helpdesk.csv", rows=60, test_share=0.25), task, 0, root)
    out = tmp_path_factory.mktemp("teacher")
    before = weights_hash(load("seedling").model)
    Soft(prompt="mc", tokens=8, epochs=6, batch=8).fit(sample, "seedling", 0, out)
    assert weights_hash(load("seedling").model) == before, "the frozen model must be bit-identical"
    return out, sample


@pytest.mark.slow
def test_only_theta_has_gradients(fitted: tuple[Path, Sample]) -> None:
    lm = load("seedling")
    net = load_soft(fitted[0], lm.hash, lm.device).net.requires_grad_(True)
    train.nll(lm, net(torch.randn(2, 384)), [train.encode(lm, ("", t)) for t in ("one", "two three")]).sum().backward()
    assert all(p.grad is None for p in lm.model.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_context_of_another_text_raises_the_loss(fitted: tuple[Path, Sample]) -> None:
    forms = json.loads((fitted[0] / "training.json").read_text())["forms"]
    assert forms["mc"]["dev"] < forms["none"]["dev"]
    lm, sample = load("seedling"), fitted[1]
    net = load_soft(fitted[0], lm.hash, lm.device).net
    texts = [train.encode(lm, sample.task.split(e.fields)) for e in sample.fit]
    z = torch.from_numpy(embed([sample.task.render(e.fields) for e in sample.fit]))
    assert train.mean_nll(lm, net, z, texts) + 0.02 < train.mean_nll(lm, net, z.roll(1, dims=0), texts)


def test_a_fit_that_is_stopped_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "EVERY", 4)
    sample, soft = tiny_sample(), Soft(prompt="mc", tokens=4, epochs=3, batch=8, patience=9)  # 9 steps: evaluations at 4, 8 and 9
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    soft.fit(sample, "seedling", 0, whole)
    for _ in range(2):
        with stopped_after(loop, "_save"):
            soft.fit(sample, "seedling", 0, stopped)
    soft.fit(sample, "seedling", 0, stopped)
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == {p.name: p.read_bytes() for p in stopped.iterdir()}


@pytest.mark.slow
def test_auto_keeps_the_form_with_the_lowest_dev_loss(tmp_path: Path) -> None:
    Soft(prompt="auto", tokens=2, epochs=2, k=2).fit(tiny_sample(), "seedling", 0, tmp_path)
    training = json.loads((tmp_path / "training.json").read_text())
    losses = {form: training["forms"][form]["answer"] for form in training["forms"] if form != "none"}
    assert training["chosen"] == min(losses, key=lambda form: losses[form])
    assert training["forms"]["nsp"]["dev"] == pytest.approx(training["forms"]["nsp"]["dev_shuffled"], abs=1e-6), "nsp ignores the context"


def test_conformance() -> None:
    check_generator(Soft(prompt="nsp", tokens=2, epochs=1))


def test_each_fit_example_is_used_equally_often(fitted: tuple[Path, Sample]) -> None:
    out, sample = fitted
    teacher = Soft().load(out, sample.task, "seedling")
    uses = [row.source for row in teacher.rows(sample, 3 * len(sample.fit), 5)]
    assert {uses.count(e.id) for e in sample.fit} == {3}


def test_a_prompt_for_other_weights_is_refused(fitted: tuple[Path, Sample]) -> None:
    with pytest.raises(ModelError, match="fitted on 'seedling'"):
        load_soft(fitted[0], "0" * 64, torch.device("cpu"))


@pytest.mark.slow
def test_a_prompt_fitted_in_bf16_is_accepted_in_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is bound to the stored weights, not to the type in which they were read."""
    monkeypatch.setattr(load_module, "quick_dtype", lambda: torch.bfloat16)
    Soft(prompt="nsp", tokens=2, epochs=1).fit(tiny_sample(), "seedling", 0, tmp_path)
    assert load("seedling", torch.bfloat16).model.dtype == torch.bfloat16
    for precision in ("fp32", "bf16"):
        session = Local(slots=2, cache=32, precision=precision).open(ModelRef("seedling", soft=tmp_path))  # type: ignore[arg-type]
        assert session.soft is not None and session.soft.model_hash == load("seedling").hash


def test_an_unknown_source_is_refused(fitted: tuple[Path, Sample]) -> None:
    lm = load("seedling")
    with pytest.raises(EngineError, match="no source 'nobody'"):
        load_soft(fitted[0], lm.hash, lm.device).resolve([SoftRef(("nobody",), (1.0,))])


def test_rows_longer_than_the_context_are_counted(tmp_path: Path) -> None:
    sample = tiny_sample()
    long = Example("long", {"text": "word " * 600, "label": "music"})
    Soft(prompt="nsp", tokens=2, epochs=1).fit(Sample(sample.task, (*sample.fit, long), sample.dev, ()), "seedling", 0, tmp_path)
    assert json.loads((tmp_path / "prompt.json").read_text())["too_long"] == {"fit": 1, "dev": 0}
    with pytest.raises(DataError, match="0 of 1 fit rows"):
        Soft(tokens=2).fit(Sample(sample.task, (long,), sample.dev, ()), "seedling", 0, tmp_path)


def test_contexts_are_drawn_by_the_row_alone_and_provenance_names_them(tmp_path: Path) -> None:
    sample = tiny_sample()
    settings = Soft(prompt="nsp", tokens=2, epochs=1)
    settings.fit(sample, "seedling", 0, tmp_path)
    labels = {e.id: e.fields["label"] for e in sample.fit}
    for contexts in ("sample", "mix", "kernel"):
        teacher = replace(settings, contexts=contexts, spread=0.4).load(tmp_path, sample.task, "seedling")
        rows = list(teacher.rows(sample, 60, 0))
        refs = [p.soft for r in rows if (p := teacher.prompt(r)) and p.soft]
        again = [teacher.prompt(r) for r in teacher.rows(sample, 60, 0)]
        assert refs == [p.soft for p in again if p]
        assert all(sum(r.weights) == pytest.approx(1) for r in refs)
        read = teacher.read(replace(rows[3], turns=(Completion("Label: music", 3, True),)))[0].provenance
        assert (tuple(read["sources"]), tuple(read["weights"])) == (refs[3].sources, refs[3].weights)
        if contexts == "mix":
            assert all(len(set(r.sources)) == 2 and r.weights[1] <= 0.4 for r in refs)
            assert all(labels[a] == labels[b] for a, b in (r.sources for r in refs))
        else:
            assert all(len(r.sources) == 1 for r in refs)
        assert {r.noise for r in refs} == {0.4 if contexts == "kernel" else 0.0}
        assert len({r.noise_seed for r in refs}) == (60 if contexts == "kernel" else 1)


def test_a_kernel_draw_without_spread_is_the_context(tmp_path: Path) -> None:
    sample = tiny_sample()
    Soft(prompt="mc", tokens=2, epochs=1).fit(sample, "seedling", 0, tmp_path)
    soft = load_soft(tmp_path, load("seedling").hash, torch.device("cpu"))
    seen: list[torch.Tensor] = []
    soft.net.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    name = sample.fit[0].id
    soft.resolve([SoftRef((name,), (1.0,)), SoftRef((name,), (1.0,), 5, 0.0), SoftRef((name,), (1.0,), 5, 0.4), SoftRef((name,), (1.0,), 6, 0.4)])
    plain, none, a, b = seen[0]
    assert torch.allclose(plain, none, atol=1e-6)
    assert not torch.allclose(a, b, atol=1e-3) and torch.allclose(a.norm(), torch.ones(()), atol=1e-5)


def test_a_density_keeps_mean_and_covariance_and_a_rare_label_borrows() -> None:
    generator = torch.Generator().manual_seed(0)
    means = 3 * torch.randn(3, 6, generator=generator)
    place = torch.tensor([0] * 60 + [1] * 60 + [2] * 2)
    z = means[place] + torch.randn(122, 6, generator=generator) @ torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0, 0.5]))
    density = Density.of(z, [str(int(i)) for i in place])
    draws = torch.stack([density.draw(i, z[i], 0.6, 122 * seed + i) for seed in range(60) for i in range(122)])
    assert torch.allclose(draws.mean(0), z.mean(0), atol=0.1)
    assert torch.allclose(torch.cov(draws.T), torch.cov(z.T), atol=0.4)
    rare, own, whole = density.centres[-1], z[-2:].mean(0), z.mean(0)
    assert 0 < float((rare - own).norm()) < float((rare - whole).norm()) and float((density.centres[0] - z[:60].mean(0)).norm()) < 0.1
    alone = Density.of(z[::40], ["a", "b", "c", "d"])
    assert torch.allclose(alone.centres, z[::40].mean(0).expand(4, -1), atol=1e-5), "labels of one row each say nothing of the spread within"


def test_another_use_of_contexts_fits_nothing_anew() -> None:
    def names(**settings: object) -> dict[str, str]:
        made = recipes.build(
            {
                "sample": {"path": "examples/helpdesk.csv"},
                "task": {"kind": "plain", "inputs": ["message"]},
                "generator": {"kind": "soft", **settings},
            },
            ROOT,
        )
        return step_names(made, load_sample(made.sample, made.task, made.seed, ROOT))

    plain, mixed = names(), names(contexts="mix")
    assert plain["teacher"] == mixed["teacher"] and plain["candidates"] != mixed["candidates"]
    assert names(tokens=3)["teacher"] != plain["teacher"]

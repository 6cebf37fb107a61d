"""The local engine's parts: draws, shapes of equal bits, shared beginnings, stop strings, the two ways through a model, scores."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seedbed.engines.local import Local, LocalSession
from seedbed.errors import EngineError, ModelError
from seedbed.lm.batching import Batch, Rows, Stops
from seedbed.lm.forward import Llama, Modules, attention, forward_of, plain, together
from seedbed.lm.load import LM, fresh, load, locate, weights_hash
from seedbed.lm.prefill import Prefill, _shared
from seedbed.lm.sampling import draw
from seedbed.lm.shapes import equal_shapes, sharing_sizes
from seedbed.types import Completion, ModelRef, Prompt, Sampling, SoftRef

SHOTS = "Tom had a small red ball. He threw it over the wall and ran to find it.\n---\n" * 5
FAMILIES = ["llama", "qwen2", "qwen3", "mistral", "gemma", "gpt2"]


def random_lm(kind: str, context: int = 128, **changes: Any) -> LM:
    """A tiny model of a family with random weights and seedling's tokenizer. changes: of its configuration."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    facts: dict[str, Any] = {"vocab_size": 4096, "initializer_range": 0.5, "tie_word_embeddings": False}
    if kind == "gpt2":
        facts |= {"n_positions": context, "n_embd": 32, "n_layer": 2, "n_head": 4}
    else:
        facts |= {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        facts |= {"max_position_embeddings": context, "head_dim": 8}
    if kind == "mistral":
        facts["sliding_window"] = None
    config = AutoConfig.for_model(kind, **facts | changes)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    lm = load("seedling")
    return LM(kind, model, lm.tokenizer, weights_hash(model), context, lm.eos, lm.bos, 32)


def _greedy(lm: LM, text: str, tokens: int) -> str:
    ids = torch.tensor([[lm.bos, *lm.encode(text)]])
    how = {"do_sample": False, "max_new_tokens": tokens, "eos_token_id": lm.eos, "pad_token_id": lm.eos}
    out = lm.model.generate(ids, attention_mask=torch.ones_like(ids), **how)
    return lm.decode(out[0, ids.shape[1] :].tolist())


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*FAMILIES, "seedling"])
def test_greedy_equals_generate_for_prompts_of_all_lengths(kind: str) -> None:
    lm = load("seedling") if kind == "seedling" else random_lm(kind)
    texts = ["", "The cat", SHOTS[:100], SHOTS[:101], SHOTS[:230] + " A dog", "Once " * 20, SHOTS[:230] + " Two men"]
    found = dict(LocalSession(lm, None, 3, 128).complete(iter([(i, Prompt(t, i)) for i, t in enumerate(texts)]), Sampling(0.0, 1.0, 24)))
    assert [found[i].text for i in range(len(texts))] == [_greedy(lm, t, 24) for t in texts]


WINDOWED: list[tuple[str, dict[str, Any]]] = [
    ("mistral", {"sliding_window": 16}),  # every layer looks back so far
    ("gemma3_text", {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "changes"), WINDOWED, ids=lambda value: value if isinstance(value, str) else "")
def test_layers_look_back_as_far_as_their_window(kind: str, changes: dict[str, Any]) -> None:
    lm, labels = random_lm(kind, **changes), [" billing", " a late parcel", " a late train"]
    texts = ["", "The cat", SHOTS[:100], SHOTS[:230] + " A dog", SHOTS[:230] + " Two men"]
    session = LocalSession(lm, None, 3, 128)
    found = dict(session.complete(iter([(i, Prompt(t, i)) for i, t in enumerate(texts)]), Sampling(0.0, 1.0, 24)))
    assert [found[i].text for i in range(len(texts))] == [_greedy(lm, t, 24) for t in texts]
    ids = [lm.bos, *lm.encode(texts[-1])]
    for label, (value, _) in zip(labels, session.score(Prompt(texts[-1], 0), labels), strict=True):
        extra = lm.encode(label)
        logs = torch.log_softmax(lm.model(torch.tensor([ids + extra]), use_cache=False).logits[0].double(), dim=-1)
        assert value == pytest.approx(sum(float(logs[len(ids) + i - 1, token]) for i, token in enumerate(extra)), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        pytest.param("lfm2", {"layer_types": ["conv", "full_attention"]}, marks=pytest.mark.slow),
        ("mpt", {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128}),
    ],
)
def test_a_model_whose_layers_read_no_positions_or_masks_scores_nothing(kind: str, changes: dict[str, Any]) -> None:
    session = LocalSession(random_lm(kind, **changes), None, 3, 128)
    with pytest.raises(ModelError, match=f"{kind}.*vllm"):
        session.score(Prompt("The cat", 0), [" sat", " ran"])


def test_a_llama_has_no_window_whatever_its_configuration_names() -> None:
    lm = random_lm("llama", sliding_window=8)
    ids, extra = [lm.bos, *lm.encode(SHOTS[:100])], lm.encode(" sat")
    logs = torch.log_softmax(lm.model(torch.tensor([ids + extra]), use_cache=False).logits[0].double(), dim=-1)
    value, _ = LocalSession(lm, None, 3, 128).score(Prompt(SHOTS[:100], 0), [" sat", " ran"])[0]
    assert value == pytest.approx(sum(float(logs[len(ids) + i - 1, token]) for i, token in enumerate(extra)), rel=1e-4)


@pytest.mark.parametrize(
    ("kinds", "window"), [(None, 0), (None, -1), (["sliding_attention"] * 2, None), (["full_attention", "sliding_attention"], 0)]
)
def test_a_window_of_no_token_is_refused(kinds: list[str] | None, window: int | None) -> None:
    lm = random_lm("mistral" if kinds is None else "gemma3_text", **{"layer_types": kinds} if kinds else {})
    lm.model.config.sliding_window = window
    session = LocalSession(lm, None, 3, 128)
    for work in (
        lambda: session.score(Prompt("The cat", 0), [" sat", " ran"]),
        lambda: list(session.complete(iter([(0, Prompt("The cat", 0))]), Sampling(0.0, 1.0, 4))),
    ):
        with pytest.raises(ModelError, match=rf"sliding_window = {window} in its config\.json.* must be 1 or more"):
            work()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layer_types": ["strange"] * 6}, "layer_types"),
        ({"layer_types": ["full_attention"]}, "number of `layer_types`"),
        ({"hidden_size": "x"}, "hidden_size"),
        ({"hidden_size": 512}, "mismatched"),
        ({"hidden_act": "zzz"}, "zzz"),
    ],
)
def test_a_configuration_that_no_model_can_have_is_a_model_error(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    shutil.copytree(locate("seedling"), tmp_path / "m", ignore=shutil.ignore_patterns("decoder"))
    place = tmp_path / "m/config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | change))
    with pytest.raises(ModelError, match=rf"cannot be loaded: .*{said}.*Allowed: "):
        fresh(str(tmp_path / "m"), torch.float32, "cpu")


def test_a_layer_without_weights_is_a_model_error(tmp_path: Path) -> None:
    shutil.copytree(locate("seedling"), tmp_path / "m", ignore=shutil.ignore_patterns("decoder"))
    place = tmp_path / "m/config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"num_hidden_layers": 7}))
    with pytest.raises(ModelError, match=r"lack 9 weights that its configuration asks for, such as model\.layers\.6\.input_layernorm"):
        fresh(str(tmp_path / "m"), torch.float32, "cpu")


def test_ends_that_are_no_token_ids_end_nothing(tmp_path: Path) -> None:
    shutil.copytree(locate("seedling"), tmp_path / "m", ignore=shutil.ignore_patterns("decoder"))
    for ends in ([], [[1]], ["a", 2.5, None], 10**9):
        (tmp_path / "m/generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
        assert fresh(str(tmp_path / "m"), torch.float32, "cpu").ends == ()


@pytest.mark.slow
def test_a_window_that_counts_from_the_caches_end_bounds_the_cache() -> None:
    shape = {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 64}
    lm = random_lm("gpt_neo", **shape)
    session, prompts = LocalSession(lm, None, 3, 64), [(i, Prompt(text, i)) for i, text in enumerate(["", SHOTS[:100]])]
    found = dict(session.complete(iter(prompts), Sampling(0.0, 1.0, 16)))
    assert [found[i].text for i, _ in prompts] == [_greedy(lm, p.text, 16) for _, p in prompts]
    with pytest.raises(ModelError, match=r"64 tokens.*engine\.cache"):
        list(LocalSession(lm, None, 3, 128).complete(iter(prompts), Sampling(0.0, 1.0, 16)))
    with pytest.raises(ModelError, match=r"64 tokens.*engine\.cache"):
        session.score(Prompt(SHOTS, 0), [" sat"])


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
def test_the_short_way_through_a_llama_is_the_long_way(kind: str) -> None:
    lm = random_lm(kind)
    for name, values in lm.model.named_parameters():
        if "norm" in name or "bias" in name:
            values.copy_(torch.randn(values.shape) * 0.3 + 1)  # as made they are 1 or 0, and would hide a missing one
    short, long = forward_of(lm, 128), Modules(lm)
    assert isinstance(short, Llama)
    jobs = [_job(lm, i, text) for i, text in enumerate(["The cat", SHOTS, "Once upon a time there was"])]
    shapes = equal_shapes(short, 32, 4, 128)
    logits = [Prefill(lm, None, forward, shapes)(jobs)[0] for forward in (short, long)]
    assert torch.allclose(*logits, rtol=1e-3, atol=1e-3 * float(logits[0].abs().max()))


def _job(lm: LM, key: int, text: str) -> Any:
    from seedbed.lm.prefill import Job

    return Job(key, Prompt(text, key), [lm.bos, *lm.encode(text)], 8)


def test_only_plain_models_take_the_short_way() -> None:
    assert not plain(random_lm("gemma").model)
    assert not plain(random_lm("gpt2").model)
    windowed = random_lm("mistral")
    windowed.model.config.sliding_window = 16
    assert not plain(windowed.model)


def test_top_p_leaves_the_tail_out_and_uniforms_choose() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.5, 0.15, 0.25]]))

    def draws(top_p: float, *uniforms: float) -> list[int]:
        return [int(draw(logits, np.array([u]), Sampling(1.0, top_p, 1))[0]) for u in uniforms]

    assert draws(0.7, 0.0, 0.6, 0.67, 0.99) == [1, 1, 3, 3], "top-p 0.7 keeps 0.5 and 0.25, renormalised to 2/3 and 1/3"
    assert draws(0.76, 0.0, 0.54, 0.56, 0.99) == [1, 1, 2, 3], "0.76 needs a third token"
    assert draws(1.0, 0.0, 0.09, 0.11, 0.59, 0.61, 0.74, 0.76, 0.9999999) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert int(draw(logits, np.array([0.0]), Sampling(0.0, 1.0, 1))[0]) == 1
    assert draws(1e-9, 0.0, 0.9999999) == [1, 1]


def test_draws_follow_a_plain_inverse_cdf() -> None:
    rng = np.random.default_rng(5)
    logits, uniforms = torch.from_numpy(rng.normal(size=(400, 777)) * 3).float(), rng.random(400)
    for top_p in (1.0, 0.9, 0.3):
        found = draw(logits, uniforms, Sampling(0.8, top_p, 1))
        probs = torch.softmax(logits.double() / 0.8, dim=-1).numpy()
        for row in range(400):
            ranked = np.argsort(-probs[row])
            kept = ranked[: int((np.cumsum(probs[row][ranked]) < top_p - 1e-12).sum()) + 1]
            masses = np.zeros(777)
            masses[kept] = probs[row][kept]
            running = np.cumsum(masses)
            low, high = (running[found[row] - 1] if found[row] else 0.0), running[found[row]]
            assert masses[found[row]] > 0
            assert low - 1e-5 <= uniforms[row] * running[-1] <= high + 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["seedling", "llama", "qwen3", "gpt2"])
def test_greedy_equals_generate_behind_a_beginning_kept_once(kind: str) -> None:
    """Of prompts that say what they share: nothing, too little to be kept apart, two long beginnings; some are no longer than that."""
    lm = load("seedling") if kind == "seedling" else random_lm(kind, 256)
    starts = ["", SHOTS[:60], SHOTS, SHOTS[:300]]
    texts = [(start, start + end) for start in starts for end in ("", " The cat", " A dog ran over the road", " Once " * 9)]
    prompts = [(i, Prompt(text, i, shared=len(start))) for i, (start, text) in enumerate(texts)]
    found = dict(LocalSession(lm, None, 6, 256).complete(iter(prompts), Sampling(0.0, 1.0, 24)))
    assert [found[i].text for i in range(len(texts))] == [_greedy(lm, text, 24) for _, text in texts]


def test_a_beginning_kept_once_is_in_no_slot() -> None:
    lm = load("seedling")
    session = LocalSession(lm, None, 6, 256)
    prefill = Prefill(lm, None, session._forward, session._shapes)
    batch = Batch(lm, session._forward, prefill, session._shapes, Sampling(1.0, 1.0, 20))
    prompts = [Prompt(SHOTS + end, i, shared=len(SHOTS)) for i, end in enumerate([" The cat", " A dog", " She", " In the town"] * 3)]
    assert len(list(batch.complete(session._job(i, prompt, Sampling(1.0, 1.0, 20)) for i, prompt in enumerate(prompts)))) == 12
    keys = batch.kv.keys[0]
    assert keys is not None
    written = keys.abs().sum(dim=(0, 2)) > 0
    length = len(lm.encode(SHOTS))
    assert length > 96
    assert int(written.nonzero().max()) < 48, "own tokens only: at most 16 of the beginning's last piece, a few of the prompt, 20 drawn"


@pytest.mark.slow
def test_a_template_says_what_all_its_prompts_share_and_a_longer_run_keeps_the_bytes(tmp_path: Path) -> None:
    from seedbed.candidates import complete, read_candidates
    from seedbed.generators.hard import Hard
    from seedbed.testing import tiny_sample

    (tmp_path / "fixed.jinja").write_text(SHOTS + "{{ examples | first }}\n---\n{{ given }}")
    sample, found = tiny_sample(), {}
    hard = Hard(str(tmp_path / "fixed.jinja"), shots=1)
    (tmp_path / "teacher").mkdir()
    hard.fit(sample, "seedling", 0, tmp_path / "teacher")
    teacher = hard.load(tmp_path / "teacher", sample.task, "seedling")
    first, *others = (prompt for row in teacher.rows(sample, 9, 1) if (prompt := teacher.prompt(row)))
    assert len(SHOTS) <= first.shared < len(SHOTS) + 40
    assert {(other.shared, other.text[: other.shared]) for other in others} == {(first.shared, first.text[: first.shared])}
    for counts in ([9], [2, 3, 9]):
        folder = tmp_path / str(len(counts))
        folder.mkdir()
        for count in counts:
            complete(folder, teacher, Local(slots=6, cache=256).open(teacher.model), sample, count, 1, Sampling(1.0, 1.0, 30), part_rows=4)
        found[len(counts)] = read_candidates(folder, 9)
    assert found[1] == found[3]


def _mixed(count: int) -> list[tuple[int, Prompt]]:
    """Prompts that share beginnings of several lengths, said or found, and some that share none."""
    ends = ["", " A", " The cat sat", " In 1850 the town was", " Once upon a time there was a man who"]
    starts = [SHOTS, SHOTS[:200], "", SHOTS[:130] + " But", "Q:"]
    said = [i // 5 % 2 * len(starts[i % 5]) for i in range(count)]
    return [(i, Prompt(starts[i % 5] + ends[i // 5 % 5], seed=i, stop="\n---" if i % 3 else "", shared=said[i])) for i in range(count)]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[float, bytes]:
    """The logits' bytes of every living row, by the uniform that draws from them: its own in each row and place."""
    from seedbed.lm import batching

    found: dict[float, bytes] = {}

    def living(rows: Any, slots: np.ndarray) -> np.ndarray:
        return np.where(rows.alive[slots], rows.uniforms[slots, rows.count[slots]], np.nan)

    def noting(logits: torch.Tensor, uniforms: np.ndarray, sampling: Sampling) -> np.ndarray:
        found.update({u: row.tobytes() for u, row in zip(uniforms.tolist(), logits.numpy(), strict=True) if u == u})
        return draw(logits, np.nan_to_num(uniforms), sampling)

    monkeypatch.setattr(batching.Rows, "next_uniforms", living)
    monkeypatch.setattr(batching, "draw", noting)
    return found


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """What was tried under another number of threads is tried again."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    sharing_sizes.cache_clear()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        sharing_sizes.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("kind", "slots", "cache", "top_p"),
    [("seedling", 40, 256, 0.9), ("seedling", 6, 256, 1.0), ("seedling", 11, 251, 1.0), ("gpt2", 20, 256, 0.95), ("qwen3", 24, 256, 1.0)],
)
def test_bits_do_not_depend_on_neighbours_order_refills_or_shared_beginnings(
    kind: str, slots: int, cache: int, top_p: float, threads: int, seen: dict[float, bytes]
) -> None:
    """Of logits, not of texts alone: a text hides a changed last bit in all but one of some million tokens."""
    with _threads(threads):
        _same_bits(load("seedling") if kind == "seedling" else random_lm(kind, 256), slots, cache, top_p, seen)


def _same_bits(lm: LM, slots: int, cache: int, top_p: float, seen: dict[float, bytes]) -> None:
    session, sampling, prompts = LocalSession(lm, None, slots, cache), Sampling(1.0, top_p, 40), _mixed(55)
    reference = dict(session.complete(iter(prompts), sampling))
    bits = dict(seen)
    assert len({c.text for c in reference.values()}) > 45, "different seeds must give different texts"
    rng = random.Random(slots)
    for some in (rng.sample(prompts, 55), rng.sample(prompts, 5), [prompts[10]]):
        seen.clear()
        assert dict(session.complete(iter(some), sampling)) == {key: reference[key] for key, _ in some}
        assert all(bits[u] == row for u, row in seen.items())


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize(
    ("rows", "heads", "tokens", "columns"), [(1, 1, 1, 64), (2, 4, 1, 64), (3, 4, 1, 97), (2, 2, 3, 33), (5, 1, 2, 129), (2, 8, 16, 97)]
)
def test_equal_rows_attend_with_equal_bits_in_every_place(rows: int, heads: int, tokens: int, columns: int, threads: int) -> None:
    random = torch.Generator().manual_seed(columns)
    q, keys, values = (torch.randn(1, 1, n, 64, generator=random).expand(rows, heads, -1, -1).contiguous() for n in (1, columns, columns))
    mask = torch.zeros(rows, 1, tokens, columns)
    mask[..., columns - 5 :] = -torch.inf
    with _threads(threads):
        found = attention(q.expand(-1, -1, tokens, -1), keys, values, mask)
        alone = attention(q[:1, :1, :1], keys[:1, :1], values[:1, :1], mask[:1, :, :1])
    assert found.shape == (rows, heads, tokens, 64)
    assert torch.equal(found, found[:1, :1, :1].expand_as(found))
    assert torch.allclose(alone[0, 0, 0], found[0, 0, 0], atol=1e-5)
    assert torch.equal(alone[0, 0, 0], found[0, 0, 0]) or tokens > 1  # as many tokens fill a buffer up to


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize(("slots", "length"), [(6, 64), (7, 97), (11, 128), (20, 64)])
def test_slots_are_filled_up_until_every_place_has_the_same_bits(slots: int, length: int, threads: int) -> None:
    lm = load("seedling")
    forward = forward_of(lm, length)
    assert isinstance(forward, Llama)
    with _threads(threads):
        shapes = equal_shapes(forward, lm.dim, slots, length)
        for n in (*shapes.rows, *(16 * n for n in shapes.groups)):
            x = torch.randn(1, lm.dim).expand(n, -1).contiguous()
            found = torch.nn.functional.linear(x, forward.layers[0].gate_up)
            assert torch.equal(found, found[:1].expand_as(found))
        assert forward.sharing is not None
        heads, group, width = forward.sharing
        keys, values = torch.randn(2, heads, length, width)
        for n in sharing_sizes(slots, forward.sharing, length, exact=True):
            for t in together(torch.randn(1, heads, group, width).expand(n, -1, -1, -1), keys, values):
                assert torch.equal(t, t[:1].expand_as(t))
    assert shapes.rows[-1] >= slots


def test_a_row_ends_at_every_token_at_which_the_models_settings_end_a_text(tmp_path: Path) -> None:
    """As instruct models have it: the tokenizer names one end, the generation settings two. A word of the vocabulary is none of them."""
    seedling = load("seedling")
    tokenizer = type(seedling.tokenizer).from_pretrained(locate("seedling"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    other, model = len(tokenizer) - 1, random_lm("llama", vocab_size=len(tokenizer)).model
    model.generation_config.eos_token_id = [seedling.eos, other, 5]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    lm = fresh(str(tmp_path), torch.float32, "cpu")
    assert (lm.eos, lm.ends) == (seedling.eos, (other,))
    rows = Rows(lm, 2, 8, len(tokenizer))
    rows.start(np.array([0, 1]), [_job(lm, 0, "The"), _job(lm, 1, "The")], np.array([1, 1]))
    assert rows.push(np.array([0, 1]), np.array([other, 5])) == [(0, Completion("", 0, True))]


def test_logits_that_are_no_numbers_are_an_error() -> None:
    logits = torch.zeros(2, 100)
    logits[1, 7] = torch.nan
    for temperature in (0.0, 1.0):
        with pytest.raises(EngineError, match="not finite"):
            draw(logits, np.array([0.3, 0.9]), Sampling(temperature, 0.9, 1))


@pytest.mark.slow
def test_stop_strings_end_rows_where_a_look_at_every_token_would() -> None:
    lm = load("seedling")
    session = LocalSession(lm, None, 8, 256)
    free = dict(session.complete(iter([(i, Prompt("Once upon a time", i)) for i in range(12)]), Sampling(1.0, 0.95, 60)))
    stops = [" the", "e", ".\n", "\n", " ", "and", ", ", "w", "There", "ing", "é", "t the"]
    found = dict(session.complete(iter([(i, Prompt("Once upon a time", i, stop=s)) for i, s in enumerate(stops)]), Sampling(1.0, 0.95, 60)))
    for i, stop in enumerate(stops):
        ids = lm.encode(free[i].text)
        assert found[i].text == free[i].text.split(stop)[0], stop
        if stop in free[i].text and lm.decode(ids) == free[i].text and len(ids) == free[i].tokens:
            cut = next(n for n in range(1, len(ids) + 1) if stop in lm.decode(ids[:n]))
            assert (found[i].tokens, found[i].finished) == (cut, True)


def test_a_stop_string_inside_a_divided_character_is_suspected() -> None:
    lm = load("seedling")
    stops = Stops(lm, 4096)
    which = stops.index("語")
    parts = lm.encode("語")
    assert len(parts) > 1, "the test wants a character of several tokens"
    assert stops.may_end(np.array([which]), np.array(parts[-1:])).tolist() == [True]
    assert stops.may_end(np.array([which, 0]), np.array(lm.encode("the")[:1] * 2)).tolist() == [False, False]


def test_shared_beginnings_are_found_at_every_depth() -> None:
    base, more = list(range(100, 170)), list(range(300, 400))
    codes = [np.array(c) for c in ([*base, 1], [*base, 2, 3], [*base, *more, 4], [*base, *more, 5, 6], [7] * 90, base[:20])]
    assert sorted(len(s) for s in _shared(codes)) == [64, 160]
    assert next(iter(_shared([np.arange(64), np.arange(64)]))).tolist() == list(range(48)), "a token is left to read"
    assert list(_shared([np.arange(64)])) == []


def test_a_shared_beginning_is_read_once() -> None:
    lm = load("seedling")
    forward = forward_of(lm, 256)
    prefill = Prefill(lm, None, forward, equal_shapes(forward, lm.dim, 16, 256))
    read: list[int] = []
    prefill.forward = _Counted(forward, read)
    jobs = [_job(lm, i, SHOTS + text) for i, text in enumerate(["The cat", "A dog ran", "In the town", "She"])]
    length = min(len(job.ids) for job in jobs)
    prefill(jobs)
    first = sum(read)
    assert length <= first <= length + 4 * 64
    prefill(jobs)
    assert sum(read) - first <= 4 * 64


def test_a_beginning_left_in_the_cache_is_used_while_it_is_whole() -> None:
    lm = load("seedling")
    forward = forward_of(lm, 256)
    prefill = Prefill(lm, None, forward, equal_shapes(forward, lm.dim, 16, 256))
    jobs = [_job(lm, i, SHOTS + text) for i, text in enumerate(["The cat", "A dog ran", "In the town", "She"])]
    wanted = prefill(jobs)[0]
    assert torch.equal(prefill(jobs)[0], wanted)
    for others in (jobs[:3], [_job(lm, 9, "Once upon a time")] * 4, [_job(lm, i, SHOTS[:200] + f" {i} men") for i in range(4)]):
        prefill(others)  # a row that only fills up a shape, and rows of other prompts, are written over
        assert torch.equal(prefill(jobs)[0], wanted)


class _Counted:
    """A forward pass that notes how many tokens it was given."""

    def __init__(self, forward: Any, read: list[int]) -> None:
        self.forward, self.read, self.sharing = forward, read, forward.sharing

    def kv(self, rows: int, length: int) -> Any:
        return self.forward.kv(rows, length)

    def __call__(self, vectors: torch.Tensor, step: Any, kv: Any) -> Any:
        self.read.append(vectors.shape[0] * vectors.shape[1])
        return self.forward(vectors, step, kv)


@pytest.mark.parametrize("kind", ["seedling", *FAMILIES])
def test_labels_scored_together_score_as_one_by_one(kind: str) -> None:
    lm = load("seedling") if kind == "seedling" else random_lm(kind)
    session = LocalSession(lm, None, 4, 128)
    labels = ["billing", "a late parcel", "", "password reset for the whole team", "x", "billing", " two words"]
    prompt = Prompt("Message: my parcel did not come.\nQueue:", 0)
    ids = [lm.bos, *lm.encode(prompt.text)]
    for text, (value, tokens), alone in zip(labels, session.score(prompt, labels), [session.score(prompt, [x])[0] for x in labels], strict=True):
        extra = lm.encode(text)
        logs = torch.log_softmax(lm.model(torch.tensor([ids + extra])).logits[0].double(), dim=-1)
        plainly = sum(float(logs[len(ids) + i - 1, token]) for i, token in enumerate(extra))
        assert (value, tokens) == (pytest.approx(plainly, rel=1e-4, abs=1e-4), len(extra))
        assert value == pytest.approx(alone[0], rel=1e-5, abs=1e-4)


@pytest.mark.slow
def test_prompts_of_vectors_and_of_tokens_share_a_batch(tmp_path: Path, seen: dict[float, bytes]) -> None:
    from seedbed.generators.soft import Soft
    from seedbed.testing import tiny_sample

    Soft(prompt="mc", tokens=4, epochs=2).fit(tiny_sample(), "seedling", 0, tmp_path)
    session = Local(slots=20, cache=96).open(ModelRef("seedling", soft=tmp_path))
    soft = [Prompt("", i, SoftRef((f"fit-{i}",), (1.0,))) for i in range(12)] + [Prompt("The ", 40, SoftRef(("fit-1", "fit-2"), (0.5, 0.5)))]
    prompts = list(enumerate(soft + [Prompt("The cat", 50 + i) for i in range(6)]))
    sampling = Sampling(1.0, 0.95, 30)
    together = dict(session.complete(iter(prompts), sampling))
    bits = dict(seen)
    for some in (prompts[5:6], prompts[12:13], prompts[3:16]):
        seen.clear()
        assert dict(session.complete(iter(some), sampling)) == {key: together[key] for key, _ in some}
        assert all(bits[u] == row for u, row in seen.items())
    by_words = dict(Local(slots=20, cache=96).open(ModelRef("seedling")).complete(iter(prompts[13:]), sampling))
    assert {key: together[key] for key in by_words} == by_words

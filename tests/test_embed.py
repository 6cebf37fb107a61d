"""Laws of the sentence vectors: near the plain model's, the same bytes whatever the company, and kept without harm."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

from seedbed.errors import ModelError
from seedbed.lm import cache, embed
from seedbed.lm.load import fresh, locate
from seedbed.lm.packed import TOKENS, Packed
from seedbed.students.encoder import Encoder
from seedbed.task import Task
from seedbed.types import Example

WORDS = "play a song about the weather in north country tomorrow please wake me up at seven order number refund".split()


def texts_of(count: int, seed: int, longest: int = 60) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, longest))) for _ in range(count)] + ["hi", "", "x " * 400, "été, 日本"]


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.Vectors, "get", lambda self, keys: {})


@pytest.fixture(scope="module")
def distil(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random encoder of another architecture, with MiniLM's tokenizer."""
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

    folder = str(tmp_path_factory.mktemp("distil"))
    torch.manual_seed(0)
    DistilBertModel(DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=64, initializer_range=0.3)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(embed.minilm_folder())).save_pretrained(folder)
    return folder


def plainly(texts: list[str], model: str) -> np.ndarray:
    """One text at a time, as the model's card says."""
    encoder, tokenizer = embed._load(model)
    rows = []
    for text in texts:
        tokens = tokenizer([text], truncation=True, max_length=256, return_tensors="pt")
        tokens.pop("token_type_ids", None)
        with torch.inference_mode():
            rows.append(encoder(**tokens).last_hidden_state.mean(1))
    return torch.nn.functional.normalize(torch.cat(rows), dim=1).numpy()


@pytest.mark.usefixtures("no_cache")
def test_vectors_are_those_of_the_plain_model(distil: str) -> None:
    texts = texts_of(12, 1)
    for model in ("minilm", distil):
        assert Packed.can(embed._load(model)[0].config) == (model == "minilm")
        found = embed.embed(texts, model)
        assert found.dtype == np.float32
        assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
        assert (found * plainly(texts, model)).sum(1).min() >= 0.999
    assert embed.embed([]).shape == (0, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_precisions_are_near(dtype: torch.dtype) -> None:
    texts = sorted(texts_of(6, 2, 30), key=len)[:8]
    encoder, tokenizer = embed._load("minilm")
    ids = sorted(tokenizer(texts)["input_ids"], key=len)
    with torch.inference_mode():
        found = torch.nn.functional.normalize(Packed(encoder, dtype)(ids), dim=1).numpy()
    expected = plainly([tokenizer.decode(one[1:-1]) for one in ids], "minilm")
    assert (found * expected).sum(1).min() >= (0.99999 if dtype is torch.float32 else 0.999)


@pytest.mark.slow
@pytest.mark.usefixtures("no_cache")
def test_a_text_has_the_same_bytes_in_any_company(distil: str) -> None:
    texts = texts_of(60, 3)
    for model in ("minilm", distil):
        together = embed.embed(texts, model)
        mixed = random.Random(4).sample(range(len(texts)), len(texts))
        assert (embed.embed([texts[i] for i in mixed], model) == together[mixed]).all()
        assert (embed.embed(texts[5:9], model) == together[5:9]).all()
        for i in (0, 1, len(texts) - 2):
            assert (embed.embed([texts[i]], model)[0] == together[i]).all()
        threads = torch.get_num_threads()
        torch.set_num_threads(3)
        assert (embed.embed(texts, model) == together).all()
        assert torch.get_num_threads() == 3, "the number of threads is as it was"
        torch.set_num_threads(threads)


def test_texts_longer_than_the_encoder_reads_are_told() -> None:
    read, over = "x " * 254, "x " * 255  # and two tokens around
    assert embed.longer(["hi", read, over]) == [False, False, True]
    whole, cut, other = embed.embed_fresh([read, over + "zebra", over + "refund"])
    assert np.array_equal(cut, other) and np.array_equal(cut, whole)


def test_batches_hold_no_more_than_they_may() -> None:
    ids = [([0] * length, str(i)) for i, length in enumerate(sorted(random.Random(5).choices(range(1, 257), k=100)))]
    for batches in (embed._full(ids), embed._even(ids)):
        assert [pair for batch in batches for pair in batch] == ids
        assert all(batch and sum(len(one) for one, _ in batch) <= TOKENS for batch in batches)


# The cache


def test_vectors_outlive_the_process(tmp_path: Path) -> None:
    path, some = tmp_path / "a/b.sqlite", {i.to_bytes(16): np.arange(5, dtype=np.float32) * i for i in range(700)}
    cache.Vectors(path).put(some)
    found = cache.Vectors(path).get([*some, b"?" * 16])
    assert found.keys() == some.keys() and all((found[key] == some[key]).all() for key in some)


def test_a_kept_vector_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = embed.embed(["one text", "another"])
    assert (tmp_path / "seedbed/embeddings.sqlite").is_file()
    monkeypatch.setattr(embed, "_encoded", lambda texts, model: iter([]) if not texts else pytest.fail(f"computed {texts} again"))
    assert (embed.embed(["another", "one text", "another"]) == first[[1, 0, 1]]).all()


def test_a_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    path, key, vector = tmp_path / "c.sqlite", b"k" * 16, np.ones(4, dtype=np.float32)
    for damage in (b"", b"no database at all" * 500):
        path.write_bytes(damage)
        kept = cache.Vectors(path)
        assert kept.get([key]) == {}
        kept.put({key: vector})
        assert (cache.Vectors(path).get([key])[key] == vector).all()
    with sqlite3.connect(path) as db:
        entry = bytearray(db.execute("SELECT entry FROM vectors").fetchone()[0])
        entry[7] ^= 1
        db.execute("UPDATE vectors SET entry = ?", [bytes(entry)])
    assert cache.Vectors(path).get([key]) == {}, "one bit of an entry"


def test_without_a_place_memory_serves(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = cache.Vectors(tmp_path / "file/c.sqlite")
    kept.put({b"k" * 16: np.ones(4, dtype=np.float32)})
    assert len(kept.get([b"k" * 16])) == 1


def test_the_oldest_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LIMIT", 3)
    kept, keys = cache.Vectors(tmp_path / "c.sqlite"), [bytes([i]) * 16 for i in range(5)]
    for key in keys:
        kept.put({key: np.ones(2, dtype=np.float32)})
    assert list(kept.get(keys)) and set(kept.get(keys)) == set(keys[2:])


def test_layers_without_weights_are_a_typed_error(distil: str, tmp_path: Path) -> None:
    """transformers would draw them at random."""
    more = shutil.copytree(distil, tmp_path / "more")
    shape = json.loads((more / "config.json").read_text())
    (more / "config.json").write_text(json.dumps(shape | {"n_layers": shape["n_layers"] + 1}))
    with pytest.raises(ModelError, match=r"more': its files lack \d+ weights that its configuration asks for, such as transformer\.layer\.\d"):
        embed.embed(["a text"], str(more))
    rows = [Example(str(i), {"text": f"text {i}", "label": "ab"[i % 2]}) for i in range(4)]
    with pytest.raises(ModelError, match=r"\[student\] model = .*more': its files lack \d+ weights"):
        Encoder(str(more), tune=True, epochs=1).learn(Task("classification", ("text",), "label"), rows, [], 0)


def test_weights_cut_short_are_a_typed_error(distil: str, tmp_path: Path) -> None:
    for name in (distil, locate("seedling")):
        cut = tmp_path / Path(name).name
        shutil.copytree(name, cut)
        whole = (cut / "model.safetensors").read_bytes()
        (cut / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ModelError, match=r"cannot be loaded: .*Allowed: "):
            embed.embed(["a text"], str(cut)) if name == distil else fresh(str(cut), torch.float32, "cpu")

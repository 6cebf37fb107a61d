"""The shipped model is what its card says, and bits per byte are bits per byte."""

from __future__ import annotations

import json
import lzma
import math
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from seedbed.lm.load import LM, load, locate

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "src/seedbed/models/seedling"
sys.path.insert(0, str(ROOT / "pretrain"))

from bits import bits_per_byte, read, windows  # noqa: E402
from overlap import overlaps  # noqa: E402
from release import calls, complete, history  # noqa: E402

NASTY = [
    "",
    " ",
    "\n",
    " \n \n\n  \t\r\n x \r",
    "".join(map(chr, range(256))),
    "1234567890 3.14e-10 ½ ٣",
    "don't DON'T 'LL 're 'x",
    "naïve café Ångström e\u0301 \u00a0\u2003\u200b\ufeff",
    "日本語のテキスト עברית العربية ไทย",
    "👩\u200d👩\u200d👧\u200d👦 🇳🇱 \U0010ffff \ue000",
    "a<|endoftext|>b",
    "def f(x):\n\treturn {x: [1, 2]}\n\n\n# end  ",
]


def test_names_that_no_model_is_shipped_under_are_left_as_they_are() -> None:
    assert locate("seedling") == str(FOLDER)
    assert [locate(name) for name in ("", "..", "nothing", "/tmp")] == ["", "..", "nothing", "/tmp"]


@pytest.fixture(scope="module")
def lm() -> LM:
    return load("seedling", device="cpu")


def tiny(context: int) -> Any:
    """A random one-layer Llama of the shipped vocabulary."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=load("seedling", device="cpu").model.config.vocab_size,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=context,
        initializer_range=0.5,
        tie_word_embeddings=True,
    )
    model: Any = LlamaForCausalLM(config)
    return model.eval()


def encode(lm: LM, text: str) -> list[int]:
    """Token ids of the text as it stands, an end mark within it spelt out."""
    ids: list[int] = lm.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    return ids


def cost(model: Any, seen: list[int], following: int) -> float:
    """-log2 p of one token after the tokens seen."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([seen])).logits[0, -1].double()
    return -float(logits.log_softmax(0)[following]) / math.log(2)


@pytest.mark.slow
def test_card_gives_the_measured_bits_per_byte(lm: LM) -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    printed = re.search(r"^\| public-domain\.txt \| ([\d.]+) \|", card, re.MULTILINE)
    assert printed, "the card has no line '| public-domain.txt | NUMBER |'"
    file = ROOT / "tests/data/public-domain.txt"
    found = bits_per_byte(lm.model, lm.tokenizer, read(file))
    assert found.bits_per_byte == pytest.approx(float(printed[1]), abs=0.005)
    assert (found.documents, found.bytes) == (1, file.stat().st_size - 1)  # the last line end is no part of a document


def test_card_credits_every_source() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert (ROOT / "pretrain/SOURCES.md").read_text(encoding="utf-8").strip() in card


def test_greedy_text_is_the_recorded_one_every_time(lm: LM) -> None:
    recorded = json.loads((ROOT / "tests/data/greedy.json").read_text())
    texts = [complete(lm.model, lm.tokenizer, recorded["prompt"], do_sample=False, max_new_tokens=recorded["new_tokens"]) for _ in range(2)]
    assert texts == [recorded["text"]] * 2


def test_it_is_small_enough_to_ship() -> None:
    shards = list(FOLDER.glob("*.safetensors"))
    assert shards
    assert max(shard.stat().st_size for shard in shards) < 16 * 2**20
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 40 * 10**6


def test_plain_transformers_opens_it(lm: LM) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(FOLDER), AutoTokenizer.from_pretrained(FOLDER)
    assert isinstance(model, LlamaForCausalLM)
    assert model.dtype == torch.bfloat16
    assert len(tokenizer) == model.config.vocab_size
    eos = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, model.generation_config.eos_token_id, lm.eos} == {eos}
    ours = lm.model.state_dict()
    assert all(torch.equal(value.float(), ours[name]) for name, value in model.state_dict().items())
    assert not any(p.requires_grad for p in lm.model.parameters())
    assert lm.context == model.config.max_position_embeddings == 512


def test_any_text_survives_the_tokenizer(lm: LM) -> None:
    rng = random.Random(0)
    ranges = ((0, 128), (0, 0x300), (0x300, 0xD800), (0xE000, 0x110000))
    noise = ["".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(60)) for _ in range(200)]
    for text in NASTY + noise:
        assert lm.decode(encode(lm, text)) == text
    assert encode(lm, "1789")[-4:] == [encode(lm, digit)[0] for digit in "1789"]


def test_bits_are_those_of_every_token_alone(lm: LM) -> None:
    text = "The café was closed.\nShe read 1,024 pages<|endoftext|>, then slept."
    line = [lm.eos, *encode(lm, text), lm.eos]
    alone = math.fsum(cost(lm.model, line[:i], line[i]) for i in range(1, len(line)))
    found = bits_per_byte(lm.model, lm.tokenizer, [text])
    assert found.bits_per_byte == pytest.approx(alone / len(text.encode()), abs=1e-5)
    assert (found.bytes, found.tokens, found.documents) == (len(text.encode()), len(line) - 1, 1)


@pytest.mark.slow
def test_bits_do_not_depend_on_the_batch(lm: LM) -> None:
    texts = ["Yes.", "", *(ROOT / "tests/data/public-domain.txt").read_text(encoding="utf-8").splitlines()[:12]]
    one, few, all_at_once = (bits_per_byte(lm.model, lm.tokenizer, texts, tokens) for tokens in (1, 700, 10**6))
    assert one.bits_per_byte == pytest.approx(few.bits_per_byte, abs=1e-5) == pytest.approx(all_at_once.bits_per_byte, abs=1e-5)
    assert one.bytes == sum(len(text.encode()) for text in texts)
    assert one.documents == len(texts)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 24, 25, 100])
def test_windows_predict_every_token_once_from_at_least_half_a_context(length: int) -> None:
    ids = list(range(1, length + 1))
    predicted: list[int] = []
    for window in windows(ids, 0, 16):
        assert len(window.ids) - 1 <= 16
        assert window.skip == (0 if not predicted else 8)
        predicted += window.ids[window.skip + 1 :]
    assert predicted == [*ids, 0]


def test_a_model_that_knows_nothing_pays_the_logarithm_of_its_vocabulary(lm: LM) -> None:
    model = tiny(context=16)
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    texts = ["word " * 200, "short", "ten  spaces          "]
    found = bits_per_byte(model, lm.tokenizer, texts, tokens=100)
    predictions = sum(len(encode(lm, text)) + 1 for text in texts)
    assert found.bits_per_byte * found.bytes == pytest.approx(predictions * math.log2(model.config.vocab_size), rel=1e-6)


def test_long_documents_are_read_in_half_overlapping_windows(lm: LM) -> None:
    model = tiny(context=16)
    text = "It was a bright cold day in the village, and all the clocks and bells were telling different hours. " * 3
    line = [lm.eos, *encode(lm, text), lm.eos]
    alone = 0.0
    for i in range(1, len(line)):
        start = max(0, 8 * math.ceil((i - 16) / 8))  # the earliest multiple of 8 from which 16 inputs reach token i
        alone += cost(model, line[start:i], line[i])
    assert bits_per_byte(model, lm.tokenizer, [text]).bits_per_byte == pytest.approx(alone / len(text.encode()), abs=1e-5)


def test_nothing_to_score_is_an_error(lm: LM) -> None:
    with pytest.raises(ValueError, match="2 documents, all empty"):
        bits_per_byte(lm.model, lm.tokenizer, ["", ""])


def test_documents_are_read_alike_from_txt_and_xz(tmp_path: Path) -> None:
    raw = "one\ntwo\n<|endoftext|>\n\n three <|endoftext|> \n<|endoftext|>\n"
    (tmp_path / "a.txt").write_bytes(raw.encode())
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(raw.encode()))
    assert read(tmp_path / "a.txt") == read(tmp_path / "a.txt.xz") == ["one\ntwo", "\n three <|endoftext|> "]
    (tmp_path / "b.txt").write_bytes(b"whole\r\n file\n")
    assert read(tmp_path / "b.txt") == ["whole\r\n file"]


def test_overlap_counts_rows_with_a_shared_run_of_13_words(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(40)]
    corpus = " ".join(words[:20]) + "\n<|endoftext|>\n" + " ".join(words[20:]) + "\n<|endoftext|>\n"
    (tmp_path / "part-00.txt.xz").write_bytes(lzma.compress(corpus.encode()))
    rows = {
        "thirteen, in other case and punctuation": "; ".join(words[3:16]).upper() + "!",
        "twelve": " ".join(words[3:15]),
        "twelve and another": " ".join(words[3:15]) + " other",
        "across the end of a document": " ".join(words[14:27]),
        "thirteen inside more": "a b " + " ".join(words[25:38]) + " c",
        "an apostrophe": " ".join(words[:7]) + " " + " ".join(words[7:12]) + " w'12",
    }
    text = tmp_path / "rows.txt"
    text.write_text("\n".join(rows.values()) + "\n")
    (found,) = overlaps(tmp_path, text)
    assert (found.name, found.rows, found.long, found.shared) == ("rows.txt", 6, 5, 3)


def test_minutes_leave_out_what_was_run_again(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    steps = [(10, 60), (20, 120), (30, 180), (30, 30), (40, 90), (50, 150)]  # the second call resumed at step 20
    entry = {"loss": 5.0, "muon_lr": 0.02, "adam_lr": 0.01}
    log.write_text("".join(json.dumps(entry | {"step": s, "tokens": s * 100, "seconds": t}) + "\n" for s, t in steps))
    found = calls(log, 50)
    assert [(c.first, c.last, c.tokens, c.minutes) for c in found] == [(10, 20, 2000, 2.0), (30, 50, 5000, 2.5)]
    assert [c.minutes for c in calls(log, 40)] == [2.0, 1.5]
    assert calls(tmp_path / "absent.jsonl", 50) == []
    (tmp_path / "step-50").mkdir()
    before = {"first": 1, "last": 9, "tokens": 900, "minutes": 1.0, "loss": 6.0, "muon_lr": 0.02, "adam_lr": 0.01}
    (tmp_path / "step-50/state.json").write_text(json.dumps({"step": 50, "calls": [before]}))  # gone on with from a released model
    assert [c["last"] for c in history(tmp_path / "step-50")["calls"]] == [9, 20, 50]

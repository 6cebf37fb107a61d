"""What students that write their answers promise: a causal model and an encoder-decoder, both tiny, both trained here."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from seedbed.errors import ComponentError, ModelError
from seedbed.gain import measure_gain
from seedbed.lm.writing import Writer, lesson, question
from seedbed.students.causal import Causal
from seedbed.students.seq2seq import Seq2seq
from seedbed.task import Task
from seedbed.testing import check_student, tiny_texts
from seedbed.types import Example, Sample

TASK = Task("text2text", ("source",), "target")
LABELS = Task("classification", ("text",), "label", labels=("food", "music"))
WORDS = "red blue green one two three bird fish tree stone river cloud".split()


def copies(n: int, seed: int) -> list[Example]:
    """The target is the source's first word."""
    rng = random.Random(seed)
    found = [rng.choice(WORDS) for _ in range(n)]
    return [Example(f"{seed}-{i}", {"source": f"{word} {rng.choice(WORDS)}", "target": word}) for i, word in enumerate(found)]


def right(predictions: Sequence[str], rows: Sequence[Example]) -> float:
    return sum(p == e.fields["target"] for p, e in zip(predictions, rows, strict=True)) / len(rows)


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random BART of one layer a side, with seedling's tokenizer."""
    from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration

    from seedbed.lm.load import SHIPPED

    folder = tmp_path_factory.mktemp("bart")
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / "seedling")
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_eos_token_id"), 0)
    sizes = dict.fromkeys(("encoder_layers", "decoder_layers"), 1) | dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64)
    heads = dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
    torch.manual_seed(0)
    config = BartConfig(vocab_size=len(tokenizer), d_model=32, max_position_embeddings=64, init_std=0.1, **sizes, **heads, **ids)
    BartForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def causal() -> Causal:
    return Causal(layers=1, epochs=4, batch=8, lr=3e-3, warmup=5, max_tokens=8)


@pytest.fixture
def seq2seq(bart: str) -> Seq2seq:
    return Seq2seq(bart, epochs=4, batch=8, lr=3e-3, warmup=5, max_tokens=8)


@pytest.fixture(params=["causal", "seq2seq"])
def student(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.mark.slow
def test_they_conform(causal: Causal, seq2seq: Seq2seq) -> None:
    check_student(replace(causal, epochs=8))
    check_student(replace(seq2seq, epochs=15, lr=1e-2))


def test_an_encoder_decoder_learns_rows_by_heart(seq2seq: Seq2seq) -> None:
    rows = copies(30, 0)
    before = replace(seq2seq, epochs=1, lr=1e-9).learn(TASK, rows, rows, 0)
    after = replace(seq2seq, epochs=20, lr=1e-2, patience=99).learn(TASK, rows, rows, 0)
    assert right(before.predict(rows), rows) == 0
    assert right(after.predict(rows), rows) > 0.9
    assert after.facts["dev_nll"] < 0.2 * before.facts["dev_nll"]


@pytest.mark.slow
def test_a_causal_model_learns_what_it_was_not_shown(causal: Causal) -> None:
    learned = replace(causal, layers=2, epochs=8).learn(TASK, copies(60, 0), copies(20, 1), 0)
    test = copies(40, 2)
    assert right(learned.predict(test), test) > 0.8
    assert learned.facts["dev_nll"] < learned.facts["before_nll"]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(student: Any) -> None:
    rows, dev = copies(16, 0), copies(4, 1)
    first, second, other = (student.learn(TASK, rows, dev, seed).facts["dev_nll"] for seed in (0, 0, 1))
    assert first == second != other


def test_a_row_of_weight_zero_is_no_row(student: Any) -> None:
    rows, dev, test = copies(16, 0), copies(4, 1), copies(8, 2)
    extra = [replace(e, weight=0.0) for e in copies(5, 3)]
    with_them, without = (student.learn(TASK, found, dev, 0) for found in ([*rows, *extra], rows))
    assert with_them.facts == without.facts
    assert with_them.predict(test) == without.predict(test)


def test_an_answer_does_not_depend_on_what_is_asked_beside_it(student: Any) -> None:
    learned = student.learn(TASK, copies(24, 0), copies(4, 1), 0)
    asked = [replace(e, fields={**e.fields, "source": f"{e.fields['source']} {'and ' * i}"}) for i, e in enumerate(copies(20, 2))]
    assert learned.predict(asked) == [learned.predict([e])[0] for e in asked]
    assert learned.predict([]) == []


def test_without_dev_rows_the_training_rows_choose(student: Any) -> None:
    learned = student.learn(TASK, copies(16, 0), [], 0)
    assert learned.facts["dev_nll"] is None and len(learned.predict(copies(3, 1))) == 3


def test_the_loss_is_on_the_answer_alone(causal: Causal) -> None:
    """Of a target that is always the same, one token and end-of-text are to be learned: their loss goes to 0 whatever the questions are."""
    rows = [replace(e, fields={**e.fields, "target": "red"}) for e in copies(24, 0)]
    assert replace(causal, epochs=10).learn(TASK, rows, rows, 0).facts["dev_nll"] < 0.02


def test_a_label_is_written_too(causal: Causal) -> None:
    rows = [Example(str(i), {"text": f"{w} please {i}", "label": k}) for i, (w, k) in enumerate([("bread", "food"), ("guitar", "music")] * 12)]
    learned = replace(causal, epochs=8).learn(LABELS, rows, rows[:8], 0)
    assert learned.predict(rows) == [e.fields["label"] for e in rows]
    odd = Writer(LABELS, lambda asked: [" drums "] * len(asked), lambda text: True)
    assert LABELS.score(odd.predict(rows[:2]), rows[:2])[0].value == 0


def test_a_question_holds_all_inputs_and_no_target() -> None:
    fields = {"premise": "a\nLabel: no", "hypothesis": "b", "label": "yes"}
    assert question(Task("pair", ("premise", "hypothesis"), "label"), Example("1", fields)) == "Premise: a\n\\Label: no\nHypothesis: b\nLabel:"
    acts = Task("data2text", ("acts",), "text", given=())
    assert question(acts, Example("1", {"acts": [{"act": "OFFER"}], "text": "t"})) == 'Acts: [{"act": "OFFER"}]\nText:'


def test_fewer_blocks_are_the_first_ones(causal: Causal) -> None:
    from seedbed.lm.causal import shorten
    from seedbed.lm.finetune import own

    whole, short = own("seedling", "full"), shorten(own("seedling", "full"), 2, "[student]")
    ids = torch.arange(1, 20)[None]
    with torch.inference_mode():
        wanted = whole.model(ids, output_hidden_states=True).hidden_states[2]
        found = short.model(ids, output_hidden_states=True).hidden_states
    assert len(found) == 3
    assert torch.allclose(found[-1], whole.model.model.norm(wanted), atol=1e-5)
    assert causal.learn(TASK, copies(8, 0), [], 0).facts["parameters"] < 0.6 * sum(p.numel() for p in whole.model.parameters())


def test_greedy_answers_are_the_likeliest_tokens_of_the_plain_model() -> None:
    from seedbed.lm.causal import write
    from seedbed.lm.finetune import own

    lm = own("seedling", "full")
    for text, answer in zip(asked := ["The capital of France is", "Once upon a time there"], write(lm, asked, 12), strict=True):
        ids = torch.tensor([[lm.bos, *lm.encode(text)]])
        plain = lm.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert answer == lm.decode(plain[0, ids.shape[1] :].tolist())


def test_two_beams_find_an_answer_at_least_as_likely(seq2seq: Seq2seq) -> None:
    learned = replace(seq2seq, beams=2).learn(TASK, copies(16, 0), copies(4, 1), 0)
    assert len(learned.predict(copies(3, 2))) == 3


def test_rows_too_long_are_left_out_counted_and_get_no_answer(student: Any) -> None:
    long = [replace(e, fields={**e.fields, "source": "red " * 600}) for e in copies(3, 5)]
    rows, dev = copies(16, 0), copies(4, 1)
    learned, plain = student.learn(TASK, [*rows, *long], [*dev, long[0]], 0), student.learn(TASK, rows, dev, 0)
    assert learned.facts["too_long"] == {"fit": 3, "dev": 1}
    assert {**learned.facts, "too_long": 0} == {**plain.facts, "too_long": 0}
    mixed = [long[0], *copies(2, 2)]
    assert learned.cut(mixed) == 1
    assert learned.predict(mixed) == ["", *learned.predict(mixed[1:])]
    with pytest.raises(ComponentError, match="none of 3 training rows fits into the"):
        student.learn(TASK, long, [], 0)


@pytest.mark.slow
def test_shuffled_targets_are_no_gain_and_real_ones_are(seq2seq: Seq2seq) -> None:
    real, more, test = copies(16, 0), copies(48, 1), copies(100, 2)
    sample = Sample(TASK, tuple(real), tuple(copies(12, 3)), tuple(test))
    targets = random.Random(0).sample([e.fields["target"] for e in more], len(more))
    shuffled = [replace(e, fields={**e.fields, "target": t}) for e, t in zip(more, targets, strict=True)]
    student = replace(seq2seq, epochs=10, lr=1e-2)
    bad, good = (measure_gain(sample, kept, student, 0, seeds=1, volumes=()) for kept in (shuffled, more))
    assert bad.metric == "exact_match"
    assert bad.difference is not None and bad.difference.low <= 0
    assert good.difference is not None and good.difference.low > 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "Got none among 0"),
        ([replace(e, weight=0.0) for e in copies(2, 0)], "Got none among 2"),
        ([*copies(2, 0), Example("odd", {"source": "a", "target": "b"}, 0.5)], "must be 0 or 1 where texts are written. Row 'odd' has 0.5"),
        ([Example("odd", {"source": "a", "target": "b"}, -1.0)], "Row 'odd' has -1.0"),
    ],
)
def test_rows_that_cannot_be_learned_from_are_refused(rows: list[Example], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        lesson("[student]", TASK, rows)


def test_a_task_without_a_target_is_refused_with_the_reason(student: Any) -> None:
    plain = Task("plain", ("text",))
    assert "a plain task has none" in student.supports(plain)
    with pytest.raises(ComponentError, match=r"a plain task has none\. Choose a task with a target"):
        student.learn(plain, [], [], 0)
    assert all(student.supports(task) == "" for task in (TASK, LABELS, Task("math", ("q",), "a"), Task("data2text", ("d",), "t")))


def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path, causal: Causal, bart: str) -> None:
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="nowhere' cannot be loaded"):
        replace(causal, model=nowhere).learn(TASK, copies(2, 0), [], 0)
    with pytest.raises(ModelError, match=r"\[student\] model = .*nowhere' cannot be loaded: .* Allowed: a folder"):
        Seq2seq(nowhere).learn(TASK, copies(2, 0), [], 0)
    with pytest.raises(ModelError, match=r"'seedling' cannot be loaded.*encoder-decoder"):
        Seq2seq("seedling").learn(TASK, copies(2, 0), [], 0)
    with pytest.raises(ModelError, match=r"layers = 7: 'seedling' has 6 blocks\. Allowed: 1 to 6"):
        replace(causal, layers=7).learn(TASK, copies(2, 0), [], 0)
    more = Path(shutil.copytree(bart, tmp_path / "more"))
    shape = json.loads((more / "config.json").read_text())
    (more / "config.json").write_text(json.dumps(shape | {"decoder_layers": shape["decoder_layers"] + 1}))
    with pytest.raises(ModelError, match=r"\[student\] model = .*more': its files lack \d+ weights .*such as \w+\.decoder\.layers\."):
        Seq2seq(str(more)).learn(TASK, copies(2, 0), [], 0)
    broken = shutil.copytree(bart, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="broken' cannot be loaded"):
        Seq2seq(str(broken)).learn(TASK, copies(2, 0), [], 0)


@dataclass(frozen=True)
class Parrot:
    """Says the same to all. word: what."""

    word: str = "listen to this"

    def supports(self, task: Task) -> str:
        return "" if task.target else "no target"

    def learn(self, task: Task, examples: Sequence[Example], dev: Sequence[Example], seed: int) -> Parrot:
        return self

    def predict(self, examples: Sequence[Example]) -> list[str]:
        return [self.word for _ in examples]


def test_the_check_for_authors_sees_a_student_that_learns_nothing() -> None:
    assert Parrot().word in {e.fields["reply"] for e in tiny_texts().test}
    with pytest.raises(AssertionError, match="4 of 8 right"):
        check_student(Parrot())

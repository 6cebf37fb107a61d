"""What the classifier annotator, the agreement filter and the machinery they share with the students promise."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seedbed.annotators.classifier import Classifier
from seedbed.errors import ComponentError, ModelError
from seedbed.filters.agreement import Agreement
from seedbed.lm.classify import Softmax
from seedbed.lm.embed import minilm_folder
from seedbed.students.encoder import Encoder
from seedbed.students.linear import Linear
from seedbed.testing import NOBODY, check_annotator, check_student, tiny_candidates, tiny_sample
from seedbed.types import Annotator, Candidate, Example, Sample

BREAD = {
    "food": ["bread and soup", "rice with cheese", "a bowl of soup", "fresh bread"],
    "travel": ["a train ticket", "the airport gate", "lost luggage", "a late train"],
    "music": ["a guitar chord", "the drum solo", "a sad melody", "loud drums"],
}


@pytest.fixture(autouse=True)
def minilm() -> None:
    try:
        minilm_folder()
    except ModelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """Fine-tunes a random two-layer encoder, made here: all that differs from a real one is what it knows."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    AutoTokenizer.from_pretrained(minilm_folder()).save_pretrained(folder)
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64)
    BertModel(config).save_pretrained(folder)
    return Encoder(str(folder), tune=True, epochs=2, lr=1e-3, batch=8)


def drafts(sample: Sample) -> list[Candidate]:
    made = [Candidate(e.id, i, sample.task.render(e.fields), e.fields, True) for i, e in enumerate(sample.test)]
    return [*made, Candidate("broken", len(made), "no form", None, True, "section missing")]


def test_it_is_an_annotator_and_reads_the_texts() -> None:
    sample = tiny_sample()
    assert isinstance(Classifier(), Annotator)
    found = Classifier().annotate(drafts(sample), sample, 0, NOBODY)
    assert [max(row, key=row.__getitem__) for row in found.rows[:-1]] == [e.fields["label"] for e in sample.test]
    assert found.rows[-1] == {}
    assert found.facts == {"C": found.facts["C"], "dev_accuracy": 1.0, "dev_rows": len(sample.dev), "candidates_cut": 0}
    wrong = replace(sample, dev=tuple(replace(e, fields=dict(e.fields) | {"label": "neither"}) for e in sample.dev))
    assert Classifier().annotate([], wrong, 0, NOBODY).facts["dev_accuracy"] == 0
    assert "dev_accuracy" not in Classifier().annotate([], replace(sample, dev=()), 0, NOBODY).facts
    for row in found.rows[:-1]:
        assert sum(row.values()) == pytest.approx(1, abs=1e-9)


def test_unlabelled_inputs_can_be_annotated_too() -> None:
    """A row that has inputs alone, as those of a pool do."""
    sample = tiny_sample()
    bare = [replace(c, fields={"text": c.fields["text"]}) for c in drafts(sample) if c.fields]
    whole = Classifier().annotate(drafts(sample)[:-1], sample, 0, NOBODY)
    assert list(Classifier().annotate(bare, sample, 0, NOBODY).rows) == list(whole.rows)


def test_shuffled_labels_teach_nothing() -> None:
    """Trained on random labels, an annotator agrees with the true ones as often as chance does: 20 shuffles of 24 rows, 8 judged each."""
    sample, right = tiny_sample(), 0
    for seed in range(20):
        labels = [e.fields["label"] for e in sample.fit]
        random.Random(seed).shuffle(labels)
        fit = tuple(replace(e, fields=dict(e.fields) | {"label": label}) for e, label in zip(sample.fit, labels, strict=True))
        rows = Classifier().annotate(drafts(sample)[:-1], replace(sample, fit=fit, dev=()), 0, NOBODY).rows
        right += sum(max(row, key=row.__getitem__) == e.fields["label"] for row, e in zip(rows, sample.test, strict=True))
    assert 0.25 < right / 160 < 0.75  # WORDS has 8 texts: fit repeats them thrice, so draws are far from independent


def test_agreement_keeps_exactly_the_first_choices() -> None:
    sample = tiny_sample()
    rng, names = random.Random(5), ("music", "weather")
    candidates = []
    for i in range(200):
        p = rng.choice([rng.random(), 0.5, 0.7, 1.0])
        candidates.append(
            Candidate(f"c{i}", i, "t", {"text": "t", "label": rng.choice(names)}, True, annotations={"classifier": {"music": p, "weather": 1 - p}})
        )
    for confidence in (0.0, 0.7, 1.0):
        for candidate, verdict in zip(candidates, Agreement(confidence=confidence).judge(candidates, sample), strict=True):
            said, label = candidate.annotations["classifier"], candidate.fields["label"]  # type: ignore[index]
            first, sure = said[label] == max(said.values()), said[label] >= confidence
            assert (verdict.keep, verdict.reason) == (first and sure, "" if first and sure else "not confident" if first else "label disagrees")


def test_agreement_on_what_has_no_annotation() -> None:
    sample = tiny_sample()
    whole, broken = Candidate("a", 0, "t", {"text": "t", "label": "jazz"}, True), Candidate("b", 1, "t", None, True, "section missing")
    assert Agreement().judge([broken], sample)[0].keep
    with pytest.raises(ComponentError, match="no annotation of 'classifier'"):
        Agreement().judge([whole], sample)
    unseen = replace(whole, annotations={"classifier": {"music": 1.0}})
    assert Agreement().judge([unseen], sample)[0].reason == "label disagrees"
    assert Counter(v.reason for v in Agreement().judge(tiny_candidates(sample), sample)) == {"": 5, "label disagrees": 2}


def _rows(soft: bool = False) -> list[Example]:
    rows = [Example(f"{label}{i}", {"text": text, "label": label}) for label, texts in BREAD.items() for i, text in enumerate(texts)]
    return [replace(e, target_probs={e.fields["label"]: 1.0}, fields=dict(e.fields) | {"label": "?"}) for e in rows] if soft else rows


TASK = replace(tiny_sample().task, labels=())


@pytest.mark.parametrize("sparse", [False, True])
def test_distributions_are_learned_as_if_a_row_stood_once_for_each_label(sparse: bool) -> None:
    from scipy.sparse import csr_array
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    features: Any = rng.normal(size=(60, 8))
    weights = rng.dirichlet(np.full(5, 0.3), size=60) * rng.uniform(0.2, 1, size=(60, 1))
    row, label = np.nonzero(weights)
    for c in (0.1, 10.0):
        wanted = LogisticRegression(C=c, max_iter=2000).fit(features[row], label, sample_weight=weights[row, label]).predict_proba(features)
        found = Softmax.fit(csr_array(features) if sparse else features, weights, c).predict_proba(features)
        assert np.abs(found - wanted).max() < 1e-6


def test_soft_labels_on_one_label_are_hard_labels(tuned: Encoder) -> None:
    dev, test = _rows()[::4], _rows()[1::4]
    for student in (Linear(features="tfidf"), Encoder(), tuned):
        hard = student.learn(TASK, _rows(), dev, 0).probabilities(test)
        assert (student.learn(TASK, _rows(soft=True), dev, 0).probabilities(test) == hard).all()
        assert hard.sum(axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
def test_soft_labels_are_learned_as_distributions(tuned: Encoder) -> None:
    """Cross-entropy is least at the target itself: with little to hold it back, the answer on the rows is their distribution."""
    rows = [Example("a", {"text": "bread and soup", "label": "?"}, target_probs={"food": 3.0, "travel": 1.0})]
    rows += [Example("b", {"text": "late train", "label": "?"}, target_probs={"food": 0.1, "travel": 0.9})]
    for student in (Linear(features="tfidf"), replace(tuned, epochs=60, lr=3e-3)):
        learned = student.learn(TASK, rows, [], 0)
        assert learned.labels == ("food", "travel")
        assert learned.probabilities(rows)[:, 0] == pytest.approx([0.75, 0.1], abs=0.1)
        whole = [replace(rows[0], target_probs={"food": 0.75, "travel": 0.25}), rows[1]]
        assert (student.learn(TASK, whole, [], 0).probabilities(rows) == learned.probabilities(rows)).all(), "a distribution need not sum to 1"


def test_a_distribution_that_is_none_is_refused() -> None:
    for probabilities in ({}, {"food": 0.0}, {"food": 1.5, "travel": -0.5}):
        with pytest.raises(ComponentError, match="target_probs of row 'x'"):
            Linear().learn(TASK, [Example("x", {"text": "t", "label": "food"}, target_probs=probabilities)], [], 0)


def test_frozen_features_are_the_linear_students() -> None:
    rows, test = _rows(), _rows()[::-1]
    assert (Encoder().learn(TASK, rows, rows[::3], 0).probabilities(test) == Linear().learn(TASK, rows, rows[::3], 0).probabilities(test)).all()


@pytest.mark.slow
def test_a_tuned_encoder_conforms(tuned: Encoder) -> None:
    check_student(replace(tuned, epochs=25, lr=3e-3))
    check_annotator(Classifier(tuned.model, tune=True, epochs=3))


def test_a_tuned_encoder_depends_on_its_seed_alone(tuned: Encoder) -> None:
    import torch

    rows, test = _rows(), _rows()[::2]
    torch.manual_seed(1)
    first = tuned.learn(TASK, rows, rows[::3], 0)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = tuned.learn(TASK, rows, rows[::3], 0)
    assert (torch.get_rng_state() == before).all(), "the global generator was left moved"
    assert (first.probabilities(test) == again.probabilities(test)).all()
    assert all((a == b).all() for a, b in zip(first.model.state_dict().values(), again.model.state_dict().values(), strict=True))
    assert (tuned.learn(TASK, rows, rows[::3], 1).probabilities(test) != first.probabilities(test)).any()


def test_the_heavier_rows_win_when_tuned(tuned: Encoder) -> None:
    for winner, loser in (("food", "travel"), ("travel", "food")):
        rows = [Example(label, {"text": "the same text", "label": label}, weight) for label, weight in ((winner, 9.0), (loser, 1.0))]
        learned = replace(tuned, epochs=20, lr=3e-3).learn(TASK, rows, [], 0)
        assert learned.predict([rows[0]]) == [winner]


def test_long_inputs_are_cut_and_counted(tuned: Encoder) -> None:
    pair = replace(TASK, kind="pair", inputs=("premise", "hypothesis"))
    long = " ".join(f"word{i}" for i in range(900))
    rows = [Example(str(i), {"premise": long if i < 3 else "short", "hypothesis": f"text {i}", "label": "ab"[i % 2]}) for i in range(8)]
    learned = replace(tuned, epochs=1).learn(pair, rows, [], 0)
    assert learned.facts["rows_cut"] == 3
    assert learned.cut(rows[2:]) == 1
    assert len(learned.predict(rows)) == 8


def test_a_text_is_cut_before_its_positions_run_out(tmp_path: Path) -> None:
    """RoBERTa's first positions are kept for padding: of 34 it reads 32, and its tokenizer may not say so."""
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel

    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    tokenizer.model_max_length = 10**30
    tokenizer.save_pretrained(tmp_path)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 34}
    RobertaModel(RobertaConfig(vocab_size=len(tokenizer), pad_token_id=1, **shape)).save_pretrained(tmp_path)
    rows = [Example(str(i), {"text": "word " * (3 + 40 * i), "label": "ab"[i]}) for i in range(2)]
    learned = Encoder(str(tmp_path), tune=True, epochs=1).learn(TASK, rows, [], 0)
    assert learned.cut(rows) == 1 and len(learned.predict(rows)) == 2


def test_a_model_that_is_not_there_is_named(tuned: Encoder) -> None:
    with pytest.raises(ModelError, match=r"\[student\] model = 'no/such' cannot be loaded"):
        replace(tuned, model="no/such").learn(TASK, _rows(), [], 0)

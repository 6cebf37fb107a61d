"""Scores of texts: equal to the reference packages on any rows, and known answers by hand."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seedbed import scores
from seedbed.task import Task
from seedbed.types import Example

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
ACTS = Task("data2text", ("acts", "context"), "text")
WORDS = ["the", "cat", "sat", "on", "a", "mat", "Mat.", "it's", "2,000", "dogs;", "ran", "naïve"]


def texts(n: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(n)]


def with_references(n: int, seed: int) -> tuple[list[str], list[list[str]]]:
    """Rows with 1 to 5 references, some of which are near the prediction."""
    rng, found = random.Random(seed), texts(n, seed)
    return found, [[rng.choice([p, f"{p} now", *texts(3, rng.randrange(10**6))]) for _ in range(rng.randint(1, 5))] for p in found]


def directly(predictions: list[str], references: list[list[str]]) -> float:
    """sacrebleu's own corpus score; it marks a reference that a row lacks by None."""
    from sacrebleu import corpus_bleu

    width = max(map(len, references))
    return float(corpus_bleu(predictions, [[r[i] if i < len(r) else None for r in references] for i in range(width)]).score)


def test_bleu_is_sacrebleus_for_rows_with_1_to_5_references() -> None:
    pytest.importorskip("sacrebleu")
    predictions, references = with_references(60, 0)
    assert {len(r) for r in references} == {1, 2, 3, 4, 5}
    found = scores.bleu(predictions, references)
    assert found.value == directly(predictions, references)
    assert 5 < (found.value or 0) < 95


def test_bleu_of_summed_statistics_is_sacrebleus_on_any_rows_however_often_drawn() -> None:
    pytest.importorskip("sacrebleu")
    predictions, references = with_references(40, 1)
    rows = np.array([scores.bleu_statistics(p, r) for p, r in zip(predictions, references, strict=True)])
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 40, 80, 80, 80):
        picked = rng.integers(40, size=size)
        wanted = directly([predictions[i] for i in picked], [references[i] for i in picked])
        assert scores.bleu_of(rows[picked].sum(axis=0)) == wanted
    for p, r in zip(predictions, references, strict=True):  # alone, many have no run of four words that matches: smoothing
        assert scores.bleu_of(scores.bleu_statistics(p, r)) == directly([p], [r])
    for empty in ("", "cat"):  # no runs of words to count
        assert scores.bleu_of(scores.bleu_statistics(empty, ["a dog ran"])) == directly([empty], [["a dog ran"]]) == 0


def test_rouge_l_is_the_packages_best_over_the_references() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    predictions, references = with_references(30, 2)
    alone = [max(scorer.score(r, p)["rougeL"].fmeasure for r in refs) for p, refs in zip(predictions, references, strict=True)]
    assert scores.rouge_l(predictions, references).value == pytest.approx(100 * np.mean(alone))


def test_rouge_l_of_a_hand_case() -> None:
    pytest.importorskip("rouge_score")
    # The common subsequence "the cat mat" has 3 words: precision 3 / 4, recall 3 / 6.
    assert scores.rouge_l(["the cat red mat"], [["the cat sat on the mat"]]).value == pytest.approx(60)


def act(values: list[Any], slot: str = "time", name: str = "CONFIRM") -> dict[str, Any]:
    return {"act": name, "slot": slot, "values": values}


def test_a_text_has_to_say_values_and_not_flags_preferences_or_intents() -> None:
    said = [act(["6  PM", "True"]), act(["dontcare", "None"]), act([]), act(["", 2], "party_size"), act(["BookTable"], "intent")]
    assert scores.slot_values({"acts": said, "context": ["USER: hi"], "triples": [["a", "b", "c"]]}) == ["6 pm", "2"]
    assert scores.slot_values({"triples": [["a", "b", "c"]], "text": "x"}) == []


def test_slot_error_rate_of_a_hand_case() -> None:
    found = scores.slot_error_rate(["A table at 6\nPM for 12.", "nothing", "no slots"], [["6 pm", "2"], ["rome", "2"], []])
    assert (found.value, found.n, found.better) == (75.0, 2, "lower")  # 2 in 12 is not 2
    assert found.note == "2 of 2 texts lack a value"
    assert scores.slot_error_rate(["2,5 (five)"], [["2,5", "(five)"]]).value == 0


def rows(task: Task, *fields: dict[str, Any]) -> list[Example]:
    return [Example(str(i), f) for i, f in enumerate(fields)]


def test_a_task_of_texts_has_its_scores_in_order() -> None:
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    made = {"acts": [act(["6 pm"])], "context": [], "text": "it is at 6 pm today"}
    assert [(m.name, m.value) for m in ACTS.score([made["text"]], rows(ACTS, made))] == [
        ("bleu", pytest.approx(100)),
        ("rouge_l", 100),
        ("slot_error_rate", 0),
    ]
    triples = Task("data2text", ("triples",), "text", references="references")
    found = triples.score(["a b c d"], rows(triples, {"triples": [["x", "y", "z"]], "text": "q", "references": ["r", "a b c d"]}))
    assert [(m.name, m.value) for m in found] == [("bleu", pytest.approx(100)), ("rouge_l", 100)]
    plain = Task("text2text", ("a",), "b")
    assert [(m.name, m.value) for m in plain.score([" x y ", "y"], rows(plain, {"a": "", "b": "x y"}, {"a": "", "b": "z"}))] == [
        ("exact_match", 50),
        ("rouge_l", 50),
    ]


@pytest.mark.parametrize(("package", "name"), [("sacrebleu", "bleu"), ("rouge_score", "rouge_l")])
def test_a_missing_package_is_none_with_the_way_to_install_it(package: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for loaded in (scores._sacrebleu, scores._rouge):
        loaded.cache_clear()
    for module in (package, f"{package}.metrics.bleu", f"{package}.rouge_scorer"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    made = {"acts": [act(["6 pm"])], "context": [], "text": "it is at 6 pm today"}
    found = {m.name: m for m in ACTS.score(["at 6 pm"], rows(ACTS, made))}
    assert found[name].value is None and "pip install 'seedbed[" in found[name].note
    assert [m.value is None for m in found.values()].count(True) == 1


@pytest.mark.parametrize("part", ["train", "dev"])
def test_the_real_texts_say_all_their_slot_values(part: str) -> None:
    """The ruler's own error: what it holds against a person's text."""
    path = SHARED / "sgd" / f"{part}.jsonl.gz"
    if not path.is_file():
        pytest.skip("needs the shared data")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        real = [json.loads(line) for line in file][:5000]
    found = scores.slot_error_rate([r["text"] for r in real], [scores.slot_values({"acts": r["acts"]}) for r in real])
    assert found.value == 0 and found.n > 2000

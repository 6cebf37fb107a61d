"""Scores of predicted targets against real ones, in points (0 to 100) over n rows; what lacks a library is None and says which."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from seedbed.arithmetic import final_number
from seedbed.errors import ParseError, SandboxError
from seedbed.programs import UNJUDGED, Trial, judge, trial
from seedbed.types import Measure

ORDERS = 4
"""BLEU counts runs of one to so many words."""
NO_VALUE = ("", "true", "false", "dontcare", "none")
"""Values that a text says in other words."""


def mean(name: str, right: Sequence[float]) -> Measure:
    return Measure(name, 100.0 * sum(right) / len(right), "points", n=len(right))


def labels(predictions: Sequence[str], gold: Sequence[str], groups: Sequence[str] | None) -> list[Measure]:
    """Accuracy and macro-F1; before them, where rows have groups, MultiRC's F1a over rows and EM over groups (Khashabi et al. 2018)."""
    from sklearn.metrics import f1_score

    right = [p == g for p, g in zip(predictions, gold, strict=True)]
    n = len(gold)
    found = [
        mean("accuracy", right),
        Measure("macro_f1", 100.0 * float(f1_score(gold, predictions, average="macro", zero_division=0.0)), "points", n=n),
    ]
    if groups is None:
        return found
    if not set(gold) <= {"true", "false"}:
        return [*found, Measure("f1a", None, "points", n=n, note="F1a needs the labels true and false")]
    whole: dict[str, bool] = {}
    for group, ok in zip(groups, right, strict=True):
        whole[group] = whole.get(group, True) and ok
    f1a = 100.0 * float(f1_score([g == "true" for g in gold], [p == "true" for p in predictions], zero_division=0.0))
    return [Measure("f1a", f1a, "points", n=n), mean("em", list(whole.values())), *found]


def exact_match(prediction: str, references: Sequence[str]) -> bool:
    """Whether it is one of the references, but for outer white space."""
    return prediction.strip() in {r.strip() for r in references}


def same_number(prediction: str, gold: str) -> bool:
    """Whether both end in the same number: the one after `####`, or the last of the text; 1,000.0 is 1000."""
    number = final_number(prediction)
    return number is not None and number == final_number(gold)


def pass_at_1(pairs: Sequence[tuple[str, Sequence[str]]]) -> list[bool | None]:
    """Whether each program passes its asserts, run once in a sandbox (pass@k at k = 1, one program a problem: Chen et al. 2021); None where the
    asserts are of a form that cannot be judged. Raises SandboxError where this machine has no sandbox."""
    trials: list[Trial | str] = []
    for program, asserts in pairs:
        try:
            trials.append(trial(program, asserts))
        except ParseError as error:
            trials.append(error.reason)
    found = iter(judge([t for t in trials if not isinstance(t, str)]))
    return [not next(found) if not isinstance(t, str) else None if t in UNJUDGED else False for t in trials]


def judgeable(program: str, asserts: Sequence[str]) -> bool:
    """Whether the asserts are of a form that can be judged; runs nothing."""
    try:
        trial(program, asserts)
    except ParseError as error:
        return error.reason not in UNJUDGED
    return True


def programs(predictions: Sequence[str], tests: Sequence[Sequence[str]]) -> Measure:
    """pass@1 in points; None with its reason where nothing could be run."""
    try:
        right = pass_at_1(list(zip(predictions, tests, strict=True)))
    except SandboxError as error:
        return Measure("pass@1", None, "points", n=len(predictions), note=str(error))
    judged = [ok for ok in right if ok is not None]
    note = f"{len(right) - len(judged)} rows have asserts that cannot be judged" if len(judged) < len(right) else ""
    if not judged:
        return Measure("pass@1", None, "points", note=note)
    return replace(mean("pass@1", judged), note=note)


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Measure:
    """Corpus BLEU-4 as sacrebleu computes it by default (Papineni et al. 2002; Post 2018); rows may have different numbers of references."""
    n = len(predictions)
    try:
        summed = np.sum([bleu_statistics(p, r) for p, r in zip(predictions, references, strict=True)], axis=0)
    except ImportError:
        return Measure("bleu", None, "points", n=n, note="install sacrebleu: pip install 'seedbed[sacrebleu]'")
    return Measure("bleu", bleu_of(summed), "points", n=n)


def bleu_statistics(prediction: str, references: Sequence[str]) -> np.ndarray:
    """float64 (2 + 2 * ORDERS,): words of the prediction, words of the reference nearest in length, runs of 1 to ORDERS words that match, all such
    runs of the prediction. BLEU of rows is `bleu_of` their sum, to the last digit. Raises ImportError without sacrebleu."""
    found = _sacrebleu().corpus_score([prediction], [[r] for r in references])
    return np.array([found.sys_len, found.ref_len, *found.counts, *found.totals], dtype=np.float64)


def bleu_of(summed: Sequence[float] | np.ndarray) -> float:
    """Points of BLEU from summed `bleu_statistics`."""
    words, reference, *counts = (int(x) for x in summed)
    scorer = _sacrebleu()
    return float(scorer.compute_bleu(counts[:ORDERS], counts[ORDERS:], words, reference, scorer.smooth_method).score)


@cache
def _sacrebleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(max_ngram_order=ORDERS)


def rouge_l(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Measure:
    """F-measure of the longest common subsequence of words, the best over the references, mean over rows (Lin 2004; package rouge-score)."""
    try:
        scorer = _rouge()
    except ImportError:
        return Measure("rouge_l", None, "points", n=len(predictions), note="install rouge-score: pip install 'seedbed[rouge-score]'")
    return mean("rouge_l", [scorer.score_multi(list(r), p)["rougeL"].fmeasure for p, r in zip(predictions, references, strict=True)])


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])


def slot_values(inputs: Mapping[str, Any]) -> list[str]:
    """What a text has to say of its dialogue acts [{act, slot, values}]: their values, in lower case with single spaces.

    Left out: yes and no, no preference, and the names of intents, which a text says in other words.
    """
    said = (_spaced(str(v)) for act in _acts(inputs) if act.get("slot") != "intent" for v in act["values"])
    return [value for value in said if value not in NO_VALUE]


def _acts(inputs: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for column in inputs.values():
        for act in column if isinstance(column, list) else ():
            if isinstance(act, Mapping) and isinstance(act.get("values"), list):
                yield act


def _spaced(text: str) -> str:
    return " ".join(text.casefold().split())


def slot_error_rate(predictions: Sequence[str], values: Sequence[Sequence[str]]) -> Measure:
    """Share of the slot values (`slot_values`, a list a row) that stand nowhere in their row's text as whole words. n: rows that have a value.

    Missing values alone: a wrong one that was added is not seen. Kale and Rastogi (EMNLP 2020) count the texts that lack a value; the note does.
    """
    missing = [[v for v in said if not _holds(_spaced(p), v)] for p, said in zip(predictions, values, strict=True)]
    rows = [i for i, said in enumerate(values) if said]
    if not rows:
        return Measure("slot_error_rate", None, "points", "lower", note="no row has a slot value")
    share = 100.0 * sum(map(len, missing)) / sum(map(len, values))
    note = f"{sum(map(bool, missing))} of {len(rows)} texts lack a value"
    return Measure("slot_error_rate", share, "points", "lower", n=len(rows), note=note)


def _holds(text: str, value: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


def nothing_right(metric: str, means: Iterable[float | None]) -> str:
    """Where every student that was measured scored 0: that no gain is then no finding; "" else. means: points, of all seeds."""
    known = [mean for mean in means if mean is not None]
    if any(known) or not known:
        return ""
    what = "every student scored 0" if metric in ("f1a", "bleu") else "no student got a test row right"
    return f"{what}: this test says nothing of a gain"

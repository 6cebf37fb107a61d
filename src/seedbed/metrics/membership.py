"""What an outsider who sees the kept rows alone learns about who is in the sample: membership inference, and the exposure of planted canaries."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from seedbed.canaries import ends, halves
from seedbed.metrics.draws import in_order
from seedbed.metrics.ngram import Ngram
from seedbed.stats import DRAWS, equal_draw, percentile_interval, permutation_p, wilson
from seedbed.text import body, longest_runs, words
from seedbed.types import EVIDENCE, Evidence, Example, Measure, Sample, seed_for

LEAST = 20
"""Rows a side below which nothing is said."""
MOST = 500
"""Members, and as many others, that are asked about at most."""
READ = 20_000
"""Kept rows that the model reads at most."""
PERMUTATIONS = 999
FALSE_ALARMS = 0.05
"""Share of the others that `membership_tpr` may take for members."""
ENDS = 4095
"""Other ends that a canary's is ranked among: exposures up to 12 bits."""
Words = list[str]


@dataclass(frozen=True)
class Membership:
    """Membership inference from the kept rows alone: a language model of words (5-grams, Witten-Bell) reads them, and each fit row and as many dev +
    test rows get a score, how likely that model finds it for its length after compression. `membership_auc` is how well the score tells fit rows
    from the others, `membership_tpr` the share of fit rows found where 5 % of the others are taken for members. `canary_exposure` and
    `canaries_found`, with `canaries` in [sample]: whether the random ends of planted rows can be told from others like them.

    p: fit and other rows dealt out anew, exact where the split was random. real: the same attack on a model of half of the dev + test rows.
    """

    version: ClassVar[int] = 1

    def measure(self, sample: Sample, kept: Sequence[Example], seed: int) -> list[Measure]:
        def read(rows: Sequence[Example]) -> list[Words]:
            return [words(body(sample.task, e.fields)) for e in rows]

        some = equal_draw(in_order(sample.task, kept), min(len(kept), READ), seed_for(seed, "membership", "kept"))
        texts, fit, others = read(some), list(sample.fit), [*sample.dev, *sample.test]
        n = min(len(fit), len(others), MOST)
        got = f"got {len(texts)} kept, {len(fit)} fit and {len(others)} dev + test"
        asked = [equal_draw(side, n, seed_for(seed, "membership", i)) for i, side in enumerate((fit, others))]
        if n < LEAST or len(texts) < LEAST:
            note = f"needs {LEAST} rows on each side, {got}"
            found = [Measure(name, None, "", "lower", n, note=note) for name in ("membership_auc", "membership_tpr")]
        else:
            found = self._inference(texts, read(asked[0]), read(asked[1]), [e.id for e in asked[0]], seed)
        return [*found, *exposures(sample, texts, seed)]

    def _inference(self, texts: Sequence[Words], members: list[Words], others: list[Words], names: list[str], seed: int) -> list[Measure]:
        n, rng = len(members), np.random.default_rng(seed_for(seed, "deal"))
        scored = attack(texts, [*members, *others])
        deals = np.stack([np.arange(2 * n), *(rng.permutation(2 * n) for _ in range(PERMUTATIONS))])
        areas, found = auc(scored[deals], n), power(scored[deals], n)
        picks = [rng.integers(n, size=(DRAWS, n)) + side * n for side in (0, 1)]
        low, high = percentile_interval(auc(scored[np.concatenate(picks, axis=1)], n))
        # Half of the others stand for kept rows: what the attack finds where nothing was learned from fit, and where fit is no random part.
        half = n // 2
        beside = auc(attack(others[:half], [*members[: n - half], *others[half:]])[None], n - half)[0]
        limit = np.quantile(scored[n:], 1 - FALSE_ALARMS)
        sure = [i for i in np.argsort(-scored[:n], kind="stable")[:EVIDENCE].tolist() if scored[i] > max(scored[n:])]
        rows = tuple(Evidence("scores above all others", real=names[i], split="fit") for i in sure)
        hits = round(float(found[0]) * n)
        note = f"{n} fit rows and {n} dev + test rows, scored by a model of {len(texts)} kept rows"
        return [
            Measure("membership_auc", float(areas[0]), "", "lower", n, low, high, float(beside),
                    f"{note}; 0.5: cannot be told; bootstrap; real: a model of {half} dev + test rows", permutation_p(areas[0], areas[1:]), rows),
            Measure("membership_tpr", float(found[0]), "share", "lower", n, *wilson(hits, n), FALSE_ALARMS,
                    f"{note}; share of fit rows above {limit:.3g}, as are {FALSE_ALARMS:.0%} of the others; Wilson interval; real: that share",
                    permutation_p(found[0], found[1:])),
        ]  # fmt: skip


def attack(texts: Sequence[Words], asked: Sequence[Words]) -> np.ndarray:
    """(n,) for each text asked about: its log-likelihood under a model of `texts`, over its bytes after zlib.

    The bytes take out what makes a text likely in itself (Carlini et al. 2021, arXiv:2012.07805). Of the scores tried it was the best (LOG).
    """
    model = Ngram(texts, len({word for side in (texts, asked) for text in side for word in text}) + 1)
    return np.array([sum(model.scores(text)) / len(zlib.compress(" ".join(text).encode())) for text in asked])


def auc(scores: np.ndarray, n: int) -> np.ndarray:
    """(b, n + m) -> (b,): how often one of a row's first n scores is above one of the others, ties one half."""
    from scipy.stats import rankdata

    ranks = rankdata(scores, axis=1)[:, :n].sum(1)
    return np.asarray((ranks - n * (n + 1) / 2) / (n * (scores.shape[1] - n)))


def power(scores: np.ndarray, n: int) -> np.ndarray:
    """(b, n + m) -> (b,): share of a row's first n scores above the 1 - FALSE_ALARMS quantile of the others."""
    return np.asarray((scores[:, :n] > np.quantile(scores[:, n:], 1 - FALSE_ALARMS, axis=1, keepdims=True)).mean(1))


def exposures(sample: Sample, texts: Sequence[Words], seed: int) -> list[Measure]:
    """Exposure of each canary (Carlini et al. 2019, arXiv:1802.08232): log2 of the number of possible ends minus log2 of the planted one's rank.

    Where the kept rows know nothing of a canary its rank is uniform, and rank / number a p: Fisher's method joins them.
    """
    from scipy.stats import chi2

    units = {"canary_exposure": "bits", "canaries_found": "share"}
    if not sample.canaries or not texts:
        note = "no kept row" if sample.canaries else "no canary was planted: a run plants some where its [sample] has canaries = 5"
        return [Measure(name, None, unit, "lower", note=note) for name, unit in units.items()]
    asked = [[words(" ".join(part)) for part in halves(sample.task, e)] for e in sample.canaries]
    choices = [words(" ".join(end)) for end in ends(sample.task, sample.fit, ENDS, seed_for(seed, "canaries"))]
    model = Ngram(texts, len({word for text in (*texts, *choices, *(t for pair in asked for t in pair)) for word in text}) + 1)
    ranks = np.array([_rank(model, begin, end, choices) for begin, end in asked])
    all_ends, n = ENDS + 1, len(ranks)
    bits = math.log2(all_ends) - np.log2(ranks)
    picks = np.random.default_rng(seed_for(seed, "bits")).integers(n, size=(DRAWS, n))
    low, high = percentile_interval(bits[picks].mean(1))
    p = float(chi2.sf(-2 * np.log(ranks / all_ends).sum(), 2 * n))
    each = ranks / all_ends <= 0.01 / n
    shared = longest_runs([" ".join(end) for _, end in asked], [" ".join(text) for text in texts])
    rows = tuple(
        Evidence(f"{b:.1f} bits; {run} of the {len(end)} random words together in a kept row", real=e.id, split="canary", near=" ".join(end))
        for e, b, run, (_, end), found in zip(sample.canaries, bits, shared, asked, each, strict=True)
        if found
    )
    note = (
        f"mean over {n} canaries, each {sample.canary_repeats} times among the fit rows; at most {math.log2(all_ends):.0f}; bootstrap over canaries"
    )
    beside = math.log2(all_ends) - float(np.log2(np.arange(1, all_ends + 1)).mean())
    found_note = f"canaries whose p is at most 0.01 / {n}; Wilson interval; real: what chance gives at most"
    return [
        Measure("canary_exposure", float(bits.mean()), "bits", "lower", n, low, high, beside, f"{note}; real: of random ranks", p, rows),
        Measure("canaries_found", float(each.mean()), "share", "lower", n, *wilson(int(each.sum()), n), 0.01 / n, found_note),
    ]


def _rank(model: Ngram, begin: Words, end: Words, choices: Sequence[Words]) -> int:
    """The place of the planted end among all, by its likelihood a word behind the beginning; of equals the last."""
    own = _likelihood(model, begin, end)
    return 1 + sum(_likelihood(model, begin, other) >= own - 1e-12 for other in choices)


def _likelihood(model: Ngram, begin: Words, end: Words) -> float:
    return sum(model.scores(end, begin)) / max(1, len(end))

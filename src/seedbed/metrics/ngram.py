"""A language model of words that costs next to nothing to fit: what the audits read the kept rows with."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

ORDER = 5
BEGIN = "\0"


class Ngram:
    """Interpolated Witten-Bell smoothing (Bell, Cleary and Witten 1990; Chen and Goodman 1998): p(w | h) = (c(hw) + T(h) p(w | h')) / (c(h) + T(h)),
    T(h) the different words after h, h' one word shorter, and at last 1 / V. Deterministic; O(words * ORDER) in time and memory."""

    def __init__(self, texts: Sequence[Sequence[str]], vocabulary: int, order: int = ORDER) -> None:
        """texts: words of each. vocabulary: V, different words that can be asked about, unknown ones included."""
        self.order, self.vocabulary = order, max(1, vocabulary)
        self.counts: Counter[tuple[str, ...]] = Counter()
        for text in texts:
            padded = [BEGIN] * (order - 1) + list(text)
            for end in range(order - 1, len(padded)):
                self.counts.update(tuple(padded[start : end + 1]) for start in range(end - order + 1, end + 1))
        self.totals: Counter[tuple[str, ...]] = Counter()
        self.kinds: Counter[tuple[str, ...]] = Counter()
        for gram, count in self.counts.items():
            self.totals[gram[:-1]] += count
            self.kinds[gram[:-1]] += 1

    def scores(self, text: Sequence[str], begin: Sequence[str] = ()) -> list[float]:
        """Log-probability in nats of each word of the text, which stands behind `begin`."""
        padded = [*([BEGIN] * (self.order - 1)), *begin, *text]
        first = len(padded) - len(text)
        return [self._score(tuple(padded[end - self.order + 1 : end + 1])) for end in range(first, len(padded))]

    def _score(self, gram: tuple[str, ...]) -> float:
        p = 1 / self.vocabulary
        for start in range(len(gram) - 1, -1, -1):
            history = gram[start:-1]
            total = self.totals.get(history, 0)
            if not total:
                break  # a longer history was not seen either
            kinds = self.kinds[history]
            p = (self.counts.get(gram[start:], 0) + kinds * p) / (total + kinds)
        return math.log(p)

"""Text classifiers, as students and annotators use them: a logistic head on frozen features, or a fine-tuned encoder (lm/tune.py)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from seedbed.errors import ComponentError
from seedbed.types import Example

if TYPE_CHECKING:
    from seedbed.task import Task

Encode = Callable[[Sequence[Example]], Any]
"""Examples -> a feature matrix of n rows, dense or sparse."""
GRID = (0.1, 1.0, 10.0, 100.0)
"""Values of C, the inverse strength of the L2 penalty, from the strongest penalty to the weakest."""
DEFAULT_C = 10.0
"""C where there is no dev row to choose it by."""
ITERATIONS = 2000
SPANNED = 2000
"""Rows of sparse features that are rewritten in a basis of their span, at most: the basis costs the cube of the rows."""
TOLERANCE = 1e-4
"""Of a slope of the mean loss at the optimum, scikit-learn's own."""


@dataclass(frozen=True)
class Learner:
    """Settings of a classifier on a text encoder; what is shared by the components that train one.

    model: "minilm", a folder or a hub name. tune False: a logistic head on the frozen sentence features; the settings below then change
    nothing. tune True: all weights are trained by AdamW. epochs: at most. lr: the peak, reached after the share `warmup` of all steps,
    and 0 at the end. batch: rows of one step. patience: epochs without a better log-likelihood on dev before it stops.
    """

    model: str = "minilm"
    tune: bool = False
    epochs: Annotated[int, Field(ge=1)] = 10
    lr: Annotated[float, Field(gt=0)] = 3e-4
    batch: Annotated[int, Field(ge=1)] = 16
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    patience: Annotated[int, Field(ge=1)] = 3

    def learned(self, where: str, task: Task, examples: Sequence[Example], dev: Sequence[Example], seed: int) -> Learned:
        """Trains on the examples; dev makes the choices. where: the recipe's section, for messages. Raises ComponentError, ModelError."""
        lesson = lesson_of(where, task, examples)
        if not self.tune or len(lesson.labels) == 1:
            return head(Sentences(task, self.model), task, lesson, dev)
        from seedbed.lm.tune import tune

        return tune(self, where, task, lesson, dev, seed)


@dataclass(frozen=True)
class Learned:
    """A trained classifier. labels: sorted, those that some training row has. model: what was trained; None where there is one label.

    read: examples -> float (n, labels), 0 or more. cut: how many of the examples are longer than the model can read.
    facts: what the training chose, as plain values.
    """

    labels: tuple[str, ...]
    model: Any
    read: Encode
    cut: Callable[[Sequence[Example]], int] = lambda examples: 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    def probabilities(self, examples: Sequence[Example]) -> np.ndarray:
        """float64 (n, labels), in the order of `labels`; rows sum to 1."""
        if self.model is None or not examples:
            return np.ones((len(examples), len(self.labels)))
        found = np.asarray(self.read(examples), dtype=np.float64)
        return np.asarray(found / found.sum(axis=1, keepdims=True))  # in float32 a sum is 1 to seven digits only

    def predict(self, examples: Sequence[Example]) -> list[str]:
        """The likeliest label of each; of equally likely ones the first."""
        return [self.labels[i] for i in self.probabilities(examples).argmax(axis=1)]


@dataclass(frozen=True)
class Lesson:
    """Training rows. weights: float64 (n, labels), each row's weight times its distribution over the sorted labels."""

    rows: tuple[Example, ...]
    labels: tuple[str, ...]
    weights: np.ndarray


def unsupported(what: str, task: Task) -> str:
    """Why `what` cannot learn the task, or "" for a task with labels."""
    return "" if task.has_labels else f"the {what} predicts labels, and a {task.kind} task has none"


def lesson_of(where: str, task: Task, examples: Sequence[Example]) -> Lesson:
    """Rows of weight 0 are left out; a row's distribution is its `target_probs`, or all on its target.

    Raises ComponentError: a task without labels, no row, a negative weight or probability, a distribution of sum 0.
    """
    if not task.has_labels:
        raise ComponentError(
            f"{where} {unsupported(where.strip('[]'), task)}. Allowed kinds: classification, pair, qa. Choose another {where.strip('[]')}."
        )
    lightest = min((e.weight for e in examples), default=0.0)
    if lightest < 0:
        raise ComponentError(f"{where} the weight of a training row must be 0 or more. Got {lightest}.")
    rows = tuple(e for e in examples if e.weight > 0)
    if not rows:
        raise ComponentError(f"{where} needs a training row whose weight is above 0. Got none among {len(examples)}.")
    targets = [dict(e.target_probs) if e.target_probs is not None else {str(e.fields[str(task.target)]): 1.0} for e in rows]
    for row, target in zip(rows, targets, strict=True):
        if min(target.values(), default=0.0) < 0 or not sum(target.values()) > 0:
            raise ComponentError(f"{where} target_probs of row {row.id!r} must be 0 or more, with a sum above 0. Got {target}.")
    labels = tuple(sorted({label for target in targets for label, p in target.items() if p > 0}))
    place = {label: i for i, label in enumerate(labels)}
    weights = np.zeros((len(rows), len(labels)))
    for i, (row, target) in enumerate(zip(rows, targets, strict=True)):
        total = sum(target.values())
        for label, p in target.items():
            if p > 0:
                weights[i, place[label]] = row.weight * p / total
    return Lesson(rows, labels, weights)


def known_targets(task: Task, labels: Sequence[str], dev: Sequence[Example]) -> tuple[list[Example], list[int]]:
    """(the dev rows whose target is one of the labels, its place among them)."""
    place = {label: i for i, label in enumerate(labels)}
    known = [e for e in dev if str(e.fields[str(task.target)]) in place]
    return known, [place[str(e.fields[str(task.target)])] for e in known]


@dataclass(frozen=True)
class Sentences:
    """Examples -> float32 (n, width) from a sentence encoder. Columns apart: joined, a long passage would push out its question.

    One embedding of each input column and, of neighbouring columns u and v, |u - v| and u * v (InferSent, Conneau et al. 2017).
    """

    task: Task
    model: str = "minilm"

    def __call__(self, examples: Sequence[Example]) -> np.ndarray:
        from seedbed.lm.embed import embed

        columns = [embed([str(e.fields[name]) for e in examples], self.model) for name in self.task.inputs]
        neighbours = list(pairwise(columns))
        return np.hstack([*columns, *(np.abs(u - v) for u, v in neighbours), *(u * v for u, v in neighbours)])

    def cut(self, examples: Sequence[Example]) -> int:
        """How many of the examples have a column that is longer than the encoder reads."""
        from seedbed.lm.embed import longer

        columns = [longer([str(e.fields[name]) for e in examples], self.model) for name in self.task.inputs]
        return sum(map(any, zip(*columns, strict=True)))


@dataclass(frozen=True)
class Softmax:
    """A multinomial logistic regression. coef: (d, labels); intercept: (labels,); C: the inverse strength of its L2 penalty."""

    coef: np.ndarray
    intercept: np.ndarray
    C: float

    def predict_log_proba(self, features: Any) -> np.ndarray:
        """float64 (n, labels)."""
        logits = features @ self.coef + self.intercept
        return np.asarray(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))

    def predict_proba(self, features: Any) -> np.ndarray:
        return np.asarray(np.exp(self.predict_log_proba(features)))

    @staticmethod
    def fit(features: Any, weights: np.ndarray, c: float) -> Softmax:
        """The minimum of scikit-learn's objective, C times the weighted cross-entropy plus half the squared coefficients, for targets that
        are distributions. features: (n, d), dense or sparse; weights: (n, labels), each row's weight times its distribution."""
        from scipy.optimize import minimize

        labels, width = weights.shape[1], features.shape[1]
        total = weights.sum(axis=1, keepdims=True)
        size = total.sum()  # of a mean, as scikit-learn's tolerance is

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            model = Softmax(flat[:-labels].reshape(width, labels), flat[-labels:], c)
            logs = model.predict_log_proba(features)
            slope = (np.exp(logs) * total - weights) / size
            to_coef = features.T @ slope + model.coef / (c * size)
            value = -(weights * logs).sum() / size + 0.5 * (model.coef**2).sum() / (c * size)
            return float(value), np.concatenate([np.asarray(to_coef).ravel(), slope.sum(axis=0)])

        start = np.zeros((width + 1) * labels)
        options = {"maxiter": ITERATIONS, "maxls": 50, "gtol": TOLERANCE, "ftol": 64 * np.finfo(float).eps}
        flat = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
        return Softmax(flat[:-labels].reshape(width, labels), flat[-labels:], c)


@dataclass(frozen=True)
class _Terms:
    """Examples -> sparse float (n, terms); the terms and their idf come from the training rows alone."""

    task: Task
    union: Any

    def __call__(self, examples: Sequence[Example]) -> Any:
        return self.union.transform([self.task.input_text(e) for e in examples])


def tfidf(task: Task, rows: Sequence[Example]) -> Encode:
    """Features of words, pairs of words, and 3 to 5 letters within words; the terms and their idf are the rows'."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    # Marks count as words, so that a text of nothing but marks still has a term.
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\w+|[^\w\s]", sublinear_tf=True)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    return _Terms(task, make_union(words, letters).fit([task.input_text(e) for e in rows]))


def spanned(features: Any) -> tuple[Any, Callable[[np.ndarray], np.ndarray]]:
    """(features in a basis of the rows' span, what takes coefficients there (width, labels) back to (terms, labels)).

    With an L2 penalty the best coefficients are sums of rows (the representer theorem, Kimeldorf and Wahba 1971), so a few hundred rows of many
    thousand terms are a few hundred numbers each, and L-BFGS takes the same steps 3 to 10 times as fast. Dense features, and many rows, stay as
    they are.
    """
    rows, terms = features.shape
    if isinstance(features, np.ndarray) or rows > min(terms, SPANNED):
        return features, lambda coef: coef
    values, vectors = np.linalg.eigh((features @ features.T).toarray())
    there = values > 1e-12 * values.max()
    basis, roots = vectors[:, there], np.sqrt(values[there])
    return basis * roots, lambda coef: np.asarray(features.T @ (basis / roots @ coef))


def head(encode: Encode, task: Task, lesson: Lesson, dev: Sequence[Example]) -> Learned:
    """The logistic regression on features whose C, of `GRID`, gives dev the best log-likelihood; dev rows of unknown labels do not count.

    Where rows have several possible labels, it is cross-entropy against their distributions. Not accuracy on dev: with 20 dev rows that
    chose a C over 3 points short of the best in 23 % of 120 draws of SLURP, likelihood in 1 %. No randomness: the optimum is unique and
    L-BFGS draws no number.
    """
    from sklearn.linear_model import LogisticRegression

    if len(lesson.labels) == 1:
        return Learned(lesson.labels, None, encode)
    row, label = np.nonzero(lesson.weights)
    features, back = spanned(encode(lesson.rows))
    answers, weights = np.array(lesson.labels)[label], lesson.weights[row, label]
    soft = len(row) > len(lesson.rows) and len(lesson.labels) > 2

    def at(c: float) -> Any:
        if soft:  # a row that stands once for each of sixty labels would take sixty times as long
            found = Softmax.fit(features, lesson.weights, c)
            return replace(found, coef=back(found.coef))
        with warnings.catch_warnings():
            # Sixty labels and a hundred rows are the usual case here, and no regression by mistake.
            warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
            model = LogisticRegression(C=c, max_iter=ITERATIONS).fit(features[row], answers, sample_weight=weights)
        model.coef_ = back(model.coef_.T).T
        model.n_features_in_ = model.coef_.shape[1]
        return model

    known, right = known_targets(task, lesson.labels, dev)
    if known:
        seen, models = encode(known), [at(c) for c in GRID]
        fits = [float(model.predict_log_proba(seen)[range(len(known)), right].sum()) for model in models]
        model = models[fits.index(max(fits))]
    else:
        model = at(DEFAULT_C)
    cut = encode.cut if isinstance(encode, Sentences) else lambda examples: 0
    return Learned(lesson.labels, model, lambda examples: model.predict_proba(encode(examples)), cut, {"C": model.C})

"""Fine-tuned teachers (Kaddour and Liu, arXiv 2310.01119): a language model tuned on the sample's texts, which both writes rows and answers them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from seedbed.errors import ComponentError, DataError
from seedbed.generators.steered import first_mark
from seedbed.limits import NEVER, Deadline
from seedbed.store import read_json, read_lines, write_json, write_lines
from seedbed.task import Task, read_candidate
from seedbed.types import Candidate, Example, Fields, ModelRef, Prompt, Row, Sample, seed_for

if TYPE_CHECKING:
    from seedbed.lm.batches import Text
    from seedbed.lm.finetune import Tuned
    from seedbed.lm.load import LM

LR = {"lora": 0.002, "full": 0.0003}
DEV_TEXTS = 512
"""Dev rows that the loss is read on, at most."""


@dataclass(frozen=True)
class Finetune:
    """A language model tuned on the fit rows' texts, with loss on inputs and targets alike: one teacher makes new rows and answers given ones.

    method: "lora" (an adapter in PEFT's format) or "full" (all weights, a whole model folder). rank, alpha, dropout, targets: of LoRA; targets
    are names of modules, and "auto" stands for all linear layers of the blocks. epochs, patience (in evaluations), batch, lr, weight_decay,
    warmup (steps): of the fit; without lr it is 0.002 for LoRA and 0.0003 for all weights, chosen on seedling: large models want less. order: of
    a task with labels, "input-first" (He et al. 2022 found it the better one, with the label given again by an annotator) or "label-first".
    labels: "free", the teacher writes the label; "sample" and "uniform", each row is given one, in the sample's shares or equally many of each in
    it; these need label-first. load_in: "4bit" or "8bit", the frozen weights while LoRA learns, on CUDA alone.
    """

    version: ClassVar[int] = 2
    answers: ClassVar[bool] = True

    method: Literal["lora", "full"] = "lora"
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    targets: tuple[str, ...] = ("auto",)
    epochs: Annotated[int, Field(ge=1)] = 20
    patience: Annotated[int, Field(ge=1)] = 3
    batch: Annotated[int, Field(ge=1)] = 16
    lr: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Annotated[int, Field(ge=0)] = 30
    order: Literal["input-first", "label-first"] = "input-first"
    labels: Literal["free", "sample", "uniform"] = "free"
    load_in: Literal["4bit", "8bit"] | None = None

    def __post_init__(self) -> None:
        if self.labels != "free" and self.order != "label-first":
            raise ValueError(f'labels = "{self.labels}" gives each row its label, which must then stand first: order = "label-first"')
        if self.load_in and self.method == "full":
            raise ValueError(f'load_in = "{self.load_in}" is for weights that stay frozen: method = "lora"')
        if not self.targets:
            raise ValueError('targets must name at least one module, or be ["auto"]')

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"text", "adapter"} if self.method == "lora" else {"text"})

    def supports(self, task: Task) -> str:
        """The reason why not, or ""."""
        given = self.labels != "free" and not task.has_labels
        return f'labels = "{self.labels}" gives each row a label, and a {task.kind} task has none; set labels = "free"' if given else ""

    def fit(self, sample: Sample, model: str, seed: int, out: Path, deadline: Deadline = NEVER) -> dict[str, Any]:
        """Writes adapter/ or model/, finetune.json (settings and hashes), sources.jsonl and training.json; a fit that the deadline cuts keeps its
        best so far and a checkpoint to go on from. Raises DataError: too few rows fit the context; what `lm.finetune` raises."""
        from seedbed.lm import finetune

        task = sample.task
        if reason := self.supports(task):
            raise ComponentError(f"[generator] {reason}.")
        lm = finetune.own(model, self.method, self.load_in)
        (fit, texts), (dev, dev_texts) = self._encode(lm, task, sample.fit), self._encode(lm, task, sample.dev[:DEV_TEXTS])
        if len(fit) < 2 or not dev:
            raise DataError(
                f"[sample] {len(fit)} of {len(sample.fit)} fit rows and {len(dev)} of {len(sample.dev)} dev rows fit into the "
                f"{lm.context - 1} tokens that {model!r} leaves. At least 2 and 1 are needed: use shorter texts or a model with a longer context."
            )
        how = finetune.Tuning(
            self.epochs, self.patience, self.batch, self.warmup, method=self.method, lr=self.lr or LR[self.method],
            weight_decay=self.weight_decay, rank=self.rank, alpha=self.alpha, dropout=self.dropout, targets=self.targets,
        )  # fmt: skip
        tuned = finetune.tune_lm(lm, texts, dev_texts, how, seed_for(seed, "fit"), out / f"checkpoint-{self.method}.safetensors", deadline)
        too_long = {"fit": len(sample.fit) - len(fit), "dev": len(sample.dev[:DEV_TEXTS]) - len(dev)}
        return self._write(out, tuned, model, [self._source(task, e) for e in fit], too_long)

    def load(self, folder: Path, task: Task, model: str) -> FinetuneTeacher:
        ref = ModelRef(model, adapter=folder / "adapter") if self.method == "lora" else ModelRef(str(folder / "model"))
        headed = bool(read_json(folder / "finetune.json").get("headed"))  # version 1 had to write every heading itself
        return FinetuneTeacher(ref, _ordered(task, self.order), self.labels, self.method, model, folder, headed)

    def splits(self, task: Task, fields: Fields) -> list[tuple[str, ...]]:
        """What a row is learned as: (what is given, the pieces of what is not). Where making a row and answering it read alike, one text serves
        both; where they do not (label first), the row stands twice. A piece ends where an annotator's question, or that for a text, does."""
        task = _ordered(task, self.order)
        made = task.known(dict.fromkeys((*task.given_columns, *([str(task.target)] if self.labels != "free" else []))))
        given, target = made.split(fields)
        if task.target is None:
            return [(given, target)]
        asked = task.known(dict.fromkeys((*task.inputs, *(c for c in task.given_columns if c != task.target))))
        known, answer = asked.split(fields)
        mark = first_mark(asked)
        last = answer.removeprefix(mark)
        if given + target != known + answer:
            return [(given, target), (known, mark, last)]
        if _heads(task, made.given_columns):
            given += mark
        return [(given, (known + mark)[len(given) :], last)]

    def _encode(self, lm: LM, task: Task, examples: tuple[Example, ...]) -> tuple[list[Example], list[Text]]:
        """The examples whose texts, begin-of-text included, fit the context; and their texts."""
        from seedbed.lm.batches import Text

        rows, texts = [], []
        for e in examples:
            pieces = [[lm.encode(part) if part else [] for part in split] for split in self.splits(task, e.fields)]
            found = [Text(tuple(given), (*(i for piece in rest for i in piece), lm.eos)) for given, *rest in pieces]
            if max(map(len, found)) < lm.context:
                rows.append(e)
                texts += found
        return rows, texts

    def _source(self, task: Task, example: Example) -> dict[str, Any]:
        fields = example.fields
        texts = ["".join(split) for split in self.splits(task, fields)]
        label = {"label": str(fields[str(task.target)])} if task.has_labels else {}
        return {"id": example.id, "texts": texts, "given": {c: fields[c] for c in task.given_columns}} | label

    def _write(self, out: Path, tuned: Tuned, model: str, sources: list[dict[str, Any]], too_long: dict[str, int]) -> dict[str, Any]:
        place = out / ("adapter" if self.method == "lora" else "model")
        place.mkdir(exist_ok=True)
        tuned.save(place, model)
        best, last = min(tuned.log, key=lambda entry: entry["dev"]), tuned.log[-1]
        form = {"dev": best["dev"], "train": best["train"], "epoch": best["epoch"], "parameters": tuned.parameters, "log": tuned.log}
        cut: dict[str, Any] = {self.method: {"step": last["step"], "of": last["cut"]}} if "cut" in last else {}
        forms = {"none": {"dev": tuned.before}, self.method: form}
        write_json(out / "training.json", {"chosen": self.method, "unit": "nats a token", "forms": forms} | ({"cut": cut} if cut else {}))
        write_lines(out / "sources.jsonl", sources)
        lora = {"rank": self.rank, "alpha": self.alpha, "targets": self.targets, "load_in": self.load_in} if self.method == "lora" else {}
        facts = {"method": self.method, "model": model, "model_hash": tuned.lm.hash, "order": self.order, "labels": self.labels, "headed": True}
        write_json(out / "finetune.json", facts | lora | {"too_long": too_long})
        for checkpoint in () if cut else out.glob("checkpoint-*"):
            checkpoint.unlink()
        return cut


@dataclass(frozen=True)
class FinetuneTeacher:
    """Asks a tuned model to go on: from nothing, from given columns, from a label, or from all inputs. base: the model before. headed: a text that
    all inputs are given for is asked with its heading, as it was learned."""

    model: ModelRef
    task: Task
    labels: Literal["free", "sample", "uniform"]
    method: str
    base: str
    folder: Path
    headed: bool = True

    @cached_property
    def sources(self) -> list[dict[str, Any]]:
        return read_lines(self.folder / "sources.jsonl")

    def rows(self, sample: Sample, count: int, seed: int) -> Iterator[Row]:
        """Given columns, and labels in the sample's shares, come from the fit examples: round r is a permutation of all."""
        import numpy as np

        n, labels = len(self.sources), sorted({source["label"] for source in self.sources} if self.labels == "uniform" else ())
        for start in range(0, count, n):
            order = np.random.default_rng(seed_for(seed, "round", start // n)).permutation(n).tolist()
            for index, place in zip(range(start, min(start + n, count)), order, strict=False):
                source = self.sources[place]
                given = dict(source["given"])
                if self.labels == "sample":
                    given[str(self.task.target)] = source["label"]
                if self.labels == "uniform":
                    turn, which = divmod(index, len(labels))
                    given[str(self.task.target)] = labels[np.random.default_rng(seed_for(seed, "labels", turn)).permutation(len(labels))[which]]
                yield Row(index, seed_for(seed, "row", index), given, source["id"])

    def prompt(self, row: Row) -> Prompt | None:
        if row.turns:
            return None
        adapter = str(self.model.adapter) if self.model.adapter else None
        return Prompt(self._asked(row), row.seed, adapter=adapter)

    def _asked(self, row: Row) -> str:
        task = self.task.known(row.given)
        return task.prefix(row.given) + (first_mark(task) if self.headed and _heads(task, row.given) else "")

    def read(self, row: Row) -> list[Candidate]:
        provenance = {"generator": "finetune", "form": self.method, "model": self.base, "sources": [row.source], "weights": [1.0]}
        turn, task = row.turns[0], self.task.known(row.given)
        return [read_candidate(task, row, self._asked(row) + turn.text, turn.finished, provenance)]


def _heads(task: Task, given: Iterable[str]) -> bool:
    """Whether a question with these columns given ends in the heading of its answer: a text whose inputs are all there. A label's annotator adds
    the heading itself."""
    return bool(task.target) and not task.has_labels and set(task.inputs) <= set(given)


def _ordered(task: Task, order: str) -> Task:
    return replace(task, label_first=order == "label-first") if task.has_labels else task

"""General text from a language model itself, for an embedding decoder to learn from where no corpus is at hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from seedbed.engines.local import Local
from seedbed.errors import DataError, ModelError, StoreError
from seedbed.lm.load import usual_device
from seedbed.lm.passages import END
from seedbed.lm.pretrain import CHECKPOINT
from seedbed.progress import bar
from seedbed.store import Journal, Store, fingerprint, write_text
from seedbed.types import ModelRef, Prompt, Sampling, seed_for

DOCUMENTS = 4096
"""Each gives a decoder one or two passages."""
SAMPLING = Sampling(temperature=1.0, max_tokens=112)


def write_corpus(model: str, folder: Path, count: int = DOCUMENTS, say: Callable[[str], None] = lambda line: None) -> Path:
    """The file of `count` texts that `model` draws from nothing (its begin-of-text), written in `folder` by the first call.

    A call that was stopped goes on with the texts that it did not finish, to the same bytes on the same machine. Raises DataError where the model
    writes nothing, ModelError where the folder holds the training on another text, StoreError where what an earlier call kept is damaged.
    """
    session = Local(precision="fp32" if usual_device() == "cpu" else "bf16").open(ModelRef(model))
    path = folder / f"written-{fingerprint(session.describe()['model_hash'], SAMPLING, count)}.txt"
    with Store(folder).held():
        if path.exists():
            return path
        if (folder / CHECKPOINT).exists():
            raise ModelError(f"{folder.parent} holds training on another text. Name it again (--corpus), give another --out, or remove the folder.")
        say(f"no --corpus: {model} writes {count:,} texts of its own first")
        with closing(Journal(path.with_suffix(".journal"))) as journal, bar("write", count) as update:
            texts = dict(_kept(record, count, journal.path) for record in journal.records)
            asked = ((i, Prompt("", seed_for(0, "corpus", i))) for i in range(count) if i not in texts)
            for i, found in session.complete(asked, SAMPLING):
                texts[i] = _whole(found.text, found.finished)
                journal.write({"document": i, "text": texts[i]})
                update(len(texts), "")
        if not any(texts.values()):
            raise DataError(f"{model} ended each of {count} texts before it wrote a word; give general text: --corpus FILE.")
        write_text(path, "".join(f"{texts[i]}\n{END}\n" for i in range(count)))
        journal.path.unlink()
    return path


def _kept(record: Any, count: int, path: Path) -> tuple[int, str]:
    """(document, text) of a line of the journal."""
    match record:
        case {"document": int(i), "text": str(text)} if i in range(count):
            return i, text
    raise StoreError(f"{path} holds no texts of a model: {record!r:.80}. Remove this file and run again.")


def _whole(text: str, finished: bool) -> str:
    """One document: without blank lines, and without its last sentence where it was cut off in it."""
    text = "\n".join(line.strip() for line in text.replace(END, " ").splitlines() if line.strip())
    return text if finished else text[: max(text.rfind(mark) for mark in ".!?\n") + 1].strip() or text

"""General text from a language model itself, for an embedding decoder to learn from where no corpus is at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from seedbed.engines.local import Local
from seedbed.errors import DataError, ModelError
from seedbed.lm.load import usual_device
from seedbed.lm.passages import END
from seedbed.lm.pretrain import CHECKPOINT
from seedbed.progress import bar
from seedbed.store import fingerprint
from seedbed.types import ModelRef, Prompt, Sampling, seed_for

DOCUMENTS = 4096
"""Each gives a decoder one or two passages."""
TOGETHER = 128
"""Documents that are written, and then kept, together."""
SAMPLING = Sampling(temperature=1.0, max_tokens=112)


def write_corpus(model: str, folder: Path, count: int = DOCUMENTS, say: Callable[[str], None] = lambda line: None) -> Path:
    """The file of `count` texts that `model` draws from nothing (its begin-of-text), written in `folder` by the first call.

    A call that was stopped goes on behind the last texts that it kept, to the same bytes on the same machine. Raises DataError where the model
    writes nothing, ModelError where the folder holds the training on another text.
    """
    session = Local(precision="fp32" if usual_device() == "cpu" else "bf16").open(ModelRef(model))
    path = folder / f"written-{fingerprint(session.describe()['model_hash'], SAMPLING, count)[:12]}.txt"
    partial = path.with_suffix(".partial")
    if path.exists():
        return path
    if (folder / CHECKPOINT).exists():
        raise ModelError(f"{folder.parent} holds training on another text. Name it again (--corpus), give another --out, or remove the folder.")
    folder.mkdir(parents=True, exist_ok=True)
    done = _kept(partial)
    say(f"no --corpus: {model} writes {count:,} texts of its own first")
    with bar("write", count) as update:
        while done < count:
            keys = range(done, min(done + TOGETHER, count))
            texts = dict(session.complete(((i, Prompt("", seed_for(0, "corpus", i))) for i in keys), SAMPLING))
            with partial.open("a", encoding="utf-8", newline="\n") as file:
                file.write("".join(f"{_whole(texts[i].text, texts[i].finished)}\n{END}\n" for i in keys))
            done = keys.stop
            update(done, "")
    if not partial.read_text(encoding="utf-8").replace(END, "").strip():
        raise DataError(f"{model} ended each of {count} texts before it wrote a word; give general text: --corpus FILE.")
    partial.replace(path)
    return path


def _kept(partial: Path) -> int:
    """Documents of a file that a call left unfinished; what stands behind the last whole one is cut off."""
    if not partial.exists():
        return 0
    text = partial.read_text(encoding="utf-8", errors="replace")
    count = text.count(f"{END}\n")
    partial.write_text(text[: text.rfind(f"{END}\n") + len(END) + 1] if count else "", encoding="utf-8", newline="\n")
    return count


def _whole(text: str, finished: bool) -> str:
    """One document: without blank lines, and without its last sentence where it was cut off in it."""
    text = "\n".join(line.strip() for line in text.replace(END, " ").splitlines() if line.strip())
    return text if finished else text[: max(text.rfind(mark) for mark in ".!?\n") + 1].strip() or text

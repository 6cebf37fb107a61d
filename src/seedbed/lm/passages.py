"""Sentences and short passages of a general corpus, as an embedding decoder learns from them: many lengths, domains and forms."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from seedbed.errors import DataError
from seedbed.types import seed_for

END = "<|endoftext|>"
HELD_OUT = 20
"""One document in so many is held out, by a hash of its text."""
BLOCK = 10
"""Sentences of a document, at most: a longer one counts as several."""
WORDS = (3, 80)
"""Words of a passage."""
SENTENCES = (1, 1, 1, 1, 1, 2, 2, 2, 3, 4)
"""Of a passage, drawn uniformly."""
BARE = 0.15
"""Share of passages in lower case without punctuation, as people type."""
HEADED = 0.4
"""Share of passages that stand behind the fields of a record."""
_BREAK = re.compile(r"(?<=[.!?])\s+|\n+")
_SPEAKER = re.compile(r"^[A-Z][a-z]{0,12}: ")
_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True)
class Passage:
    """text: what is embedded and decoded. given: what stands between the soft prompt and the text, without loss: fields of a record, or ""."""

    text: str
    given: str = ""

    @property
    def split(self) -> tuple[str, str]:
        """As `Task.split` gives it: after a field's name a space follows, which belongs to the text's first token."""
        return self.given, " " * bool(self.given) + self.text


def passages(corpus: Sequence[Path], count: int, held_out: int, seed: int) -> tuple[list[Passage], list[Passage]]:
    """(`count` passages to train on, `held_out` ones of other documents) from the corpus' first documents; fewer where it is small.

    corpus: .txt, .txt.gz or .txt.xz in UTF-8; documents end with a blank line or a line `<|endoftext|>`. Raises DataError where it has too few.
    """
    found: tuple[list[Passage], list[Passage]] = ([], [])
    wanted, seen = (count, held_out), set[str]()
    for number, document in enumerate(_documents(corpus)):
        apart = int(hashlib.blake2b("\n".join(document).encode(), digest_size=8).hexdigest(), 16) % HELD_OUT == 0
        for passage in _cut(document, random.Random(seed_for(seed, "document", number))):
            if len(found[apart]) < wanted[apart] and passage.text not in seen:
                seen.add(passage.text)
                found[apart].append(passage)
        if len(found[0]) >= count and len(found[1]) >= held_out:
            break
    if min(map(len, found)) < 2:
        places = ", ".join(str(path) for path in corpus)
        raise DataError(f"{places}: {len(found[0])} passages to train on and {len(found[1])} held-out ones; 2 and 2 are the least. Add text.")
    return found


def _documents(corpus: Sequence[Path]) -> Iterator[list[str]]:
    """Each as its sentences."""
    for path in corpus:
        with _opened(path) as file:
            try:
                for document in _split(file):
                    sentences = [_SPEAKER.sub("", s.strip()) for s in _BREAK.split(document) if s.strip()]
                    yield from (sentences[i : i + BLOCK] for i in range(0, len(sentences), BLOCK))
            except UnicodeDecodeError as error:
                raise DataError(f"{path}: is not UTF-8 text (byte {error.start} of what was read at once). Convert it, or give another.") from error


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8", newline="\n")
    return gzip.open(path, "rt", encoding="utf-8", newline="\n") if path.suffix == ".gz" else path.open(encoding="utf-8", newline="\n")


def _split(lines: Iterable[str]) -> Iterator[str]:
    held: list[str] = []
    for line in lines:
        if line.strip() not in ("", END):
            held.append(line)
        elif held:
            yield "".join(held)
            held = []
    if held:
        yield "".join(held)


def _cut(sentences: Sequence[str], rng: random.Random) -> Iterator[Passage]:
    """One passage, of a long document two."""
    for _ in range(1 + (len(sentences) > 4)):
        start, size = rng.randrange(len(sentences)), rng.choice(SENTENCES)
        words = " ".join(sentences[start : start + size]).split()[: WORDS[1]]
        text = " ".join(words)
        if rng.random() < BARE:
            text = " ".join("".join(c for c in text.lower() if c.isalnum() or c in " '").split())
        given = _header(sentences[start - 1] if start else "", " ".join(sentences), rng) if rng.random() < HEADED else ""
        if len(words) >= WORDS[0] and text:
            yield Passage(text, given)


def _header(before: str, document: str, rng: random.Random) -> str:
    """`Name: value` and `Name:`, names being words of the document: as `Task.split` writes a record, but for what the names say."""
    words = _WORD.findall(document) or ["text"]
    first, second = (rng.choice(words).capitalize() for _ in range(2))
    value = before if before and rng.random() < 0.3 else "_".join(rng.choice(words).lower() for _ in range(rng.choice((1, 2))))
    return f"{first}: {value}\n{second}:" if rng.random() < 0.8 else f"{second}:"

"""Candidates that repeat an earlier one."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
import weakref
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from seedbed.store import Lines
from seedbed.text import SHINGLE, jaccard, normalise, shingles
from seedbed.types import Candidate, Sample, Verdict

if TYPE_CHECKING:
    import numpy as np

KEEP, NEAR, EXACT = Verdict(True), Verdict(False, "near duplicate"), Verdict(False, "exact duplicate")
MISSED = 0.001
"""Chance that a pair just at the threshold is overlooked, at most."""
PERMUTATIONS = 320
"""At most so many hash functions a text; more make rows longer, so that fewer unlike texts are looked at."""
BLOCK = 2**14
"""Texts that are hashed together, and judged together where they have few pairs."""
PAIRS = 2**20
"""Pairs looked at together; a block of texts with more is halved."""
WORDS = 4
"""64-bit words of a text's sketch: bit i tells whether it has an odd number of shingles with that bit's hash."""
FACTORS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1)
"""Odd numbers that a shingle's letters are multiplied by."""


@dataclass(frozen=True)
class Dedup:
    """Drops a candidate that is equal or nearly equal to one kept before it; labels do not make a difference.

    threshold: Jaccard similarity of the sets of 5-character shingles from which two texts count as nearly equal, in [0.1, 1]. Two
    candidates are compared by their generated text, and only where their given fields are the same. MinHash LSH proposes pairs and the
    exact similarity decides, so judging the kept ones again drops nothing. Candidates without fields are kept.
    """

    version: ClassVar[int] = 2
    scope: ClassVar[Literal["row", "set"]] = "set"

    threshold: Annotated[float, Field(ge=0.1, le=1)] = 0.8

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        import numpy as np

        with _scratch(candidates) as folder:
            texts = Texts(folder / "texts")
            keys, salts, places = bytearray(), array("I"), array("q")
            for i, c in enumerate(candidates):
                if c.fields is None:
                    continue
                given, text = normalise(sample.task.prefix(c.fields)).encode("utf-8", "surrogatepass"), normalise(sample.task.body(c.fields))
                texts.add(text)
                keys += hashlib.blake2b(given + b"\0" + text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
                salts.append(zlib.crc32(given))
                places.append(i)
            firsts, first_of = _firsts(np.frombuffer(keys, dtype=np.uint64).reshape(-1, 2))
            near = _near(texts.take(firsts), np.array(salts, dtype=np.uint32)[firsts], self.threshold, folder)
        verdicts = [KEEP] * len(candidates)
        for at, (place, first) in enumerate(zip(places, first_of.tolist(), strict=True)):
            if near[first]:
                verdicts[place] = NEAR
            elif firsts[first] < at:
                verdicts[place] = EXACT
        return verdicts


@contextmanager
def _scratch(candidates: Sequence[Candidate]) -> Iterator[Path]:
    """A folder to work in: beside the candidates where they wait on disk, since what is written grows with them."""
    beside = candidates.path.parent if isinstance(candidates, Lines) else None
    with tempfile.TemporaryDirectory(dir=beside) as folder:
        yield Path(folder)


class Texts:
    """Texts that wait in a file, each read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.file, self.ends = path.open("w+b"), array("q", [0])
        self.places: np.ndarray | None = None
        weakref.finalize(self, self.file.close)

    def add(self, text: str) -> None:
        self.ends.append(self.ends[-1] + self.file.write(text.encode("utf-8", "surrogatepass")))

    def take(self, places: np.ndarray) -> Texts:
        """From now on only those at the places, and no more are added."""
        self.file.flush()
        self.places = places
        return self

    def __len__(self) -> int:
        return len(self.ends) - 1 if self.places is None else len(self.places)

    def __getitem__(self, i: int) -> str:
        at = i if self.places is None else int(self.places[i])
        return os.pread(self.file.fileno(), self.ends[at + 1] - self.ends[at], self.ends[at]).decode("utf-8", "surrogatepass")


def _firsts(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of keys (n, 2): the places of those unlike all before (m,), in order; and for each key (n,), which of these it equals."""
    import numpy as np

    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: the first of equal ones comes first
    ranked = keys[order]
    new = np.ones(len(keys), dtype=bool)
    new[1:] = (ranked[1:] != ranked[:-1]).any(1)
    heads = np.sort(order[new])
    first_of = np.empty(len(keys), dtype=np.int64)
    first_of[order] = np.searchsorted(heads, order[new])[np.cumsum(new) - 1]
    return heads, first_of


def near_duplicates(texts: Sequence[str], groups: Sequence[str], threshold: float) -> list[bool]:
    """For each of the normalised texts, whether its Jaccard similarity to an earlier text of its group that was not itself one is enough.

    Looked at are pairs that share a band of MinHash values (Leskovec et al. 2014, 3.4); a sketch of the symmetric difference drops most that
    cannot be similar enough, and the rest are compared exactly.
    """
    import numpy as np

    salts = np.array([zlib.crc32(group.encode("utf-8", "surrogatepass")) for group in groups], dtype=np.uint32)
    with tempfile.TemporaryDirectory() as folder:
        return _near(texts, salts, threshold, Path(folder))


def _near(texts: Sequence[str] | Texts, salts: np.ndarray, threshold: float, folder: Path) -> list[bool]:
    import numpy as np

    dropped = np.zeros(len(texts), dtype=bool)
    if len(texts) > 1:
        join = _Join(texts, salts, threshold, folder)
        for start in range(0, len(texts), BLOCK):
            join.block(start, min(start + BLOCK, len(texts)), dropped)
    found: list[bool] = dropped.tolist()
    return found


def banding(threshold: float) -> tuple[int, int]:
    """(bands, rows): the longest rows that overlook a pair at the threshold with a chance of MISSED at most, within PERMUTATIONS.

    A pair of similarity s shares a band with probability 1 - (1 - s^rows)^bands.
    """
    best = (1, 16)  # at threshold 1 no pair can be missed
    for rows in range(1, 17 if threshold < 1 else 0):
        bands = math.ceil(math.log(MISSED) / math.log1p(-(threshold**rows)))
        if rows == 1 or bands * rows <= PERMUTATIONS:
            best = (bands, rows)
    return best


class _Join:
    """Each text's size and sketch, its bands, and an index of the bands of the texts kept so far, in files: memory holds a block of texts, a
    band of all texts, and what the system keeps of the files."""

    def __init__(self, texts: Sequence[str] | Texts, salts: np.ndarray, threshold: float, folder: Path) -> None:
        import numpy as np

        self.texts, self.threshold, n, bands = texts, threshold, len(texts), banding(threshold)[0]
        self.sizes, self.sketches = np.empty(n, dtype=np.int32), np.empty((n, WORDS), dtype=np.uint64)
        self.table = _File(folder / "bands", n)
        for a in range(0, n, BLOCK):
            b = min(a + BLOCK, n)
            self.sizes[a:b], self.sketches[a:b], keys = _read([texts[i] for i in range(a, b)], salts[a:b], threshold)
            for band in range(bands):
                self.table.put(band, a, keys[:, band])
        # Bands that two texts or more share get slots in the index: a band is named after its first slot, -1 has none. Nor have blank texts.
        filled, slots = np.flatnonzero(self.sizes), 0
        for band in range(bands):
            key, owner = _sorted(self.table.get(band, 0, n)[filled], filled)
            _, heads = _ranks(key)
            counts = np.diff(heads, append=len(key))
            long = counts > 1
            first = np.cumsum(np.where(long, counts, 0)) - counts + slots
            name = np.full(n, -1, dtype=np.int32)
            name[owner] = np.repeat(np.where(long, first, -1), counts)
            self.table.put(band, 0, name)
            slots += int(counts[long].sum())
        self.count = bands
        self.slots, self.filled = (_mapped(folder / name, slots) for name in ("slots", "filled"))

    def block(self, a: int, b: int, dropped: np.ndarray) -> None:
        """Judges the texts a to b - 1 against those kept before, and puts the kept ones into the index."""
        import numpy as np

        names = np.stack([self.table.get(band, a, b) for band in range(self.count)])
        held = names >= 0
        bands, owners = _sorted(names[held], np.broadcast_to(np.arange(a, b), names.shape)[held])
        earlier = _ranks(bands)[0]
        if b - a > 1 and int(self.filled[bands].sum()) + int(earlier.sum()) > PAIRS:
            middle = (a + b) // 2
            self.block(a, middle, dropped)
            self.block(middle, b, dropped)
            return
        (at, step), (near, close) = _expand(self.filled[bands]), _expand(earlier)
        early = np.append(self.slots[bands[at] + step], owners[near - 1 - close])
        self._decide(*_sorted(np.append(owners[at], owners[near]), early), dropped)
        bands, owners = bands[~dropped[owners]], owners[~dropped[owners]]
        rank, heads = _ranks(bands)
        self.slots[bands + self.filled[bands] + rank] = owners
        self.filled[bands[heads]] += np.diff(heads, append=len(bands)).astype(np.int32)

    def _decide(self, late: np.ndarray, early: np.ndarray, dropped: np.ndarray) -> None:
        """Pairs of a text and an earlier one, in order of the later; those that share several bands stand there as often."""
        import numpy as np

        once = (np.diff(late, prepend=-1) != 0) | (np.diff(early, prepend=-1) != 0)
        late, early = late[once], early[once]
        # |A and B| >= t |A or B| only where |A xor B| <= (1 - t) / (1 + t) (|A| + |B|), and that is at least what sizes and sketches differ by.
        room = (1 - self.threshold) / (1 + self.threshold) * (self.sizes[late] + self.sizes[early]) + 1e-6
        can = np.abs(self.sizes[late] - self.sizes[early]) <= room
        apart = np.zeros(len(room))
        for word in (None, *self.sketches.T):
            if word is not None:
                apart += np.bitwise_count(word[late] ^ word[early])
                can = apart <= room
            late, early, room, apart = late[can], early[can], room[can], apart[can]
        for i, j in zip(late.tolist(), early.tolist(), strict=True):
            if not dropped[i] and not dropped[j]:
                dropped[i] = jaccard(shingles(self.texts[i]), shingles(self.texts[j])) >= self.threshold


class _File:
    """A table of int32, rows of n numbers."""

    def __init__(self, path: Path, n: int) -> None:
        self.file, self.n = path.open("w+b", buffering=0), n
        weakref.finalize(self, self.file.close)

    def put(self, row: int, at: int, numbers: np.ndarray) -> None:
        self.file.seek(4 * (row * self.n + at))
        self.file.write(numbers.astype("<i4").tobytes())

    def get(self, row: int, a: int, b: int) -> np.ndarray:
        import numpy as np

        return np.frombuffer(os.pread(self.file.fileno(), 4 * (b - a), 4 * (row * self.n + a)), dtype="<i4")


def _mapped(path: Path, n: int) -> np.ndarray:
    """n zeros of int32 in a file. Its room is taken at once: on a full disk that is an error, and a write into a hole would be a crash."""
    import numpy as np

    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(4, 4 * n))
    return np.memmap(path, dtype=np.int32, mode="r+", shape=(n,)) if n else np.zeros(0, dtype=np.int32)


def _read(texts: Sequence[str], salts: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each text: the number of its shingles, int32 (n,); its sketch, uint64 (n, WORDS); a key of each of its bands, int32 (n, bands)."""
    import numpy as np

    lengths, tokens = _tokens(texts, salts)
    keys = np.repeat(np.arange(len(texts), dtype=np.uint64) << np.uint64(32), lengths) | tokens
    keys.sort()
    keys = keys[np.concatenate([keys[:1] == keys[:1], keys[1:] != keys[:-1]])]  # each shingle once
    size = np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=len(texts))
    begin = np.cumsum(size) - size
    full = np.flatnonzero(size)
    sketches = np.zeros((len(texts), WORDS), dtype=np.uint64)
    bits, words = np.uint64(1) << (keys & np.uint64(63)), keys >> np.uint64(6) & np.uint64(WORDS - 1)
    for w in range(WORDS if len(full) else 0):
        sketches[full, w] = np.bitwise_xor.reduceat(np.where(words == w, bits, np.uint64(0)), begin[full])
    bands = np.zeros((len(texts), banding(threshold)[0]), dtype=np.int32)
    shingled = keys.astype(np.uint32)
    order, width = full[np.argsort(size[full])], 2048
    for i in range(0, len(order), width):
        some = order[i : i + width]
        places = np.minimum(np.arange(size[some[-1]])[:, None], size[some] - 1) + begin[some]  # the last one again: a minimum does not mind
        bands[some] = _bands(shingled[places], *banding(threshold)).T
    return size.astype(np.int32), sketches, bands


def _bands(tokens: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """A key of each band, int32 (bands, n), of tokens (length, n): its MinHash values under multiplications modulo 2^32, mixed."""
    import numpy as np

    factors = np.random.PCG64(0).random_raw(bands * rows).astype(np.uint32) | np.uint32(1)
    least, product = np.empty((bands * rows, tokens.shape[1]), dtype=np.uint32), np.empty_like(tokens)
    for i, factor in enumerate(factors):
        np.multiply(tokens, factor, out=product)
        np.minimum.reduce(product, axis=0, out=least[i])
    found = np.zeros((bands, tokens.shape[1]), dtype=np.uint32)
    for row in range(rows):
        found = (found + least[row::rows]) * np.uint32(FACTORS[0])
        found ^= found >> np.uint32(15)
    return (found >> np.uint32(1)).astype(np.int32)


def _tokens(texts: Sequence[str], salts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shingles of each text, repeats included: how many (n,), and the 32-bit hashes of all, one text after the other."""
    import numpy as np

    padded = [text.ljust(SHINGLE, "\0") if text else "" for text in texts]  # a short text is its only shingle
    signs = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    lengths = np.array([len(text) for text in padded])
    last = SHINGLE - 1
    hashed = np.zeros(max(0, len(signs) - last), dtype=np.uint32)
    for i, factor in enumerate(FACTORS):
        hashed += signs[i : i + len(hashed)] * np.uint32(factor)
    hashed ^= np.repeat(salts, lengths)[last:]
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
        hashed ^= hashed >> np.uint32(shift)
        hashed *= np.uint32(factor)
    inside = np.ones(len(signs), dtype=bool)
    ends = np.cumsum(lengths)[lengths > 0]
    for back in range(1, SHINGLE):
        inside[ends - back] = False
    return np.maximum(lengths - last, 0), hashed[inside[: len(hashed)]]


def _sorted(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of numbers from 0 to 2^31 - 1, sorted: far faster as one number than by an argsort."""
    import numpy as np

    both = np.sort(a.astype(np.int64) << 32 | b)
    return both >> 32, both & 0xFFFFFFFF


def _ranks(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of sorted numbers: how many equal ones stand before each, and where each run of equal ones begins."""
    import numpy as np

    heads = np.flatnonzero(np.diff(numbers, prepend=-1))
    return np.arange(len(numbers)) - np.repeat(heads, np.diff(heads, append=len(numbers))), heads


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """counts[i] times i, and 0, 1, ... within each."""
    import numpy as np

    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)

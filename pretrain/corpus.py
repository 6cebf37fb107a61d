"""The tokenizer and the token stream that `train.py` reads.

    python pretrain/corpus.py CORPUS --out FOLDER [--entries 4096]

CORPUS holds `part-*.txt.xz` and `valid.txt.xz`; each document ends with a line `<|endoftext|>`. FOLDER gets `tokenizer/`
(byte-level BPE that `AutoTokenizer` opens) and `train.npy`: uint16, every document followed by the end-of-text id.
"""

from __future__ import annotations

import argparse
import lzma
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

EOS = "<|endoftext|>"
# GPT-4's split without its case-insensitive contractions; digits one by one, so that numbers are spelt alike everywhere.
SPLIT = r"'(?:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"


def documents(path: Path) -> Iterator[str]:
    """Documents of one `.txt.xz`, in file order, without the end mark."""
    lines: list[str] = []
    with lzma.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            if line.rstrip("\n") == EOS:
                yield "".join(lines).rstrip("\n")
                lines = []
            else:
                lines.append(line)
    if lines:
        yield "".join(lines).rstrip("\n")


def train_tokenizer(texts: Iterator[str], entries: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with `entries` entries, `<|endoftext|>` first (id 0); decoding gives back every byte."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=entries,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=EOS,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: PreTrainedTokenizerFast, parts: list[Path]) -> np.ndarray:
    """uint16 (n,): all documents of all parts in order, each followed by the end-of-text id."""
    pieces: list[np.ndarray] = []
    eos = tokenizer.eos_token_id
    for part in parts:
        texts = list(documents(part))
        for i in range(0, len(texts), 10_000):
            for encoding in tokenizer.backend_tokenizer.encode_batch_fast(texts[i : i + 10_000]):
                pieces.append(np.array([*encoding.ids, eos], dtype=np.uint16))
    return np.concatenate(pieces)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--entries", type=int, default=4096, help="tokenizer entries, at most 65,535")
    args = parser.parse_args()
    parts = sorted(args.corpus.glob("part-*.txt.xz"))
    tokenizer = train_tokenizer(documents(parts[0]), args.entries)
    tokenizer.save_pretrained(args.out / "tokenizer")
    stream = encode(tokenizer, parts)
    np.save(args.out / "train.npy", stream)
    print(f"{len(stream):,} tokens from {len(parts)} parts, {len(tokenizer):,} entries -> {args.out}")


if __name__ == "__main__":
    main()

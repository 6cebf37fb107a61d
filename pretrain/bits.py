"""Bits per byte of a causal language model on text: comparable between models of different tokenizers.

    python pretrain/bits.py MODEL FILE [FILE ...] [--json]

MODEL: a folder with weights and tokenizer. FILE: `.txt` or `.txt.xz`; documents end with a line `<|endoftext|>`, a file without one is
one document; line ends at a document's end are not part of it.

Every document is read after one end-of-text token, as in training, and all its UTF-8 bytes are counted. The cost of predicting the
end-of-text token after it is counted too, its bytes are not, so the number errs upwards. A document longer than the model's context is read
in windows that advance by half a context: each token is predicted once, from at least half a context where the document has it.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from corpus import EOS, documents
from transformers import AutoModelForCausalLM, AutoTokenizer

TOKENS = 8192  # a batch, padding included


@dataclass(frozen=True)
class Bits:
    """bits_per_byte over `bytes` of text in `documents`; tokens: predictions made, one end-of-text a document included."""

    bits_per_byte: float
    bytes: int
    tokens: int
    documents: int


@dataclass(frozen=True)
class Window:
    """ids: what is read and, one step on, what is predicted; the first `skip` predictions were counted by the window before."""

    ids: list[int]
    skip: int


def read(path: Path) -> list[str]:
    """The documents of a `.txt` or `.txt.xz` file."""
    if path.suffix == ".xz":
        return list(documents(path))
    with path.open(encoding="utf-8", newline="") as file:
        texts = re.split(rf"^{re.escape(EOS)}\n?", file.read(), flags=re.MULTILINE)
    return [text.rstrip("\n") for text in (texts if texts[-1] else texts[:-1])]


def windows(ids: list[int], eos: int, context: int) -> Iterator[Window]:
    """Windows of at most `context` inputs over one document's token ids, which together predict each of them, and the end, once."""
    line = [eos, *ids, eos]
    start, done = 0, 0
    while done < len(line) - 1:
        end = min(start + context, len(line) - 1)
        yield Window(line[start : end + 1], done - start)
        start, done = start + context // 2, end


def batches(pieces: list[Window], tokens: int) -> Iterator[list[Window]]:
    """Windows of about the same length together, padded size at most `tokens` (a single longer window stands alone)."""
    batch: list[Window] = []
    for piece in sorted(pieces, key=lambda w: len(w.ids), reverse=True):
        if batch and (len(batch) + 1) * (len(batch[0].ids) - 1) > tokens:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


@torch.inference_mode()
def nats(model: Any, batch: list[Window]) -> float:
    """Summed -log p of the predictions of a batch that count."""
    width = len(batch[0].ids)  # the longest comes first
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    counts = torch.zeros(len(batch), width - 1, dtype=torch.bool)
    for i, window in enumerate(batch):
        ids[i, : len(window.ids)] = torch.tensor(window.ids)
        counts[i, window.skip : len(window.ids) - 1] = True
    ids, counts = ids.to(model.device), counts.to(model.device)
    # Padding stands at the right: a causal model's other predictions cannot see it.
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits[counts]
    losses = torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][counts], reduction="none")
    return float(losses.double().sum())


def bits_per_byte(model: Any, tokenizer: Any, texts: Iterable[str], tokens: int = TOKENS) -> Bits:
    """Bits per byte of `texts`. model: causal LM in eval mode; tokens: of a batch, no influence on the number but rounding."""
    eos, context = tokenizer.eos_token_id, model.config.max_position_embeddings
    pieces: list[Window] = []
    size = count = predictions = 0
    for text in texts:
        # An end mark within a line is text. verbose: a text longer than the context is no accident here.
        ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
        pieces += windows(ids, eos, context)
        size, count, predictions = size + len(text.encode()), count + 1, predictions + len(ids) + 1
    if not size:
        raise ValueError(f"no bytes to score: got {count} documents, all empty. Give a file with text.")
    total = math.fsum(nats(model, batch) for batch in batches(pieces, tokens))
    return Bits(total / math.log(2) / size, size, predictions, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--json", action="store_true", help="one JSON object a file")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model: Any = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    model.eval()
    for file in args.files:
        found = bits_per_byte(model, tokenizer, read(file))
        if args.json:
            print(json.dumps({"file": file.name, **asdict(found)}))
        else:
            sizes = f"{found.bytes:,} bytes, {found.tokens:,} tokens, {found.documents:,} documents"
            print(f"{file.name}: {found.bits_per_byte:.4f} bits per byte ({sizes})")


if __name__ == "__main__":
    main()

"""Turns a checkpoint into the shipped model: bfloat16 shards, tokenizer, and a card whose numbers are all measured here.

    python pretrain/release.py CHECKPOINT --data FOLDER --corpus CORPUS --eval EVALDATA --out src/seedbed/models/seedling

CHECKPOINT: a folder that train.py wrote (its `state.json` is read, and `log.jsonl` beside it). FOLDER: what corpus.py wrote. Also writes
the greedy text that the tests expect of this model. Running it again on the same inputs changes nothing.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bits import bits_per_byte, read
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from overlap import overlaps, table
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

HERE = Path(__file__).resolve().parent
SHARD, TOTAL = 16 * 2**20, 40 * 10**6  # bytes: a shard stays under the first, the folder within the second
NEW_TOKENS, GREEDY_TOKENS = 80, 48
GREEDY_PROMPT = "The old man opened the door and"
# One opening for each kind of text in the corpus, written before any model was sampled.
PROMPTS = (
    "The village lies on the western bank of the river and",
    "Once upon a time there was a little girl who",
    '"You are late," said the captain, "and',
    "Question: Why do some people get headaches?\nAnswer:",
    "User: Hello, I would like to book a table for two tonight.\nAssistant:",
    "A function that checks whether a number is even.\ndef",
    "The film begins in a small town where a young teacher",
    "In this paper we show that",
    "To write clearly, first",
    "Fellow citizens, the past year has",
)


@dataclass(frozen=True)
class Call:
    """One call of train.py: first and last logged step, tokens seen by then, minutes, last logged loss, peak rates."""

    first: int
    last: int
    tokens: int
    minutes: float
    loss: float
    muon_lr: float
    adam_lr: float


def calls(log: Path, step: int) -> list[Call]:
    """The calls that led to `step`, from the log; what a later call repeated from a checkpoint is left out. No log: none."""
    entries = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    groups: list[list[dict[str, float]]] = []
    for entry in entries:  # `seconds` starts anew with every call, and so may `step`
        if not groups or entry["seconds"] < groups[-1][-1]["seconds"] or entry["step"] <= groups[-1][-1]["step"]:
            groups.append([])
        groups[-1].append(entry)
    found: list[Call] = []
    for group in reversed(groups):
        kept = [entry for entry in group if entry["step"] <= step]
        if kept:
            first, last = kept[0], kept[-1]
            reached = int(first["step"]), int(last["step"]), int(last["tokens"])
            found.append(Call(*reached, last["seconds"] / 60, last["loss"], last["muon_lr"], last["adam_lr"]))
            step = int(first["step"]) - 1
    return found[::-1]


def history(checkpoint: Path) -> dict[str, Any]:
    """The checkpoint's counters with every call that led to it: those before a released model it went on from, then those in the log."""
    state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text())
    own = [asdict(call) for call in calls(checkpoint.parent / "log.jsonl", state["step"])]
    return state | {"calls": state.get("calls", []) + own}


def ship(checkpoint: Path, tokenizer: Any, out: Path) -> None:
    """Weights in bfloat16, config and tokenizer; shards of an earlier model are removed."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("model*.safetensors*"):
        old.unlink()
    model = LlamaForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
    model.save_pretrained(out, max_shard_size="15MB")
    tokenizer.save_pretrained(out)
    for file in out.iterdir():
        file.chmod(0o644)


def weigh(out: Path) -> tuple[int, int]:
    """Number of shards and bytes of the whole folder; refuses what is too large to ship."""
    shards = sorted(out.glob("model*.safetensors"))
    total = sum(file.stat().st_size for file in out.iterdir())
    for shard in shards:
        if shard.stat().st_size >= SHARD:
            raise SystemExit(f"{shard}: {shard.stat().st_size:,} bytes; a shard must be under {SHARD:,}. Lower max_shard_size.")
    if total > TOTAL:
        raise SystemExit(f"{out}: {total:,} bytes; the shipped model may have {TOTAL:,}. Release a smaller model.")
    return len(shards), total


def complete(model: Any, tokenizer: Any, prompt: str, **settings: Any) -> str:
    """The continuation of `prompt`, which is read after one end-of-text token."""
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer.encode(prompt, add_special_tokens=False)]])
    with torch.inference_mode():
        found = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    text: str = tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def samples(model: Any, tokenizer: Any) -> Iterator[tuple[str, str, str]]:
    """Title, prompt and continuation: ten from the end-of-text token alone, then ten from PROMPTS, seeds 0 to 9 each."""
    for kind, prompts in (("Unconditioned", [""] * len(PROMPTS)), ("Prompted", PROMPTS)):
        for seed, prompt in enumerate(prompts):
            torch.manual_seed(seed)
            settings = {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "top_k": 0, "max_new_tokens": NEW_TOKENS}
            yield f"{kind}, seed {seed}", prompt, complete(model, tokenizer, prompt, **settings)


def squeezed(file: Path) -> float:
    """Bits per byte that `xz -9e` needs for the same text."""
    raw = lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes()
    return 8 * len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)) / len(raw)


def card(args: argparse.Namespace, model: Any, tokenizer: Any) -> str:
    """The model card; measures whatever it says."""
    state = history(args.checkpoint)
    (args.out / "state.json").write_text(json.dumps(state, indent=1) + "\n")  # so that train.py can go on from the shipped model
    texts = (args.corpus / "valid.txt.xz", args.text)
    shards, size = weigh(args.out)
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    return environment.get_template("card.md.j2").render(
        config=model.config,
        parameters=model.num_parameters(),
        embedding=model.get_input_embeddings().weight.numel(),
        eos=tokenizer.eos_token,
        shards=shards,
        megabytes=size / 1e6,
        device=args.device_note,
        state=state,
        decayed=args.checkpoint.name.endswith("-final"),
        stream=len(np.load(args.data / "train.npy", mmap_mode="r")),
        calls=state["calls"],
        commands=args.commands.read_text().strip(),
        bits=[(file.name, bits_per_byte(model, tokenizer, read(file)), squeezed(file)) for file in texts],
        overlap=table(overlaps(args.corpus, args.eval)),
        new_tokens=NEW_TOKENS,
        samples=list(samples(model, tokenizer)),
        sources=(HERE / "SOURCES.md").read_text().strip(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the folder that corpus.py wrote")
    parser.add_argument("--corpus", type=Path, required=True, help="part-*.txt.xz and valid.txt.xz")
    parser.add_argument("--eval", type=Path, required=True, help="evaluation sets, <name>/<split>.jsonl.gz")
    parser.add_argument("--out", type=Path, required=True, help="folder of the shipped model")
    parser.add_argument("--device-note", default="not recorded", help='what it was trained on, e.g. "2 CPU cores"')
    parser.add_argument("--commands", type=Path, default=HERE / "seedling.sh", help="the commands that were run, for the card")
    parser.add_argument("--text", type=Path, default=HERE.parent / "tests/data/public-domain.txt", help="a text in no training part")
    parser.add_argument("--greedy", type=Path, default=HERE.parent / "tests/data/greedy.json", help="gets the text the tests expect")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.data / "tokenizer")
    ship(args.checkpoint, tokenizer, args.out)
    model: Any = AutoModelForCausalLM.from_pretrained(args.out, dtype=torch.float32)
    model.eval()
    (args.out / "README.md").write_text(card(args, model, tokenizer), encoding="utf-8")
    text = complete(model, tokenizer, GREEDY_PROMPT, do_sample=False, max_new_tokens=GREEDY_TOKENS)
    args.greedy.write_text(json.dumps({"prompt": GREEDY_PROMPT, "new_tokens": GREEDY_TOKENS, "text": text}, indent=1) + "\n")
    shards, size = weigh(args.out)
    print(f"{args.out}: {model.num_parameters():,} parameters, {shards} shard(s), {size:,} bytes; greedy text in {args.greedy}")


if __name__ == "__main__":
    main()

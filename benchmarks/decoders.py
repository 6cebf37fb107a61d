"""Embedding decoders by the text they learn from: a corpus, or what the language model writes itself (`seedbed pretrain-prompt` without --corpus).

python benchmarks/decoders.py --data FOLDER --corpus TEXT [--steps 600] [--seeds 3] [--out runs-decoders]

Both take equally many steps on seedling; the shipped one took more. Prints, of 512 passages of the corpus that none has read: nats a token without
a prompt and from 16 and 64 soft tokens, token F1 and cosine of what is written from a context; and of SLURP's 20 most frequent intents and GSM8K's
questions, n = 32 with dev: nats a token of 200 unused rows before and after base prompt, shift and scale are adapted. Run again, it goes on.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from lowrow import HELD_OUT, prepared, recipe_of

from seedbed.data import load_sample
from seedbed.generators.soft import decoder_place
from seedbed.generators.steered import asked as text_of
from seedbed.lm.adapt import Adapted, Rows
from seedbed.lm.decoder import load_decoder
from seedbed.lm.embed import embed, embed_fresh, embedder_hash
from seedbed.lm.load import LM, load, quick_dtype
from seedbed.lm.passages import passages
from seedbed.lm.pretrain import HELD_OUT as PASSAGES
from seedbed.lm.pretrain import Pretraining, pretrain
from seedbed.lm.reconstruction import quality
from seedbed.lm.train import Fitting, encode, fit, mean_nll
from seedbed.types import Example, seed_for
from seedbed.written import write_corpus

MODEL, EMBEDDER, TOKENS = "seedling", "minilm", 16


def adapted(lm: LM, decoder: Path, task: str, data: Path, work: Path, seed: int) -> tuple[float, float]:
    """(nats a token of unused rows before, and after adapting)."""
    made = recipe_of(task, prepared(data, work, task), 32, 1, ["amortised sample"])
    sample = load_sample(made.sample, made.task, seed_for(made.seed, "compare", seed) if seed else made.seed, made.base)
    asked = made.arms[0][1].generator.settings
    net = load_decoder(decoder, lm, EMBEDDER, embedder_hash(EMBEDDER), TOKENS)

    def rows(examples: list[Example]) -> Rows:
        texts = [encode(lm, text_of(made.task, e.fields)) for e in examples]
        return Rows(texts, torch.from_numpy(embed([made.task.body(e.fields) for e in examples])))

    own, dev = rows(list(sample.fit)), rows(list(sample.dev))
    unused = rows(random.Random(0).sample(sorted(sample.more, key=lambda e: e.id), HELD_OUT))
    tuned = Adapted(net, "affine", seed)
    how = Fitting(asked.epochs, asked.patience, asked.batch, prompt_lr=asked.prompt_lr, network_lr=asked.network_lr, weight_decay=0.0)
    fit(lm, tuned, own.texts, own.z, dev.texts, dev.z, how, seed, None)
    return mean_nll(lm, net, unused.z, unused.texts), mean_nll(lm, tuned.merged(net), unused.z, unused.texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs-decoders"))
    given = parser.parse_args()
    lm = load(MODEL, quick_dtype())
    held_out = passages([given.corpus], Pretraining().passages, PASSAGES, 0)[1]
    z = torch.from_numpy(embed_fresh([p.text for p in held_out], EMBEDDER))
    places = {"shipped": decoder_place("", MODEL)}
    for name in ("corpus", "own text"):
        folder = given.out / name.replace(" ", "-")
        places[name] = folder / "decoder.safetensors"
        if not places[name].exists():
            text = given.corpus if name == "corpus" else write_corpus(MODEL, folder / "work", say=print)
            pretrain(MODEL, [text], folder, steps=given.steps, say=print)
    for name, place in places.items():
        q = quality(lm, load_decoder(place, lm, EMBEDDER, embedder_hash(EMBEDDER)), held_out, z, EMBEDDER)
        print(
            f"{name}: no prompt {q['no_prompt']:.3f}, 16 {q['held_out']['16']:.3f}, 64 {q['held_out']['64']:.3f}, shuffled {q['shuffled']:.3f}; "
            f"F1 {q['token_f1']:.3f}, cosine {q['cosine']:.3f}, another's {q['cosine_shuffled']:.3f}",
            flush=True,
        )
        for task in ("slurp20", "gsm8k"):
            pairs = [adapted(lm, place, task, given.data, given.out / "data", s) for s in range(given.seeds)]
            print(f"{name}, {task}: {', '.join(f'{before:.3f} to {after:.3f}' for before, after in pairs)}", flush=True)


if __name__ == "__main__":
    main()

"""Pretrains a small Llama from scratch; the same command on a GPU and on a CPU.

    python pretrain/train.py --data FOLDER --out CHECKPOINTS --minutes 60 [--decay 0.25] [--resume CHECKPOINTS/step-001000]

Schedule: warm-up, stable, decay. `--decay` is the share of this call's minutes over which the learning rate falls to zero (0: none);
the checkpoint written just before it is marked `-stable` and any later call may resume from it: `--resume ...-stable --decay 1`
is the decay branch alone. A released model is resumed the same way, without its optimisers' state: the rates warm up anew. Ctrl-C or a
kill ends the call with a checkpoint marked `-stopped`. Muon (Jordan et al. 2024) steps the matrices, AdamW the tied embedding and the norms.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

CONTEXT = 512


@dataclass(frozen=True)
class Size:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    batch: int  # tokens a step


# On two CPU cores the compute-optimal size for two hours is 3 to 6 M parameters (LOG.md); a GPU affords the larger one.
SIZES = {"cpu": Size(256, 6, 4, 2, 704, 8192), "cuda": Size(384, 8, 6, 2, 1024, 65536)}
WARMUP = 60  # steps
MUON_LR, ADAM_LR, WEIGHT_DECAY = 0.02, 8e-3, 0.01


def build(size: Size, entries: int, eos: int) -> LlamaForCausalLM:
    """A Llama with random weights; the projections that write to the residual stream start at zero."""
    config = LlamaConfig(
        vocab_size=entries,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        intermediate_size=size.intermediate,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        attention_bias=False,
        mlp_bias=False,
        bos_token_id=eos,
        eos_token_id=eos,
        pad_token_id=eos,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return model


@torch.compile(dynamic=False)
def orthogonalise(g: torch.Tensor) -> torch.Tensor:
    """The nearest semi-orthogonal matrix to each g (n, rows, columns), rows <= columns, by five Newton-Schulz steps in bf16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, matrices of one shape together (Jordan et al. 2024, Nesterov 0.95)."""

    def __init__(self, params: list[torch.nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for p in group["params"]:
                shapes.setdefault(p.shape, []).append(p)
            for (rows, columns), params in shapes.items():
                updates = []
                for p in params:
                    m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    m.lerp_(p.grad, 0.05)
                    updates.append(p.grad.lerp(m, 0.95))
                stack = torch.stack(updates)
                stack = orthogonalise(stack.mT.contiguous()).mT if rows > columns else orthogonalise(stack)
                scale = group["lr"] * math.sqrt(max(1.0, rows / columns))
                for p, update in zip(params, stack, strict=True):
                    p.mul_(1 - group["lr"] * WEIGHT_DECAY).add_(update.to(p.dtype), alpha=-scale)


class Batches:
    """Sequences of length + 1 tokens from the stream, shuffled anew every epoch by `seed`; batch i is the same on every machine."""

    def __init__(self, stream: np.ndarray, batch: int, length: int, seed: int) -> None:
        self.stream, self.batch, self.length, self.seed = stream, batch // length, length, seed
        self.rows = (len(stream) - 1) // length
        self.per_epoch = self.rows // self.batch
        self.epoch, self.order = -1, np.arange(0)

    def __getitem__(self, step: int) -> torch.Tensor:
        epoch, i = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.rows)
        picked = self.order[i * self.batch : (i + 1) * self.batch]
        n = self.length
        return torch.from_numpy(np.stack([self.stream[r * n : r * n + n + 1].astype(np.int64) for r in picked]))


def loss_of(model: LlamaForCausalLM, tokens: torch.Tensor, eos: int) -> torch.Tensor:
    """Mean nats a token of (B, length + 1) ids. The end-of-text id, as an input, opens the next document: nothing after it sees back."""
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    document = (inputs == eos).cumsum(1)
    causal = torch.ones(inputs.shape[1], inputs.shape[1], dtype=torch.bool, device=inputs.device).tril()
    mask = (document[:, None, :, None] == document[:, None, None, :]) & causal
    hidden = model.model(inputs_embeds=model.model.embed_tokens(inputs), attention_mask=mask, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def save(folder: Path, model: LlamaForCausalLM, optimisers: list[torch.optim.Optimizer], state: dict[str, Any]) -> None:
    """Weights, optimiser state and counters, without pickle; whole or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    model.save_pretrained(partial)
    tensors = {}
    for i, optimiser in enumerate(optimisers):
        for key, values in optimiser.state_dict()["state"].items():
            tensors |= {f"{i}/{key}/{name}": torch.as_tensor(v).clone() for name, v in values.items()}
    save_file(tensors, partial / "optimisers.safetensors")
    (partial / "state.json").write_text(json.dumps(state, indent=1))
    partial.rename(folder)


def restore(folder: Path, model: LlamaForCausalLM, optimisers: list[torch.optim.Optimizer]) -> dict[str, Any]:
    """Weights, and the optimisers' state where the folder has it; returns the counters. A released model has none: its rates begin anew."""
    model.load_state_dict(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())
    found: dict[str, Any] = json.loads((folder / "state.json").read_text())
    if not (folder / "optimisers.safetensors").exists():
        return found | {"begun": found["step"]}
    states: list[dict[int, dict[str, torch.Tensor]]] = [{} for _ in optimisers]
    for name, tensor in load_file(folder / "optimisers.safetensors").items():
        i, key, field = name.split("/")
        states[int(i)].setdefault(int(key), {})[field] = tensor
    for optimiser, state in zip(optimisers, states, strict=True):
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return found


def optimisers_for(model: LlamaForCausalLM, muon_lr: float, adam_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for the tied embedding and the norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    others = [p for n, p in model.named_parameters() if not any(p is m for m in matrices)]
    return [Muon(matrices, lr=muon_lr), torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY, fused=True)]


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = SIZES[device]
    tokenizer = AutoTokenizer.from_pretrained(args.data / "tokenizer")
    batches = Batches(np.load(args.data / "train.npy", mmap_mode="r"), size.batch, args.length, args.seed)
    model = build(size, len(tokenizer), tokenizer.eos_token_id).to(device)
    optimisers = optimisers_for(model, args.muon_lr, args.adam_lr)
    peaks = [args.muon_lr, args.adam_lr]
    found = restore(args.resume, model, optimisers) if args.resume else {"step": 0, "tokens": 0}
    step, seen, begun = found["step"], found["tokens"], found.get("begun", 0)
    state = {"seed": args.seed, "size": asdict(size), "muon_lr": args.muon_lr, "adam_lr": args.adam_lr, "calls": found.get("calls", [])}
    compiled = torch.compile(loss_of)
    with torch.autocast(device, dtype=torch.bfloat16):  # compile outside the budget
        compiled(model, batches[step].to(device), tokenizer.eos_token_id).backward()
    model.zero_grad(set_to_none=True)
    args.out.mkdir(parents=True, exist_ok=True)
    start = last_save = time.monotonic()
    stable_saved, budget, smooth, first = args.decay in (0, 1), args.minutes * 60, None, seen
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):  # a stop ends the call after the running step, with a checkpoint
        signal.signal(number, lambda got, _: stopped.append(got))
    columns = (*Progress.get_default_columns()[:2], TextColumn("{task.fields[note]}"), TimeRemainingColumn())
    with Progress(*columns) as progress, (args.out / "log.jsonl").open("a") as log:
        bar = progress.add_task("pretrain", total=budget, note="")
        while (spent := time.monotonic() - start) < budget and not stopped:
            left = 1 - spent / budget
            decaying = args.decay and left < args.decay
            if decaying and not stable_saved:
                save(args.out / f"step-{step:06d}-stable", model, optimisers, state | {"step": step, "tokens": seen})
                stable_saved = True
            factor = min(1.0, (step + 1 - begun) / WARMUP) * (left / args.decay if decaying else 1.0)
            for optimiser, peak in zip(optimisers, peaks, strict=True):
                optimiser.param_groups[0]["lr"] = peak * factor
            tokens = batches[step].to(device)
            with torch.autocast(device, dtype=torch.bfloat16):
                loss = compiled(model, tokens, tokenizer.eos_token_id)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimiser in optimisers:
                optimiser.step()
            model.zero_grad(set_to_none=True)
            step, seen = step + 1, seen + tokens.shape[0] * args.length
            if step % 10 == 0:
                value = float(loss.detach())
                smooth = value if smooth is None else 0.9 * smooth + 0.1 * value
                rate = (seen - first) / (time.monotonic() - start)
                note = f"step {step:,}  loss {smooth:.3f}  {rate:,.0f} tokens/s  {seen / 1e6:.1f} M tokens"
                progress.update(bar, completed=spent, note=note)
                entry = {"step": step, "tokens": seen, "loss": round(value, 4), "seconds": round(spent, 1)}
                log.write(json.dumps(entry | {"muon_lr": args.muon_lr, "adam_lr": args.adam_lr}) + "\n")
                log.flush()
            if time.monotonic() - last_save > args.save_minutes * 60:
                save(args.out / f"step-{step:06d}", model, optimisers, state | {"step": step, "tokens": seen})
                last_save = time.monotonic()
    name = f"step-{step:06d}" + ("-stopped" if stopped else "-final" if args.decay else "-stable")
    save(args.out / name, model, optimisers, state | {"step": step, "tokens": seen})
    tokenizer.save_pretrained(args.out / name)
    print(f"{args.out / name}: {seen:,} tokens seen, last smoothed loss {smooth}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that corpus.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument("--minutes", type=float, required=True, help="of training in this call, compilation excluded")
    parser.add_argument("--decay", type=float, default=0.25, help="share of the minutes spent decaying, 0 to 1")
    parser.add_argument("--resume", type=Path, help="a checkpoint folder")
    parser.add_argument("--length", type=int, default=CONTEXT, help="of a packed sequence; shorter trains faster on a CPU")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--muon-lr", type=float, default=MUON_LR)
    parser.add_argument("--adam-lr", type=float, default=ADAM_LR)
    parser.add_argument("--save-minutes", type=float, default=10)
    train(parser.parse_args())


if __name__ == "__main__":
    main()

"""SoftSRV (DeSalvo et al., arXiv 2410.16534): a frozen language model steered by learned contextual soft prompts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from seedbed.errors import DataError, ModelError
from seedbed.generators.steered import SoftTeacher, asked
from seedbed.limits import NEVER, Deadline
from seedbed.store import write_json, write_lines
from seedbed.task import Task
from seedbed.types import Example, ModelRef, Sample, seed_for

if TYPE_CHECKING:
    import torch

    from seedbed.lm.batches import Text
    from seedbed.lm.finetune import Tuned, Tuning
    from seedbed.lm.load import LM
    from seedbed.lm.prompts import SoftPrompt

Form = Literal["nsp", "mp", "mc", "amortised", "amortised-lora"]
FORMS: tuple[Form, ...] = ("nsp", "mp", "mc", "amortised")
"""Of a frozen model: what `auto` tries."""
FITS = {"amortised": 7}
"""Fits of all rows that a form's training comes to, at most: three levels by three folds of two thirds, and the last; of the others one."""
LORA_DROPOUT = 0.05
DEV_TEXTS = 512
"""Dev texts that the loss is read on, at most."""


@dataclass(frozen=True)
class Soft:
    """Contextual soft prompts on a frozen model.

    prompt: nsp (one matrix), mp (k matrices mixed by a gate), mc (a network of the context), amortised (a network that learned to decode
    embeddings of general text, adapted; its rows' labels are given), amortised-lora (the same with an adapter on the model's own weights, trained
    together: the model is then not frozen), or auto (the best of the first four on dev; amortised where a decoder for so many tokens is at hand).
    decoder: the file that `seedbed pretrain-prompt` wrote; "": decoder/decoder.safetensors in the model's folder, as in seedling's.
    tokens: soft tokens t. k: matrices of mp. hidden, rank, dropout: the network of mc. embedder: gives the context z ("minilm", a folder or
    hub name). epochs, patience (in evaluations), batch, prompt_lr, network_lr, weight_decay: of the fit; rates are relative to embeddings
    of RMS 1. lora_rank, lora_lr: of amortised-lora; large models want a lower rate.
    contexts: what a row is written from: "sample", a fit row's own embedding, as in the paper; "mix", it and one of its nearest
    (of its label), averaged; "kernel", a draw near it from a smoothed density of the rows, by label. spread: of mix, the neighbour's weight at
    most; of kernel, the share of its place that the draw gives up. cover: write first a few texts from each fit row (up to 4), then draw rows oftener
    around which there are too few texts (lm/cover.py), instead of all equally often. These three do not fit the prompt anew.
    """

    version: ClassVar[int] = 4
    later: ClassVar[tuple[str, ...]] = ("contexts", "spread", "cover")
    files: ClassVar[tuple[str, ...]] = ("decoder",)

    prompt: Literal["nsp", "mp", "mc", "amortised", "amortised-lora", "auto"] = "auto"
    decoder: str = ""
    tokens: Annotated[int, Field(ge=1, le=1024)] = 16
    k: Annotated[int, Field(ge=1, le=64)] = 4
    hidden: Annotated[int, Field(ge=1)] = 256
    rank: Annotated[int, Field(ge=1)] = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    embedder: str = "minilm"
    epochs: Annotated[int, Field(ge=1)] = 100
    patience: Annotated[int, Field(ge=1)] = 3
    batch: Annotated[int, Field(ge=1)] = 16
    prompt_lr: Annotated[float, Field(gt=0)] = 0.1
    network_lr: Annotated[float, Field(gt=0)] = 0.01
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    lora_rank: Annotated[int, Field(ge=1, le=1024)] = 16
    lora_lr: Annotated[float, Field(gt=0)] = 0.001
    contexts: Literal["sample", "mix", "kernel"] = "sample"
    spread: Annotated[float, Field(gt=0, le=0.5)] = 0.3
    cover: bool = False

    @property
    def apart(self) -> tuple[str, ...]:
        """Settings that count in no step's name: the other forms read none of LoRA's."""
        return () if self.prompt == "amortised-lora" else ("lora_rank", "lora_lr")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"text", "soft", "adapter"} if self.prompt == "amortised-lora" else {"text", "soft"})

    def fit(self, sample: Sample, model: str, seed: int, out: Path, deadline: Deadline = NEVER) -> dict[str, Any]:
        """Writes prompt.safetensors (theta and the sources' contexts), prompt.json (settings and hashes), sources.jsonl and training.json.

        auto takes the form with the lowest "answer": nats a token of dev's texts where labels are given. The forms share the time until the
        deadline. A form that it cuts keeps its best so far and a checkpoint to go on from.
        """
        import torch

        from seedbed.lm import finetune, load
        from seedbed.lm.embed import embed, embedder_hash
        from seedbed.lm.train import encode, mean_nll

        tuned = self.prompt == "amortised-lora"  # on a model of its own
        lm = finetune.own(model, "lora") if tuned else load.load(model, load.quick_dtype())
        frozen = load.weights_hash(lm.model)
        (fit, fit_texts), (dev, dev_texts) = self._encode(lm, sample.task, sample.fit), self._encode(lm, sample.task, sample.dev[:DEV_TEXTS])
        if len(fit) < 2 or not dev:
            room = lm.context - self.tokens
            raise DataError(
                f"[sample] {len(fit)} of {len(sample.fit)} fit rows and {len(dev)} of {len(sample.dev)} dev rows fit into the {room} tokens that "
                f"{model!r} leaves. At least 2 and 1 are needed: use shorter texts or a model with a longer context."
            )
        shown = sample.task.render
        z = {e.id: v for e, v in zip((*fit, *dev), torch.from_numpy(embed([shown(e.fields) for e in (*fit, *dev)], self.embedder)), strict=True)}
        contexts = {form: torch.stack([z[e.id] for e in fit]) for form in FORMS}
        dev_z = torch.stack([z[e.id] for e in dev])
        judged = [encode(lm, asked(sample.task, e.fields)) for e in dev]
        results: dict[str, Any] = {"none": {"dev": mean_nll(lm, None, None, dev_texts)}}
        nets: dict[Form, SoftPrompt] = {}
        forms = self._forms(model)
        for i, form in enumerate(forms):
            until = deadline.share(1 / (len(forms) - i))
            if form.startswith("amortised"):
                nets[form], results[form], contexts[form] = self._adapt(lm, sample.task, fit, dev, seed, out, until)
            else:
                nets[form], results[form] = self._fit_one(form, lm, (fit_texts, contexts[form]), (dev_texts, dev_z), seed, out, until)
                results[form]["answer"] = mean_nll(lm, nets[form], dev_z, judged)
        chosen = min(nets, key=lambda form: results[form]["answer"])
        if not tuned and load.weights_hash(lm.model) != frozen:  # where LoRA is around them, `tune_lm` looked
            raise ModelError(f"the weights of {model!r} changed while its prompt was fitted; they are frozen and must not.")
        task, label = sample.task, str(sample.task.target) if sample.task.has_labels else None
        sources = [
            {"id": e.id, "text": task.render(e.fields), "given": {c: e.fields[c] for c in task.given_columns}, "label": label and e.fields[label]}
            for e in fit
        ]
        facts = {
            "form": chosen, "tokens": self.tokens, "k": self.k, "embedder": self.embedder,
            "embedder_hash": embedder_hash(self.embedder), "model": model, "model_hash": lm.hash,
            "too_long": {"fit": len(sample.fit) - len(fit), "dev": len(sample.dev[:DEV_TEXTS]) - len(dev)},
        }  # fmt: skip
        ends = {form: results[form]["log"][-1] for form in forms if results[form]["log"]}
        cut: dict[str, Any] = {form: {"step": last["step"], "of": last["cut"]} for form, last in ends.items() if "cut" in last}
        training = {"chosen": chosen, "unit": "nats a token", "forms": results} | ({"cut": cut} if cut else {})
        _write(out, nets[chosen], contexts[chosen], facts, sources, training)
        return cut

    def _forms(self, model: str) -> tuple[Form, ...]:
        from seedbed.lm.decoder import gives

        if why := self.undecoded(model):
            raise ModelError(why)
        place = decoder_place(self.decoder, model)
        if self.prompt != "auto":
            return (self.prompt,)
        return FORMS if place.is_file() and gives(place, self.tokens) else FORMS[:-1]

    def undecoded(self, model: str) -> str:
        """What to do where the decoder that the prompt starts from is not there; "" else."""
        if not self.prompt.startswith("amortised") or decoder_place(self.decoder, model).is_file():
            return ""
        found = f"decoder = {self.decoder!r} is no file" if self.decoder else f"{model!r} has no decoder/decoder.safetensors"
        return (
            f'[generator] prompt = "{self.prompt}": {found}. Make one (seedbed pretrain-prompt --model {model} --out FOLDER) '
            'and write decoder = "FOLDER/decoder.safetensors".'
        )

    def beside(self, model: str) -> Path | None:
        """The decoder in the model's folder, where there is one and the fit may start from it."""
        place = decoder_place("", model)
        return place if not self.decoder and self.prompt in ("auto", "amortised", "amortised-lora") and place.is_file() else None

    def load(self, folder: Path, task: Task, model: str) -> SoftTeacher:
        facts = json.loads((folder / "prompt.json").read_text())
        ref = ModelRef(model, soft=folder, adapter=folder / "adapter" if facts["form"] == "amortised-lora" else None)
        return SoftTeacher(ref, task, facts["form"], self.contexts, self.spread, self.cover)

    def _encode(self, lm: LM, task: Task, examples: tuple[Example, ...]) -> tuple[list[Example], list[Text]]:
        """The examples whose text, with the prompt, fits the context, and their ids."""
        from seedbed.lm.train import encode

        both = [(e, encode(lm, task.split(e.fields))) for e in examples]
        both = [(e, text) for e, text in both if len(text) + self.tokens <= lm.context]
        return [e for e, _ in both], [text for _, text in both]

    def _adapt(
        self, lm: LM, task: Task, fit: list[Example], dev: list[Example], seed: int, out: Path, deadline: Deadline
    ) -> tuple[SoftPrompt, dict[str, Any], torch.Tensor]:
        """The decoder, adapted; the numbers of its row in training.json; the fit rows' contexts: of what was generated in them, as it learned."""
        import torch

        from seedbed.lm import train
        from seedbed.lm.adapt import Rows, adapt, adapt_with_lora
        from seedbed.lm.decoder import load_decoder
        from seedbed.lm.embed import embed, embedder_hash

        decoder = load_decoder(decoder_place(self.decoder, lm.name), lm, self.embedder, embedder_hash(self.embedder), self.tokens, self.dropout)
        own, other = (
            Rows([train.encode(lm, asked(task, e.fields)) for e in part], torch.from_numpy(embed([task.body(e.fields) for e in part], self.embedder)))
            for part in (fit, dev)
        )
        how = train.Fitting(self.epochs, self.patience, self.batch, prompt_lr=self.prompt_lr, network_lr=self.network_lr, weight_decay=0.0)
        if self.prompt == "amortised-lora":
            checkpoint = out / "checkpoint-amortised-lora.safetensors"
            net, tuned = adapt_with_lora(lm, decoder, own, other, how, self._tuning, seed_for(seed, "amortised"), checkpoint, deadline)
            self._write_adapter(out, tuned)
            lm = tuned.lm
            found: dict[str, Any] = {"log": tuned.log, "parameters": tuned.parameters}
        else:
            net, found = adapt(lm, decoder, own, other, how, seed_for(seed, "amortised"), out, deadline)
        order = torch.randperm(len(other.z), generator=torch.Generator().manual_seed(seed_for(seed, "shuffle")))
        loss = train.mean_nll(lm, net, other.z, other.texts)
        losses = {"dev": loss, "answer": loss, "dev_shuffled": train.mean_nll(lm, net, other.z[order], other.texts)}
        best = min(found["log"], key=lambda entry: entry["dev"]) if found["log"] else {"train": train.mean_nll(lm, net, own.z, own.texts), "epoch": 0}
        theta = {"parameters": sum(p.numel() for p in net.parameters())}
        return net, losses | {"train": best["train"], "epoch": best["epoch"]} | theta | found, own.z

    @property
    def _tuning(self) -> Tuning:
        from seedbed.lm.finetune import Tuning

        return Tuning(
            self.epochs, self.patience, self.batch, method="lora", lr=self.lora_lr, weight_decay=self.weight_decay,
            rank=self.lora_rank, alpha=2.0 * self.lora_rank, dropout=LORA_DROPOUT,
        )  # fmt: skip

    def _write_adapter(self, out: Path, tuned: Tuned) -> None:
        """adapter/, in PEFT's format, and finetune.json beside it: what it was made for."""
        (out / "adapter").mkdir(exist_ok=True)
        tuned.save(out / "adapter", tuned.lm.name)
        write_json(out / "finetune.json", {"method": "lora", "model": tuned.lm.name, "model_hash": tuned.lm.hash, "rank": self.lora_rank})

    def _fit_one(
        self,
        form: Form,
        lm: LM,
        fit: tuple[list[Text], torch.Tensor],
        dev: tuple[list[Text], torch.Tensor],
        seed: int,
        out: Path,
        deadline: Deadline,
    ) -> tuple[SoftPrompt, dict[str, Any]]:
        """One form, trained; the numbers of its row in training.json."""
        import torch

        from seedbed.lm import train

        (texts, z), (dev_texts, dev_z) = fit, dev
        net = self._start(form, lm, texts, z, seed)
        how = train.Fitting(
            self.epochs, self.patience, self.batch, prompt_lr=self.prompt_lr, network_lr=self.network_lr, weight_decay=self.weight_decay
        )
        log = train.fit(lm, net, texts, z, dev_texts, dev_z, how, seed_for(seed, "fit", form), out / f"checkpoint-{form}.safetensors", deadline)
        best = min(log, key=lambda entry: entry["dev"])
        order = torch.randperm(len(dev_z), generator=torch.Generator().manual_seed(seed_for(seed, "shuffle")))
        shuffled = train.mean_nll(lm, net, dev_z[order], dev_texts)
        theta = sum(p.numel() for p in net.parameters())
        return net, {"dev": best["dev"], "dev_shuffled": shuffled, "train": best["train"], "epoch": best["epoch"], "parameters": theta, "log": log}

    def _start(self, form: Form, lm: LM, texts: list[Text], z: torch.Tensor, seed: int) -> SoftPrompt:
        import torch

        from seedbed.lm.prompts import SoftPrompt, starts_from

        generator = torch.Generator().manual_seed(seed_for(seed, "start", form))
        embeddings = lm.model.get_input_embeddings().weight
        ids = [i for text in texts for i in text.target[:-1]] or [lm.eos]
        starts = starts_from(embeddings, ids, self.k if form == "mp" else 1, self.tokens, generator)
        with torch.random.fork_rng():
            torch.manual_seed(seed_for(seed, "network", form))
            net = SoftPrompt(
                "mc" if form.startswith("amortised") else form,  # type: ignore[arg-type]
                starts,
                float(embeddings[ids].float().pow(2).mean().sqrt()),
                z.shape[1],
                self.hidden,
                self.rank,
                self.dropout,
            )
        net.z_mean.copy_(z.mean(0))  # type: ignore[operator]
        net.z_std.copy_(z.std(0).clamp(min=1e-4))  # type: ignore[operator]
        return net.to(lm.device)


def decoder_place(given: str, model: str) -> Path:
    """Where the decoder is: the file named, or, with "", decoder/decoder.safetensors in the folder of a shipped model or of one's own."""
    shipped = Path(__file__).resolve().parent.parent / "models" / model
    return Path(given) if given else (shipped if shipped.is_dir() else Path(model)) / "decoder/decoder.safetensors"


def _write(out: Path, net: SoftPrompt, z: torch.Tensor, facts: dict[str, Any], sources: list[dict[str, Any]], training: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    facts = facts | {"hidden": net.trunk[0].out_features, "rank": net.trunk[2].out_features} if net.form == "mc" else facts
    tensors = {f"theta/{name}": value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    save_file(tensors | {"contexts": z.contiguous()}, out / "prompt.safetensors")
    write_lines(out / "sources.jsonl", sources)
    (out / "training.json").write_text(json.dumps(training, indent=1))
    (out / "prompt.json").write_text(json.dumps(facts, indent=1))
    for checkpoint in () if "cut" in training else out.glob("checkpoint-*"):
        checkpoint.unlink()

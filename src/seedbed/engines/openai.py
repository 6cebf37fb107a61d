"""Completes prompts by asking a server that speaks OpenAI's interface: a hosted one, or vLLM, llama.cpp, Ollama and the like at home.

The only file that imports `openai`. A failed request is asked again; what is paid for is kept (paid.py) before it is used, so that a run
that was stopped, or made anew, asks for nothing twice.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field

from seedbed.errors import EngineError
from seedbed.paid import Paid, key_of, paid, place
from seedbed.types import Completion, ModelRef, Prompt, Sampling, seed_for

KEY = "OPENAI_API_KEY"
OFFICIAL = "api.openai.com"
LONGEST_WAIT_S = 120.0
"""A server that asks for more (Retry-After) is not waited for: the request has failed."""
GIVE_UP = 20
"""Requests in a row that fail for good: then it is not the prompts, and the run stops with nothing lost."""
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
    a user's message, or "text", the model goes on behind it. system: the system message of a chat; none where empty. concurrency: requests under
    way at most. retries: of a request that met a busy or broken server. backoff_s: before the first of them, doubled each time and shortened by
    up to half; Retry-After holds where it is longer. timeout_s: of one request.
    """

    version: ClassVar[int] = 1
    can: ClassVar[frozenset[str]] = frozenset({"text"})

    base_url: str | None = None
    mode: Literal["chat", "text"] = "chat"
    system: str = ""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    retries: Annotated[int, Field(ge=0, le=20)] = 6
    backoff_s: Annotated[float, Field(ge=0, le=60)] = 0.5
    timeout_s: Annotated[float, Field(gt=0)] = 120.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url or "http://local")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username or parts.password:
            raise ValueError(f"base_url must be http(s)://host[:port]/path. A key goes into {KEY} in the environment, never into a recipe")
        if self.system and self.mode == "text":
            raise ValueError('system is a message of mode = "chat"')

    def open(self, model: ModelRef) -> OpenaiSession:
        """Raises EngineError: the library or the key is missing."""
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
        return OpenaiSession(self, model.name, client, paid(place()), key)


@dataclass(frozen=True)
class OpenaiSession:
    settings: Openai
    model: str
    client: Any = field(repr=False, compare=False)
    paid: Paid = field(repr=False, compare=False)
    key: str = field(repr=False, compare=False)

    def describe(self) -> Mapping[str, Any]:
        return {"engine": "openai", "model": self.model, "base_url": str(self.client.base_url), "mode": self.settings.mode}

    def score(self, prompt: Prompt, continuations: Sequence[str], ended: bool = False) -> list[tuple[float, int]]:
        raise EngineError("a server does not score texts that it did not write. Use [engine] kind = 'local' for what needs a likelihood.")

    def complete(self, prompts: Iterable[tuple[int, Prompt]], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Failures are held back until a later request succeeds: where none does, the server is at fault and the run stops with nothing lost."""
        waiting, stop = iter(prompts), threading.Event()
        held: list[tuple[int, Completion]] = []
        with ThreadPoolExecutor(self.settings.concurrency) as pool:
            under_way: dict[Future[Completion], int] = {}
            try:
                while True:
                    while len(under_way) < self.settings.concurrency and (following := next(waiting, None)) is not None:
                        key, prompt = following
                        under_way[pool.submit(self._one, prompt, sampling, stop)] = key
                    if not under_way:
                        yield from held
                        return
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        answer = (under_way.pop(future), future.result())
                        held.append(answer)
                        if answer[1].problem and len(held) < GIVE_UP:
                            continue
                        if answer[1].problem:
                            raise EngineError(f"{GIVE_UP} requests in a row failed, the last one so: {answer[1].problem}. {self._where()} {GOES_ON}")
                        yield from held
                        held.clear()
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)

    def _one(self, prompt: Prompt, sampling: Sampling, stop: threading.Event) -> Completion:
        """The kept completion, or a new one that is kept; with a problem, which is not, where the request fails for good."""
        if prompt.soft or prompt.adapter:
            raise EngineError("[engine] kind = 'openai' takes text prompts alone. Use [engine] kind = 'local' for soft prompts and adapters.")
        asked = self._request(prompt, sampling)
        key = key_of(str(self.client.base_url), self.settings.mode, asked, prompt.seed)  # the whole seed: what is sent has 31 bits of it
        found = self.paid.get(key)
        if found is None:
            found = self._asked(asked, prompt, stop)
            if not found.problem:
                self.paid.put(key, found)
        return found

    def _request(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        s = self.settings
        asked: dict[str, Any] = {"model": self.model, "temperature": sampling.temperature, "top_p": sampling.top_p, "seed": prompt.seed % 2**31}
        asked |= {"stop": [prompt.stop]} if prompt.stop else {}
        if s.mode == "text":
            return asked | {"prompt": prompt.text, "max_tokens": sampling.max_tokens}
        # OpenAI's newer models refuse the old name, other servers may not know the new one.
        limit = "max_completion_tokens" if self.client.base_url.host == OFFICIAL else "max_tokens"
        system = [{"role": "system", "content": s.system}] if s.system else []
        return asked | {"messages": [*system, {"role": "user", "content": prompt.text}], limit: sampling.max_tokens}

    def _asked(self, asked: Mapping[str, Any], prompt: Prompt, stop: threading.Event) -> Completion:
        """Asks until there is an answer, the retries are used up, or it is no use."""
        import openai

        kind = self.client.completions if self.settings.mode == "text" else self.client.chat.completions
        for attempt in range(self.settings.retries + 1):
            rest = 0.5 + random.Random(seed_for(prompt.seed, "retry", attempt)).random() / 2
            delay = min(LONGEST_WAIT_S, self.settings.backoff_s * 2**attempt * rest)
            try:
                return _read(kind.create(**asked), prompt, asked)
            except openai.APIStatusError as error:
                problem = self._problem(error)
                if error.status_code < 500 and error.status_code not in (408, 409, 429):
                    return Completion("", 0, False, problem)
                delay = max(delay, _retry_after(error.response.headers))
            except openai.APIConnectionError as error:
                problem = f"no answer: {_hidden(str(error.__cause__ or error), self.key)}"
            except (ValueError, LookupError, AttributeError, TypeError, openai.OpenAIError):
                problem = "the answer is not of OpenAI's form"
            if delay > LONGEST_WAIT_S or attempt == self.settings.retries or stop.wait(delay):
                break
        return Completion("", 0, False, problem)

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


def _read(answer: Any, prompt: Prompt, asked: Mapping[str, Any]) -> Completion:
    """Raises what reading a thing of another form raises. Where the server does not count, all tokens that it was allowed are counted."""
    choice = answer.choices[0]
    text = choice.text if "prompt" in asked else choice.message.content
    if text is not None and not isinstance(text, str):
        raise TypeError(text)
    text = (text or "").encode("utf-8", "replace").decode()  # half a surrogate pair cannot be stored
    before, stopped, _ = text.partition(prompt.stop) if prompt.stop else (text, "", "")  # for servers that send the stop string, or ignore it
    used = answer.usage.completion_tokens if answer.usage else None
    allowed: int = asked.get("max_tokens") or asked["max_completion_tokens"]
    return Completion(before, int(used if used is not None else allowed), bool(stopped) or choice.finish_reason != "length")


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds; 0 where the header is missing or no number (a date is rare: the backoff does)."""
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            return float(headers[name]) / divisor
    return 0.0


def _hidden(text: str, key: str) -> str:
    return text.replace(key, "[key]") if key else text

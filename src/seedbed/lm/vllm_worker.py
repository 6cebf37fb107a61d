"""vLLM in a process of its own, and the two ends of the pipe to it. The only file that imports `vllm`.

A process of its own, for when a vLLM engine is killed its caller waits for ever (0.32: the thread that reads its answers ends without a word);
from here the process is watched, ended and started anew. Messages are a line of JSON and, behind it, the bytes of a prompt's vectors.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import IO, Any

import torch

BEAT_S = 1.0
"""A worker that has nothing to say for so long says that it lives."""
STARTS_S = 1800.0
"""A model of hundreds of GB is loaded in less."""


class WorkerDied(Exception):
    """The process has ended, or has said nothing for too long."""


@dataclass(frozen=True)
class Ended:
    """A request's end. logs: of each token that was drawn, token -> log-probability of the likeliest and of those wanted. prompt_logs: of each of
    the prompt's tokens after the first. refused: why vLLM did not take it."""

    text: str = ""
    ids: tuple[int, ...] = ()
    reason: str = ""
    logs: tuple[Mapping[int, float], ...] = ()
    prompt_logs: tuple[float, ...] = ()
    refused: str = ""


class Worker:
    """The near end. Starts the process; `close`, or the end of this object, ends it."""

    def __init__(self, arguments: Mapping[str, Any], stall_s: float) -> None:
        """arguments: of vLLM's EngineArgs. Raises WorkerDied where it does not start; the message ends with its last words."""
        near, far = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this object)
        command = [sys.executable, "-m", "seedbed.lm.vllm_worker", str(far.fileno())]
        environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
        self.process = subprocess.Popen(
            command, pass_fds=[far.fileno()], env=environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True
        )
        far.close()
        self._pipe, self.stall_s = Connection(near.detach()), stall_s
        self._said: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=_listen, args=(self._pipe, self._said), daemon=True).start()
        self._end = weakref.finalize(self, _end, self.process, self._pipe, self._log)
        self.send({"open": dict(arguments)})
        self.facts: dict[str, Any] = self._next(STARTS_S)["ready"]

    def send(self, message: Mapping[str, Any], vectors: torch.Tensor | None = None) -> None:
        """vectors: float32 (n, d)."""
        body = b"" if vectors is None else vectors.contiguous().numpy().tobytes()
        shape = {} if vectors is None else {"shape": list(vectors.shape)}
        try:
            self._pipe.send_bytes(json.dumps({**message, **shape}).encode() + b"\n" + body)
        except OSError:
            raise WorkerDied(self._words()) from None

    def receive(self) -> tuple[int, Ended]:
        """(id, end) of the next request that ends."""
        while True:
            message = self._next(self.stall_s)
            if "id" in message:
                logs = tuple({int(token): value for token, value in place.items()} for place in message.pop("logs", ()))
                ids, prompt_logs = (tuple(message.pop(name, ())) for name in ("ids", "prompt_logs"))
                return message.pop("id"), Ended(ids=ids, logs=logs, prompt_logs=prompt_logs, **message)

    def close(self) -> None:
        self._end()

    def _next(self, seconds: float) -> dict[str, Any]:
        try:
            said = self._said.get(timeout=seconds)
        except queue.Empty:
            raise WorkerDied(f"it has said nothing for {seconds:g} s") from None
        if said is None:
            raise WorkerDied(self._words())
        message: dict[str, Any] = json.loads(said)
        if "died" in message:
            raise WorkerDied(message["died"])
        return message

    def _words(self) -> str:
        """How the process ended, and the last thing that it wrote."""
        if self._log.closed:
            return "it was ended from here"
        size = os.fstat(self._log.fileno()).st_size
        lines = [line for line in os.pread(self._log.fileno(), 4000, max(0, size - 4000)).decode(errors="replace").splitlines() if line.strip()]
        return f"its process ended (status {self.process.wait()}); its last words: {lines[-1][:300] if lines else 'none'}"


def _listen(pipe: Connection, said: queue.Queue[bytes | None]) -> None:
    """Takes what the process says as it comes, so that it never waits to be heard; None at its end."""
    with suppress(EOFError, OSError):
        while True:
            said.put(pipe.recv_bytes())
    said.put(None)


def _end(process: subprocess.Popen[bytes], pipe: Connection, log: IO[bytes]) -> None:
    """Ends the process and what it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    pipe.close()
    log.close()


class Far:
    """The far end: vLLM's engine, and a loop that feeds it and says what ends."""

    def __init__(self, pipe: Connection) -> None:
        import vllm
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        self.pipe = pipe
        message, _ = self._read()
        self.engine = LLMEngine.from_engine_args(EngineArgs(**message["open"]))
        config = self.engine.vllm_config
        facts = {"vllm": vllm.__version__, "device": config.device_config.device_type, "precision": str(config.model_config.dtype)}
        self.said = 0.0
        self._first()
        self._say({"ready": facts | {"max_model_len": config.model_config.max_model_len}})

    def _first(self) -> None:
        """One token, before anybody waits for one: what is compiled at the first step may take long."""
        from vllm import SamplingParams

        self.engine.add_request("0", {"prompt_token_ids": [0]}, SamplingParams(max_tokens=1, temperature=0.0))
        while self.engine.has_unfinished_requests():
            self.engine.step()

    def serve(self) -> None:
        """Until the near end is gone."""
        while True:
            busy = self.engine.has_unfinished_requests()
            while self.pipe.poll(0 if busy else None):
                self._take(*self._read())
                busy = True
            if self.engine.has_unfinished_requests():
                for output in self.engine.step():
                    if output.finished:
                        self._ended(output)
            if time.monotonic() - self.said > BEAT_S:
                self._say({})

    def _read(self) -> tuple[dict[str, Any], torch.Tensor | None]:
        head, _, body = self.pipe.recv_bytes().partition(b"\n")
        message: dict[str, Any] = json.loads(head)
        shape = message.pop("shape", None)
        return message, torch.frombuffer(bytearray(body), dtype=torch.float32).view(shape) if shape else None

    def _say(self, message: Mapping[str, Any]) -> None:
        self.pipe.send_bytes(json.dumps(message).encode())
        self.said = time.monotonic()

    def _take(self, message: dict[str, Any], vectors: torch.Tensor | None) -> None:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError
        from vllm.lora.request import LoRARequest
        from vllm.sampling_params import RequestOutputKind

        if "drop" in message:
            self.engine.abort_request([str(number) for number in message["drop"]])
            return
        number, ids, adapter = message.pop("id"), message.pop("ids", None), message.pop("adapter", None)
        try:
            how = SamplingParams(**message, output_kind=RequestOutputKind.FINAL_ONLY)
            prompt = {"prompt_token_ids": ids} if vectors is None else {"prompt_embeds": vectors.to(self.engine.model_config.dtype)}
            lora = LoRARequest("adapter", 1, adapter) if adapter else None
            self.engine.add_request(str(number), prompt, how, lora_request=lora)
        except (VLLMClientError, ValueError, TypeError) as error:
            self._say({"id": number, "refused": " ".join(str(error).split())[:500]})

    def _ended(self, output: Any) -> None:
        """Says how a request ended."""
        done, prompt = output.outputs[0], output.prompt_logprobs
        said: dict[str, Any] = {"id": int(output.request_id), "text": done.text, "ids": list(done.token_ids), "reason": done.finish_reason or ""}
        if done.logprobs:
            said["logs"] = [{token: entry.logprob for token, entry in place.items()} for place in done.logprobs]
        if prompt:
            said["prompt_logs"] = [place[token].logprob for place, token in zip(prompt[1:], output.prompt_token_ids[1:], strict=True)]
        self._say(said)


def main(descriptor: int) -> None:
    pipe = Connection(descriptor)
    try:
        Far(pipe).serve()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the near end is gone
    except Exception as error:
        traceback.print_exc()
        pipe.send_bytes(json.dumps({"died": f"{type(error).__name__}: {error}"[:1000]}).encode())
        os._exit(1)  # threads of vLLM may hold an ordinary exit


if __name__ == "__main__":
    main(int(sys.argv[1]))

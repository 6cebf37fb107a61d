"""A small real server that speaks OpenAI's interface, with faults on demand. What it writes comes from the toy engine, or from `write`."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from seedbed.engines.toy import Toy
from seedbed.types import ModelRef, Prompt, Sampling

Fault = Callable[["Handler"], None]


def status(code: int, message: str = "no", headers: dict[str, str] | None = None, reason: str = "") -> Fault:
    return lambda handler: handler.send(code, json.dumps({"error": {"message": message, "code": reason}}), headers)


def text(body: str) -> Fault:
    """An answer 200 with this body."""
    return lambda handler: handler.send(200, body)


def reset(handler: Handler) -> None:
    """The connection is closed by a reset, with nothing sent."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def cut_short(handler: Handler) -> None:
    """Half of what was announced."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def half_closed(handler: Handler) -> None:
    """Nothing is sent and the server's side is shut, while it still listens."""
    handler.connection.shutdown(socket.SHUT_WR)
    handler.rfile.read(1)
    handler.close_connection = True


def silent(handler: Handler) -> None:
    """No answer before the client gives up, or the server ends."""
    handler.connection.settimeout(0.05)
    while not handler.server.ended.is_set():
        try:
            if not handler.connection.recv(1):
                break  # the client has gone
        except TimeoutError:
            continue
        except OSError:
            break
    handler.close_connection = True


def _choices(*texts: str, tokens: int = 7) -> Fault:
    """An answer with these texts, in both modes' form."""
    made = [{"index": i, "finish_reason": "stop", "text": t, "message": {"role": "assistant", "content": t}} for i, t in enumerate(texts)]
    usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
    return text(json.dumps({"id": "1", "object": "x", "created": 0, "model": "x", "choices": made, "usage": usage}))


KINDS: dict[str, Fault] = {
    "429, Retry-After": status(429, headers={"Retry-After": "0.01"}),
    "500": status(500),
    "503": status(503),
    "slow: no answer in time": silent,
    "half-closed": half_closed,
    "truncated JSON": text('{"id": "1", "choices": [{"index": 0, "mess'),
    "wrong count: two texts": _choices("one", "two"),
    "empty text": _choices("", tokens=0),
}
"""What real servers do instead of answering."""


class Server(ThreadingHTTPServer):
    """with Server() as server: server.url. faults: what the next requests get instead of an answer, the first one first; always: what each gets;
    pick: says it of each request where neither does. count: tokens of a text; 1 of a prompt and 7 of an answer where not given.

    requests: what was asked, in order; answered: how many got an answer.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, write: Callable[[str, dict[str, Any]], str] | None = None, key: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.write, self.key = write, key
        self.count: Callable[[str], float] | None = None
        self.faults: list[Fault] = []
        self.always: Fault | None = None
        self.pick: Callable[[dict[str, Any]], Fault | None] = lambda asked: None
        self.requests: list[dict[str, Any]] = []
        self.answered = 0
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *what: object) -> None:
        self.ended.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Resets are wanted here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.requests.append(asked | {"path": self.path, "authorization": self.headers.get("Authorization")})
            fault = server.faults.pop(0) if server.faults else server.always or server.pick(asked)
        if fault:
            fault(self)
        elif server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
            status(401, f"wrong key: {self.headers.get('Authorization')}")(self)
        else:
            self._answer(asked)

    def _answer(self, asked: dict[str, Any]) -> None:
        chat = self.path.endswith("/chat/completions")
        prompt = asked["messages"][-1]["content"] if chat else asked["prompt"]
        if self.server.write:
            written, tokens, reason = self.server.write(prompt, asked), 7, "stop"
        else:
            stop = asked.get("stop", [""])[0]
            how = Sampling(asked["temperature"], asked["top_p"], asked["max_tokens"])
            done = next(Toy().open(ModelRef("toy")).complete([(0, Prompt(prompt, asked["seed"], stop=stop))], how))[1]
            written, tokens, reason = done.text, done.tokens, "stop" if done.finished else "length"
        choice = {"index": 0, "finish_reason": reason} | ({"message": {"role": "assistant", "content": written}} if chat else {"text": written})
        read = 1
        if self.server.count:
            read, tokens = (round(self.server.count(text)) for text in (prompt, written))
        usage = {"prompt_tokens": read, "completion_tokens": tokens, "total_tokens": tokens + read}
        with self.server.lock:
            self.server.answered += 1
        self.send(200, json.dumps({"id": "1", "object": "x", "created": 0, "model": asked["model"], "choices": [choice], "usage": usage}))

    def send(self, code: int, body: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body.encode()))}.items() | (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the screen."""

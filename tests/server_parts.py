"""A fake OpenAI-compatible server that misbehaves by a script, and counts what it was asked.

What it does with a request is decided by a function of the question and of how often that question was put before.
"""

import base64
import io
import json
import random
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

Script = Callable[[str, int], Any]
"""(question, times put before) to what happens: `ok`, `drop`, `stall`, `half`, a body as a text, or
(status, body, headers)."""


def always_ok(question: str, before: int) -> str:
    return "ok"


def seeded(seed: int, *, faults: float = 0.5) -> Script:
    """Every kind of fault in turn, by chance, the same at every run; at most three times for one question."""
    kinds = [
        "drop", "half", "{", "", "<html>busy</html>", "[]", '{"choices": []}',
        '{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}',
        '{"choices": [{"message": {"content": 7}}]}',
        (429, "{}", {"Retry-After": "0.02"}), (429, "", {}), (500, "oops", {}), (503, "{}", {"Retry-After": "0"}),
        (408, "", {}), (409, "", {}), (502, "<html>", {}),
    ]  # fmt: skip

    def script(question: str, before: int) -> Any:
        rng = random.Random(f"{seed} {question} {before}")
        return rng.choice(kinds) if before < 3 and rng.random() < faults else "ok"

    return script


@dataclass
class Fake:
    """The server's state, to be looked at by tests."""

    script: Script = always_ok
    delay: float = 0.0
    reply: Callable[[str], str] = lambda question: f"reply to {question}"
    models: Any = field(default_factory=lambda: {"data": [{"id": "fake-vlm", "owned_by": "test"}]})
    key: str | None = None
    base_url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    images: dict[str, list[Image.Image]] = field(default_factory=dict)
    at_once: int = 0
    most_at_once: int = 0
    listings: int = 0
    hung_up: int = 0
    """Stalls that the client ended."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)
    """Ends every stall."""


@contextmanager
def fake_server(**options: Any) -> Iterator[Fake]:
    """A fake on a free port of this machine, gone afterwards."""
    fake = Fake(**options)
    server = _Quiet(("127.0.0.1", 0), _handler(fake))
    fake.base_url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def closed_port() -> int:
    """A port on which nobody answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the game."""


def _handler(fake: Fake) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            fake.listings += 1
            if self.path != "/v1/models":
                return self.send(404, json.dumps({"error": {"message": f"no {self.path}"}}))
            if fake.key is not None and self.headers["Authorization"] != f"Bearer {fake.key}":
                return self.send(
                    401, json.dumps({"error": {"message": f"bad {self.headers['Authorization']}"}})
                )
            listed = fake.models
            return self.send(*listed) if isinstance(listed, tuple) else self.send(200, json.dumps(listed))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/chat/completions"
            with fake.lock:
                fake.at_once += 1
                fake.most_at_once = max(fake.most_at_once, fake.at_once)
            try:
                self.answer(body)
            finally:
                with fake.lock:
                    fake.at_once -= 1

        def answer(self, body: dict[str, Any]) -> None:
            question, images = read(body)
            with fake.lock:
                before = fake.asked[question]
                fake.asked[question] += 1
                fake.bodies.append(body)
                fake.headers.append(dict(self.headers))
                fake.images[question] = images
            time.sleep(fake.delay)
            act = fake.script(question, before)
            if act == "ok":
                with fake.lock:
                    fake.answered[question] += 1
                self.send(200, completion(fake.reply(question)))
            elif act in ("drop", "stall"):
                if act == "stall":
                    self.stall()
                self.close_connection = True
            elif act == "half":
                whole = completion(fake.reply(question)).encode()
                self.head(200, len(whole), {})
                self.wfile.write(whole[: len(whole) // 2])
                self.close_connection = True
            elif isinstance(act, tuple):
                self.send(*act)
            else:
                self.send(200, act)

        def stall(self) -> None:
            """Say nothing until released, or until the client hangs up."""
            while not fake.released.wait(0.02):
                readable, _, _ = select.select([self.connection], [], [], 0)
                if readable and not self.connection.recv(1, socket.MSG_PEEK):
                    with fake.lock:
                        fake.hung_up += 1
                    return

        def head(self, status: int, length: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()

        def send(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
            content = text.encode()
            self.head(status, len(content), headers or {})
            self.wfile.write(content)

    return Handler


def read(body: dict[str, Any]) -> tuple[str, list[Image.Image]]:
    """The text and the pictures of a request."""
    (message,) = body["messages"]
    if isinstance(message["content"], str):
        return message["content"], []
    *pictures, text = message["content"]
    urls = [part["image_url"]["url"] for part in pictures]
    assert all(url.startswith("data:image/png;base64,") for url in urls)
    return text["text"], [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


def completion(text: str | None, *, finish: str = "stop", **more: Any) -> str:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps({"object": "chat.completion", "model": "fake-vlm", "choices": [choice], **more})

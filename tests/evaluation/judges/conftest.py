"""A judge behind a real HTTP server that says what a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from argus.core.sample import ImagePart, Message, Sample, TextPart

from ..conftest import picture


class Server(ThreadingHTTPServer):
    """A chat endpoint; `reply` makes its text from the request's body, or a status of failure."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict] = []
        self.reply: Callable[[dict], str | int] = lambda body: "8 7"

    @property
    def reference(self) -> str:
        return f"openai:judge@http://127.0.0.1:{self.server_port}/v1#backoff=0&retries=0&timeout=5"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        said = self.server.reply(body)
        text = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        self.send_response(said if isinstance(said, int) else 200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def server():
    pytest.importorskip("httpx")
    with Server() as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Verdicts never reach the user's own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "argus" / "judges"


def item(number: int = 0, *, pictures: int = 1, **metadata: object) -> Sample:
    """A question about noise with description and reference answer."""
    shown = [ImagePart(picture(number + k)) for k in range(pictures)]
    known = {
        "category": "Visual Recognition",
        "family": "Attribute QA",
        "description": f"A red star, number {number}.",
        "facts": ("a red star",),
    }
    return Sample(f"i{number}", [Message("user", [*shown, TextPart("What is it?")])], "a red star", [], {**known, **metadata})


def words(body: dict) -> str:
    """All text of a request."""
    return "\n".join(part["text"] for message in body["messages"] for part in message["content"] if part["type"] == "text")


def pictures_in(body: dict) -> int:
    """Pictures in a request."""
    return sum(part["type"] == "image_url" for message in body["messages"] for part in message["content"])

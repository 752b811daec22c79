"""A server on loopback that records the requests of a setup script."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass(frozen=True)
class Sent:
    method: str
    path: str
    login: str
    content_type: str
    body: Any


@dataclass
class Recorder:
    """The accepted requests. The first `unavailable` requests get status 503 and are not recorded."""

    unavailable: int = 0
    url: str = ""
    sent: list[Sent] = field(default_factory=list)


@contextmanager
def recording(unavailable: int = 0) -> Iterator[Recorder]:
    recorder = Recorder(unavailable)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"]))
            if recorder.unavailable:
                recorder.unavailable -= 1
                self.send_response(503)
            else:
                login = b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
                kind = self.headers["Content-Type"]
                recorder.sent.append(Sent(self.command, self.path, login, kind, json.loads(text)))
                self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_POST = answer  # noqa: N815 - http.server calls these names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's own name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    recorder.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield recorder
    finally:
        server.shutdown()
        server.server_close()

"""A small container registry on loopback."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
TOKEN = "anyone"  # noqa: S105 - the token that the loopback registry gives to everyone


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Asked:
    host: str
    path: str
    authorization: str | None


class OciRegistry:
    def __init__(self, port: int) -> None:
        self.port = port
        self.host = f"127.0.0.1:{port}"
        self.other_host = f"localhost:{port}"
        self.needs_token = False
        self.login: str | None = None
        """The only accepted login, in base64. `None`: the registry accepts everyone."""
        self.basic = False
        """True if the registry asks for the login instead of a token."""
        self.manifests: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.next_answers: dict[str, deque[Answer]] = defaultdict(deque)
        self.asked: list[Asked] = []

    def push(self, repository: str, tag: str, media_type: str = INDEX) -> str:
        body = json.dumps({"schemaVersion": 2, "mediaType": media_type, "name": repository, "tag": tag}).encode()
        self.manifests[f"/v2/{repository}/manifests/{tag}"][media_type] = body
        return digest(body)

    def script(self, path: str, *answers: Answer) -> None:
        self.next_answers[path].extend(answers)

    def answer(self, asked: Asked, accepted: list[str]) -> Answer:
        self.asked.append(asked)
        path = asked.path.partition("?")[0]
        if self.next_answers[path]:
            return self.next_answers[path].popleft()
        if (self.basic or (path == "/token" and self.login)) and asked.authorization != f"Basic {self.login}":
            return Answer(401, {"WWW-Authenticate": 'Basic realm="loopback"'})
        if path == "/token":
            return Answer(200, body=json.dumps({"token": TOKEN}).encode())
        if self.needs_token and asked.authorization != f"Bearer {TOKEN}":
            return Answer(401, {"WWW-Authenticate": self.challenge(asked.host)})
        stored = self.manifests.get(path, {})
        for media_type in accepted:
            if media_type in stored:
                body = stored[media_type]
                return Answer(200, {"Content-Type": media_type, "Docker-Content-Digest": digest(body)}, body)
        return Answer(404)

    def challenge(self, host: str) -> str:
        return f'Bearer realm="https://{host}/token",service="loopback",scope="repository:voice:pull"'


def digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


@contextmanager
def serve(certificate: Path) -> Iterator[OciRegistry]:
    """`certificate` is a file with a certificate and its key."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = Asked(self.headers["Host"], self.path, self.headers["Authorization"])
            answer = registry.answer(asked, self.headers.get("Accept", "").split(", "))
            self.send_response(answer.status)
            for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in http.server
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry = OciRegistry(server.server_port)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

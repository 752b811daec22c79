"""A bucket on loopback that accepts only requests with a valid AWS Signature Version 4."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Bucket:
    """Stored objects by path, and the encryption that their uploads asked for."""

    key_id: str
    secret: str
    objects: dict[str, bytes] = field(default_factory=dict)
    encryption: dict[str, str | None] = field(default_factory=dict)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    bucket: Bucket

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in http.server
        """Prints nothing, because the client of a failed transfer prints the reason."""

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()
        if self._signed():
            self.bucket.objects[self.path] = body
            self.bucket.encryption[self.path] = self.headers["x-amz-server-side-encryption"]
            self._answer(HTTPStatus.OK)

    def do_GET(self) -> None:
        if self._signed():
            found = self.bucket.objects.get(self.path)
            self._answer(HTTPStatus.NOT_FOUND if found is None else HTTPStatus.OK, found or b"")

    def _answer(self, status: HTTPStatus, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _signed(self) -> bool:
        """True if the client signed the request with the bucket's key. Otherwise the bucket answers 403."""
        scheme, _, rest = (self.headers["Authorization"] or "").partition(" ")
        parts = dict(part.strip().split("=", 1) for part in rest.split(",") if "=" in part)
        key_id, _, scope = parts.get("Credential", "").partition("/")
        good = (scheme, key_id) == ("AWS4-HMAC-SHA256", self.bucket.key_id) and hmac.compare_digest(
            self._signature(scope, parts["SignedHeaders"]), parts["Signature"]
        )
        if not good:
            self._answer(HTTPStatus.FORBIDDEN)
        return good

    def _signature(self, scope: str, signed: str) -> str:
        headers = [f"{name}:{self.headers[name].strip()}" for name in signed.split(";")]
        canonical = "\n".join([self.command, self.path, "", *headers, "", signed, self.headers["x-amz-content-sha256"]])
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = "\n".join(["AWS4-HMAC-SHA256", self.headers["x-amz-date"], scope, digest])
        key = f"AWS4{self.bucket.secret}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return key.hex()


@contextmanager
def running_bucket(key_id: str, secret: str) -> Iterator[Bucket]:
    bucket = Bucket(key_id, secret)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"bucket": bucket}))
    bucket.port = server.server_address[1]
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield bucket
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

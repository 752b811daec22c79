"""One request through the gateway of a platform that was just deployed."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse

from stack.model.platform import Platform

__all__ = ["AnswerError", "Request", "ask", "first_request"]

TIMEOUT = 30
"""Seconds to wait for the answer."""
FAILED = 500
"""The smallest status code that means that the platform failed."""


class AnswerError(Exception):
    """The platform gave no answer, or the answer's status code is `FAILED` or larger."""


@dataclass(frozen=True)
class Request:
    """A request that needs no token."""

    method: str
    path: str
    host: str
    namespace: str
    service: str

    def __str__(self) -> str:
        return f"{self.method} https://{self.host}{self.path}"

    def by_hand(self, context: str) -> str:
        """A shell command that sends this request, without the body `{}` that `ask` sends."""
        forward = (
            f"kubectl --context {context} --namespace {self.namespace} port-forward service/{self.service} 8443:443"
        )
        resolve = f"--resolve {self.host}:8443:127.0.0.1"
        return f"{forward} & curl --insecure {resolve} --request {self.method} https://{self.host}:8443{self.path}"


def first_request(platform: Platform) -> Request | None:
    """A request to the gateway's first public route. `None` without a gateway, `gateway_host` or a public route."""
    gateway, host = platform.graph.gateway, platform.environment.settings.gateway_host
    for operation in gateway.operations if gateway and host else ():
        if gateway and host and operation.http and operation.http.public:
            http = operation.http
            return Request(http.method, http.path, host, gateway.namespace, gateway.name)
    return None


def ask(request: Request, context: str) -> int:
    """Send the request and return the answer's status code. Raises `AnswerError`."""
    try:
        with _forwarded(request, context) as port, socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain:
            status = _status(request, plain)
    except (OSError, HTTPException) as error:
        raise AnswerError(str(error) or type(error).__name__) from None
    if status >= FAILED:
        raise AnswerError(f"status {status}")
    return status


def _status(request: Request, plain: socket.socket) -> int:
    # The gateway's certificate may be a stand-in that no authority signed.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(plain, server_hostname=request.host) as connection:
        head = f"{request.method} {request.path} HTTP/1.1\r\nHost: {request.host}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode())
        answer = HTTPResponse(connection, method=request.method)
        answer.begin()
        return answer.status


@contextmanager
def _forwarded(request: Request, context: str) -> Iterator[int]:
    """Forward a port of this machine to the gateway. Raises `AnswerError` if kubectl cannot forward."""
    command = ["kubectl", f"--context={context}", f"--namespace={request.namespace}"]
    command += ["port-forward", f"service/{request.service}", ":443"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as forward:  # noqa: S603 - a list, and no shell
        try:
            first = forward.stdout.readline() if forward.stdout else ""
            found = re.search(r"127\.0\.0\.1:(\d+)", first)
            if found is None:
                forward.terminate()  # otherwise `read` blocks until kubectl ends
                said = forward.stderr.read() if forward.stderr else ""
                raise AnswerError(said.strip() or first.strip() or "kubectl forwards no port")
            yield int(found[1])
        finally:
            forward.terminate()

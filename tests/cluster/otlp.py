import json
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from components.component import PART_OF

Attributes = dict[str, Any]
SIGNALS = ("traces", "metrics", "logs")
STRANGER = "a-stranger"
"""A sender that is not a service of the platform."""


def any_value(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": _attributes(value)}}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(each) for each in value]}}
    kind = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}[type(value)]
    return {kind: str(value) if kind == "intValue" else value}


def _attributes(values: Attributes) -> list[dict[str, Any]]:
    return [{"key": key, "value": any_value(value)} for key, value in values.items()]


def _now() -> str:
    return str(time.time_ns())


def trace_id() -> str:
    return secrets.token_hex(16)


def trace(
    service: str, name: str, identity: str | None = None, status: str = "", event: str = "", **attributes: Any
) -> dict[str, Any]:
    span = {
        "traceId": identity or trace_id(),
        "spanId": secrets.token_hex(8),
        "name": name,
        "kind": 2,
        "startTimeUnixNano": _now(),
        "endTimeUnixNano": _now(),
        "attributes": _attributes(attributes),
        "status": {"message": status, "code": 2} if status else {},
        "events": [{"timeUnixNano": _now(), "name": event}] if event else [],
    }
    return {"resourceSpans": [{"resource": _resource(service), "scopeSpans": [{"spans": [span]}]}]}


def metric(service: str, name: str, value: float, attributes: Attributes | None = None) -> dict[str, Any]:
    point = {"timeUnixNano": _now(), "asDouble": value, "attributes": _attributes(attributes or {})}
    gauge = {"name": name, "gauge": {"dataPoints": [point]}}
    return {"resourceMetrics": [{"resource": _resource(service), "scopeMetrics": [{"metrics": [gauge]}]}]}


def log(service: str, line: str, attributes: Attributes | None = None) -> dict[str, Any]:
    record = {
        "timeUnixNano": _now(),
        "severityText": "INFO",
        "body": {"stringValue": line},
        "attributes": _attributes(attributes or {}),
    }
    return {"resourceLogs": [{"resource": _resource(service), "scopeLogs": [{"logRecords": [record]}]}]}


def records(*found: dict[str, Any]) -> dict[str, Any]:
    """Log records without a service, as a log shipper sends them."""
    return {"resourceLogs": [{"resource": {}, "scopeLogs": [{"scope": {}, "logRecords": list(found)}]}]}


def _resource(service: str) -> dict[str, Any]:
    namespace = {} if service == STRANGER else {"service.namespace": PART_OF}
    return {"attributes": _attributes({"service.name": service, **namespace})}


def eventually(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition is not true in time"
        time.sleep(0.1)


def send(port: int, signal: str, document: dict[str, Any]) -> bool:
    return send_to(f"http://127.0.0.1:{port}", signal, document)


def send_to(endpoint: str, signal: str, document: dict[str, Any]) -> bool:
    return status(endpoint, signal, document) == HTTPStatus.OK


def status(endpoint: str, signal: str, document: dict[str, Any]) -> int:
    request = Request(  # noqa: S310 - loopback
        f"{endpoint}/v1/{signal}",
        data=json.dumps(document).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urlopen(request, timeout=5) as answer:  # noqa: S310 - loopback
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except URLError:
        return 0


class Sink:
    def __init__(self) -> None:
        taken: dict[str, list[Any]] = defaultdict(list)
        self._taken = taken

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                taken[self.path].append(json.loads(body))
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                """Prints nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_port

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def spans(self, backend: str) -> list[dict[str, Any]]:
        return list(_leaves(self._taken[f"/{backend}/v1/traces"], "resourceSpans", "scopeSpans", "spans"))

    def metrics(self, backend: str) -> list[dict[str, Any]]:
        return list(_leaves(self._taken[f"/{backend}/v1/metrics"], "resourceMetrics", "scopeMetrics", "metrics"))

    def logs(self, backend: str) -> list[dict[str, Any]]:
        return list(_leaves(self._taken[f"/{backend}/v1/logs"], "resourceLogs", "scopeLogs", "logRecords"))


def _leaves(documents: list[Any], *path: str) -> Iterator[dict[str, Any]]:
    if not path:
        yield from documents
        return
    for document in list(documents):
        yield from _leaves(document.get(path[0], []), *path[1:])


def attributes_of(item: dict[str, Any]) -> Attributes:
    return {each["key"]: str(next(iter(each["value"].values()))) for each in item.get("attributes", [])}

"""Checks of a running service against the contract of services: probes, metrics, gRPC health, log lines, drain.

docs/go.md describes the contract. The contract holds for services in every language. Alerts, dashboards and audits
of a running platform read the contract's series and log fields.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from voice_policies import Fault, InvalidInputError, PolicyBundle

__all__ = [
    "Missing",
    "missing_in_logs",
    "missing_on_drain",
    "missing_over_grpc",
    "missing_over_http",
    "read_bundle",
    "signal_process",
]

LARGEST = 100 * 2**20
"""Largest answer, and largest file of a bundle or a log, in bytes. Reading `/dev/zero` stops at this size."""
TIMEOUT = 5
"""Seconds to wait for the next bytes of an answer, and for all of its body. kubelet waits for a shorter time."""
POLL = 0.1
"""Seconds between two requests to `/ready` during a drain."""
NOTICED = 30
"""Seconds from SIGTERM within which `/ready` must fail. It should fail immediately, but a busy machine is slower."""
OK, UNAVAILABLE = 200, 503
STATUSES = {OK: ("healthy", "degraded"), UNAVAILABLE: ("unhealthy", "draining")}
"""Status code of `/ready` → the values of the answer's field `status` that fit the code."""
METRICS: dict[str, tuple[str, ...]] = {
    "voice_policy_info": ("service", "environment", "digest"),
    "voice_policy_mounted_info": ("digest",),
    "voice_operation_requests_total": ("operation", "kind"),
    "voice_operation_slow_requests_total": ("operation",),
    "voice_operation_seconds_total": ("operation",),
    "voice_operation_in_flight_requests": ("operation",),
}
"""Metric → its labels. Each operation has its series before the first request, because an absent series raises no
alert."""
FALLBACKS, CALL = "voice_call_fallbacks_total", "name"
"""The counter of fallbacks, and the label that names the soft call. Alerts and the availability of flows read it."""
KINDS = ("successful", "failed", "cancelled")
"""Values of `kind` of each operation's requests."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
FIELDS = ("time", "level", "message", "service", "environment", "policy_digest")
"""Members of every log line."""
IDS = {"trace_id": re.compile(r"[0-9a-f]{32}"), "span_id": re.compile(r"[0-9a-f]{16}")}
"""Members of log lines that belong to a span → their format in W3C Trace Context."""
SERVING = b"\x08\x01"
"""`grpc.health.v1.HealthCheckResponse` with the status SERVING."""
_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? +(\S+)", re.MULTILINE)
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


class Missing(NamedTuple):
    """One part of the contract that the service does not keep."""

    part: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.part}: {self.found}; expected {self.expected}"


class Answer(NamedTuple):
    """The answer to one request."""

    status: int
    content_type: str
    content: bytes

    @property
    def text(self) -> str:
        """The content. `U+FFFD` replaces bytes that are not UTF-8."""
        return self.content.decode(errors="replace")


def missing_over_http(url: str, bundle: PolicyBundle | None = None) -> Iterator[Missing]:
    """The parts of the contract that the service's HTTP port does not keep.

    With a bundle these parts include the absent series of the bundle's operations and soft calls.

    Raises `InvalidInputError` for a malformed address, or if nothing answers there.
    """
    base = _without_last_slash(url)
    alive = _get(f"{base}/health")
    if alive.status != OK:
        yield Missing("GET /health", f"answers {alive.status}", "200 as long as the process lives")
    yield from _readiness(_get(f"{base}/ready"))
    unknown = _get(f"{base}/no-such-path")
    if not 400 <= unknown.status < 500:
        yield Missing("GET /no-such-path", f"answers {unknown.status}", "a 4xx status, such as 404")
    metrics = _get(f"{base}/metrics")
    yield from _metrics(metrics)
    if bundle is not None:
        yield from _declared_series(bundle, metrics)


def read_bundle(file: Path) -> PolicyBundle:
    """The bundle in a file. Raises `InvalidInputError` if the file is missing or invalid."""
    return PolicyBundle.from_json(_content("--bundle", file, "expected the policy.json of the service"), str(file))


def _content(option: str, file: Path, accepted: str) -> bytes:
    """The content of an option's file. Raises `InvalidInputError` if the file cannot be read or is too large."""
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST + 1)
    except OSError as error:
        fault = Fault(option, f"is {str(file)!r}: {error.strerror}", accepted)
        raise InvalidInputError("voice conform", [fault]) from None
    if len(content) > LARGEST:
        fault = Fault(option, f"is {str(file)!r}: too large", f"{accepted}, of at most {LARGEST} bytes")
        raise InvalidInputError("voice conform", [fault])
    return content


def _declared_series(bundle: PolicyBundle, metrics: Answer) -> Iterator[Missing]:
    """The absent series of declared operations and soft calls."""
    samples = _samples(metrics.text)
    declared = [("voice_operation_requests_total", "operation", each.operation) for each in bundle.inbound]
    declared += [(FALLBACKS, CALL, call.name) for call in bundle.outbound if call.fallback]
    for metric, label, name in declared:
        if name not in {labels.get(label) for labels in samples[metric]}:
            part = f"metric {metric}"
            yield Missing(
                part, f'has no series with the declared {label}="{name}"', "a series before the first request"
            )


def missing_over_grpc(address: str) -> Iterator[Missing]:
    """The faults of the gRPC health service, which clients need to balance calls.

    Raises `InvalidInputError` for a malformed address.
    """
    import grpc  # noqa: PLC0415 - importing it takes long

    host_and_port = re.fullmatch(r"[^\s/:]+:(\d{1,5})", address)
    if not host_and_port or not 0 < int(host_and_port[1]) < 2**16:
        raise InvalidInputError("voice conform", [Fault("--grpc", f"is {address!r}", "expected HOST:PORT")])
    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            answer = check(b"", timeout=TIMEOUT, wait_for_ready=False)
        except grpc.RpcError as error:
            yield Missing("gRPC health", f"answers {error.code().name}", "SERVING from grpc.health.v1.Health/Check")
            return
    if answer != SERVING:
        yield Missing("gRPC health", "answers another status", "SERVING from grpc.health.v1.Health/Check")


def missing_in_logs(file: Path) -> Iterator[Missing]:
    """The faults of log lines. Raises `InvalidInputError` if the file cannot be read or is too large."""
    content = _content("--logs", file, "expected a file of the service's output")
    lines = content.decode(errors="replace").splitlines()
    if not lines:
        yield Missing("log", "has no line", "JSON lines")
    for number, line in enumerate(lines, start=1):
        if wrong := _log_line_fault(line):
            yield Missing(f"log line {number}", wrong, f"JSON with {', '.join(FIELDS)}")


def missing_on_drain(url: str, process: int) -> Iterator[Missing]:
    """Stop a process by SIGTERM. `/ready` must fail while the process still answers.

    Raises `InvalidInputError` for a malformed address, or as `signal_process` does.
    """
    base = _without_last_slash(url)
    signal_process(process, signal.SIGTERM)
    expected, deadline = "503 from /ready while requests are accepted", time.monotonic() + NOTICED
    try:
        while _get(f"{base}/ready").status != UNAVAILABLE:
            if time.monotonic() > deadline:
                yield Missing("drain", f"/ready does not fail within {NOTICED} s of SIGTERM", expected)
                return
            time.sleep(POLL)
        _get(f"{base}/health")
    except InvalidInputError:
        yield Missing("drain", "the process stops answering before /ready fails, or as soon as it fails", expected)


def signal_process(process: int, number: int = 0) -> None:
    """Send a signal to one process. Signal 0 only checks the process.

    Raises `InvalidInputError` if the process does not exist or belongs to another user.
    """
    try:
        if process < 1:  # for these numbers the kernel signals a group of processes, or every process of the machine
            raise ProcessLookupError
        os.kill(process, number)
    except (OSError, OverflowError):
        fault = Fault("--drain", f"is {process}", "expected the id of the service's process")
        raise InvalidInputError("voice conform", [fault]) from None


def _without_last_slash(url: str) -> str:
    """The address without its last slash. Raises `InvalidInputError` for an address that no service can have."""
    accepted = "expected the address of a service's HTTP port, such as http://127.0.0.1:8080"
    if "@" in url:  # the message does not show the address, because it may hold a password
        raise InvalidInputError("voice conform", [Fault("URL", "has a user", accepted)])
    try:
        parts = urlsplit(url)
        known = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known or parts.path.strip("/") or parts.query or parts.fragment:
        raise InvalidInputError("voice conform", [Fault("URL", f"is {url!r}", accepted)])
    return url.rstrip("/")


def _get(url: str) -> Answer:
    request = Request(url, headers={"Accept": "application/json, text/plain"})  # noqa: S310 - _without_last_slash admits HTTP only
    opener = build_opener(ProxyHandler({}))
    try:
        try:
            with opener.open(request, timeout=TIMEOUT) as response:
                return Answer(response.status, response.headers.get("content-type", ""), _body(response))
        except HTTPError as error:
            return Answer(error.code, error.headers.get("content-type", ""), _body(error.fp))  # type: ignore[arg-type]  # urllib keeps the response there
    except (URLError, OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        accepted = "expected a running service that speaks HTTP there"
        raise InvalidInputError(
            "voice conform", [Fault("URL", f"{url} gives no answer ({reason})", accepted)]
        ) from None


def _body(response: HTTPResponse) -> bytes:
    """All bytes of the body. Raises `OSError` for a body that is too long or too slow, such as an endless stream."""
    body, end = bytearray(), time.monotonic() + TIMEOUT
    while chunk := response.read1():
        body += chunk
        if len(body) > LARGEST:
            raise OSError(f"the body is longer than {LARGEST} bytes")
        if time.monotonic() > end:
            raise TimeoutError(f"the body takes longer than {TIMEOUT} s")
    if response.length:  # the bytes that `read1` still expected
        raise IncompleteRead(bytes(body), response.length)
    return bytes(body)


def _readiness(answer: Answer) -> Iterator[Missing]:
    words = STATUSES.get(answer.status)
    if words is None:
        yield Missing("GET /ready", f"answers {answer.status}", "200 if the service can serve, 503 if not")
        return
    document = _object(answer.text)
    status = document.get("status") if document is not None else None
    if status not in words:
        yield Missing("GET /ready", f"answers {answer.status} with the status {status!r}", f"one of {', '.join(words)}")


def _metrics(answer: Answer) -> Iterator[Missing]:
    if answer.status != OK or not answer.content_type.startswith(("text/plain", "application/openmetrics-text")):
        found = f"answers {answer.status} as {answer.content_type!r}"
        yield Missing("GET /metrics", found, "200 in the text format of Prometheus")
        return
    try:
        answer.content.decode()
    except UnicodeDecodeError as error:
        found = f"answers with bytes that are not UTF-8 ({error.reason} at byte {error.start})"
        yield Missing("GET /metrics", found, "the text format of Prometheus, in UTF-8")
        return
    samples = _samples(answer.text)
    for name, labels in METRICS.items():
        if not samples[name]:
            yield Missing(f"metric {name}", "is absent", f"a series with the labels {', '.join(labels)}")
        elif absent := sorted({label for label in labels for found in samples[name] if label not in found}):
            yield Missing(f"metric {name}", f"lacks {', '.join(absent)}", f"the labels {', '.join(labels)}")
    yield from _digests(samples)
    yield from _operations(samples)


def _samples(text: str) -> dict[str, list[Mapping[str, str]]]:
    """Metric → the labels of each of its series."""
    samples: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for name, labels, _ in _SAMPLE.findall(text):
        samples[name].append(dict(_LABEL.findall(labels)))
    return samples


def _digests(samples: Mapping[str, Iterable[Mapping[str, str]]]) -> Iterator[Missing]:
    for name in ("voice_policy_info", "voice_policy_mounted_info"):
        for digest in sorted({found["digest"] for found in samples[name] if "digest" in found}):
            if not DIGEST.fullmatch(digest):
                yield Missing(f"metric {name}", f"has the digest {digest!r}", "the digest of the bundle, as sha256:…")


def _operations(samples: Mapping[str, Iterable[Mapping[str, str]]]) -> Iterator[Missing]:
    """Operations that lack a series in one of the metrics, or that lack a series of one kind."""
    per_operation = [name for name, labels in METRICS.items() if "operation" in labels]
    known = sorted({found.get("operation", "") for name in per_operation for found in samples[name]} - {""})
    for operation in known:
        by_metric = {
            name: [each for each in samples[name] if each.get("operation") == operation] for name in per_operation
        }
        for name, found in by_metric.items():
            if samples[name] and not found:
                yield Missing(
                    f"metric {name}", f"has no series of operation {operation}", "a series before the first request"
                )
        kinds = {each.get("kind") for each in by_metric["voice_operation_requests_total"]}
        if kinds and (absent := [kind for kind in KINDS if kind not in kinds]):
            part = f"metric voice_operation_requests_total of {operation}"
            yield Missing(part, f"lacks {', '.join(absent)}", f"the kinds {', '.join(KINDS)} before the first request")


def _log_line_fault(line: str) -> str:
    """The fault of a log line. Empty if the line has no fault."""
    document = _object(line)
    if document is None:
        return "is no JSON object"
    if absent := [name for name in FIELDS if not isinstance(document.get(name), str)]:
        return f"lacks {', '.join(absent)}"
    wrong = [name for name, form in IDS.items() if name in document and not form.fullmatch(str(document[name]))]
    return f"has a malformed {', '.join(wrong)}" if wrong else ""


def _object(text: str) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except (RecursionError, ValueError):  # too deep nesting: RecursionError
        return None
    return document if isinstance(document, dict) else None

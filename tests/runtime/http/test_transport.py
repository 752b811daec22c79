from __future__ import annotations

import asyncio
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from voice_policies import Address, CircuitBreaker, Duration, OutboundCall, Ratio, Retry, RetryBudget, Timeout
from voice_runtime import (
    AttemptTimeoutError,
    CircuitOpenError,
    Failure,
    RetriesExhaustedError,
    Runtime,
    UnknownCallError,
    classify,
)
from voice_runtime.http import Http
from voice_runtime.http.status import failure_of
from voice_runtime.http.transport import TIMEOUT
from voice_runtime.shared_store import LoopThread

from tests.bundles import bundle, call, mount
from tests.runtime.certificates import Authority
from tests.runtime.grpc.rag_engine import eventually
from tests.runtime.http.servers import Elasticsearch, serving

AT_ONCE = Retry(
    base_delay=Duration("1ms"),
    max_delay=Duration("1ms"),
    budget=RetryBudget(ratio=Ratio("100%"), reserve=1000),
    conditions=("unavailable", "attempt_timeout", "connection_failed", "resource_exhausted"),
)
NAME = "elasticsearch.search"
OUTSIDE = {"host": "api.example.com", "port": 443, "via": "egress-proxy:8443"}


def search(**policies: Any) -> OutboundCall:
    return call(NAME, **{"retry": AT_ONCE, "protocol": "http"} | policies)


def runtime(directory: Path, **policies: Any) -> Runtime:
    return Runtime.load(mount(directory, bundle(search(**policies))))


@pytest.fixture
def often_interrupted() -> Iterator[None]:
    """Switch threads every 10 µs instead of every 5 ms, so that races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


async def test_a_transient_status_is_retried_and_the_answer_is_read_completely(tmp_path: Path) -> None:
    app = Elasticsearch((503, {}), (502, {}))
    async with serving(app) as url, Http(runtime(tmp_path)).client(NAME, base_url=url) as client:
        answer = await client.post("/_search", json={"query": "tides"})
        assert answer.status_code == 200
        assert answer.json()["body"] == '{"query":"tides"}'
        assert answer.elapsed.total_seconds() > 0
    assert [headers.get("x-envoy-attempt-count") for headers, _ in app.asked] == [None, "2", "3"]
    assert {body for _, body in app.asked} == {b'{"query":"tides"}'}
    for headers, _ in app.asked:
        # The rest of the attempt's 10 s, less a margin of 5 ms. A busy machine may send the request 9 s late.
        assert 995 < int(headers["x-envoy-expected-rq-timeout-ms"]) <= 9995


async def test_the_error_status_of_the_last_attempt_is_returned(tmp_path: Path) -> None:
    app = Elasticsearch(*[(503, {})] * 10)
    async with serving(app) as url, Http(runtime(tmp_path)).client(NAME, base_url=url) as client:
        assert (await client.get("/")).status_code == 503
    assert len(app.asked) == 4


async def test_the_breaker_counts_each_attempt(tmp_path: Path) -> None:
    app = Elasticsearch(*[(503, {})] * 10)
    client_runtime = runtime(tmp_path, circuit_breaker=CircuitBreaker(consecutive_failures=5))
    async with serving(app) as url, Http(client_runtime).client(NAME, base_url=url) as client:
        await client.get("/")
        with pytest.raises(CircuitOpenError):
            await client.get("/")
    assert len(app.asked) == 5


async def test_a_status_that_is_not_transient_is_returned_without_a_retry(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    app = Elasticsearch((404, {}), (500, {}))
    client_runtime = runtime(tmp_path)
    async with serving(app) as url, Http(client_runtime).client(NAME, base_url=url) as client:
        assert [(await client.get("/")).status_code for _ in range(2)] == [404, 500]
    assert len(app.asked) == 2
    statistics = client_runtime.outbound(NAME).statistics
    assert (statistics.successful, statistics.failed) == (1, 1)
    assert [each.status.status_code for each in spans.get_finished_spans()] == [StatusCode.UNSET, StatusCode.ERROR]


@pytest.mark.parametrize(
    ("retry_after", "attempts"),
    [("0", 2), ("0.01", 2), ("600", 1), ("soon", 1), (None, 1)],
    ids=["now", "decimals", "too late", "unreadable", "missing"],
)
async def test_r4_retry_after_decides_whether_a_request_is_retried(
    tmp_path: Path, retry_after: str | None, attempts: int
) -> None:
    app = Elasticsearch((429, {} if retry_after is None else {"retry-after": retry_after}))
    async with serving(app) as url, Http(runtime(tmp_path)).client(NAME, base_url=url) as client:
        assert (await client.get("/")).status_code == (200 if attempts == 2 else 429)
    assert len(app.asked) == attempts


def test_r4_retry_after_may_be_a_date() -> None:
    failure = failure_of(503, {"retry-after": formatdate(time.time() + 100, usegmt=True)})
    assert failure is not None
    assert failure.retry_after is not None
    assert 90 < failure.retry_after <= 100
    assert failure_of(503, {"retry-after": formatdate(time.time() - 100, usegmt=True)}) == Failure("unavailable", 0.0)


async def test_r11_a_request_whose_body_can_be_read_only_once_is_not_retried(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"once"

    app = Elasticsearch((503, {}))
    async with serving(app) as url, Http(runtime(tmp_path)).client(NAME, base_url=url) as client:
        assert (await client.post("/", content=body())).status_code == 503
    assert len(app.asked) == 1


async def test_a_call_to_a_hanging_callee_times_out(tmp_path: Path) -> None:
    app = Elasticsearch()
    app.hold.clear()
    short = Timeout(attempt=Duration("100ms"), overall=Duration("10s"))
    hurried = runtime(tmp_path, timeout=short, retry=None)
    async with serving(app) as url, Http(hurried).client(NAME, base_url=url) as client:
        with pytest.raises(AttemptTimeoutError):
            await client.get("/")
        app.hold.set()
        assert (await client.get("/")).status_code == 200


async def test_a_body_that_stalls_times_out_the_attempt(tmp_path: Path) -> None:
    async def stalling(_scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await receive()
        await receive()  # until the client closes the connection

    short = Timeout(attempt=Duration("100ms"), overall=Duration("10s"))
    async with (
        serving(stalling) as url,
        Http(runtime(tmp_path, timeout=short, retry=None)).client(NAME, base_url=url) as client,
    ):
        with pytest.raises(AttemptTimeoutError):
            await client.get("/")


async def test_server_sent_events_are_passed_on_as_they_arrive(tmp_path: Path) -> None:
    more = asyncio.Event()

    async def events(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await more.wait()
        await send({"type": "http.response.body", "body": b"data: 2\n\n"})

    async with (
        serving(events) as url,
        Http(runtime(tmp_path)).client(NAME, base_url=url) as client,
        client.stream("GET", "/") as answer,
    ):
        lines = answer.aiter_lines()
        assert await anext(lines) == "data: 1"
        more.set()
        assert [line async for line in lines if line] == ["data: 2"]


async def test_r5_a_refused_connection_is_retried_even_if_the_call_may_not_be_repeated(tmp_path: Path) -> None:
    retry = AT_ONCE.model_copy(update={"conditions": ("connection_failed",)})
    client_runtime = runtime(tmp_path, retry=retry, idempotency="never")
    async with Http(client_runtime).client(NAME, base_url="http://127.0.0.1:1") as client:
        with pytest.raises(RetriesExhaustedError) as gave_up:
            await client.get("/")
    assert gave_up.value.attempts == 4


@pytest.mark.parametrize(
    ("error", "condition"),
    [
        (httpx.ConnectTimeout(""), "connection_failed"),
        (httpx.ReadTimeout(""), "attempt_timeout"),
        (httpx.ReadError(""), "unavailable"),
        (httpx.RemoteProtocolError(""), "unavailable"),
        (httpx.ProxyError(""), None),
    ],
    ids=["connect timeout", "read timeout", "read error", "protocol error", "proxy error"],
)
def test_transport_errors_have_a_retry_condition_and_a_proxy_error_has_none(
    error: Exception, condition: str | None
) -> None:
    failure = classify(error)
    assert failure is not None
    assert failure.condition == condition


@pytest.mark.parametrize("error", [httpx.PoolTimeout, httpx.LocalProtocolError, httpx.UnsupportedProtocol])
def test_a_request_that_httpx_never_sent_does_not_count_against_the_callee(error: type[httpx.TransportError]) -> None:
    assert classify(error("")) == Failure(blames_callee=False)


async def test_a_header_that_cannot_be_sent_does_not_count_against_the_callee(tmp_path: Path) -> None:
    app = Elasticsearch()
    client_runtime = runtime(tmp_path, circuit_breaker=CircuitBreaker(consecutive_failures=5))
    async with serving(app) as url, Http(client_runtime).client(NAME, base_url=url) as client:
        for _ in range(5):
            with pytest.raises(httpx.LocalProtocolError) as refused:
                await client.get("/", headers={"authorization": "Bearer secret\n"})
            assert f"{NAME}: a fault of this process, not of the callee" in refused.value.__notes__
        assert (await client.get("/")).status_code == 200
    assert len(app.asked) == 1
    assert client_runtime.outbound(NAME).statistics.failed == 0


@pytest.mark.parametrize("synchronous", [False, True], ids=["client", "sync_client"])
async def test_a_full_connection_pool_does_not_count_against_the_callee(tmp_path: Path, *, synchronous: bool) -> None:
    app = Elasticsearch()
    app.hold.clear()
    breaker = CircuitBreaker(consecutive_failures=5)
    patient = Timeout(attempt=Duration("1m"), overall=Duration("5m"))
    client_runtime = runtime(tmp_path, circuit_breaker=breaker, timeout=patient)
    http, one = Http(client_runtime), httpx.Limits(max_connections=1)
    asynchronous = httpx.AsyncClient(
        transport=http.transport(NAME, httpx.AsyncHTTPTransport(limits=one)), timeout=httpx.Timeout(None, pool=0.01)
    )
    threaded = httpx.Client(
        transport=http.sync_transport(NAME, httpx.HTTPTransport(limits=one)), timeout=httpx.Timeout(None, pool=0.01)
    )
    async with serving(app) as url, asynchronous:

        async def get() -> httpx.Response:
            return await (asyncio.to_thread(threaded.get, url) if synchronous else asynchronous.get(url))

        held = asyncio.create_task(get())
        await eventually(lambda: len(app.asked) == 1)
        for _ in range(5):
            with pytest.raises(httpx.PoolTimeout):
                await get()
        app.hold.set()
        assert (await held).status_code == 200
        assert (await get()).status_code == 200
    threaded.close()  # noqa: ASYNC212  # no request is in flight
    statistics = client_runtime.outbound(NAME).statistics
    assert (statistics.failed, statistics.retries, statistics.ignored) == (0, 0, 5)


async def test_the_wait_for_a_connection_does_not_count_against_the_callee(tmp_path: Path) -> None:
    app = Elasticsearch()
    app.hold.clear()
    client_runtime = runtime(tmp_path, timeout=Timeout(attempt=Duration("5s"), overall=Duration("1m")), retry=None)
    inner = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=1))
    transport = Http(client_runtime).transport(NAME, inner)
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=None) as bare:  # noqa: S113  # the test limits the time
        bare._transport = inner  # noqa: SLF001  # a request without policies that takes the pool's connection
        held = asyncio.create_task(bare.get("/"))
        await eventually(lambda: len(app.asked) == 1)
        try:
            async with httpx.AsyncClient(transport=transport, base_url=url, timeout=None) as client:  # noqa: S113  # as above
                with pytest.raises(httpx.PoolTimeout):
                    await client.get("/")
        finally:
            app.hold.set()
            held.cancel()
            await asyncio.gather(held, return_exceptions=True)
    assert client_runtime.outbound(NAME).statistics.failed == 0


async def test_the_client_does_not_bound_the_connections_of_a_call(tmp_path: Path) -> None:
    arrived, everybody = [], asyncio.Event()

    async def app(scope: Any, _: Any, send: Any) -> None:
        arrived.append(scope)
        if len(arrived) == 150:  # httpx allows 100 connections by default
            everybody.set()
        await everybody.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    patient = runtime(tmp_path, timeout=Timeout(attempt=Duration("1m"), overall=Duration("5m")), retry=None)
    async with serving(app) as url, Http(patient).client(NAME, base_url=url) as client:
        answers = await asyncio.gather(*(client.get("/") for _ in range(150)))
    assert {answer.status_code for answer in answers} == {200}


async def test_the_client_of_an_address_with_tls_uses_https(tmp_path: Path) -> None:
    store = Address(host="index.example", port=9200, tls=True)
    async with Http(runtime(tmp_path, addresses=(store,))).client(NAME) as client:
        assert client.base_url == "https://index.example:9200"


async def test_only_callees_inside_the_platform_get_trace_context(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    app = Elasticsearch()
    async with serving(app) as url:
        async with Http(runtime(tmp_path)).client(NAME, base_url=url) as client:
            await client.get("/")
        async with Http(runtime(tmp_path, addresses=(OUTSIDE,))).client(NAME, base_url=url) as client:
            await client.get("/")
    first, second = spans.get_finished_spans()
    assert first.context is not None
    inside, beyond = (headers for headers, _ in app.asked)
    assert inside["traceparent"].split("-")[1] == f"{first.context.trace_id:032x}"
    assert "traceparent" not in beyond
    assert (second.attributes or {})["http.response.status_code"] == 200


async def test_the_synchronous_transport_retries_a_transient_status(tmp_path: Path) -> None:
    app = Elasticsearch((503, {}))
    client_runtime = runtime(tmp_path)

    def ask(url: str) -> httpx.Response:
        with Http(client_runtime).sync_client(NAME, base_url=url) as client:
            return client.post("/", json=1)

    async with serving(app) as url:
        answer = await asyncio.to_thread(ask, url)
    assert (answer.status_code, answer.json()) == (200, {"body": "1"})
    assert [headers.get("x-envoy-attempt-count") for headers, _ in app.asked] == [None, "2"]


async def hangs(_scope: Any, receive: Any, _send: Any) -> None:
    await receive()
    await receive()  # until the client closes the connection


async def drips(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    leaving = asyncio.ensure_future(receive())
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while not leaving.done():
        await send({"type": "http.response.body", "body": b".", "more_body": True})
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("app", [hangs, drips])
async def test_t5_a_timeout_frees_the_worker_threads(tmp_path: Path, app: Any) -> None:
    short = Timeout(attempt=Duration("200ms"), overall=Duration("5m"))
    client_runtime = runtime(tmp_path, timeout=short)
    outbound = client_runtime.outbound(NAME)

    def ask(url: str) -> None:
        with (
            Http(client_runtime).sync_client(NAME, base_url=url) as client,
            pytest.raises(RetriesExhaustedError) as gave_up,
        ):
            client.get("/")
        assert isinstance(gave_up.value.__cause__, AttemptTimeoutError)

    async with serving(app, timeout_graceful_shutdown=1) as url:
        await asyncio.to_thread(ask, url)
        await eventually(lambda: outbound.workers.idle == outbound.workers.threads)
    assert outbound.statistics.timeouts == 4


async def test_a_shorter_timeout_of_the_caller_is_kept(tmp_path: Path) -> None:
    client_runtime = runtime(tmp_path, retry=None)

    def ask(url: str) -> None:
        with (
            Http(client_runtime).sync_client(NAME, base_url=url, timeout=0.1) as client,
            pytest.raises(httpx.ReadTimeout),
        ):
            client.get("/")

    async with serving(hangs) as url:
        await asyncio.to_thread(ask, url)


async def test_synchronous_server_sent_events_may_arrive_after_the_attempt_timeout(tmp_path: Path) -> None:
    async def events(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await asyncio.sleep(1)
        await send({"type": "http.response.body", "body": b"data: 2\n\n"})

    short = Timeout(attempt=Duration("300ms"), overall=Duration("5m"))
    client_runtime = runtime(tmp_path, timeout=short)

    def ask(url: str) -> list[str]:
        with Http(client_runtime).sync_client(NAME, base_url=url) as client, client.stream("GET", "/") as answer:
            return [line for line in answer.iter_lines() if line]

    async with serving(events) as url:
        assert await asyncio.to_thread(ask, url) == ["data: 1", "data: 2"]


async def test_a_cancelled_request_counts_as_cancelled_and_has_a_span(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    app = Elasticsearch()
    app.hold.clear()
    client_runtime = runtime(tmp_path)
    async with serving(app) as url, Http(client_runtime).client(NAME, base_url=url) as client:
        asking = asyncio.create_task(client.get("/"))
        await eventually(lambda: len(app.asked) == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        app.hold.set()
    assert client_runtime.outbound(NAME).statistics.cancelled == 1
    assert len(spans.get_finished_spans()) == 1


def test_a_client_uses_the_address_in_the_bundle_and_refuses_an_unknown_name(tmp_path: Path) -> None:
    assert str(Http(runtime(tmp_path)).client("elasticsearch").base_url) == "http://elasticsearch:9000"
    with pytest.raises(UnknownCallError, match="'elastic' matches no outbound call"):
        Http(runtime(tmp_path)).transport("elastic")


async def test_a_request_through_the_egress_proxy_names_the_callees_host(tmp_path: Path) -> None:
    authority, app = Authority(), Elasticsearch()
    for name, text in zip(("key", "certificate"), authority.issue("api.example.com"), strict=True):
        (tmp_path / name).write_bytes(text)
    files = {"ssl_keyfile": tmp_path / "key", "ssl_certfile": tmp_path / "certificate"}
    trusting = ssl.create_default_context(cadata=authority.certificate.decode())
    async with serving(app, **files) as url:
        proxied = {"host": "api.example.com", "port": 443, "via": url.removeprefix("http://")}
        transport = Http(runtime(tmp_path, protocol="https", addresses=(proxied,))).transport(
            NAME, httpx.AsyncHTTPTransport(verify=trusting)
        )
        async with httpx.AsyncClient(transport=transport) as client:
            assert (await client.get("https://api.example.com/v1/models")).status_code == 200
    assert app.asked[0][0]["host"] == "api.example.com"


async def test_a_client_uses_tls_through_the_egress_proxy_even_if_the_call_declares_http(tmp_path: Path) -> None:
    async with Http(runtime(tmp_path, protocol="http", addresses=(OUTSIDE,))).client(NAME) as client:
        assert str(client.base_url) == "https://api.example.com"


class Answering(httpx.MockTransport):
    def __init__(self, answer: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(200)) -> None:
        self.asked: list[httpx.Request] = []
        super().__init__(answer)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return await super().handle_async_request(request)


@pytest.mark.usefixtures("often_interrupted")
async def test_during_reloads_an_http_request_takes_address_and_timeout_from_one_bundle(tmp_path: Path) -> None:
    inside = bundle(search(timeout=Timeout(attempt=Duration("20s"), overall=Duration("1h"))))
    outside = search(timeout=Timeout(attempt=Duration("5m"), overall=Duration("1h")), addresses=(OUTSIDE,))
    bundles = [inside, bundle(outside)]
    client_runtime = Runtime.load(mount(tmp_path, bundles[0]))
    wire = Answering()

    def swap() -> None:
        for number in range(1, 1_001):
            mount(tmp_path, bundles[number % 2])
            assert client_runtime.reload()

    swapping = asyncio.create_task(asyncio.to_thread(swap))
    async with httpx.AsyncClient(transport=Http(client_runtime).transport(NAME, wire)) as client:
        while not swapping.done():
            assert (await client.get("https://api.example.com/")).status_code == 200
            await asyncio.sleep(0)
    await swapping
    seen = {(request.url.host, int(request.headers[TIMEOUT]) > 20_000) for request in wire.asked}
    assert seen == {("api.example.com", False), ("egress-proxy", True)}


async def test_sending_does_not_change_the_callers_request(tmp_path: Path) -> None:
    wire = Answering(
        lambda request: (
            httpx.Response(307, headers={"location": "/v2"}) if request.url.path == "/v1" else httpx.Response(200)
        )
    )
    transport = Http(runtime(tmp_path, protocol="https", addresses=(OUTSIDE,))).transport(NAME, wire)
    async with httpx.AsyncClient(transport=transport, follow_redirects=True) as client:
        answer = await client.get("https://api.example.com/v1")
    assert answer.url == "https://api.example.com/v2"
    assert answer.history[0].url == "https://api.example.com/v1"
    assert TIMEOUT not in answer.request.headers
    assert [(str(sent.url), sent.headers["host"]) for sent in wire.asked] == [
        ("https://egress-proxy:8443/v1", "api.example.com"),
        ("https://egress-proxy:8443/v2", "api.example.com"),
    ]


PROVIDERS = ({"host": "api.example.com", "port": 443}, {"host": "api.example.org", "port": 443})


async def test_b21_each_host_of_a_call_has_its_own_breaker(tmp_path: Path) -> None:
    wire = Answering(lambda request: httpx.Response(500 if request.url.host == "api.example.com" else 200))
    breaker = CircuitBreaker(consecutive_failures=2)
    client_runtime = runtime(tmp_path, protocol="https", addresses=PROVIDERS, circuit_breaker=breaker, retry=None)
    async with Http(client_runtime).client(NAME, transport=Http(client_runtime).transport(NAME, wire)) as client:
        for _ in range(2):
            assert (await client.get("https://api.example.com/")).status_code == 500
        with pytest.raises(CircuitOpenError):
            await client.get("https://api.example.com/")
        assert (await client.get("https://api.example.org/")).status_code == 200
    assert client_runtime.outbound(NAME).breaker.current() == "closed"  # type: ignore[union-attr]  # the call has a breaker


@pytest.mark.parametrize("url", ["/", "https://api.example.net/"], ids=["no host", "another host"])
async def test_a_request_must_name_one_of_the_calls_hosts(tmp_path: Path, url: str) -> None:
    async with Http(runtime(tmp_path, protocol="https", addresses=PROVIDERS)).client(NAME) as client:
        with pytest.raises(UnknownCallError, match=r"matches no host of .* declared: api.example.com, api.example.org"):
            await client.get(url)


def test_a_date_in_retry_after_is_compared_with_the_clock_of_the_callee() -> None:
    sent = time.time() - 3600
    headers = {"date": formatdate(sent, usegmt=True), "retry-after": formatdate(sent + 5, usegmt=True)}
    assert failure_of(503, headers) == Failure("unavailable", 5.0)
    unreadable = failure_of(503, {"date": "yesterday", "retry-after": formatdate(time.time() - 5, usegmt=True)})
    assert unreadable == Failure("unavailable", 0.0)


def test_a_client_works_on_a_new_event_loop_after_the_previous_loop_has_ended(tmp_path: Path) -> None:
    thread, served = LoopThread(), serving(Elasticsearch())
    client = Http(runtime(tmp_path)).client(NAME, base_url=thread.run(served.__aenter__()))

    async def asked() -> int:
        return (await client.post("/_search")).status_code

    try:
        assert [asyncio.run(asked()) for _ in range(3)] == [200] * 3
    finally:
        thread.run(served.__aexit__(None, None, None))

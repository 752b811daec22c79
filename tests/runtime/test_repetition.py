from __future__ import annotations

import asyncio
import gc
import io
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import MappingProxyType
from typing import Any

import httpx
import pytest
from voice_policies import Bulkhead, CircuitBreaker, Duration, Ratio, Retry, RetryBudget, Timeout
from voice_runtime import BulkheadFullError, CircuitOpenError, Runtime
from voice_runtime import Retry as RetryAlone
from voice_runtime.arguments import LARGEST, can_repeat
from voice_runtime.http import Http

from tests.bundles import bundle, call, mount, operation
from tests.runtime.http.servers import serving

NAME = "store.put"
GENEROUS = RetryBudget(ratio=Ratio("100%"), reserve=1000)
AT_ONCE = Retry(base_delay=Duration("1ms"), max_delay=Duration("1ms"), budget=GENEROUS)


def load(directory: Path, **policies: Any) -> Runtime:
    return Runtime.load(mount(directory, bundle(call(NAME, **{"retry": AT_ONCE} | policies))))


def parts() -> Iterator[bytes]:
    yield from (b"all ", b"of ", b"it")


async def async_parts() -> AsyncIterator[bytes]:
    yield b"all"


@dataclass(frozen=True)
class Upload:
    name: str
    body: Any


class Received:
    """An uploaded file, as web frameworks pass it to a handler. It is not an iterator."""

    async def read(self) -> None: ...

    async def seek(self, offset: int) -> None: ...


READ_ONCE: list[Callable[[], Any]] = [
    parts,
    async_parts,
    lambda: io.BytesIO(b"file"),
    lambda: map(str, [1]),
    lambda: NamedTemporaryFile(mode="rb"),  # noqa: SIM115  # it closes with the test
    Received,
]
KINDS = ["generator", "asynchronous generator", "open file", "map", "temporary file", "uploaded file"]
PLACES: dict[str, Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "positional": lambda body: ((body,), {}),
    "by keyword": lambda body: ((), {"body": body}),
    "in a list": lambda body: (([1, body],), {}),
    "in a deque": lambda body: ((deque([body]),), {}),
    "in a read-only mapping": lambda body: ((MappingProxyType({"body": body}),), {}),
    "in a dataclass": lambda body: ((Upload("name", body),), {}),
    "as a key": lambda body: (({body: "name"},), {}),
    "in a partial": lambda body: ((partial(len, body),), {}),
    "in a mapping": lambda body: ((), {"files": {"body": (b"name", body)}}),
}


@pytest.mark.parametrize("make", READ_ONCE, ids=KINDS)
@pytest.mark.parametrize("place", PLACES)
async def test_a_call_with_an_argument_that_can_be_read_only_once_is_not_retried(
    tmp_path: Path, place: str, make: Callable[[], Any]
) -> None:
    sent: list[Any] = []

    async def put(*args: Any, **kwargs: Any) -> None:
        sent.append((args, kwargs))
        for container in (*args, *kwargs.values()):
            if isinstance(container, list | dict):
                container.clear()  # the container was searched before the call, so this has no effect
        raise ConnectionResetError("connection lost")

    def put_sync(*args: Any, **kwargs: Any) -> None:
        sent.append((args, kwargs))
        raise ConnectionResetError("connection lost")

    runtime = load(tmp_path)
    args, kwargs = PLACES[place](make())
    with pytest.raises(ConnectionResetError):
        await runtime.call(NAME, put, *args, **kwargs)
    args, kwargs = PLACES[place](make())
    with pytest.raises(ConnectionResetError):
        runtime.call_sync(NAME, put_sync, *args, **kwargs)
    assert len(sent) == 2


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_a_partial_that_holds_an_iterator_is_not_called_again(tmp_path: Path, sync: bool) -> None:
    sent: list[bytes] = []

    def put_sync(body: Iterator[bytes], *, more: Iterator[bytes]) -> None:
        sent.append(b"".join([*body, *more]))
        raise ConnectionResetError("connection lost")

    async def put(body: Iterator[bytes], *, more: Iterator[bytes]) -> None:
        put_sync(body, more=more)

    async def call_it() -> None:
        if sync:
            return runtime.call_sync(NAME, partial(partial(put_sync, more=parts()), b""))
        return await runtime.call(NAME, partial(partial(put, more=parts()), b""))

    runtime = load(tmp_path)
    with pytest.raises(ConnectionResetError):
        await call_it()
    assert sent == [b"all of it"]


async def test_a_retry_without_a_runtime_does_not_send_an_iterator_again() -> None:
    sent: list[bytes] = []

    async def put(body: Iterator[bytes]) -> None:
        sent.append(b"".join(body))
        raise ConnectionResetError("connection lost")

    retry = RetryAlone("store", AT_ONCE)
    with pytest.raises(ConnectionResetError):
        await retry.call(put, parts())
    with pytest.raises(ConnectionResetError):
        await retry.call(partial(put, parts()))
    assert sent == [b"all of it"] * 2


def test_a_large_container_is_not_searched_and_counts_as_repeatable() -> None:
    class Searched(list[Any]):
        def __iter__(self) -> Any:
            raise AssertionError("a large container must not be searched")

    assert can_repeat((Searched([0.5] * (LARGEST + 1)),), {})
    assert can_repeat(("text", b"bytes", 1, None, [1, {"a": (2,)}], {3}), {"by": frozenset({"keyword"})})


def test_arguments_may_be_nested_deeply_and_refer_to_each_other() -> None:
    circle = Upload("circle", [])
    circle.body.append(circle)
    deep: Any = parts()
    for _ in range(10_000):
        deep = [deep]
    assert can_repeat((circle,), {"again": circle})
    assert not can_repeat((deep,), {})


async def test_the_rejection_by_a_full_bulkhead_reports_the_earlier_attempt(tmp_path: Path) -> None:
    runtime = load(tmp_path, retry=AT_ONCE, bulkhead=Bulkhead(max_concurrent=1))
    taken = asyncio.Event()
    others: list[asyncio.Future[Any]] = []

    async def fail() -> None:
        # The event loop starts this call after the attempt has returned its slot, and before the next attempt.
        others.append(asyncio.ensure_future(runtime.call(NAME, taken.wait)))
        raise ConnectionResetError("after it was sent")

    with pytest.raises(BulkheadFullError) as refused:
        await runtime.call(NAME, fail)
    taken.set()
    await asyncio.gather(*others)
    assert refused.value.attempts == 1
    assert isinstance(refused.value.__cause__, ConnectionResetError)


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_the_rejection_by_an_open_breaker_reports_the_earlier_attempt(tmp_path: Path, sync: bool) -> None:
    runtime = load(tmp_path, circuit_breaker=CircuitBreaker())
    breaker = runtime.outbound(NAME).breaker
    assert breaker is not None

    def fail_sync() -> None:
        breaker.open()
        raise ConnectionResetError("after it was sent")

    async def fail() -> None:
        fail_sync()

    async def make() -> None:
        return runtime.call_sync(NAME, fail_sync) if sync else await runtime.call(NAME, fail)

    with pytest.raises(CircuitOpenError) as refused:
        await make()
    assert refused.value.attempts == 1
    assert isinstance(refused.value.__cause__, ConnectionResetError)
    with pytest.raises(CircuitOpenError) as first:
        await make()
    assert (first.value.attempts, first.value.__cause__) == (0, None)


async def test_a_retried_call_frees_its_arguments_when_it_returns(tmp_path: Path) -> None:
    runtime, failures = load(tmp_path), 1

    class Body:
        pass

    async def fail_once(_: Body) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise ConnectionResetError("once")

    body = Body()
    seen = weakref.ref(body)
    gc.collect()
    gc.disable()
    try:
        await runtime.call(NAME, fail_once, body)
        del body
        assert seen() is None
    finally:
        gc.enable()


class Passing:
    def __init__(self, directory: Path, url: str, budget: RetryBudget) -> None:
        once_more = AT_ONCE.model_copy(update={"conditions": ("unavailable",), "max_retries": 3, "budget": budget})
        # On a busy machine a short timeout could cut off an answer, and cause another retry.
        patient = Timeout(attempt=Duration("1m"), overall=Duration("5m"))
        next_hop = call("hop.run", protocol="http", retry=once_more, timeout=patient)
        inbound = operation("run", deadline=Duration("1m"))
        self.runtime = Runtime.load(mount(directory, bundle(next_hop, inbound=(inbound,))))
        self.client = Http(self.runtime).client("hop.run", base_url=url)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        answer = await self.client.post("/run")
        await send({"type": "http.response.start", "status": answer.status_code, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("budget", [GENEROUS, RetryBudget()], ids=["generous budget", "default budget"])
async def test_retries_of_three_http_hops_do_not_multiply(tmp_path: Path, budget: RetryBudget) -> None:
    """Each hop allows four attempts. If these multiplied, the leaf would get 4 × 4 × 4 = 64 attempts."""
    asked = 0

    async def leaf(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001  # as ASGI defines it
        nonlocal asked
        asked += 1
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(leaf))
        for number in range(2):
            hop = Passing(tmp_path / str(number), url, budget)
            stack.push_async_callback(hop.client.aclose)
            url = await stack.enter_async_context(serving(Http(hop.runtime).middleware(hop)))
        entry = Passing(tmp_path / "entry", url, budget)
        stack.push_async_callback(entry.client.aclose)
        answer = await entry.client.post("/run")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (503, "false")
    assert asked == 4


async def test_a_request_is_sent_once_if_the_server_forbids_a_retry(tmp_path: Path) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(503, headers={"X-Should-Retry": "false"})

    runtime = load(tmp_path, protocol="http")
    transport = Http(runtime).transport(NAME, httpx.MockTransport(answer))
    async with httpx.AsyncClient(transport=transport, base_url="http://store") as client:
        assert (await client.get("/")).status_code == 503
    assert len(asked) == 1

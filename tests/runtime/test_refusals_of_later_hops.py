"""An outage opens only the breakers in the direct callers of the failed service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from voice_policies import CircuitBreaker, Duration, Health
from voice_runtime import CircuitBreaker as Breaker
from voice_runtime import CircuitOpenError, DependencyFailure, Runtime, SoftCallError, dependency_failure
from voice_runtime.grpc import Grpc
from voice_runtime.http import Http
from voice_runtime.http.status import failure_of
from voice_runtime.outcome import PERMANENT, Failure
from voice_runtime.testing import FakeClock

from tests.bundles import bundle, call, mount, operation
from tests.runtime.grpc.rag_engine import RagEngine, RagEngineStub, add_to_server
from tests.runtime.http.servers import serving

CALL = call("rag-engine.context", circuit_breaker=CircuitBreaker(consecutive_failures=2))
REFUSAL = CircuitOpenError("elasticsearch.search", 3.0)


class Hop(RagEngine):
    def __init__(self, act: Any) -> None:
        super().__init__()
        self.act = act

    async def behave(self, name: str, request: Any, context: Any) -> None:
        await self.act()


@asynccontextmanager
async def hop(directory: Path, act: Any) -> AsyncIterator[tuple[Runtime, RagEngineStub]]:
    content = bundle(
        inbound=(operation("context"),), service="rag-engine", health=Health(drain_duration=Duration("0s"))
    )
    server = Grpc(Runtime.load(mount(directory / "server", content))).server()
    add_to_server(Hop(act), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    caller = Runtime.load(mount(directory / "caller", bundle(CALL)))
    wire = Grpc(caller)
    try:
        yield caller, RagEngineStub(wire.channel("rag-engine", target=f"127.0.0.1:{port}"))
    finally:
        await wire.close()
        await server.stop(None)


def state_of(runtime: Runtime) -> str:
    breaker = runtime.outbound("rag-engine.context").breaker
    assert breaker is not None
    return breaker.current()


async def fails(stub: RagEngineStub) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Context(b"x")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    return caught.value


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
async def test_a_breakers_refusal_opens_no_breaker_of_earlier_hops(tmp_path: Path, *, soft: bool) -> None:
    async def refuse() -> None:
        if soft:
            raise SoftCallError("elasticsearch.search") from REFUSAL
        raise REFUSAL

    async with AsyncExitStack() as stack:
        second, to_leaf = await stack.enter_async_context(hop(tmp_path / "second", refuse))
        first, to_second = await stack.enter_async_context(hop(tmp_path / "first", lambda: to_leaf.Context(b"x")))
        for _ in range(5):
            answer = await fails(to_second)
        assert ("x-rejected-by", "circuit_breaker") in tuple(answer.trailing_metadata())
        assert (state_of(first), state_of(second)) == ("closed", "closed")


class ModelCutError(Exception):
    pass


@dependency_failure.register
def _(_: ModelCutError) -> DependencyFailure:
    return DependencyFailure("truncated", 1.5)


async def test_each_hop_passes_on_the_class_of_a_dependencys_failure_and_opens_no_breaker(
    tmp_path: Path,
) -> None:
    async def fail() -> None:
        raise ModelCutError

    async with AsyncExitStack() as stack:
        second, to_leaf = await stack.enter_async_context(hop(tmp_path / "second", fail))
        first, to_second = await stack.enter_async_context(hop(tmp_path / "first", lambda: to_leaf.Context(b"x")))
        for _ in range(5):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await to_second.Context(b"x")
        assert caught.value.code() is grpc.StatusCode.ABORTED
        said: dict[str, Any] = dict(caught.value.trailing_metadata() or ())
        assert said == {"x-error-class": "truncated", "grpc-retry-pushback-ms": "1500"}
        assert (state_of(first), state_of(second)) == ("closed", "closed")
        soft = SoftCallError("rag-engine.context")
        soft.__cause__ = caught.value
        assert dependency_failure(soft) == DependencyFailure("truncated", 1.5)


async def test_the_class_of_a_dependencys_failure_is_passed_on_over_http(tmp_path: Path) -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001  # as ASGI defines it
        raise ModelCutError

    server = Runtime.load(mount(tmp_path, bundle(inbound=(operation("context"),), service="rag-engine")))
    async with serving(Http(server).middleware(fail)) as url, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{url}/context")
    assert (answer.status_code, answer.json()) == (503, {"error": "a dependency failed: truncated"})
    assert (answer.headers["x-error-class"], answer.headers["retry-after"]) == ("truncated", "2")
    assert failure_of(503, answer.headers) == Failure("unavailable", 2.0, blames_callee=False)


@pytest.mark.parametrize(
    ("trailing", "expected"),
    [
        ((("x-error-class", "idle_timeout"), ("grpc-retry-pushback-ms", "-1")), DependencyFailure("idle_timeout")),
        ((("x-error-class", "idle_timeout"),), DependencyFailure("idle_timeout")),
        ((("x-error-class", "Text of a provider"),), None),
        ((("grpc-retry-pushback-ms", "10"),), None),
    ],
    ids=["negative pushback", "no pushback", "several words", "no class"],
)
def test_a_failure_class_must_be_one_word_and_a_negative_pushback_is_ignored(
    trailing: Any, expected: DependencyFailure | None
) -> None:
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.ABORTED, grpc.aio.Metadata(), trailing_metadata=grpc.aio.Metadata(*trailing)
    )
    assert dependency_failure(error) == expected


def test_the_breaker_stays_half_open_if_a_later_breaker_refuses_the_probe(clock: FakeClock) -> None:
    policy = CircuitBreaker(consecutive_failures=1, half_open_max_requests=1, success_threshold=1)
    breaker = Breaker("rag-engine.context", policy, clock=clock)
    breaker.failure(breaker.state, PERMANENT)
    clock.advance(policy.break_duration.seconds * 2)
    breaker.failure(breaker.acquire(), Failure("unavailable", 3.0, blames_callee=False))
    assert breaker.current() == "half_open"
    breaker.success(breaker.acquire())
    assert breaker.current() == "closed"


async def test_other_failures_of_the_callee_open_the_callers_breaker(tmp_path: Path) -> None:
    async def fail() -> None:
        raise ConnectionResetError

    async with hop(tmp_path, fail) as (caller, stub):
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Context(b"x")
        assert state_of(caller) == "open"


async def test_over_http_a_breakers_refusal_does_not_blame_the_callee(
    tmp_path: Path,
) -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001  # as ASGI defines it
        raise REFUSAL

    server = Runtime.load(mount(tmp_path / "server", bundle(inbound=(operation("context"),), service="rag-engine")))
    over_http = CALL.model_copy(update={"protocol": "http"})
    caller = Runtime.load(mount(tmp_path / "caller", bundle(over_http)))
    async with (
        serving(Http(server).middleware(refuse)) as url,
        Http(caller).client("rag-engine.context", base_url=url) as client,
    ):
        for _ in range(5):
            answer = await client.post("/context")
            assert (answer.status_code, answer.headers["x-rejected-by"]) == (503, "circuit_breaker")
        assert state_of(caller) == "closed"


def test_over_http_a_bulkheads_refusal_blames_the_callee() -> None:
    failure = failure_of(503, {"x-rejected-by": "bulkhead"})
    assert failure is not None
    assert failure.blames_callee

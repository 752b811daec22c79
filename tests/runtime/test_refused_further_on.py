"""A breaker does not count an answer that a breaker behind its callee gave: one outage opens the breakers beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from voice_policies import CircuitBreaker, Duration, Health
from voice_runtime import CircuitBreaker as Breaker
from voice_runtime import CircuitOpenError, Runtime, SoftCallError
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
    """A server that does what the test says: it raises, or calls the next hop."""

    def __init__(self, act: Any) -> None:
        super().__init__()
        self.act = act

    async def behave(self, name: str, request: Any, context: Any) -> None:  # the hook of `RagEngine`
        await self.act()


@asynccontextmanager
async def hop(directory: Path, act: Any) -> AsyncIterator[tuple[Runtime, RagEngineStub]]:
    """A server under its policies, and a caller under its own."""
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


@pytest.mark.parametrize("soft", [False, True])
async def test_a_refusal_opens_no_breaker_of_the_hops_before_it(tmp_path: Path, *, soft: bool) -> None:
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


def test_a_probe_that_was_refused_further_on_decides_nothing(clock: FakeClock) -> None:
    policy = CircuitBreaker(consecutive_failures=1, half_open_max_requests=1, success_threshold=1)
    breaker = Breaker("rag-engine.context", policy, clock=clock)
    breaker.failure(breaker.state, PERMANENT)
    clock.advance(policy.break_duration.seconds * 2)
    breaker.failure(breaker.acquire(), Failure("unavailable", 3.0, blames_callee=False))
    assert breaker.current() == "half_open"
    breaker.success(breaker.acquire())
    assert breaker.current() == "closed"


async def test_other_failures_of_a_callee_are_its_own(tmp_path: Path) -> None:
    async def fail() -> None:
        raise ConnectionResetError

    async with hop(tmp_path, fail) as (caller, stub):
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Context(b"x")
        assert state_of(caller) == "open"


async def test_over_http_as_well(tmp_path: Path) -> None:
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
    failure = failure_of(503, {"x-rejected-by": "bulkhead"})
    assert failure is not None
    assert failure.blames_callee

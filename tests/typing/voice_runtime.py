"""Only a type checker reads this file: nothing in it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import assert_type

import grpc
import httpx
from voice_policies import PolicyBundle
from voice_runtime import (
    Caller,
    CircuitOpenError,
    Classify,
    Degradation,
    Event,
    Failure,
    Listener,
    Outbound,
    Request,
    Runtime,
    SharedStore,
    VoiceRuntimeError,
    attempt_number,
    current_request,
    detached,
    remaining,
)
from voice_runtime.grpc import Channel, Grpc, Server, SyncChannel
from voice_runtime.health import Checker, Health, HealthApp
from voice_runtime.http import AsyncTransport, Http, Middleware, Transport
from voice_runtime.redis import RedisStore, single
from voice_runtime.testing import FakeClock, run, sealed_bundle
from voice_runtime.tracing import span, traced


async def question(text: str, *, limit: int = 1) -> list[str]:
    return [text] * limit


async def words(text: str) -> AsyncIterator[str]:
    yield text


def blocking(text: str) -> bytes:
    return text.encode()


def load() -> None:
    runtime = Runtime.load("/etc/voice/policy")
    assert_type(runtime, Runtime)
    assert_type(runtime.bundle, PolicyBundle)
    assert_type(runtime.degradation, Degradation | None)
    with runtime as watching:
        assert_type(watching, Runtime)


async def calls(runtime: Runtime) -> None:
    assert_type(await runtime.call("a.b", question, "tides", limit=2), list[str])
    assert_type(runtime.call_sync("a.b", blocking, "tides"), bytes)
    assert_type(runtime.stream("a.b", words, "tides"), AsyncIterator[str])
    assert_type(runtime.outbound("a.b"), Outbound)
    assert_type(await runtime.outbound("a.b", "target").call(question, "tides"), list[str])
    runtime.call("a.b", question, 7)  # type: ignore[arg-type]  # `call` takes the parameters of the function
    runtime.call("a.b", question, "tides", limits=2)  # type: ignore[call-arg]  # as above


async def protected(runtime: Runtime) -> None:
    asked = runtime.protect("a.b")(question)
    assert_type(await asked("tides", limit=2), list[str])
    assert_type(runtime.protect("a.b")(words)("tides"), AsyncIterator[str])
    assert_type(runtime.protect("a.b")(blocking)("tides"), bytes)
    await asked(7)  # type: ignore[arg-type]  # the decorated function keeps its parameters
    assert_type(traced("name")(blocking)("tides"), bytes)


class Service:
    """A protected method stays bound to its instance."""

    runtime = Runtime.load("/etc/voice/policy")

    @runtime.protect("a.b")
    async def ask(self, text: str) -> int:
        return len(text)

    async def use(self) -> None:
        assert_type(await self.ask("tides"), int)


async def requests(runtime: Runtime) -> None:
    async with runtime.request("run", Caller(tenant="acme"), cost=2, remaining=1.5) as request:
        assert_type(request, Request)
        assert_type(request.feature("citations"), bool)
    with runtime.request("run") as blocking_request:
        assert_type(blocking_request, Request)
    assert_type(current_request(), Request | None)
    assert_type(remaining(), float | None)
    assert_type(attempt_number(), int)


def extended(runtime: Runtime, error: CircuitOpenError) -> None:
    """Classifiers, listeners and stores are structural types: any object with the methods fits."""

    class Heard:
        def on_event(self, event: Event) -> None: ...

    def by_status(error: Exception) -> Failure | None: ...

    listener: Listener = Heard()
    classify: Classify = by_status
    store: SharedStore = RedisStore(lambda: single("redis://redis:6379"))
    Runtime.load("/etc/voice/policy", listeners=[listener], classify=classify, store=store, clock=FakeClock())
    runtime.fallback("a.b", lambda error: [str(error)])
    assert_type(error.retry_after, float | None)
    assert_type(error.target, str)
    refused: VoiceRuntimeError = error
    del refused


def wire(runtime: Runtime, app: HealthApp) -> None:
    assert_type(Grpc(runtime).channel("a"), Channel)
    assert_type(Grpc(runtime).sync_channel("a"), SyncChannel)
    assert_type(Grpc(runtime).server(), Server)
    assert_type(Grpc(runtime).channel("a", options=[("grpc.max_receive_message_length", 1)], interceptors=()), Channel)
    Grpc(runtime).server(interceptors=[7])  # type: ignore[list-item]  # an interceptor must have gRPC's type
    assert_type(Http(runtime).client("a.b"), httpx.AsyncClient)
    assert_type(Http(runtime).sync_client("a.b"), httpx.Client)
    assert_type(Http(runtime).transport("a.b"), AsyncTransport)
    assert_type(Http(runtime).sync_transport("a.b"), Transport)
    assert_type(Http(runtime).middleware(app), Middleware)
    stubs_take: grpc.aio.Channel = Grpc(runtime).channel("a")
    del stubs_take
    inner: httpx.AsyncBaseTransport = Http(runtime).transport("a.b")
    del inner


async def look() -> None: ...


def health(runtime: Runtime) -> None:
    checker: Checker = look
    assert_type(Health(runtime, checkers={"store": checker}), Health)


def tested() -> None:
    async def main() -> int:
        return 1

    assert_type(run(main(), FakeClock()), int)
    assert_type(sealed_bundle("policy.json", "laptop", addresses={"rag-engine": "localhost:9000"}), Path)
    with detached():
        pass
    with span("rerank") as current:
        current.set_attribute("documents", 20)


def awaited(runtime: Runtime) -> Awaitable[list[str]]:
    return runtime.call("a.b", question, "tides")

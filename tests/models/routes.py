"""A service with one route, which may use the fake providers A and B. Tests call the route with OpenAI's SDK."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Generator, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam
from voice_models import ModelAttempted, ModelRuntime, ModelTransport, SyncModelTransport, UsageSink
from voice_models.fake_answers import chat_stream
from voice_models.fake_provider import FakeNetwork, FakeProvider
from voice_policies import (
    Address,
    CircuitBreaker,
    Duration,
    EnforcedBy,
    Model,
    ModelDeployment,
    ModelPrice,
    ModelProvider,
    ModelRoute,
    Models,
    OutboundCall,
    OutputLimit,
    PolicyBundle,
    StreamLatency,
    StreamTimeout,
    Timeout,
    TokenBudget,
)
from voice_runtime import Runtime, SharedStore
from voice_runtime.shared_store import LoopThread
from voice_runtime.testing import FakeClock, run

from tests.bundles import bundle, call, mount
from tests.driver import Recorder, seeded
from tests.models.stepped_time import SteppedThread

ROUTE = "llm.generate"
MARKER = "the-marker-of-a-prompt"
KEY = "sk-the-marker-of-a-key"
ANSWER = "the-answer-of-"
PATIENT = StreamTimeout(connect=Duration("1m"), first_token=Duration("2m"), idle=Duration("1m"), total=Duration("10m"))
"""Limits that are long enough even for a busy machine."""
PRICE = ModelPrice(input=0.15, output=0.6, as_of=date(2026, 11, 30), source="a test")
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": f"{MARKER}: why?"}]


def model(name: str = "m", **overrides: Any) -> Model:
    fields: dict[str, Any] = {
        "name": name,
        "capabilities": ("text", "streaming"),
        "context_window": 8192,
        "price": PRICE,
    }
    return Model(**(fields | overrides))


def budget(tokens: int = 10_000, **overrides: Any) -> TokenBudget:
    fields: dict[str, Any] = {"key": "tenant", "tokens": tokens, "window": Duration("1m"), "store": "events.reserve"}
    return TokenBudget(**(fields | overrides))


def store_call(name: str = "events.reserve") -> OutboundCall:
    return call(
        name,
        protocol="redis",
        necessity="soft",
        fallback="the local share",
        timeout=Timeout(attempt=Duration("5s"), overall=Duration("5s")),
    )


@dataclass
class Ledger(UsageSink):
    events: list[ModelAttempted] = field(default_factory=list)

    def on_attempt(self, event: ModelAttempted) -> None:
        self.events.append(event)


@dataclass
class Service:
    runtime: ModelRuntime
    a: FakeProvider
    b: FakeProvider
    network: FakeNetwork
    ledger: Ledger
    events: Recorder
    clock: FakeClock | None
    endings: list[str] = field(default_factory=list)
    """How each answer of A ended. A `Driver` sets the list right after its call, while the event loop still runs."""

    def sdk(self, name: str = ROUTE, inner: httpx.AsyncBaseTransport | None = None) -> AsyncOpenAI:
        transport = ModelTransport(self.runtime, name, inner or self.network)
        client = httpx.AsyncClient(transport=transport)
        sdk = AsyncOpenAI(api_key="none", base_url="http://ignored/v1", http_client=client)  # type: ignore[arg-type]  # the SDK accepts clients of httpx, but its annotation names httpx2
        sdk._platform = "Linux"  # noqa: SLF001  # otherwise the SDK finds the platform on a thread, and fake time does not wait for threads
        return sdk

    def sync_sdk(self, name: str = ROUTE) -> OpenAI:
        clock = self.clock
        assert clock is not None
        transport = SyncModelTransport(self.runtime, name, self.network, SteppedThread(clock))
        client = httpx.Client(transport=transport)
        return OpenAI(api_key="none", base_url="http://ignored/v1", http_client=client)  # type: ignore[arg-type]  # as above

    @property
    def calls(self) -> tuple[int, int]:
        return len(self.a.exchanges), len(self.b.exchanges)

    @property
    def held(self) -> int:
        """Tokens that are held or spent in local budgets."""
        return sum(
            window.used(60.0, self.runtime.runtime.clock.monotonic())
            for windows in self.runtime.budgets._windows.values()  # noqa: SLF001  # no public attribute has the sum over tenants
            for window in windows.values()
        )

    def is_settled(self) -> bool:
        budgets = self.runtime.budgets._windows.values()  # noqa: SLF001  # as above
        return not any(window._held for windows in budgets for window in windows.values())  # noqa: SLF001  # as above


MADE: list[Service] = []
"""The services of the running test. The fixture `spans` searches their telemetry for prompts, answers and keys."""


def deployments(directory: Path) -> dict[str, ModelDeployment]:
    directory.mkdir(exist_ok=True)
    found = {}
    for name in ("a", "b"):
        key = directory / f"key-{name}"
        key.write_text(f"{KEY}-{name}\n")
        found[name] = ModelDeployment(
            provider=name, model="m", credential=str(key), latency=StreamLatency(first_token=Duration("250ms"))
        )
    return found


def routed(
    directory: Path,
    *,
    route: Mapping[str, Any] | None = None,
    models: Mapping[str, Any] | None = None,
    breaker: CircuitBreaker | None = None,
    addresses: Mapping[str, Address] | None = None,
    **overrides: Any,
) -> PolicyBundle:
    """The bundle of a service whose only model call is `llm.generate`."""
    at = addresses or {name: Address(host=f"{name}.example", port=80) for name in ("a", "b")}
    routes = {
        ROUTE: ModelRoute(
            **{
                "candidates": ("a", "b"),
                "capabilities": ("text",),
                "output_limit": OutputLimit(max_tokens=100),
                **(route or {}),
            }
        )
    }
    declared = Models(
        **{
            "providers": {name: ModelProvider(address=address) for name, address in at.items()},
            "models": {"m": model()},
            "deployments": deployments(directory),
            "routes": routes,
            **(models or {}),
        }
    )
    total = routes[ROUTE].timeout.total
    policy = CircuitBreaker() if breaker is None else breaker
    outbound = call(
        ROUTE,
        protocol="http",
        addresses=(),
        route=ROUTE,
        timeout=Timeout(attempt=total, overall=total),
        circuit_breaker=policy,
        enforced_by=EnforcedBy(timeout="runtime", circuit_breaker="runtime"),
    )
    return bundle(outbound, store_call(), service="model-adapter", models=declared, **overrides)


def service(
    directory: Path,
    clock: FakeClock | None,
    *,
    stores: Mapping[str, SharedStore] | None = None,
    **overrides: Any,
) -> Service:
    """Both providers are healthy until a test changes their `script`."""
    mounted = mount(directory / "policy", routed(directory, **overrides))
    events, ledger = Recorder(), Ledger()
    runtime = Runtime.load(
        mounted, listeners=[events], random=seeded(), clock=clock or time, allow_fault_injection=True
    )
    a, b = FakeProvider(lambda _: chat_stream(ANSWER, "A")), FakeProvider(lambda _: chat_stream(ANSWER, "B"))
    network = FakeNetwork({"a.example": a, "b.example": b})
    made = Service(ModelRuntime(runtime, stores=stores, sinks=[ledger]), a, b, network, ledger, events, clock)
    MADE.append(made)
    return made


async def ask(client: AsyncOpenAI, headers: Mapping[str, str] | None = None) -> str:
    return "".join([text async for text in texts(client, headers)])


async def texts(client: AsyncOpenAI, headers: Mapping[str, str] | None = None) -> AsyncGenerator[str, None]:
    stream = await client.chat.completions.create(model="any", messages=QUESTION, stream=True, extra_headers=headers)
    async with stream:
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content


def texts_sync(client: OpenAI) -> Generator[str, None, None]:
    with client.chat.completions.create(model="any", messages=QUESTION, stream=True) as stream:
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content


async def results(asks: Iterable[Awaitable[str]]) -> list[str | BaseException]:
    return list(await asyncio.gather(*asks, return_exceptions=True))


@asynccontextmanager
async def served(a: FakeProvider, b: FakeProvider) -> AsyncIterator[dict[str, Address]]:
    async with a.serve() as port_a, b.serve() as port_b:
        yield {"a": Address(host="127.0.0.1", port=port_a), "b": Address(host="127.0.0.1", port=port_b)}


@contextmanager
def served_elsewhere(a: FakeProvider) -> Iterator[dict[str, Address]]:
    """Like `served`, on the event loop of another thread."""
    thread = LoopThread()
    serving = served(a, FakeProvider(lambda _: chat_stream("B")))
    addresses = thread.run(serving.__aenter__())
    try:
        yield addresses
    finally:
        thread.run(serving.__aexit__(None, None, None))


def sync_sdk(made: Service) -> OpenAI:
    """The synchronous SDK over real sockets."""
    client = httpx.Client(transport=SyncModelTransport(made.runtime, "llm.generate"))
    return OpenAI(api_key="none", base_url="http://ignored/v1", http_client=client)  # type: ignore[arg-type]  # as in `sdk`


class Driver:
    def received(self, service: Service, most: int = 10_000) -> tuple[list[str], Exception | None]:
        """Call the route, and stop reading after `most` contents."""
        raise NotImplementedError

    def ask(self, service: Service) -> str:
        contents, error = self.received(service)
        if error is not None:
            raise error
        return "".join(contents)


class Asynchronous(Driver):
    def received(self, service: Service, most: int = 10_000) -> tuple[list[str], Exception | None]:
        async def receive() -> tuple[list[str], Exception | None]:
            contents: list[str] = []
            try:
                async with aclosing(texts(service.sdk())) as stream:
                    async for text in stream:
                        contents.append(text)
                        if len(contents) == most:
                            break
            except Exception as error:  # noqa: BLE001  # the test checks the error
                return contents, error
            return contents, None

        async def observed() -> tuple[list[str], Exception | None]:
            outcome = await receive()
            service.endings = [exchange.ending for exchange in service.a.exchanges]
            return outcome

        assert service.clock is not None
        return run(observed(), service.clock)


class Synchronous(Driver):
    """The transport uses an event loop with fake time on another thread."""

    def received(self, service: Service, most: int = 10_000) -> tuple[list[str], Exception | None]:
        try:
            return self._received(service, most)
        finally:
            service.endings = [exchange.ending for exchange in service.a.exchanges]

    def _received(self, service: Service, most: int) -> tuple[list[str], Exception | None]:
        contents: list[str] = []
        try:
            for text in texts_sync(service.sync_sdk()):
                contents.append(text)
                if len(contents) == most:
                    break
        except Exception as error:  # noqa: BLE001  # as above
            return contents, error
        return contents, None

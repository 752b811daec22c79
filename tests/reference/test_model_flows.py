from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import httpx
import pytest
from voice_models import fake_answers as fake
from voice_models.fake_provider import Answer, FakeProvider, cut, stall
from voice_policies import (
    Address,
    CircuitBreaker,
    Duration,
    EnforcedBy,
    Model,
    ModelDeployment,
    ModelProvider,
    ModelRoute,
    Models,
    OutboundCall,
    OutputLimit,
    PolicyBundle,
    StreamLatency,
    StreamTimeout,
    Timeout,
)
from voice_reference.flows import metrics
from voice_reference.processes import Platform, running
from voice_runtime.tracing.collector import Collector

from tests.bundles import bundle, call, operation
from tests.loopback import NO_TLS, free_port

REQUESTS = 200
"""Requests for each of the five faults: 1,000 in total."""
IN_FLIGHT = 8
PATIENCE = 180.0
"""Longest wait for an answer on a busy machine, in seconds."""
PATIENT: dict[str, Any] = {
    "timeout": Timeout(attempt=Duration("3m"), overall=Duration("3m")),
    "circuit_breaker": CircuitBreaker(consecutive_failures=2, break_duration=Duration("1s")),
    "enforced_by": EnforcedBy(timeout="runtime", circuit_breaker="runtime"),
}
# A busy machine answers within ten seconds. `total` leaves time for two attempts.
LIMITS = StreamTimeout(
    connect=Duration("10s"), first_token=Duration("10s"), idle=Duration("2m"), total=Duration("150s")
)
ROUTES = {"llm.generate": "text", "speech.recognize": "transcription", "speech.synthesize": "speech"}


def routed(name: str) -> OutboundCall:
    return call(
        name,
        protocol="https",
        addresses=(),
        route=name,
        timeout=Timeout(attempt=LIMITS.total, overall=LIMITS.total),
        circuit_breaker=CircuitBreaker(),
        enforced_by=EnforcedBy(timeout="runtime", circuit_breaker="runtime"),
    )


def models(*names: str) -> Models:
    kinds: Any = {name: (ROUTES[name],) for name in names}
    return Models(
        providers={name: ModelProvider(address=Address(host=f"{name}.example", port=443)) for name in ("a", "b")},
        models={"m": Model(name="m", capabilities=tuple(ROUTES.values()), context_window=8192)},  # type: ignore[arg-type]  # names of capabilities
        deployments={
            name: ModelDeployment(
                provider=name,
                model="m",
                credential=f"/secrets/{name}",
                latency=StreamLatency(first_token=Duration("1s")),
            )
            for name in ("a", "b")
        },
        routes={
            name: ModelRoute(
                candidates=("a", "b"), capabilities=kinds[name], timeout=LIMITS, output_limit=OutputLimit(max_tokens=50)
            )
            for name in names
        },
    )


def chain() -> dict[str, PolicyBundle]:
    """The services of a chat and of a voice dialogue, without their stores."""

    def service(name: str, offered: str, *calls: OutboundCall, streamed: bool = True, **more: Any) -> PolicyBundle:
        names = tuple(each.name for each in calls)
        inbound = operation(offered, streamed=streamed or None, calls=names, deadline=Duration("3m"))
        return bundle(*calls, inbound=(inbound,), service=name, **more)

    answer = call("ai-orchestrator.answer", streamed=True, **PATIENT)
    soft = answer.model_copy(update={"necessity": "soft", "fallback": "answered later"})
    speech = models("speech.recognize", "speech.synthesize")
    dialogue = (routed("speech.recognize"), answer, routed("speech.synthesize"))
    return {
        "conversation-service": service("conversation-service", "send", soft),
        "ai-orchestrator": service("ai-orchestrator", "answer", call("agent-engine.run", streamed=True, **PATIENT)),
        "agent-engine": service("agent-engine", "run", call("model-adapter.generate", streamed=True, **PATIENT)),
        "model-adapter": service("model-adapter", "generate", routed("llm.generate"), models=models("llm.generate")),
        "voice-engine": service("voice-engine", "dialogue", *dialogue, streamed=False, models=speech),
    }


PORTS = {name: free_port() for name in ("a", "b")}


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    addresses = {name: f"127.0.0.1:{port}" for name, port in PORTS.items()}
    with Collector() as collector, running(chain(), collector.endpoint, addresses) as started:
        yield started


@pytest.fixture(autouse=True)
def closed_breakers(platform: Platform) -> None:
    """Restart model-adapter, because an earlier test may have opened its breakers."""
    restart(platform, "model-adapter")


@pytest.fixture
def closed_speech_breakers(platform: Platform) -> None:
    restart(platform, "voice-engine")


def restart(platform: Platform, name: str) -> None:
    """Restart a service that calls models, because only a new process begins with closed breakers.

    The gRPC channels of its callers may wait 10 s before they connect again. So repeat requests until they succeed.
    """
    process = platform.processes[name].process
    process.kill()
    process.wait()
    platform.restart(name)
    asyncio.run(answered(platform))


async def answered(platform: Platform) -> None:
    async with providers(healthy), asyncio.timeout(PATIENCE):
        while {await chat(platform), await voice(platform)} != {"high tide|"}:  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.2)


def healthy(request: Any) -> Answer:
    if request.path.endswith("/speech"):
        return fake.speech(2, gap=0.0)
    if request.path.endswith("/transcriptions"):
        return fake.transcription("when is high tide?")
    return fake.chat_stream("high ", "tide")


@asynccontextmanager
async def providers(a: Callable[[Any], Answer] | None, b: Callable[[Any], Answer] = healthy) -> AsyncIterator[Any]:
    """Run the providers A and B with these scripts. If `a` is `None`, provider A refuses connections."""
    made = FakeProvider(a or healthy), FakeProvider(b)
    async with AsyncExitStack() as servers:
        if a is not None:
            await servers.enter_async_context(made[0].serve(PORTS["a"]))
        await servers.enter_async_context(made[1].serve(PORTS["b"]))
        yield made


async def events(platform: Platform) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
    url = f"{platform.processes['conversation-service'].url}/send"
    headers = {"accept": "text/event-stream", "baggage": "tenant.id=acme"}
    async with (
        httpx.AsyncClient(timeout=PATIENCE, trust_env=False, verify=NO_TLS) as client,
        client.stream("POST", url, headers=headers) as answer,
    ):
        kind = "message"
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                yield kind, json.loads(line[6:])


async def chat(platform: Platform) -> str:
    """The text of a chat, then `|`, then its fallbacks or its error class."""
    text, ending = "", "nothing"
    async for kind, document in events(platform):
        text += document.get("content", "")
        if "content" not in document:
            ending = str(document.get("error_class")) if kind == "error" else ",".join(document["fallbacks"])
    return f"{text}|{ending}"


async def voice(platform: Platform) -> str:
    """`high tide|` if one turn of a voice dialogue succeeds without fallbacks. Otherwise the whole answer."""
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False, verify=NO_TLS) as client:
        answer = (await client.post(f"{platform.processes['voice-engine'].url}/dialogue")).json()
    return (
        "high tide|" if answer == {"service": "voice-engine", "operation": "dialogue", "fallbacks": []} else str(answer)
    )


async def many(platform: Platform, ask: Callable[[Platform], Any], count: int) -> set[str]:
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one() -> str:
        async with slots:
            return str(await ask(platform))

    return set(await asyncio.gather(*(one() for _ in range(count))))


def flapping() -> Callable[[Any], Answer]:
    """A script that first refuses two requests, and then alternates between three answers and three refusals."""
    asked = [0]

    def script(request: Any) -> Answer:
        asked[0] += 1
        return fake.error(503) if asked[0] // 3 % 2 == 0 else healthy(request)

    return script


FAULTS: dict[str, Callable[[Any], Answer] | None] = {
    "down": None,
    "flapping": flapping(),
    "slow": lambda _: fake.streamed([fake.role(), stall]),
    "rate-limited": lambda _: fake.error(429, headers={"retry-after": "1"}),
    "error after status 200": lambda _: fake.streamed([fake.role(), fake.error_frame()]),
}


@pytest.mark.usefixtures("closed_speech_breakers")
@pytest.mark.parametrize("fault", FAULTS)
async def test_no_request_fails_while_one_of_two_providers_is_faulty(platform: Platform, fault: str) -> None:
    async with providers(FAULTS[fault]) as (_, b):
        assert await many(platform, chat, REQUESTS // 2) == {"high tide|"}
        assert await many(platform, voice, REQUESTS // 2) == {"high tide|"}
        assert len(b.exchanges) >= REQUESTS // 2


CUTS: dict[str, Any] = {
    "truncated": cut,
    "overloaded": fake.error_frame("server_is_overloaded", "made-up prompt"),
    "content_filtered": fake.error_frame("content_filter", "made-up prompt"),
}
CHATS = 3
"""One more than the 2 failures that open a breaker between the services. An open breaker would refuse the last chat."""


@pytest.mark.parametrize("error_class", CUTS)
async def test_the_client_gets_the_failure_class_of_every_cut_answer(platform: Platform, error_class: str) -> None:
    async with providers(*2 * [lambda _: fake.streamed([fake.role(), fake.delta("high "), CUTS[error_class]])]) as made:
        for _ in range(CHATS):
            received = [event async for event in events(platform)]
            assert received == [
                ("message", {"content": "high "}),
                (
                    "error",
                    {
                        "error": "fallback: the soft call failed and has no fallback",
                        "error_class": error_class,
                        "retry_after": None,
                    },
                ),
            ]
        assert sum(len(provider.exchanges) for provider in made) == CHATS
    exported = metrics(platform.processes["model-adapter"])
    assert f'voice_model_calls_total{{kind="cut",route="llm.generate"}} {CHATS}.0' in exported
    assert f'voice_model_attempts_total{{candidate="a",kind="{error_class}",route="llm.generate"}}' in exported
    assert not any("made-up" in process.log.read_text() for process in platform.processes.values())


@pytest.mark.usefixtures("closed_speech_breakers")
@pytest.mark.parametrize(
    ("answer", "error_class", "header"),
    [
        (fake.streamed([fake.role(), fake.delta("high "), cut]), "truncated", ("x-should-retry", "false")),
        (fake.error(429, headers={"retry-after": "40"}), "rate_limited", ("retry-after", "40")),
    ],
    ids=["after the first content", "before the first content"],
)
async def test_a_failed_spoken_turn_ends_with_its_failure_class_and_retry_advice(
    platform: Platform, answer: Answer, error_class: str, header: tuple[str, str]
) -> None:
    def script(request: Any) -> Answer:
        return answer if request.path.endswith("/completions") else healthy(request)

    async with providers(script, script), httpx.AsyncClient(timeout=PATIENCE, trust_env=False, verify=NO_TLS) as client:
        ended = await client.post(f"{platform.processes['voice-engine'].url}/dialogue")
    assert (ended.status_code, ended.headers["x-error-class"]) == (503, error_class)
    assert ended.json() == {"error": f"a dependency failed: {error_class}"}
    assert header in ended.headers.items()


async def test_the_providers_connection_closes_when_the_client_leaves_after_the_first_content(
    platform: Platform,
) -> None:
    async with providers(lambda _: fake.streamed([fake.role(), fake.delta("high "), stall])) as (a, b):
        async with aclosing(events(platform)) as received:
            assert await anext(received) == ("message", {"content": "high "})
            (exchange,) = a.exchanges
            assert not exchange.ended.is_set()
        await asyncio.wait_for(exchange.ended.wait(), PATIENCE)
        assert exchange.ending == "closed_by_client"
        assert b.exchanges == []


async def test_the_providers_connection_closes_when_the_client_leaves_before_the_first_content(
    platform: Platform,
) -> None:
    async with providers(lambda _: fake.streamed([fake.role(), stall])) as (a, b):
        waiting = asyncio.create_task(chat(platform))
        async with asyncio.timeout(PATIENCE):
            while not a.exchanges:  # noqa: ASYNC110  # the provider has no event for this
                await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait_for(a.exchanges[0].ended.wait(), PATIENCE)
        assert a.exchanges[0].ending == "closed_by_client"
        assert b.exchanges == []

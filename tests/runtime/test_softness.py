from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
from prometheus_client import CollectorRegistry
from voice_policies import Duration, Retry
from voice_runtime import (
    CalleeError,
    CircuitOpenError,
    FailedResultError,
    Failure,
    RetriesExhaustedError,
    Runtime,
    SoftCallError,
)
from voice_runtime.grpc import Grpc
from voice_runtime.http import Http
from voice_runtime.prometheus import RuntimeCollector

from tests.bundles import bundle, call, mount, operation
from tests.runtime.grpc.rag_engine import RagEngine, RagEngineStub, add_to_server, wired
from tests.runtime.http.servers import Elasticsearch, serving

NAME = "rag-engine.context"
TWICE = Retry(max_retries=1, base_delay=Duration("1ms"), max_delay=Duration("1ms"))
SOFT = call(NAME, necessity="soft", fallback="no citations")
HARD = call(NAME)


async def down() -> str:
    raise ConnectionResetError("down")


def down_sync() -> str:
    raise ConnectionResetError("down")


async def broken_stream() -> AsyncIterator[str]:
    yield "one"
    raise ConnectionResetError("down")


async def by_call(runtime: Runtime) -> object:
    return await runtime.call(NAME, down)


async def by_call_sync(runtime: Runtime) -> object:
    return runtime.call_sync(NAME, down_sync)


async def by_stream(runtime: Runtime) -> object:
    return [message async for message in runtime.stream(NAME, broken_stream)]


async def by_block(runtime: Runtime) -> object:
    async with runtime.once(NAME):
        return await down()


def load(directory: Path, *calls: Any, **settings: Any) -> Runtime:
    return Runtime.load(mount(directory, bundle(*calls)), **settings)


async def test_a_reload_decides_whether_a_call_is_soft(tmp_path: Path) -> None:
    runtime = load(tmp_path, SOFT)
    runtime.fallback(NAME, lambda _: "stand-in")
    assert await runtime.call(NAME, down) == "stand-in"
    for content, hard in ((HARD, True), (SOFT, False)):
        mount(tmp_path, bundle(content))
        assert runtime.reload()
        if hard:
            with pytest.raises(ConnectionResetError):
                await runtime.call(NAME, down)
        else:
            assert await runtime.call(NAME, down) == "stand-in"


@pytest.mark.parametrize("attempt", [by_call, by_call_sync, by_stream, by_block])
async def test_a_failed_soft_call_without_a_fallback_raises_soft_call_error(
    tmp_path: Path, attempt: Callable[[Runtime], Any]
) -> None:
    with pytest.raises(SoftCallError, match=f"soft call {NAME} failed and has no fallback") as failed:
        await attempt(load(tmp_path, SOFT))
    assert isinstance(failed.value.__cause__, ConnectionResetError)
    assert (failed.value.target, failed.value.attempts) == (NAME, 1)
    with pytest.raises(ConnectionResetError):
        await attempt(load(tmp_path / "hard", HARD))


async def test_a_soft_call_error_has_the_number_of_attempts(tmp_path: Path) -> None:
    runtime = load(tmp_path, SOFT.model_copy(update={"retry": TWICE, "enforced_by": call(retry=TWICE).enforced_by}))

    async def ask() -> None:
        raise CalleeError(NAME, 7.0)

    with pytest.raises(SoftCallError) as failed:
        await runtime.call(NAME, ask)
    assert isinstance(failed.value.__cause__, RetriesExhaustedError)
    assert failed.value.attempts == failed.value.__cause__.attempts


async def test_a_neutral_error_of_a_soft_call_is_raised_unchanged(tmp_path: Path) -> None:
    runtime = load(tmp_path, SOFT, classify=lambda _: None)
    with pytest.raises(ConnectionResetError):
        await runtime.call(NAME, down)


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_the_fallback_replaces_a_result_that_means_failure(tmp_path: Path, sync: bool) -> None:
    def no_answer(result: object) -> Failure | None:
        return Failure() if result is None else None

    async def ask() -> None: ...

    def make(runtime: Runtime) -> Any:
        return runtime.call_sync(NAME, lambda: None) if sync else runtime.call(NAME, ask)

    async def result(runtime: Runtime) -> Any:
        made = make(runtime)
        return made if sync else await made

    runtime = load(tmp_path, SOFT, classify_result=no_answer)
    with pytest.raises(SoftCallError):
        await result(runtime)
    seen: list[Exception] = []

    def stand_in(error: Exception) -> str:
        seen.append(error)
        return "stand-in"

    runtime.fallback(NAME, stand_in)
    assert await result(runtime) == "stand-in"
    assert isinstance(seen[0], FailedResultError)
    assert seen[0].result is None
    assert await result(load(tmp_path / "hard", HARD, classify_result=no_answer)) is None


def test_missing_fallbacks_are_logged_and_exported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = call("external-tools.invoke", necessity="soft", fallback="no tools")
    runtime = load(tmp_path, SOFT, other, call("model-adapter.generate"))
    registry = CollectorRegistry()
    registry.register(RuntimeCollector(runtime))

    def missing(name: str) -> float | None:
        return registry.get_sample_value("voice_call_fallback_missing", {"name": name})

    assert sorted(runtime.missing_fallbacks) == ["external-tools.invoke", NAME]
    runtime.fallback(NAME, lambda _: None)
    assert list(runtime.missing_fallbacks) == ["external-tools.invoke"]
    assert (missing(NAME), missing("external-tools.invoke"), missing("model-adapter.generate")) == (0, 1, None)
    with caplog.at_level(logging.WARNING, "voice_runtime"), runtime:
        assert "soft calls without a fallback: external-tools.invoke" in caplog.text
        caplog.clear()
        mount(tmp_path, bundle(SOFT, call("model-adapter.generate", necessity="soft", fallback="silence")))
        runtime.reload()
        assert "soft calls without a fallback: model-adapter.generate" in caplog.text


ANSWERS: list[tuple[int, dict[str, str]]] = [(503, {}), (500, {}), (429, {})]


@pytest.mark.parametrize("answer", ANSWERS, ids=["unavailable", "internal error", "too many requests"])
async def test_the_fallback_replaces_an_error_status_of_an_http_call(tmp_path: Path, answer: Any) -> None:
    soft = call("elasticsearch.search", protocol="http", necessity="soft", fallback="no results")
    runtime = load(tmp_path, soft)
    async with serving(Elasticsearch(answer, answer)) as url:
        async with Http(runtime).client("elasticsearch.search", base_url=url) as client:
            with pytest.raises(SoftCallError):
                await client.get("/")
            runtime.fallback("elasticsearch.search", lambda _: httpx.Response(200, json={"hits": []}))
            assert (await client.get("/")).json() == {"hits": []}
        with Http(runtime).sync_client("elasticsearch.search", base_url="http://127.0.0.1:1") as client_of_threads:
            assert client_of_threads.get("/").json() == {"hits": []}


async def test_a_service_answers_unavailable_and_not_internal_if_its_soft_call_fails(tmp_path: Path) -> None:
    soft = call("elasticsearch.search", protocol="http", necessity="soft", fallback="no results")
    runtime = Runtime.load(mount(tmp_path, bundle(soft, inbound=(operation("context"),))))
    async with serving(Elasticsearch((503, {}), (503, {}))) as url:
        client = Http(runtime).client("elasticsearch.search", base_url=url)

        class Searching(RagEngine):
            async def behave(self, name: str, request: Any, context: Any) -> None:
                (await client.get("/")).raise_for_status()

        async def search(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001  # as ASGI defines it
            (await client.get("/")).raise_for_status()

        server = Grpc(runtime).server()
        add_to_server(Searching(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as over_grpc:
                await RagEngineStub(channel).Context(b"x")
        await server.stop(None)
        async with serving(Http(runtime).middleware(search)) as address, httpx.AsyncClient() as caller:
            over_http = await caller.post(f"{address}/context")
        await client.aclose()
    assert over_grpc.value.code() is grpc.StatusCode.UNAVAILABLE
    assert over_grpc.value.details() == "fallback: the soft call failed and has no fallback"
    assert over_http.status_code == 503


class Unavailable(RagEngine):
    async def behave(self, name: str, request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "down")


async def test_the_fallback_replaces_an_error_status_of_a_grpc_call(tmp_path: Path) -> None:
    async with wired(tmp_path, Unavailable(), SOFT) as (wire, stub):
        made = stub.Context(b"x")
        with pytest.raises(SoftCallError):
            await made
        assert await made.code() is grpc.StatusCode.UNAVAILABLE
        wire.runtime.fallback(NAME, lambda _: b"stand-in")
        assert await stub.Context(b"x") == b"stand-in"


async def test_a_rejection_in_the_task_group_of_a_soft_call_counts_as_ignored(
    tmp_path: Path,
) -> None:
    async def act() -> None:
        raise ExceptionGroup("tasks", [CircuitOpenError("embedder", 3.0)])

    runtime = load(tmp_path, SOFT)
    with pytest.raises(SoftCallError):
        await runtime.outbound(NAME).enter(act)
    statistics = runtime.outbound(NAME).statistics
    assert (statistics.failed, statistics.ignored) == (0, 1)


async def test_a_call_whose_task_group_contains_a_failure_is_counted_as_failed_and_not_retried(tmp_path: Path) -> None:
    attempts = []

    async def act() -> None:
        attempts.append(1)
        raise ExceptionGroup("tasks", [CircuitOpenError("embedder", 3.0), ConnectionRefusedError()])

    runtime = load(tmp_path, call(NAME, retry=TWICE))
    with pytest.raises(ExceptionGroup):
        await runtime.call(NAME, act)
    assert (len(attempts), runtime.outbound(NAME).statistics.failed) == (1, 1)

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from voice_policies import Bulkhead, CircuitBreaker, Duration, Health, Ratio, Retry, RetryBudget, Timeout
from voice_runtime import Runtime, VoiceRuntimeError
from voice_runtime.grpc import Grpc
from voice_runtime.grpc.server import REFUSING

from tests.bundles import bundle, mount, operation
from tests.runtime.grpc.rag_engine import (
    OPERATIONS,
    RagEngine,
    RagEngineStub,
    add_to_server,
    calls,
    connected,
    ended,
    eventually,
    runtime,
    serving,
    wired,
)
from tests.runtime.recorded_spans import Spans

SWAPS = 300
SHORT = Timeout(attempt=Duration("100ms"), overall=Duration("5s"))


@asynccontextmanager
async def leaving_nothing(wire: Grpc, spans: Spans | None = None) -> AsyncIterator[None]:
    await wire.close()
    opened = sockets()
    yield
    await wire.close()
    gc.collect()
    await eventually(lambda: not tasks_of_calls())
    await eventually(lambda: sockets() <= opened)
    assert spans is None or spans.open == 0
    for name in OPERATIONS.values():
        bulkhead = wire.runtime.outbound(f"rag-engine.{name}").bulkhead
        assert bulkhead is not None
        assert (bulkhead.in_flight, bulkhead.waiting) == (0, 0)


def sockets() -> int:
    """The number of open sockets. If the server runs in this process, both ends of a connection count."""
    gc.collect()  # a connection stays open while a call object on it exists
    return sum(each.is_socket() for each in Path("/proc/self/fd").iterdir())


def tasks_of_calls() -> list[str]:
    """The tasks of the client in this process, without the tasks of the server."""
    codes = (getattr(task.get_coro(), "cr_code", None) for task in asyncio.all_tasks())
    return [code.co_qualname for code in codes if code and "voice_runtime" in code.co_filename]


async def one_of_each(stub: RagEngineStub) -> list[Any]:
    async def read(stream: Any) -> list[bytes]:
        return [message async for message in stream]

    made = stub.Context(b"x"), read(stub.ListSources(b"2")), stub.Upload([b"a"]), read(stub.Chat([b"a"]))
    return list(await asyncio.gather(*(ended(call) for call in made)))


class Late(RagEngine):
    """The attempt times out after 100 ms, and the cancelled handler ends 100 ms later."""

    async def behave(self, name: str, request: Any, context: Any) -> None:
        try:
            await asyncio.sleep(0.3)
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)
            raise


class Hanging(RagEngine):
    async def behave(self, name: str, request: Any, context: Any) -> None:
        await asyncio.sleep(3600)


@pytest.mark.parametrize("servicer", [Late(), Hanging()], ids=["answers late", "hangs"])
async def test_a_too_slow_callee_leaves_no_task_no_slot_and_no_open_span(
    tmp_path: Path, spans: Spans, servicer: RagEngine
) -> None:
    policies = calls(timeout=SHORT, bulkhead=Bulkhead(max_concurrent=4), circuit_breaker=CircuitBreaker())
    async with wired(tmp_path, servicer, *policies) as (wire, stub), leaving_nothing(wire, spans):
        for _ in range(3):
            assert all(isinstance(error, VoiceRuntimeError) for error in await one_of_each(stub))


async def test_connection_resets_leave_no_task_no_slot_and_no_open_span(tmp_path: Path, spans: Spans) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(64)
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    wire = Grpc(runtime(tmp_path, *calls(timeout=SHORT, bulkhead=Bulkhead(max_concurrent=4))))
    target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with wire.channel("rag-engine", target=target) as channel:
        # gRPC opens some sockets once per process. These calls open them before the sockets are counted.
        await one_of_each(RagEngineStub(channel))
        async with leaving_nothing(wire, spans):
            for _ in range(3):
                errors = await one_of_each(RagEngineStub(channel))
                assert all(isinstance(error, grpc.aio.AioRpcError | VoiceRuntimeError) for error in errors)
    server.close()


async def test_a_server_stop_during_calls_leaves_no_task_no_slot_and_no_open_span(tmp_path: Path, spans: Spans) -> None:
    servicer = Hanging()
    wire = Grpc(runtime(tmp_path, *calls(bulkhead=Bulkhead(max_concurrent=4))))
    server = grpc.aio.server()
    add_to_server(servicer, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with wire.channel("rag-engine", target=target) as channel, leaving_nothing(wire, spans):
        running = asyncio.create_task(one_of_each(RagEngineStub(channel)))
        await eventually(lambda: len(servicer.asked) == 4)
        await server.stop(None)  # sends GOAWAY and cancels every stream
        errors = await running
        assert [error.code() for error in errors] == [grpc.StatusCode.UNAVAILABLE] * 4


@pytest.mark.parametrize("servicer", [Late(), Hanging()], ids=["answers late", "hangs"])
async def test_a_callee_that_is_too_slow_leaves_no_thread_waiting(
    tmp_path: Path, spans: Spans, servicer: RagEngine
) -> None:
    policies = calls(timeout=SHORT, bulkhead=Bulkhead(max_concurrent=4))
    async with serving(servicer) as address:
        wire = Grpc(runtime(tmp_path, *policies))
        stub = RagEngineStub(wire.sync_channel("rag-engine", target=address))
        await ended(asyncio.to_thread(stub.Context, b"x"))  # opens the connection that all calls use
        async with leaving_nothing(wire, spans):
            for _ in range(3):
                made = (asyncio.to_thread(stub.Context, b"x") for _ in range(4))
                errors = await asyncio.gather(*(ended(call) for call in made))
                assert all(isinstance(error, VoiceRuntimeError) for error in errors)


async def test_three_thousand_streams_leak_no_objects(tmp_path: Path) -> None:
    policies = calls(
        bulkhead=Bulkhead(max_concurrent=200), timeout=Timeout(attempt=Duration("1m"), overall=Duration("1m"))
    )
    servicer = RagEngine()
    async with wired(tmp_path, servicer, *policies) as (wire, stub):

        async def stream(number: int) -> None:
            made = stub.ListSources(b"3")
            if number % 3 == 0:
                assert [message async for message in made] == [b"0", b"1", b"2"]
            elif number % 3 == 1:
                assert await made.read() == b"0"
                made.cancel()
            else:
                assert await made.read() == b"0"  # then the stream is dropped

        async def streams(first: int, last: int) -> None:
            for begin in range(first, last, 100):
                await asyncio.gather(*(stream(number) for number in range(begin, begin + 100)))
            servicer.asked.clear()

        async with leaving_nothing(wire):
            await streams(0, 1_000)
        objects = count_objects()
        async with leaving_nothing(wire):
            await streams(1_000, 3_000)
        await eventually(lambda: count_objects() < objects + 500)  # the server frees its objects a little later
        statistics = wire.runtime.outbound("rag-engine.list-sources").statistics
        assert statistics.successful + statistics.cancelled + statistics.failed == 3_000
        assert statistics.failed == 0


def count_objects() -> int:
    gc.collect()
    return len(gc.get_objects())


class FailingFirst(RagEngine):
    async def behave(self, name: str, request: Any, context: Any) -> None:
        if "grpc-previous-rpc-attempts" not in dict(context.invocation_metadata()):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "once more")


async def test_all_attempts_of_a_grpc_call_use_the_same_bundle_while_bundles_are_swapped(tmp_path: Path) -> None:
    retry = Retry(base_delay=Duration("1ms"), budget=RetryBudget(ratio=Ratio("100%"), reserve=1000))
    bundles = [
        bundle(*calls(timeout=Timeout(attempt=Duration(attempt), overall=Duration("1h")), retry=retry))
        for attempt in ("20s", "5m")
    ]
    servicer = FailingFirst()
    async with connected(tmp_path, servicer) as (client, stub):
        mount(tmp_path, bundles[0])
        assert client.reload()
        answered = await call_ten_times(stub, 0)
        swapping = asyncio.create_task(swap(client, tmp_path, bundles, SWAPS))
        while not swapping.done():
            answered += await call_ten_times(stub, answered)
        await swapping
        await swap(client, tmp_path, bundles, 1)
        answered += await call_ten_times(stub, answered)
        assert client.reloads["applied"] == SWAPS + 2
        assert client.outbound("rag-engine.context").statistics.retries == answered
    seen: dict[str, list[bool]] = {}
    for _, metadata, left in servicer.asked:
        seen.setdefault(metadata["call"], []).append((left or 0) > 20)
    assert len(seen) == answered
    assert all(attempts in ([True, True], [False, False]) for attempts in seen.values())
    assert {attempts[0] for attempts in seen.values()} == {True, False}


async def call_ten_times(stub: Any, answered: int) -> int:
    made = [stub.Context(b"x", metadata=(("call", str(answered + number)),)) for number in range(10)]
    assert [await call for call in made] == [b"x"] * 10
    return len(made)


async def swap(client: Runtime, directory: Path, bundles: list[Any], times: int) -> None:
    for number in range(1, times + 1):
        mount(directory, bundles[number % 2])
        assert await asyncio.to_thread(client.reload)


DRAINED = """
import asyncio, signal, sys
from voice_runtime import Runtime
from voice_runtime.grpc import Grpc
from tests.runtime.grpc.rag_engine import RagEngine, add_to_server

begun = finished = 0

class Slow(RagEngine):
    async def behave(self, name, request, context):
        global begun, finished
        begun += 1
        await asyncio.sleep(float(sys.argv[2]))
        finished += 1

async def main():
    server = Grpc(Runtime.load(sys.argv[1])).server()
    add_to_server(Slow(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    print(port, flush=True)
    await terminated.wait()
    await server.drain()
    print(begun, finished, flush=True)

asyncio.run(main())
"""


async def test_sigterm_under_load_finishes_every_accepted_request(tmp_path: Path) -> None:
    inbound = tuple(operation(name, deadline=Duration("30s")) for name in OPERATIONS.values())
    content = bundle(inbound=inbound, service="rag-engine", health=Health(drain_duration=Duration("2s")))
    mounted = mount(tmp_path, content)
    command = [sys.executable, "-c", DRAINED, str(mounted), "3"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    port = int(await asyncio.wait_for(process.stdout.readline(), 60))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = RagEngineStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)

        async def is_serving() -> bool:
            answer = await health.Check(health_pb2.HealthCheckRequest())
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        assert await is_serving()
        accepted = [asyncio.ensure_future(ended(stub.Context(b"%d" % number))) for number in range(20)]
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            while await is_serving():  # readiness fails first, while the server still accepts requests
                accepted.append(asyncio.ensure_future(ended(stub.Context(b"late"))))
        accepted += [asyncio.ensure_future(ended(stub.Context(b"while draining"))) for _ in range(20)]
        answers = await asyncio.gather(*accepted)
        assert all(isinstance(answer, bytes) for answer in answers)
    assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_sigterm_under_continuous_load_finishes_every_request_that_had_begun(tmp_path: Path) -> None:
    inbound = tuple(operation(name, deadline=Duration("30s")) for name in OPERATIONS.values())
    content = bundle(inbound=inbound, service="rag-engine", health=Health(drain_duration=Duration("1s")))
    command = [sys.executable, "-c", DRAINED, str(mount(tmp_path, content)), "0.2"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    port = int(await asyncio.wait_for(process.stdout.readline(), 60))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub, answers = RagEngineStub(channel), []

        async def load() -> None:
            while process.returncode is None:
                answers.append(answer := await ended(stub.Context(b"x")))
                if not isinstance(answer, bytes):
                    await asyncio.sleep(2 * REFUSING)  # an immediate retry could reach the server while it exits

        loads = [asyncio.create_task(load()) for _ in range(40)]
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            begun, finished = map(int, (await process.stdout.readline()).split())
            assert await process.wait() == 0
            await asyncio.gather(*loads)
    answered = [answer for answer in answers if isinstance(answer, bytes)]
    refused = {(answer.code(), answer.details()) for answer in answers if not isinstance(answer, bytes)}
    assert len(answered) == begun == finished
    assert len(answered) > 40, "the server keeps serving while callers notice that it stops"
    assert (grpc.StatusCode.UNAVAILABLE, "the server is about to stop") in refused
    assert {code for code, _ in refused} == {grpc.StatusCode.UNAVAILABLE}, (
        "UNAVAILABLE, so that callers retry elsewhere"
    )

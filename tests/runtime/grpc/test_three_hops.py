from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from voice_policies import Duration, Health, Ratio, Retry, RetryBudget
from voice_runtime import RetriesExhaustedError, Runtime
from voice_runtime.grpc import Grpc

from tests.bundles import bundle, call, mount, operation
from tests.runtime.grpc.rag_engine import RagEngine, RagEngineStub, add_to_server, ended, serving

GENEROUS = RetryBudget(ratio=Ratio("100%"), reserve=1000)
REQUESTS = 20
HOPS = 3


class Leaf(RagEngine):
    async def behave(self, name: str, request: Any, context: Any) -> None:
        del name, request
        await context.abort(grpc.StatusCode.UNAVAILABLE, "down")


class Passing(RagEngine):
    def __init__(self, next_hop: RagEngineStub) -> None:
        super().__init__()
        self.next_hop = next_hop

    async def behave(self, name: str, request: Any, context: Any) -> None:
        del name, context
        await self.next_hop.Context(request)


async def with_policies(stack: AsyncExitStack, directory: Path, target: str, budget: RetryBudget) -> tuple[Grpc, Any]:
    retry = Retry(max_retries=3, base_delay=Duration("1ms"), max_delay=Duration("1ms"), budget=budget)
    content = bundle(
        call("rag-engine.context", retry=retry),
        inbound=(operation("context", deadline=Duration("1m")),),
        health=Health(drain_duration=Duration("0s")),
    )
    wire = Grpc(Runtime.load(mount(directory, content)))
    stack.push_async_callback(wire.close)
    return wire, RagEngineStub(wire.channel("rag-engine", target=target))


BUDGETED = RetryBudget()
WITHIN_BUDGET = round(REQUESTS * (1 + BUDGETED.ratio.fraction)) + BUDGETED.reserve


@pytest.mark.parametrize(
    ("budget", "most"), [(GENEROUS, 4 * REQUESTS), (BUDGETED, WITHIN_BUDGET)], ids=["generous budget", "default budget"]
)
async def test_retries_of_three_hops_do_not_multiply_the_attempts_at_the_leaf(
    tmp_path: Path, budget: RetryBudget, most: int
) -> None:
    """Each hop allows four attempts. If these multiplied, the leaf would get 4 × 4 × 4 = 64 attempts a request."""
    leaf = Leaf()
    async with AsyncExitStack() as stack:
        target = await stack.enter_async_context(serving(leaf))
        for number in range(HOPS - 1):
            wire, stub = await with_policies(stack, tmp_path / str(number), target, budget)
            server = wire.server()
            add_to_server(Passing(stub), server)
            target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            await server.start()
            stack.push_async_callback(server.stop, None)
        _, entry = await with_policies(stack, tmp_path / "entry", target, budget)
        for _ in range(REQUESTS):
            assert isinstance(await ended(entry.Context(b"x")), RetriesExhaustedError)
    assert REQUESTS < len(leaf.asked) <= most

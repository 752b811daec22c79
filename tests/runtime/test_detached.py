from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from opentelemetry import baggage, context
from voice_policies import Retry
from voice_runtime import (
    CalleeError,
    RetriesExhaustedError,
    Runtime,
    current_request,
    detached,
    remaining,
)
from voice_runtime.testing import FakeClock

from tests.bundles import bundle, call, mount, operation


@pytest.fixture
def runtime(tmp_path: Path, clock: FakeClock) -> Runtime:
    return Runtime.load(
        mount(tmp_path, bundle(call(retry=Retry(max_retries=1)), inbound=(operation("run"),))), clock=clock
    )


async def test_calls_of_detached_work_are_not_limited_by_the_requests_deadline(runtime: Runtime) -> None:
    async def answer() -> float | None:
        await asyncio.sleep(0.9)
        return remaining()

    async def work() -> tuple[float | None, object]:
        return await runtime.call("rag-engine", answer), baggage.get_baggage("tenant.id")

    token = context.attach(baggage.set_baggage("tenant.id", "acme"))
    async with runtime.request("run", remaining=0.5):
        assert remaining() == 0.5
        with detached():
            assert remaining() is None
            assert current_request() is None
            task = asyncio.create_task(work())
        assert remaining() == 0.5
        assert current_request() is not None
        await asyncio.sleep(0)
    context.detach(token)
    left, tenant = await task
    assert left is not None
    assert left == pytest.approx(9.1)  # 0.9 s of the attempt's 10 s have passed
    assert tenant == "acme"


async def test_a_request_may_still_retry_after_detached_work_has_exhausted_its_retries(runtime: Runtime) -> None:
    async def fail() -> None:
        raise CalleeError("rag-engine")

    async with runtime.request("run") as request:
        with detached(), pytest.raises(RetriesExhaustedError):
            await runtime.call("rag-engine", fail)
        assert not request.retries_spent
        with pytest.raises(RetriesExhaustedError):
            await runtime.call("rag-engine", fail)
        assert request.retries_spent

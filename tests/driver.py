"""Runs coroutine tests. A test with the fixture `clock` runs on fake time, any other test on a real event loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from voice_runtime.testing import FakeClock, run


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    coroutine = pyfuncitem.obj(**arguments)
    fake = pyfuncitem.funcargs.get("clock")
    if isinstance(fake, FakeClock):
        run(coroutine, fake)
    else:
        asyncio.run(coroutine)
    return True


class Recorder:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_event(self, event: Any) -> None:
        self.events.append(event)

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.events if event.kind == kind]


async def settle(until: Callable[[], bool] = lambda: False, turns: int = 20) -> None:
    """Let other tasks run until `until` is true, for at most `turns` turns of the event loop."""
    for _ in range(turns):
        if until():
            return
        await asyncio.sleep(0)


def seeded(seed: int = 7) -> Random:
    return Random(seed)  # noqa: S311  # tests hold no secrets

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from math import inf, nan
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from voice_policies import CircuitBreaker
from voice_runtime import CalleeError, Caller, Runtime, UnknownCallError

from tests.bundles import bundle, call, mount, operation

NAME = "rag-engine.context"


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    guarded = call(NAME, circuit_breaker=CircuitBreaker(consecutive_failures=2))
    soft = call("memory.recall", necessity="soft", fallback="nothing is recalled")
    return Runtime.load(mount(tmp_path, bundle(guarded, soft, inbound=(operation("run"),))))


async def fetch(question: str) -> str:
    return question


async def messages(question: str) -> AsyncIterator[str]:
    yield question


def parts(question: str) -> Iterator[str]:
    yield question
    raise CalleeError(NAME)


def call_async(runtime: Runtime, *call: Any) -> Any:
    async def main() -> Any:
        return await runtime.call(NAME, *call)

    return asyncio.run(main())


def stream(runtime: Runtime, *call: Any) -> Any:
    async def main() -> list[Any]:
        return [message async for message in runtime.stream(NAME, *call)]

    return asyncio.run(main())


def call_sync(runtime: Runtime, *call: Any) -> Any:
    return runtime.call_sync(NAME, *call)


def stream_sync(runtime: Runtime, *call: Any) -> Any:
    return list(runtime.outbound(NAME).stream_sync(*call))


@pytest.mark.parametrize(
    ("form", "wrong", "text"),
    [
        *((form, (None,), "not callable") for form in (call_async, call_sync, stream, stream_sync)),
        *((form, (fetch,), "question") for form in (call_async, call_sync, stream, stream_sync)),
        (call_async, (parts, "tides"), "type generator: use `call` for a coroutine function"),
        (call_async, (messages, "tides"), "type async_generator: use `call` for a coroutine function"),
        (call_sync, (fetch, "tides"), "type coroutine: use `call` for a coroutine function"),
        (call_sync, (parts, "tides"), "type generator: use `call` for a coroutine function"),
        (stream, (fetch, "tides"), "type coroutine: `stream` needs an asynchronous generator function"),
        (stream, (parts, "tides"), "type generator: `stream` needs an asynchronous generator function"),
    ],
)
def test_a_wrong_function_or_missing_arguments_do_not_count_against_the_callee(
    runtime: Runtime, form: Callable[..., Any], wrong: tuple[Any, ...], text: str
) -> None:
    with pytest.raises(TypeError, match=text) as refused:
        form(runtime, *wrong)
    assert refused.value.__notes__ == [f"{NAME}: a fault of this process, not of the callee"]
    breaker = runtime.outbound(NAME).breaker
    assert breaker is not None
    assert (breaker.current(), breaker.failed, breaker.successful) == ("closed", 0, 0)


def test_a_type_error_inside_the_function_is_a_failure_of_the_callee(runtime: Runtime) -> None:
    def broken() -> None:
        len(5)  # type: ignore[arg-type]  # a client may fail so when it reads the callee's answer

    with pytest.raises(TypeError):
        runtime.call_sync(NAME, broken)
    assert runtime.outbound(NAME).statistics.failed == 1


def test_a_protected_generator_function_runs_under_the_policies_of_its_call(runtime: Runtime) -> None:
    protected = runtime.protect(NAME)(parts)
    with pytest.raises(CalleeError):
        list(protected("tides"))
    assert runtime.outbound(NAME).statistics.failed == 1


async def test_a_protected_mock_of_a_coroutine_function_is_awaited(runtime: Runtime) -> None:
    assert await runtime.protect(NAME)(AsyncMock(return_value="tides"))() == "tides"


@pytest.mark.parametrize("name", [None, 5, b"rag-engine.context"])
def test_the_error_for_a_name_that_is_not_text_lists_the_declared_names(runtime: Runtime, name: Any) -> None:
    calls, operations = ("memory.recall", NAME), ("run",)
    for look_up, declared in (
        (runtime.outbound, calls),
        (runtime.inbound, operations),
        (runtime.protect, calls),
        (runtime.request, operations),
    ):
        with pytest.raises(UnknownCallError) as refused:
            look_up(name)
        assert refused.value.known == declared
        assert f"{name!r} matches no" in str(refused.value)


@pytest.mark.parametrize("seconds", [0, -1.0, nan, inf])
def test_a_poll_interval_out_of_range_is_refused(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(ValueError, match="poll_interval must be above 0 s"):
        Runtime.load(mount(tmp_path, bundle(call(NAME))), poll_interval=seconds)


def test_registration_refuses_a_fallback_that_is_not_a_function(runtime: Runtime) -> None:
    nothing: Any = []
    with pytest.raises(TypeError, match=r"memory.recall: a fallback must be a function of the error, not \[\]"):
        runtime.fallback("memory.recall", nothing)


@pytest.mark.parametrize("field", ["tenant", "user", "api_key"])
@pytest.mark.parametrize("value", [None, 5, ["secret"]])
def test_the_error_for_a_wrong_caller_field_does_not_contain_the_value(field: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{field} of a caller must be text") as refused:
        Caller(**{field: value})
    assert "secret" not in str(refused.value)

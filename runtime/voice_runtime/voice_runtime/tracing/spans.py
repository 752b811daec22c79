"""Spans for a service's own work."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

from voice_runtime.context_variables import restore
from voice_runtime.errors import VoiceRuntimeError

TRACER = trace.get_tracer("voice_runtime")
"""The tracer of all spans here. Its spans go to the provider that `Telemetry` sets, even if that happens later.
A tracer per span would be slow."""
P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def span(
    name: str, kind: SpanKind = SpanKind.INTERNAL, attributes: dict[str, AttributeValue] | None = None
) -> Iterator[Span]:
    """A span around a block. It records an exception as an error; a cancellation only sets an attribute."""
    current = TRACER.start_span(name, kind=kind, attributes=attributes)
    token = context.attach(trace.set_span_in_context(current))
    try:
        yield current
    except BaseException as error:
        record_error(current, error)
        raise
    finally:
        restore(token)
        current.end()


def record_error(current: Span, error: BaseException) -> None:
    """Record an exception, and the policy if a policy raised the exception."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        current.set_attribute("voice.cancelled", value=True)
        return
    if isinstance(error, VoiceRuntimeError):
        current.set_attributes({"voice.policy": error.policy, "voice.target": error.target})
    current.set_attribute("error.type", type(error).__name__)
    current.record_exception(error)
    current.set_status(StatusCode.ERROR, type(error).__name__)


def traced(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator that records a span for each call of a function.

    It accepts a coroutine function, an asynchronous generator function, or a synchronous function.
    """

    def decorate(fn: Callable[P, T]) -> Callable[P, T]:
        def plain(*args: Any, **kwargs: Any) -> Any:
            with span(name):
                return fn(*args, **kwargs)

        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            with span(name):
                return await fn(*args, **kwargs)  # type: ignore[misc]  # checked below

        async def generator(*args: Any, **kwargs: Any) -> Any:
            # Not `span`: a generator may be closed in a foreign context, and detaching a span fails there.
            current = TRACER.start_span(name)
            messages: Any = fn(*args, **kwargs)
            try:
                while True:
                    with trace.use_span(current, record_exception=False, set_status_on_exception=False):
                        try:
                            message = await anext(messages)
                        except StopAsyncIteration:
                            return
                    yield message
            except BaseException as error:
                record_error(current, error)
                raise
            finally:
                await messages.aclose()
                current.end()

        shell = plain
        if inspect.isasyncgenfunction(fn):
            shell = generator
        elif inspect.iscoroutinefunction(fn):
            shell = coroutine
        return functools.update_wrapper(shell, fn)

    return decorate

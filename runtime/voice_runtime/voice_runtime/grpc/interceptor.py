"""Runs each inbound RPC under the policies of its operation."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from opentelemetry import context, trace

from voice_runtime import trace_context
from voice_runtime.caller import Caller
from voice_runtime.clock import NEVER
from voice_runtime.errors import UnknownCallError, VoiceRuntimeError
from voice_runtime.events import logger
from voice_runtime.grpc.methods import INFRASTRUCTURE, operation_of
from voice_runtime.grpc.status import StatusError, answer_to, failure_of
from voice_runtime.inbound import WorkCancelledError, is_being_cancelled
from voice_runtime.outcome import classify, decisive
from voice_runtime.runtime import Runtime

API_KEY = "x-api-key"
"""Metadata key of the API key. Tenant and user arrive in the baggage."""
_CODES: dict[Any, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
Handle = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]


class InboundInterceptor(grpc.aio.ServerInterceptor):
    """Applies rate limits, bulkhead, degradation and deadline to handlers, and begins a span for each request."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.refusing = False
        """True while the server is about to stop. The interceptor then refuses every request except health and
        reflection. A refused request reaches no policy and gets no span."""

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The wrapped handler of the method. Health and reflection stay unwrapped."""
        handler = await continuation(handler_call_details)
        path = str(handler_call_details.method)
        if handler is None or path.startswith(INFRASTRUCTURE):
            return handler
        make, handle = _shape(handler)

        async def serve(request: Any, servicer: grpc.aio.ServicerContext[Any, Any]) -> Any:
            if self.refusing:
                self._runtime.refused_requests["draining"] += 1
                await servicer.abort(grpc.StatusCode.UNAVAILABLE, "the server is about to stop")
            return await self._serve(path, handle, request, servicer)

        return make(
            serve,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    async def _serve(self, path: str, handle: Handle, request: Any, servicer: Any) -> Any:
        given = servicer.invocation_metadata() or ()
        metadata = trace_context.joined((key, value) for key, value in given if isinstance(value, str))
        received = trace_context.context_of(metadata)
        service, _, method = path[1:].partition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        span = trace_context.begin_server_span(path[1:], attributes, received)
        # Nothing detaches the span, because each RPC has its own task with its own context.
        context.attach(trace.set_span_in_context(span, received))
        caller = trace_context.caller_of(received, metadata.get(API_KEY, ""))
        failure: BaseException | None = None
        try:
            return await self._admitted(path, caller, handle, request, servicer)
        except grpc.aio.AbortError:
            raise  # the RPC already has its status
        except Exception as error:  # noqa: BLE001  # converted into the status of the RPC
            failure = error
            await _abort(servicer, path, error)
        except BaseException as error:
            failure = error
            raise
        finally:
            _end(span, servicer, failure)

    async def _admitted(self, path: str, caller: Caller, handle: Handle, request: Any, servicer: Any) -> Any:
        try:
            operation = self._runtime.inbound(operation_of(path))
        except UnknownCallError as error:
            self._runtime.refused_requests["unknown_operation"] += 1
            await servicer.abort(grpc.StatusCode.UNIMPLEMENTED, str(error))
        left = servicer.time_remaining()
        answer: Any = None
        try:
            async with operation.request(caller, remaining=NEVER if left is None else left):
                answer = await _answer(handle, request, servicer)
        except StatusError as error:
            if error.__cause__ is not None:
                raise error.__cause__ from None
        return answer


async def _answer(handle: Handle, request: Any, servicer: Any) -> Any:
    """The handler's answer. Raises an error status as `StatusError`, so that the request's policies count it."""
    try:
        answer = await handle(request, servicer)
    except asyncio.CancelledError as error:
        if is_being_cancelled():
            raise
        # gRPC sends no status after a CancelledError, and the caller would wait until its deadline.
        raise WorkCancelledError from error
    except Exception as error:
        decided = decisive(error)
        if isinstance(decided, grpc.aio.AbortError):
            raise StatusError(_code(servicer)) from decided
        if isinstance(decided, grpc.RpcError):
            raise StatusError(answer_to(decided)[0]) from decided
        raise
    if (code := _code(servicer)) is not grpc.StatusCode.OK:
        raise StatusError(code)
    return answer


def _code(servicer: Any) -> grpc.StatusCode:
    """The status that the handler set. gRPC also accepts it as a number."""
    code = servicer.code()
    return _CODES.get(code, code) or grpc.StatusCode.OK


async def _abort(servicer: Any, path: str, error: Exception) -> None:
    """End the RPC with the status of the error.

    The caller gets the summary of a policy's error. It does not get the text of another error, because that text may
    contain secrets. The log gets the text if the status is INTERNAL.
    """
    code, trailing = answer_to(error)
    if code is grpc.StatusCode.INTERNAL:
        logger.error("%s failed", path, exc_info=error)
    error = decisive(error)
    text = f"{error.policy}: {error.summary}" if isinstance(error, VoiceRuntimeError) else "the handler failed"
    await servicer.abort(code, text, trailing)


def _end(span: trace.Span, servicer: Any, failure: BaseException | None) -> None:
    code = _code(servicer)
    if span.is_recording():
        span.set_attribute("rpc.grpc.status_code", code.value[0])
    if failure is None and failure_of(code) is not None:
        failure = StatusError(code)  # the handler set the status itself
    failed = failure is not None and not (isinstance(failure, Exception) and classify(failure) is None)
    trace_context.end_span(span, failure, failed=failed)


def _shape(handler: Any) -> tuple[Callable[..., Any], Handle]:
    """The function of `grpc` that makes a handler of the same kind, and a coroutine function that runs `handler`."""
    requests = "stream" if handler.request_streaming else "unary"
    responses = "stream" if handler.response_streaming else "unary"
    behaviour = getattr(handler, f"{requests}_{responses}")
    if not (inspect.isasyncgenfunction(behaviour) or inspect.iscoroutinefunction(behaviour)):
        raise TypeError(f"the handler {behaviour} is not asynchronous: write it as `async def`")
    make = getattr(grpc, f"{requests}_{responses}_rpc_method_handler")
    return make, _written(behaviour) if inspect.isasyncgenfunction(behaviour) else behaviour


def _written(behaviour: Callable[..., AsyncGenerator[Any, None]]) -> Handle:
    """Turn a generator handler into one coroutine that writes the messages. The deadline can cancel this coroutine."""

    async def handle(request: Any, servicer: Any) -> None:
        async with aclosing(behaviour(request, servicer)) as messages:  # so that a cancelled write closes the generator
            async for message in messages:
                await servicer.write(message)

    return handle

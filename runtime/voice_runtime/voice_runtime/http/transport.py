"""httpx transports that send every request under the policies of a call in the bundle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from opentelemetry.trace import Span
from voice_policies import Address

from voice_runtime import trace_context
from voice_runtime.attempt import current_attempt
from voice_runtime.deadline import attempt_number, next_hop, remaining
from voice_runtime.errors import UnknownCallError
from voice_runtime.http.status import failure_of, show_status
from voice_runtime.outcome import FailedResultError, classify
from voice_runtime.runtime import Runtime
from voice_runtime.timeout import current_scope

TIMEOUT = "x-envoy-expected-rq-timeout-ms"
"""Header with the milliseconds that the callee has (`next_hop`). It is Envoy's, so the mesh and proxies know it."""
ATTEMPT = "x-envoy-attempt-count"
"""Header with the number of the attempt. The first attempt does not send it."""
PHASES = ("connect", "read", "write")
"""The phases of a request on the network. httpx has a timeout for each phase."""
ONCE: Iterator[Any] = iter(())
"""Placeholder argument for a request whose body can be read only once. A call with an iterator among its arguments is
not retried."""


class _Call:
    """The state that all attempts of one request share. They use the same bundle."""

    def __init__(self, runtime: Runtime, name: str, request: httpx.Request) -> None:
        assembled = runtime.assembled
        outbound = assembled.call(name)
        addresses = next(call.addresses for call in assembled.bundle.outbound if call.name == outbound.name)
        if len(addresses) > 1:
            outbound = runtime.targets.of(outbound, _one_of(addresses, outbound.name, request.url.host))
        self.outbound = outbound
        self.request = request
        is_data = isinstance(request.stream, httpx.ByteStream)
        self.arguments = () if is_data else (ONCE,)
        self._body = request.stream if is_data else _Body(request.stream)
        self._proxies = {address.host: address.via for address in addresses if address.via}
        self._is_internal = not any(address.uses_tls for address in addresses)

    def begin(self) -> Span:
        """Begin the span of the request."""
        attributes = {"http.request.method": self.request.method, "voice.call": self.outbound.name}
        self._span = trace_context.begin_client_span(f"{self.request.method} {self.outbound.name}", attributes)
        return self._span

    def end(self, error: BaseException | None, response: httpx.Response | None) -> None:
        """End the span of the request."""
        if response is not None:
            show_status(response.status_code, self._span)
        failed = isinstance(error, Exception) and classify(error) is not None
        trace_context.end_span(self._span, error, failed=failed)

    def prepare(self) -> httpx.Request:
        """A copy of the request with the headers of this attempt.

        If the bundle names an egress proxy for the host, the URL of the copy has the proxy's address.

        Hosts outside the platform get no trace context.
        """
        request = self.request
        headers = request.headers.copy()
        if self._is_internal:
            headers.update(trace_context.headers(self._span))
        given = request.extensions.get("timeout", {})
        extensions = {**request.extensions, "timeout": given}
        if (left := remaining()) is not None:
            # End the wait for a free connection before the attempt times out. Then httpx raises `PoolTimeout`.
            extensions["timeout"] = given | _at_most(left * 0.9, ("pool",), given)
            headers[TIMEOUT] = str(round(next_hop(left) * 1000))
        if (number := attempt_number()) > 1:
            headers[ATTEMPT] = str(number)
        url = request.url
        if proxy := self._proxies.get(url.host):
            # The proxy routes TLS by the server name. The Host header still names the callee.
            extensions["sni_hostname"] = url.host
            host, _, port = proxy.rpartition(":")
            url = url.copy_with(host=host, port=int(port))
        return httpx.Request(request.method, url, headers=headers, stream=self._body, extensions=extensions)


class _Body(httpx.AsyncByteStream, httpx.SyncByteStream):
    """A body that can be read only once. An error of the body's source is not a fault of the callee."""

    def __init__(self, source: Any) -> None:
        self._source = source

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _own_fault():
            async for part in self._source:
                yield part

    def __iter__(self) -> Iterator[bytes]:
        with _own_fault():
            yield from self._source


@contextmanager
def _own_fault() -> Iterator[None]:
    try:
        yield
    except Exception:
        if (attempt := current_attempt()) is not None:
            attempt.is_unsent = True
        raise


class AsyncTransport(httpx.AsyncBaseTransport):
    """The transport for `httpx.AsyncClient(transport=…)`.

    The attempt ends when the body has been read, so a slow body can time out, and an error of the body fails the
    attempt. For server-sent events with a 2xx status the attempt ends with the headers, and the caller gets the events
    as they arrive. If the last attempt of a hard call gets an error status, the transport returns that response and
    raises no error.
    """

    def __init__(self, runtime: Runtime, name: str, inner: httpx.AsyncBaseTransport) -> None:
        runtime.outbound(name)
        self._runtime, self._name, self._inner = runtime, name, inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request under the policies of the call. If the call has several hosts, the URL must name one.

        Raises httpx's errors, the errors of the policies, and `UnknownCallError` for another host.
        """
        call = _Call(self._runtime, self._name, request)
        response: httpx.Response | None = None
        error: BaseException | None = None
        try:
            with trace_context.within(call.begin()):
                response = await call.outbound.enter(self._attempt, call, *call.arguments)
        except BaseException as raised:
            error = raised
            raise
        finally:
            call.end(error, response)
        return response

    async def _attempt(self, call: _Call, *_: Any) -> httpx.Response:
        response = await self._inner.handle_async_request(call.prepare())
        if not _is_stream(response):
            try:
                content = b"".join([part async for part in response.stream])  # type: ignore[union-attr]  # asynchronous
            finally:
                await response.aclose()
            response = _read(response, content)
        _raise_for(response)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class Transport(httpx.BaseTransport):
    """The transport for `httpx.Client(transport=…)`. It behaves like `AsyncTransport`.

    Nothing can interrupt the thread of an attempt, so the sockets of the attempt time out when it must end.
    """

    def __init__(self, runtime: Runtime, name: str, inner: httpx.BaseTransport) -> None:
        runtime.outbound(name)
        self._runtime, self._name, self._inner = runtime, name, inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request under the policies of the call. Raises the same errors as `AsyncTransport`."""
        call = _Call(self._runtime, self._name, request)
        response: httpx.Response | None = None
        error: BaseException | None = None
        try:
            with trace_context.within(call.begin()):
                response = call.outbound.enter_sync(self._attempt, call, *call.arguments)
        except BaseException as raised:
            error = raised
            raise
        finally:
            call.end(error, response)
        return response

    def _attempt(self, call: _Call, *_: Any) -> httpx.Response:
        request = call.prepare()
        given, left = request.extensions["timeout"], remaining()
        timeouts = given if left is None else given | _at_most(left, PHASES, given)
        request.extensions["timeout"] = timeouts
        try:
            response = self._inner.handle_request(request)
            if _is_stream(response):
                timeouts.update(dict.fromkeys(PHASES), **given)  # the attempt ends with the headers
            else:
                response = _read(response, _content(response))
        except httpx.PoolTimeout:
            raise
        except httpx.TimeoutException as error:
            scope = current_scope()
            if scope is not None and remaining() == 0:
                raise scope.timeout_error() from error
            raise
        _raise_for(response)
        return response

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


def _one_of(addresses: Iterable[Address], name: str, host: str) -> str:
    """`host`, if it is a host of `addresses`. Raises `UnknownCallError` if it is not."""
    hosts = [address.host for address in addresses]
    if host not in hosts:
        raise UnknownCallError(f"host of {name}", host, hosts)
    return host


def _at_most(left: float, phases: Iterable[str], given: dict[str, float | None]) -> dict[str, float]:
    """The timeouts of `phases` for httpx, each at most `left` seconds."""
    limits = ((phase, given.get(phase)) for phase in phases)
    return {phase: left if limit is None else min(limit, left) for phase, limit in limits}


def _content(response: httpx.Response) -> bytes:
    """The whole body of an answer.

    httpx's timeout restarts with each part, so this function checks the deadline after each part.
    """
    parts = []
    try:
        for part in response.stream:  # type: ignore[union-attr]  # the stream of a synchronous transport
            parts.append(part)
            if remaining() == 0:
                raise httpx.ReadTimeout("the attempt timed out before the whole body arrived")
    finally:
        response.close()
    return b"".join(parts)


def _is_stream(response: httpx.Response) -> bool:
    return response.status_code < 300 and response.headers.get("content-type", "").startswith("text/event-stream")


def _read(response: httpx.Response, content: bytes) -> httpx.Response:
    stream, extensions = httpx.ByteStream(content), response.extensions
    return httpx.Response(response.status_code, headers=response.headers, stream=stream, extensions=extensions)


def _raise_for(response: httpx.Response) -> None:
    failure = failure_of(response.status_code, response.headers)
    if failure is not None:
        raise FailedResultError(response, failure)

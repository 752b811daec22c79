"""Makes one model call: sends the attempts that `ModelCall` chooses, and returns the answer to the SDK."""

from __future__ import annotations

import asyncio
import re
from functools import lru_cache
from pathlib import Path

import httpx
from voice_policies import ModelHedge, ModelRoute, Models, OutboundCall
from voice_runtime import RetryBudget

from voice_models.attempt import ModelAttempt
from voice_models.call import Wait
from voice_models.candidate import CredentialError
from voice_models.errors import ModelError, ModelRefusedError
from voice_models.exchange import Exchange, Send
from voice_models.request import ModelRequest
from voice_models.response_cache import CachedAnswer
from voice_models.runtime import ModelRuntime, caller
from voice_models.states import Settled
from voice_models.statistics import CallKind
from voice_models.usage import ModelAttempted

DEFAULT_PORTS = {"http": 80, "https": 443}
KEY = re.compile(rb"[\x21-\x7e]+")


class RoutedCall:
    """Makes the attempts of one call under the bulkhead, and reads and fills the cache.

    A call that the bulkhead admits is counted once. A call that it rejects appears only in the bulkhead's own counts.
    """

    def __init__(
        self, runtime: ModelRuntime, declared: tuple[OutboundCall, Models, str], request: ModelRequest, send: Send
    ) -> None:
        """Begin a call. `declared` is a result of `ModelRuntime.declared`."""
        call, models, route = declared
        self._runtime = runtime
        self._models = models
        self._is_https = call.protocol == "https"
        self._outbound = runtime.runtime.outbound(call.name)
        faults = self._outbound.fault_injection
        self._send: Send = send if faults is None else faults.around(call.name, send)
        self._call = runtime.begin(call.name, models, route, request)
        self._caller = caller()
        self._cache_key = ""
        self._has_ended = False

    @property
    def _route(self) -> ModelRoute:
        return self._call.route

    async def response(self) -> httpx.Response:
        """The cached answer, or the answer of the first candidate that answers."""
        outbound, bulkhead = self._outbound, self._outbound.bulkhead
        if bulkhead is not None and not bulkhead.try_enter():
            _, limit = outbound.begin(outbound.now())
            await outbound.queue(bulkhead, limit, 0, None)
        try:
            return await self._cached() or await self._from_candidates()
        except BaseException as error:
            self._end_once("refused" if isinstance(error, ModelRefusedError) else _kind_of(error))
            raise

    async def _from_candidates(self) -> httpx.Response:
        while True:
            attempt = self._call.next()
            if isinstance(attempt, Wait):
                await asyncio.sleep(attempt.seconds)
                continue
            exchange = await self._reserved(attempt)
            if exchange is None:
                continue
            hedge = self._route.hedge
            try:
                return await (exchange.open(self._prepared) if hedge is None else self._hedged(exchange, hedge))
            except ModelError as error:
                failure = error
            await asyncio.sleep(self._call.failed(failure))

    async def _reserved(self, attempt: ModelAttempt) -> Exchange | None:
        """Reserve the tokens of an attempt, and return its exchange. `None` if the deployment's budgets are spent."""
        span = await self._runtime.reserve(self._call, attempt, self._models, self._caller.tenant)
        if span is None:
            return None
        kept: list[bytes] | None = [] if self._cache_key else None
        return Exchange(attempt, span, self._send, self._settle, idle=self._runtime.idle(self._call), kept=kept)

    # --- hedging

    async def _hedged(self, exchange: Exchange, hedge: ModelHedge) -> httpx.Response:
        """The first answer. If none came within the hedge's delay, a second exchange may start. Raises `ModelError`."""
        budget = self._runtime.hedges(self._call, hedge)
        budget.calls.add(self._outbound.now())
        running = {asyncio.ensure_future(exchange.open(self._prepared)): exchange}
        try:
            done, _ = await asyncio.wait(running, timeout=hedge.delay.seconds)
            if not done and (second := await self._second(exchange.attempt, budget)) is not None:
                running[asyncio.ensure_future(second.open(self._prepared))] = second
            return await self._first_answer(running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _second(self, first: ModelAttempt, budget: RetryBudget) -> Exchange | None:
        """The exchange with the next candidate. `None` if no candidate is free, or a hedge or token budget is spent."""
        attempt = self._call.hedge(first) if budget.left() >= 1 else None
        if attempt is None:
            return None
        budget.spend()  # only now, because a call without a second candidate spends nothing
        try:
            second = await self._reserved(attempt)
        except ModelRefusedError:
            return None
        self._runtime.statistics.hedges[self._call.route_name] += second is not None
        return second

    async def _first_answer(self, running: dict[asyncio.Task[httpx.Response], Exchange]) -> httpx.Response:
        """The first answer. After a failure the other exchange may still answer, unless the failure ends the call.

        Raises the last failure. `_from_candidates` reports this failure to the `ModelCall`.
        """
        while True:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: task.exception() is not None):
                running.pop(task)
                error = task.exception()
                if running and isinstance(error, ModelError):
                    self._call.failed(error)
                if error is None or not running or not isinstance(error, ModelError):
                    return task.result()

    def _prepared(self, attempt: ModelAttempt) -> httpx.Request:
        """The request for the candidate. Raises `CredentialError`."""
        candidate, request, timeout = attempt.candidate, attempt.request, self._route.timeout
        address = candidate.provider.address
        key = _key_in(candidate.deployment.credential)
        is_tls = self._is_https or address.uses_tls
        scheme = "https" if is_tls else "http"
        connect = timeout.connect.seconds
        extensions: dict[str, object] = {
            "timeout": {
                "connect": connect,
                "pool": connect,
                "read": None,
                "write": None,
            },  # `ModelAttempt.time_left` limits reading and writing
        }
        headers = request.headers_for(key)
        headers["host"] = address.host if address.port == DEFAULT_PORTS[scheme] else f"{address.host}:{address.port}"
        host, port = address.host, address.port
        if address.via:
            # The proxy routes TLS by the server name. The Host header still names the provider.
            extensions["sni_hostname"] = address.host
            host, _, via_port = address.via.rpartition(":")
            port = int(via_port)
        url = _url(scheme, host, port, candidate.provider.base_path + request.endpoint, request.query)
        content = request.content_for(candidate.model.name)
        return httpx.Request("POST", url, headers=headers, content=content, extensions=extensions)

    # --- settlement

    async def _settle(self, exchange: Exchange) -> None:
        """Settle an attempt. If the caller got content of the attempt, also end the call."""
        attempt = exchange.attempt
        try:
            await self._runtime.settle(attempt, exchange.span, self._caller.tenant)
        finally:
            if attempt.is_committed and isinstance(attempt.state, Settled):
                event = attempt.state.event
                self._end_once(_kind(event), event)
                self._keep(exchange, event)

    def _end_once(self, kind: CallKind, event: ModelAttempted | None = None) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        if self._outbound.bulkhead is not None:
            self._outbound.bulkhead.leave()
        self._runtime.ended(self._call, kind, event)

    # --- the cache

    async def _cached(self) -> httpx.Response | None:
        """The cached answer to an equal request, for example of the same tenant and user. `None` if none is cached."""
        policy, preferred = self._route.cache, self._call.preferred
        if policy is None or preferred is None:
            return None
        cache, call = self._runtime.cache, self._call
        self._cache_key = cache.key(policy, call.route_name, preferred.model.name, self._caller, call.request)
        found = await cache.get(policy, self._cache_key)
        if found is None:
            return None
        self._runtime.statistics.cache_hits[call.route_name] += 1
        self._end_once("successful")
        return httpx.Response(200, headers={"content-type": found.content_type}, content=found.content)

    def _keep(self, exchange: Exchange, event: ModelAttempted) -> None:
        """Cache a complete answer of the preferred model. The cache key contains this model's name."""
        policy, preferred = self._route.cache, self._call.preferred
        if policy is None or preferred is None or event.finish_reason != "stop":
            return
        content = exchange.whole_answer
        if content is not None and exchange.attempt.candidate.model.name == preferred.model.name:
            answer = CachedAnswer(exchange.content_type, content)
            self._runtime.in_background(self._runtime.cache.put(policy, self._cache_key, answer))


def _key_in(credential: str) -> str:
    """The API key in a file. Each attempt reads the file, so a new key applies to the next attempt.

    Raises `CredentialError` for an unreadable file, and for a file without a key that a header can carry.
    """
    try:
        key = Path(credential).read_bytes().strip()
    except OSError as error:
        raise CredentialError from error
    if KEY.fullmatch(key) is None:
        raise CredentialError
    return key.decode("ascii")


@lru_cache(maxsize=256)
def _url(scheme: str, host: str, port: int, path: str, query: bytes) -> httpx.URL:
    """The URL of an endpoint. URLs are cached, because httpx takes long to build one."""
    return httpx.URL(scheme=scheme, host=host, port=port, path=path, query=query or None)


def _kind_of(error: BaseException) -> CallKind:
    return "failed" if isinstance(error, Exception) else "cancelled"


def _kind(event: ModelAttempted) -> CallKind:
    if event.ending == "finished":
        return "truncated_by_length" if event.finish_reason == "length" else "successful"
    return "cut" if event.ending == "failed" else "cancelled"

"""The runtime: enforces one bundle, and replaces it when the mounted file changes."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import Random
from threading import TIMEOUT_MAX, Lock
from typing import Any, ParamSpec, Self, TypeVar

from voice_policies import Fault, InvalidInputError, PolicyBundle

from voice_runtime.assembly import Assembled, Assembly
from voice_runtime.bundle_source import POLL_INTERVAL, BundleSource, Watcher, content_hash, declared_digest
from voice_runtime.call_policies import Fallback
from voice_runtime.caller import NOBODY, Caller
from voice_runtime.clock import NEVER, SYSTEM_CLOCK, Clock
from voice_runtime.degradation import Degradation
from voice_runtime.errors import UnknownCallError
from voice_runtime.event_log import EventLog
from voice_runtime.events import Event, Events, Listener, logger
from voice_runtime.inbound import Inbound, Request
from voice_runtime.outbound import Outbound
from voice_runtime.outcome import Classify, ClassifyResult, classify
from voice_runtime.shared_store import SharedStore
from voice_runtime.statistics import SpanStatistics
from voice_runtime.surroundings import Surroundings
from voice_runtime.targets import Targets
from voice_runtime.timeout import TimedScope
from voice_runtime.worker_threads import WorkerThreads

P = ParamSpec("P")
T = TypeVar("T")


class Runtime:
    """Enforces the policies of one service.

    Create it with `load`. Inside a `with` block the runtime watches the bundle for changes.
    """

    def __init__(self, source: BundleSource, bundle: PolicyBundle, surroundings: Surroundings) -> None:
        self.events = surroundings.events
        self.reloads = {"applied": 0, "refused": 0}
        self.refused_requests = {"unknown_operation": 0, "draining": 0}
        """Requests that a transport refused before any policy was applied."""
        self.spans = SpanStatistics()
        self._source = source
        self.clock = surroundings.clock
        self.random = surroundings.random
        self._assembly = Assembly(surroundings)
        self.targets = Targets(surroundings.breaker)
        self._fallbacks: dict[str, Fallback] = {}
        self._reloading = Lock()
        self._watcher: Watcher | None = None
        self._poll_interval = POLL_INTERVAL
        self._seen = ""
        self._enforce(bundle)
        self.mounted_digest = ""
        """The digest in the mounted file at the last read, even if the runtime refused that bundle. Empty if the file
        was missing or unreadable, or contained no digest."""

    @classmethod
    def load(  # noqa: PLR0913  # each keyword is an independent choice with a default
        cls,
        directory: str | Path,
        *,
        defaults: PolicyBundle | None = None,
        listeners: Iterable[Listener] = (),
        classify: Classify = classify,
        classify_result: ClassifyResult | None = None,
        store: SharedStore | None = None,
        allow_fault_injection: bool = False,
        poll_interval: float = POLL_INTERVAL,
        clock: Clock = SYSTEM_CLOCK,
        random: Random | None = None,
    ) -> Self:
        """Read the bundle that is mounted at `directory`.

        Raises `voice_policies.InvalidInputError` with every fault of the bundle. A missing file is a fault, unless
        `defaults` are given. The runtime enforces `defaults` until the file appears. `store` holds the counts of
        distributed limits. Without a store the limits behave as if the store were down. Tests pass a seeded `random` to
        repeat every jitter. Raises `ValueError` for a `poll_interval` that is not above 0 s or that exceeds
        `TIMEOUT_MAX`, and `RuntimeError` in free-threaded Python.
        """
        _refuse_free_threading()
        if not 0 < poll_interval <= TIMEOUT_MAX:
            raise ValueError(f"poll_interval must be above 0 s and at most {TIMEOUT_MAX:.0f} s, not {poll_interval}")
        source = BundleSource(directory)
        try:
            text = source.read()
        except InvalidInputError as error:
            if defaults is None or source.path.exists():
                raise
            seen, mounted, bundle = str(error), "", defaults
        else:
            seen, mounted = content_hash(text), declared_digest(text)
            bundle = PolicyBundle.from_json(text, str(source.path))
        surroundings = Surroundings(
            clock=clock,
            random=random or Random(),  # noqa: S311  # jitter, not a secret
            events=Events((EventLog(clock), *listeners)),
            classify=classify,
            classify_result=classify_result,
            workers=WorkerThreads(),
            store=store,
            allow_fault_injection=allow_fault_injection,
        )
        runtime = cls(source, bundle, surroundings)
        runtime._seen, runtime.mounted_digest = seen, mounted
        runtime._poll_interval = poll_interval
        return runtime

    # --- the bundle

    @property
    def bundle(self) -> PolicyBundle:
        """The current bundle."""
        return self._assembled.bundle

    @property
    def digest(self) -> str:
        """The digest of the current bundle. Empty for `defaults` without a digest."""
        return self.bundle.metadata.digest or ""

    def __repr__(self) -> str:
        metadata, assembled = self.bundle.metadata, self._assembled
        counts = f"{len(assembled.outbound)} calls, {len(assembled.inbound)} operations"
        return f"<Runtime {metadata.service} in {metadata.environment}: {counts}, bundle {self.digest or 'unsealed'}>"

    def __enter__(self) -> Self:
        self._watcher = Watcher(self._poll_interval, self._look)
        self._watcher.start()
        self._warn_of_missing_fallbacks()
        return self

    def __exit__(self, *_: object) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher = None

    def reload(self) -> bool:
        """Read the file now. True if a new bundle took effect.

        A faulty bundle is refused, and the old bundle stays. A call in flight ends under the bundle under which it
        began.
        """
        with self._reloading:
            try:
                if not self._swap():
                    return False
            except InvalidInputError as error:
                self.reloads["refused"] += 1
                self.events.publish(Event("refused", "bundle", str(self._source.path), before=self.digest, error=error))
                return False
        self.reloads["applied"] += 1
        self._warn_of_missing_fallbacks()
        self.events.publish(Event("reloaded", "bundle", str(self._source.path), after=self.digest))
        return True

    def _look(self) -> None:
        """Reload for the watcher. An unexpected error is counted and logged, and the watcher continues."""
        try:
            self.reload()
        except Exception:  # noqa: BLE001  # the thread must survive any error
            self.reloads["refused"] += 1
            logger.exception("the changed policy bundle could not be applied; bundle %s stays in force", self.digest)

    def _swap(self) -> bool:
        """Apply the file if it has changed since the last read. False if it has not. Raises `InvalidInputError`."""
        before = self._seen
        try:
            text = self._source.read()
        except InvalidInputError as error:
            self._seen = str(error)
            self.mounted_digest = ""
            if self._seen == before:
                return False
            raise
        self._seen = content_hash(text)
        if self._seen == before:
            return False
        self.mounted_digest = declared_digest(text)
        bundle = PolicyBundle.from_json(text, str(self._source.path))
        if bundle.metadata.service != self.bundle.metadata.service:
            fault = Fault(
                "metadata.service", f"is {bundle.metadata.service!r}", f"expected {self.bundle.metadata.service!r}"
            )
            raise InvalidInputError(str(self._source.path), [fault])
        self._enforce(bundle)
        return True

    def _enforce(self, bundle: PolicyBundle) -> None:
        self._assembled = assembled = self._assembly.assemble(bundle, self._fallbacks)
        self._entries = {name: outbound.entry() for name, outbound in assembled.calls.items()}

    @property
    def missing_fallbacks(self) -> tuple[str, ...]:
        """Names of the soft calls without a fallback. If such a call fails, its caller gets a `SoftCallError`."""
        calls = self._assembled.outbound.items()
        return tuple(name for name, call in calls if call.soft and call.fallback is None)

    def _warn_of_missing_fallbacks(self) -> None:
        if missing := self.missing_fallbacks:
            logger.warning("soft calls without a fallback: %s; their failures raise SoftCallError", ", ".join(missing))

    # --- outbound

    def call(self, name: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Await `fn(...)` under the policies of a call.

        `name` is the name of the call. If the bundle has only one call to a callee, `name` may be the callee's name.
        Raises the errors of `fn` and the errors in `voice_runtime.errors`.
        """
        enter = self._entries.get(name)
        if enter is None:
            enter = self.outbound(name).enter
        return enter(fn, *args, **kwargs) if kwargs else enter(fn, *args)  # type: ignore[call-arg]  # no kwargs

    def call_sync(self, name: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Like `call`, for code without an event loop.

        With a time limit `fn` runs on a worker thread. A timeout cannot stop this thread.
        """
        return self.outbound(name).enter_sync(fn, *args, **kwargs)

    def stream(
        self, name: str, fn: Callable[P, AsyncIterable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[T]:
        """The messages of `fn(...)`, under the policies of a call. See `Outbound.stream`."""
        return self.outbound(name).stream(fn, *args, **kwargs)

    def _stream_sync(
        self, name: str, fn: Callable[P, Iterable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Iterator[T]:
        return self.outbound(name).stream_sync(fn, *args, **kwargs)

    def once(self, name: str) -> AbstractAsyncContextManager[TimedScope]:
        """Run a block as one attempt of a call: `async with runtime.once(name):`. The block is not retried."""
        return self.outbound(name).once()

    def outbound(self, name: str, target: str | None = None) -> Outbound:
        """The pipeline of a call. With `target`, the breaker counts only this target. Raises `UnknownCallError`.

        A reload replaces the pipeline, so ask for the pipeline again at each call.
        """
        outbound = self._assembled.call(name)
        return outbound if target is None else self.targets.of(outbound, target)

    def protect(self, name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """A decorator that runs a function under the policies of the call `name`.

        It accepts synchronous functions, coroutine functions, generator functions and asynchronous generator functions.
        Raises `UnknownCallError` immediately, and not at the first call.
        """
        self.outbound(name)

        def decorate(fn: Callable[P, T]) -> Callable[P, T]:
            shell: Callable[..., Any] = self.call_sync
            if inspect.isasyncgenfunction(_underlying(fn)):
                shell = self.stream
            elif inspect.iscoroutinefunction(_underlying(fn)):
                shell = self.call
            elif inspect.isgeneratorfunction(_underlying(fn)):
                shell = self._stream_sync

            def protected(*args: P.args, **kwargs: P.kwargs) -> Any:
                return shell(name, fn, *args, **kwargs)

            return functools.update_wrapper(protected, fn)

        return decorate

    def fallback(self, name: str, handler: Fallback) -> None:
        """Register a fallback for a soft call. If the call fails, its result is `handler(error)`.

        Reloads keep the registration. Raises `UnknownCallError`, `ValueError` for a hard call, and `TypeError` for a
        handler that is not a function.
        """
        if not callable(handler):
            raise TypeError(f"{name}: a fallback must be a function of the error, not {handler!r}")
        full_name = self.outbound(name).name
        if not any(call.name == full_name and call.necessity == "soft" for call in self.bundle.outbound):
            raise ValueError(f"{full_name} is a hard call and cannot have a fallback: declare the call as soft")
        with self._reloading:
            self._fallbacks[full_name] = handler
            self._enforce(self.bundle)

    # --- inbound

    def request(self, operation: str, caller: Caller = NOBODY, *, cost: int = 1, remaining: float = NEVER) -> Request:
        """One request of an operation: `async with runtime.request("run", Caller(tenant="acme")) as request:`.

        `cost` is the number of admissions that the request takes from rate limits, a whole number from 1. `remaining`
        is the time until the caller's deadline, in seconds. Raises `ValueError` or `TypeError` for other values, such
        as NaN.
        """
        inbound = self._assembled.inbound.get(operation)
        return Request(inbound or self.inbound(operation), caller, cost, remaining)

    def inbound(self, operation: str) -> Inbound:
        """The pipeline of an operation. Raises `UnknownCallError`."""
        try:
            return self._assembled.inbound[operation]
        except KeyError:
            raise UnknownCallError("inbound operation", operation, self._assembled.inbound) from None

    @property
    def degradation(self) -> Degradation | None:
        """The degradation of this process. `None` if the bundle has no degradation policy."""
        return self._assembled.degradation

    @property
    def assembled(self) -> Assembled:
        """The current policies, for exporters and tests."""
        return self._assembled


def _refuse_free_threading() -> None:
    """Raise `RuntimeError` in free-threaded Python.

    Counts are exact only if no other thread runs during an addition. The global interpreter lock guarantees this.
    """
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        raise RuntimeError("voice_runtime needs the global interpreter lock: use a build with it, or set PYTHON_GIL=1")


def _underlying(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function inside partials and callable objects."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn if inspect.isroutine(fn) or inspect.iscoroutinefunction(fn) else type(fn).__call__

"""Timeout: cancels a task whose time is up, with the semantics of `asyncio.timeout`.

Timers of one duration on one loop expire in the order in which they start. A dictionary holds them in that order. The
loop itself has one timer, for the first entry. Starting or stopping a timer changes a dictionary, not the loop's heap.
"""

from __future__ import annotations

import logging
from asyncio import AbstractEventLoop, CancelledError, Task, TimerHandle, current_task, get_running_loop
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, Token
from itertools import takewhile
from threading import get_ident
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar

from voice_runtime.clock import NEVER, SYSTEM_CLOCK, Clock
from voice_runtime.errors import AttemptTimeoutError, CallTimeoutError, DeadlineExceededError, seconds_of
from voice_runtime.log_rate import LogRate, since_previous

P = ParamSpec("P")
T = TypeVar("T")
ROUNDING = 1e-6
"""Seconds. A timer may fire this much too early, because the loop's clock and ours round differently."""
logger = logging.getLogger("voice_runtime")


class Sweep:
    """The timers of one duration on one loop."""

    __slots__ = ("_duration", "_now", "armed", "loop", "thread", "waiting")

    def __init__(self, loop: AbstractEventLoop | None, duration: float, now: Callable[[], float]) -> None:
        self.loop = loop
        self.thread = get_ident() if loop else None
        self.armed = False
        self.waiting: dict[TimedScope, None] = {}
        self._duration = duration
        self._now = now

    def arm(self) -> None:
        """Start the loop's timer for the first scope."""
        self._fire_in(self._duration)

    def _fire_in(self, seconds: float) -> None:
        if self.loop is not None:
            self.armed = True
            self.loop.call_later(seconds, self._fire)

    def _fire(self) -> None:
        now = self._now() + ROUNDING
        expired = list(takewhile(lambda scope: scope.expires <= now, self.waiting))
        for scope in expired:
            del self.waiting[scope]
            scope.expire()
        if self.waiting:
            self._fire_in(next(iter(self.waiting)).expires - now)
        else:
            self.armed = False
            self.waiting.clear()  # frees the memory, which deletions alone do not


class Timer:
    """The duration of a timeout, and the `Sweep` of the loop that used the timeout last. `NEVER` means no limit."""

    __slots__ = ("duration", "late_results", "now", "sweep")

    def __init__(self, duration: float, clock: Clock = SYSTEM_CLOCK) -> None:
        if not duration > 0:
            raise ValueError(f"timeout must be above 0 s, not {duration}")
        self.duration = duration
        self.now = clock.monotonic
        self.sweep = Sweep(None, duration, self.now)
        self.late_results = LogRate(self.now)

    def bind(self) -> tuple[Sweep, Task[Any]]:
        """The sweep and the task of the running loop.

        If several loops use the timer in turn, each change of loop creates a new sweep. This is slower, but as exact.
        """
        loop = get_running_loop()
        task = current_task(loop)
        if task is None:
            raise RuntimeError("a timeout needs a running task: await the call inside a task")
        sweep = self.sweep
        if sweep.loop is not loop or sweep.thread != get_ident():
            # Another thread may set `self.sweep` to the sweep of its loop, so return the local variable.
            self.sweep = sweep = Sweep(loop, self.duration, self.now)
        return sweep, task


class Timed(Protocol):
    """A call with a time limit."""

    name: str
    timer: Timer


class TimedScope:
    """A scope that cancels its task when time is up.

    Time is up when the owner's timer ends, or earlier at `limit`. One task at a time may be inside. A scope may
    be entered again.
    """

    __slots__ = (
        "_cancelling",
        "_task",
        "_token",
        "_waits_in",
        "attempt",
        "expired",
        "expires",
        "is_over",
        "limit",
        "owner",
        "parent",
        "retries_spent",
        "started",
    )

    owner: Timed
    parent: TimedScope | None
    limit: float
    """The latest end of the scope, by the monotonic clock: usually the end of the enclosing scope."""
    started: float
    expires: float
    """The end of the scope, by the monotonic clock. `enter` and `begin` set it."""
    attempt: int
    """The number of the attempt, from 1; 0 outside an attempt."""
    expired: bool
    """True if the timer of the scope fired. Then the deadline cancelled the work; the caller did not."""
    is_over: bool
    """True after the scope was left. Later work in the scope's context belongs to the enclosing scope."""
    retries_spent: bool
    """True if a call inside the scope has exhausted its retries. A retry of the scope would multiply the attempts."""
    _task: Task[Any]
    _cancelling: int
    _token: Token[TimedScope | None]
    _waits_in: dict[TimedScope, None] | TimerHandle | None

    def __init__(self, owner: Timed, parent: TimedScope | None, limit: float, started: float, attempt: int = 0) -> None:
        self.owner = owner
        self.parent = parent
        self.limit = limit
        self.started = started
        self.attempt = attempt
        self.expired = self.retries_spent = self.is_over = False

    def enter(self) -> Self:
        """Start the timer. `leave` must follow. Hot code calls both directly, because `with` takes 10 % longer.

        Raises `DeadlineExceededError` if `limit` has passed; then `leave` must not follow.
        """
        timer = self.owner.timer
        sweep = timer.sweep
        # Compare the thread first, because before Python 3.12 finding the running loop costs a system call.
        task = current_task(sweep.loop) if sweep.thread == get_ident() else None
        if task is None:
            sweep, task = timer.bind()
        self._task = task
        self._cancelling = task.cancelling()
        self.expires = expires = self.started + timer.duration
        if self.limit < expires:
            self._enter_limited()
        elif expires < NEVER:
            self._waits_in = waiting = sweep.waiting
            waiting[self] = None
            if not sweep.armed:
                sweep.arm()
        else:
            self._waits_in = None
        self.is_over = False
        self._token = CURRENT.set(self)
        return self

    def __repr__(self) -> str:
        number = f", attempt {self.attempt}" if self.attempt else ""
        return f"<{type(self).__name__} {self.owner.name}{number}{': over' if self.is_over else ''}>"

    def begin(self) -> float:
        """Start without a task to cancel, for code that watches the time itself. Returns seconds until time is up.

        Raises `DeadlineExceededError` if no time is left.
        """
        self.expires = min(self.started + self.owner.timer.duration, self.limit)
        self._refuse_expired()
        return self.expires - self.started

    def _refuse_expired(self) -> None:
        if self.expires <= self.started:
            raise DeadlineExceededError(self.owner.name, None, max(self.attempt - 1, 0))

    def _enter_limited(self) -> None:
        self.expires = self.limit
        self._refuse_expired()
        self._waits_in = get_running_loop().call_later(self.limit - self.started, self.expire)

    def leave(self, error: BaseException | None = None) -> None:
        """Stop the timer. Raises `timeout_error()` if the timer ended the work. `error` is the work's exception."""
        self.is_over = True
        try:  # noqa: SIM105  # copied from `context_variables.restore`, because every call runs this
            CURRENT.reset(self._token)
        except ValueError:
            pass
        if not self.expired:
            waits_in = self._waits_in
            if type(waits_in) is dict:
                del waits_in[self]
            elif waits_in is not None:
                waits_in.cancel()  # type: ignore[union-attr]  # it is a TimerHandle
        elif self._owns(error):
            if error is None and (omitted := self.owner.timer.late_results.admit()) is not None:
                logger.warning(
                    "%s: the called code ignored its cancellation; the result came after the deadline%s",
                    self.owner.name,
                    since_previous(omitted),
                )
            raise self.timeout_error() from error

    def __enter__(self) -> Self:
        return self.enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave(error)

    def expire(self) -> None:
        """Cancel the task, because time is up."""
        self.expired = True
        self._task.cancel()

    def timeout_error(self) -> CallTimeoutError:
        """The error of the limit that came first: the attempt's timeout or a deadline."""
        if self.attempt and self.started + self.owner.timer.duration <= self.limit:
            return AttemptTimeoutError(self.owner.name, None, self.attempt)
        return DeadlineExceededError(self.owner.name, None, self.attempt)

    def ended_by_deadline(self) -> bool:
        """True if the timer of this scope or of an enclosing scope fired."""
        scope: TimedScope | None = self
        while scope is not None:
            if scope.expired:
                return True
            scope = scope.parent
        return False

    def _owns(self, error: BaseException | None) -> bool:
        """True if the scope must raise its timeout error.

        A cancellation by other code stays a cancellation. `GeneratorExit` and `SystemExit` pass unchanged.
        """
        requests = self._task.uncancel()
        if isinstance(error, CancelledError):
            return requests <= self._cancelling
        return error is None or isinstance(error, Exception)

    def lasting(self) -> TimedScope | None:
        """The innermost scope that has not been left: this scope or an enclosing scope."""
        scope: TimedScope | None = self
        while scope is not None and scope.is_over:
            scope = scope.parent
        return scope


CURRENT: ContextVar[TimedScope | None] = ContextVar("voice_runtime_scope", default=None)
"""The innermost scope. Child tasks copy it with the rest of their parent's context."""
latest_scope = CURRENT.get
"""`CURRENT.get` for other modules. In CPython 3.11 a method of an imported object is slower than a function."""


def current_scope() -> TimedScope | None:
    """The innermost scope that has not been left."""
    scope = CURRENT.get()
    return scope if scope is None or not scope.is_over else scope.lasting()


class Timeout:
    """A single time limit: `await Timeout("rag-engine", 0.5).call(fn)`. An enclosing scope may end the call earlier."""

    __slots__ = ("name", "timer")

    def __init__(self, name: str, seconds: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self.name = name
        self.timer = Timer(seconds, clock)

    def __repr__(self) -> str:
        return f"<Timeout {self.name}: {seconds_of(self.timer.duration)}>"

    async def call(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Await `fn(...)`. Raises `AttemptTimeoutError`, or `DeadlineExceededError` if an outer scope ends first."""
        parent = CURRENT.get()
        if parent is not None and parent.is_over:
            parent = parent.lasting()
        limit = NEVER if parent is None else parent.expires
        now = self.timer.now
        scope = TimedScope(self, parent, limit, now(), 1)
        scope.enter()
        try:
            result = await (fn(*args, **kwargs) if kwargs else fn(*args))  # type: ignore[call-arg]  # no kwargs
        except BaseException as error:
            scope.leave(error)
            raise
        scope.leave()
        return result

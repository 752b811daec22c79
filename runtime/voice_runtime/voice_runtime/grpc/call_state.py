"""The states of a call that a stub made. `attempts` holds them, and moves from one to the next."""

from __future__ import annotations

from asyncio import CancelledError
from typing import Any


class State:
    """One stay in one state. Results of the callee are read from `rpc`, the RPC of the last attempt."""

    __slots__ = ()
    rpc: Any = None
    cancelled: bool = False
    """True if its holder cancelled the call, or somebody cancelled its task."""


class Made(State):
    """A stub made it, and nothing runs it yet."""

    __slots__ = ()


class Waiting(State):
    """Something runs it, and no attempt was sent: the policies may still refuse it."""

    __slots__ = ()


class Sent(State):
    """The RPC of an attempt is under way, or has failed and waits to be followed by another."""

    __slots__ = ("rpc",)

    def __init__(self, rpc: Any) -> None:
        self.rpc = rpc


class Stopped(State):
    """Its holder cancelled it: nothing more is sent, and what is under way unwinds."""

    __slots__ = ("rpc",)
    cancelled = True

    def __init__(self, rpc: Any) -> None:
        self.rpc = rpc


class Ended(State):
    """It is over, with an answer or with `error`: the callee's, a policy's, or a cancellation."""

    __slots__ = ("cancelled", "error", "rpc")

    def __init__(self, before: State, error: BaseException | None) -> None:
        self.rpc = before.rpc
        self.error = error
        self.cancelled = before.cancelled or isinstance(error, CancelledError)

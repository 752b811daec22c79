"""The states of a call. The module `attempts` keeps the state of each call and makes the transitions."""

from __future__ import annotations

from asyncio import CancelledError
from typing import Any


class State:
    """The base of the states. `rpc` is the RPC of the last attempt."""

    __slots__ = ()
    rpc: Any = None
    cancelled: bool = False
    """True if the caller cancelled the call, or if the call's task was cancelled."""


class Made(State):
    """Created by a stub, and not running yet."""

    __slots__ = ()


class Waiting(State):
    """Running, but nothing was sent. The policies may still refuse the call."""

    __slots__ = ()


class Sent(State):
    """The RPC of an attempt is in flight, or it has failed and a retry may follow."""

    __slots__ = ("rpc",)

    def __init__(self, rpc: Any) -> None:
        self.rpc = rpc


class Stopped(State):
    """The caller has cancelled the call. No further RPC is sent, and the running code unwinds."""

    __slots__ = ("rpc",)
    cancelled = True

    def __init__(self, rpc: Any) -> None:
        self.rpc = rpc


class Ended(State):
    """Ended with an answer or with `error`: an error of the callee, an error of a policy, or a cancellation."""

    __slots__ = ("cancelled", "error", "rpc")

    def __init__(self, before: State, error: BaseException | None) -> None:
        self.rpc = before.rpc
        self.error = error
        self.cancelled = before.cancelled or isinstance(error, CancelledError)

"""The state of policies, which outlives each bundle.

The kind of the policy and the name of the call, operation or service identify the state. An unchanged policy keeps its
state. A changed policy keeps its state, too, and applies its new numbers to the state. The state of a removed policy is
dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar


class Stateful(Protocol):
    """State that can continue under another policy."""

    def reconfigure(self, policy: Any) -> None:
        """Keep the state, and apply the numbers of `policy`."""
        ...


P = TypeVar("P")
S = TypeVar("S", bound=Stateful)
C = TypeVar("C")


class PolicyStates:
    """The states of the current bundle, and of the bundle that will replace it."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str], tuple[Any, Any]] = {}
        self._fresh: dict[tuple[str, str], tuple[Any, Any]] = {}

    def begin(self) -> None:
        """Start to collect the states of a new bundle."""
        self._fresh = {}

    def commit(self) -> None:
        """Make the new bundle's states current. Drop the states of policies that it no longer has."""
        self._states = self._fresh

    def kept(self, kind: str, name: str, policy: P | None, make: Callable[[P], S]) -> S | None:
        """Like `state`. Returns `None` if `policy` is `None`."""
        return None if policy is None else self.state(kind, name, policy, make)

    def state(self, kind: str, name: str, policy: P, make: Callable[[P], S]) -> S:
        """The state of one policy: the earlier state, reconfigured if the policy changed, or a new state."""
        before, state = self._states.get((kind, name), (policy, None))
        if state is None:
            state = make(policy)
        elif before != policy:
            state.reconfigure(policy)
        self._fresh[kind, name] = (policy, state)
        kept: S = state
        return kept

    def counted(self, kind: str, name: str, make: Callable[[], C]) -> C:
        """The counts of one call or operation."""
        _, counts = self._fresh[kind, name] = self._states.get((kind, name)) or (None, make())
        counted: C = counts
        return counted

"""The state of policies, which outlives each bundle.

What a policy counts is kept by the name of its call or operation. A policy that did not change keeps its state as it
is; one that changed goes on from its state under the new numbers; one that is gone is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar


class Stateful(Protocol):
    """State that can go on under another policy."""

    def reconfigure(self, policy: Any) -> None:
        """Keep the state, take the new numbers."""
        ...


P = TypeVar("P")
S = TypeVar("S", bound=Stateful)
C = TypeVar("C")


class PolicyStates:
    """The states of the bundle in force, and of the one that is about to replace it."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str], tuple[Any, Any]] = {}
        self._fresh: dict[tuple[str, str], tuple[Any, Any]] = {}

    def begin(self) -> None:
        """A bundle is about to ask for its states."""
        self._fresh = {}

    def commit(self) -> None:
        """The bundle is in force: forget what it did not ask for."""
        self._states = self._fresh

    def kept(self, kind: str, name: str, policy: P | None, make: Callable[[P], S]) -> S | None:
        """As `state`; `None` where there is no policy."""
        return None if policy is None else self.state(kind, name, policy, make)

    def state(self, kind: str, name: str, policy: P, make: Callable[[P], S]) -> S:
        """The state of one policy: as it was, reconfigured, or new."""
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

"""Breakers for single targets of a call. A target is, for example, one of two providers, a shard or an address."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from threading import Lock

from voice_policies import CircuitBreaker as Policy

from voice_runtime.breaker_state import Closed
from voice_runtime.circuit_breaker import CircuitBreaker
from voice_runtime.outbound import Outbound

MAX_TARGETS = 256
"""Maximum number of kept targets. A further target replaces the least recently used target whose breaker is closed. If
no breaker is closed, it replaces the least recently used target."""


@dataclass(frozen=True, slots=True)
class _Target:
    base: Outbound
    outbound: Outbound
    breaker: CircuitBreaker


class Targets:
    """The calls to single targets. Each target has its own breaker, and shares all other policies with its call."""

    def __init__(self, make: Callable[[str, Policy], CircuitBreaker]) -> None:
        self._make = make
        self._kept: dict[tuple[str, str], _Target] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, base: Outbound, target: str) -> Outbound:
        """`base` with a breaker that counts only `target`. `base` itself if `base` has no breaker."""
        if base.breaker is None:
            return base
        key = (base.name, target)
        with self._lock:
            found = self._kept.pop(key, None)
            if found is None or found.base is not base:
                found = self._bind(base, base.breaker.policy, target, found)
            self._kept[key] = found  # the most recently used target is last
            if len(self._kept) > MAX_TARGETS:
                self._forget_one()
        return found.outbound

    def breakers(self) -> list[tuple[str, CircuitBreaker]]:
        """Every kept breaker, with the name of its call."""
        with self._lock:
            return [(name, kept.breaker) for (name, _), kept in self._kept.items()]

    def _bind(self, base: Outbound, policy: Policy, target: str, before: _Target | None) -> _Target:
        breaker = before.breaker if before else self._make(f"{base.name}@{target}", policy)
        if breaker.policy != policy:
            breaker.reconfigure(policy)
        outbound = copy.copy(base)
        outbound.breaker = breaker
        return _Target(base, outbound, breaker)

    def _forget_one(self) -> None:
        others = islice(self._kept.items(), MAX_TARGETS)  # without the most recently used target
        idle = (key for key, kept in others if type(kept.breaker.state) is Closed)
        del self._kept[next(idle, next(iter(self._kept)))]

"""The readiness of a process, and the results of its checks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from voice_policies import Address, Fault, HealthCheck, InvalidInputError, PolicyBundle, ServiceSettings

from voice_runtime.clock import SYSTEM_CLOCK, Clock
from voice_runtime.health.built_in import built_in_checker
from voice_runtime.health.check import Check, Checker, Result, Status, logger
from voice_runtime.runtime import Runtime

_Key = tuple[HealthCheck, float, tuple[Address, ...]]


@dataclass(frozen=True, slots=True)
class Report:
    """The state of a process and the results of its checks."""

    status: Status | Literal["draining"]
    checks: Mapping[str, tuple[HealthCheck, Result | None]] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """True if the process accepts requests. A degraded process accepts them, too."""
        return self.status in {"healthy", "degraded"}

    def to_document(self) -> dict[str, Any]:
        """The report as plain JSON values. A check without a `status` has not run yet."""
        return {
            "status": self.status,
            "checks": {name: _entry(policy, result) for name, (policy, result) in self.checks.items()},
        }


class Health:
    """The checks of a runtime's bundle. They follow reloads of the bundle. Use an instance on one event loop only.

    `checkers`: the name of a check → the checker to use instead of the built-in one. Raises `InvalidInputError` with
    every name in `checkers` that the bundle does not declare. The error also names every check that cannot run,
    because its package, its call, or its store's connection in `settings` is missing.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        settings: ServiceSettings | None = None,
        checkers: Mapping[str, Checker] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.draining = False
        """True after `drain` was called."""
        self._runtime = runtime
        self._settings = settings
        self._checkers = dict(checkers or {})
        self._clock = clock
        self._made: dict[_Key, Check] = {}
        self._checks: list[Check] = []
        self._bundle: PolicyBundle | None = None
        self.checks()

    async def drain(self) -> None:
        """Report "not ready" from now on. Returns after `drain_duration`; until then the service still accepts work."""
        self.draining = True
        await asyncio.sleep(self._runtime.bundle.health.drain_duration.seconds)

    def checks(self) -> list[Check]:
        """The checks of the current bundle. If one of them cannot run, the checks of an earlier bundle stay in force.

        Unchanged checks keep their results after a reload.
        """
        bundle = self._runtime.bundle
        if bundle is not self._bundle:
            self._follow(bundle)
        return self._checks

    async def readiness(self) -> Report:
        """Start the checks whose last result is too old, in parallel. Wait only for the critical checks.

        The report contains the last result of every other check.
        """
        if self.draining:
            return Report("draining")
        checks = self.checks()
        flights = [flight for check in checks if (flight := check.look()) and check.policy.critical]
        if flights:
            await asyncio.wait(flights)
        found = {check.policy.name: (check.policy, check.last) for check in checks}
        return Report(_joined(found.values()), found)

    def _follow(self, bundle: PolicyBundle) -> None:
        addresses = {call.name: bundle.addresses_of(call) for call in bundle.outbound}
        policy = bundle.health
        made: dict[_Key, Check] = {}
        faults = [] if self._bundle else self._undeclared(bundle)
        for number, check in enumerate(policy.checks):
            key = (check, policy.cache_duration.seconds, addresses.get(check.target, ()))
            try:
                made[key] = self._made.get(key) or self._check(check, bundle)
            except ValueError as why:
                faults.append(Fault(f"health.checks[{number}]", f"{check.name} cannot be checked", str(why)))
        if faults:
            error = InvalidInputError(f"health of {bundle.metadata.service}", faults)
            if self._bundle is None:
                raise error
            logger.error("the previous health checks stay in force: %s", error)
        else:
            self._made, self._checks = made, list(made.values())
        self._bundle = bundle

    def _check(self, policy: HealthCheck, bundle: PolicyBundle) -> Check:
        own = self._checkers.get(policy.name)
        checker = own or built_in_checker(policy, bundle, self._settings)
        return Check(policy, checker, bundle.health.cache_duration.seconds, self._clock)

    def _undeclared(self, bundle: PolicyBundle) -> list[Fault]:
        declared = {check.name for check in bundle.health.checks}
        return [
            Fault(
                f"checkers[{name!r}]",
                "is not a check of the bundle",
                f"expected one of {', '.join(sorted(declared)) or 'none'}",
            )
            for name in sorted(self._checkers.keys() - declared)
        ]


def _joined(found: Iterable[tuple[HealthCheck, Result | None]]) -> Status:
    """The combined status. Only a critical check makes the process unhealthy."""
    unwell = [(policy, result) for policy, result in found if result and result.status != "healthy"]
    if any(policy.critical and result.status == "unhealthy" for policy, result in unwell):
        return "unhealthy"
    return "degraded" if unwell else "healthy"


def _entry(policy: HealthCheck, result: Result | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"critical": policy.critical}
    if result is not None:
        entry |= {"status": result.status, "latency_seconds": round(result.latency, 6)}
        if result.error:
            entry["error"] = result.error
    return entry

"""Startup, liveness and readiness probes of kubelet.

Startup: has the program started? Liveness: is the program stuck? Readiness: can the program serve now? Liveness checks
no dependency.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, Unpack

from pydantic import Field
from typing_extensions import override
from voice_policies import ClosedModel, Duration

if TYPE_CHECKING:
    from components.kubernetes import types

STARTUP_PERIOD = Duration("2s")


class Timing(TypedDict, total=False):
    """Period, timeout and number of failures, as in `Probe`."""

    period: Duration
    timeout: Duration
    failures: int


READINESS_PERIOD = Duration("5s")
SLOW: Timing = {"timeout": Duration("3s")}
"""Timing for third-party programs, which may answer late under load."""
READY: Timing = {"period": READINESS_PERIOD, **SLOW}
"""Timing for the readiness of third-party programs."""


class Probe(ClosedModel):
    """One probe of kubelet. The defaults are Kubernetes' own."""

    action: dict[str, Any]
    """`httpGet`, `tcpSocket` or `exec`, as in the Kubernetes API."""
    period: Duration = Duration("10s")
    timeout: Duration = Duration("1s")
    """Longest wait for an answer. It must be below the period."""
    failures: Annotated[int, Field(ge=1)] = 3
    """Failures in a row before kubelet acts."""

    @classmethod
    def http(cls, path: str, port: str = "http", **timing: Unpack[Timing]) -> Probe:
        """A GET request. Any status from 200 to 399 is success."""
        return cls(action={"httpGet": {"path": path, "port": port}}, **timing)

    @classmethod
    def tcp(cls, port: str = "http", **timing: Unpack[Timing]) -> Probe:
        """A TCP connection. It succeeds when the port is open."""
        return cls(action={"tcpSocket": {"port": port}}, **timing)

    @classmethod
    def exec(cls, *command: str, **timing: Unpack[Timing]) -> Probe:
        """A command in the container. Exit code 0 is success."""
        return cls(action={"exec": {"command": list(command)}}, **timing)

    @override
    def conflicts(self) -> Iterator[str]:
        if self.timeout >= self.period:
            yield f"timeout {self.timeout} must be below the period {self.period}"

    def document(self) -> types.Probe:
        """The probe as the Kubernetes API expects it."""
        probe: types.Probe = {
            "periodSeconds": self.period.whole_seconds(),
            "timeoutSeconds": self.timeout.whole_seconds(),
            "failureThreshold": self.failures,
        }
        return {**self.action, **probe}  # type: ignore[typeddict-item]  # `action` has one of the three keys


class Probes(ClosedModel):
    """The three probes of one container."""

    startup: Probe
    liveness: Probe
    readiness: Probe

    @classmethod
    def http(cls, liveness: str, readiness: str, port: str = "http", startup: Duration = Duration("60s")) -> Probes:
        """Three GET requests with the platform's periods. `startup` is the longest time that a start may take."""
        return cls(
            startup=Probe.http(liveness, port, period=STARTUP_PERIOD, failures=_attempts(startup)),
            liveness=Probe.http(liveness, port),
            readiness=Probe.http(readiness, port, period=READINESS_PERIOD),
        )

    @classmethod
    def tcp(cls, readiness: Probe, port: str = "http", startup: Duration = Duration("120s")) -> Probes:
        """Startup and liveness by an open TCP port."""
        return cls(
            startup=Probe.tcp(port, period=STARTUP_PERIOD, failures=_attempts(startup)),
            liveness=Probe.tcp(port, **SLOW),
            readiness=readiness,
        )


def _attempts(budget: Duration) -> int:
    return budget.whole_seconds() // STARTUP_PERIOD.whole_seconds()

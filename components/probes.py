"""Startup, liveness and readiness: three different questions of the kubelet.

Startup: has the program begun? Liveness: is it stuck? (looks at no dependency). Readiness: can it serve now?
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
    """How often the kubelet asks, and how long it waits."""

    period: Duration
    timeout: Duration
    failures: int


READINESS_PERIOD = Duration("5s")
SLOW: Timing = {"timeout": Duration("3s")}
"""For third-party programs, which may answer late under load."""
READY: Timing = {"period": READINESS_PERIOD, **SLOW}
"""For the readiness of such programs."""


class Probe(ClosedModel):
    """One question of the kubelet. The defaults are Kubernetes' own."""

    action: dict[str, Any]
    """`httpGet`, `tcpSocket` or `exec`, as the API has it."""
    period: Duration = Duration("10s")
    timeout: Duration = Duration("1s")
    """Longest time to answer; below the period."""
    failures: Annotated[int, Field(ge=1)] = 3
    """Failed answers in a row before the kubelet acts."""

    @classmethod
    def http(cls, path: str, port: str = "http", **timing: Unpack[Timing]) -> Probe:
        """A GET request; a status from 200 to 399 is success."""
        return cls(action={"httpGet": {"path": path, "port": port}}, **timing)

    @classmethod
    def tcp(cls, port: str = "http", **timing: Unpack[Timing]) -> Probe:
        """The port opens."""
        return cls(action={"tcpSocket": {"port": port}}, **timing)

    @classmethod
    def exec(cls, *command: str, **timing: Unpack[Timing]) -> Probe:
        """A command in the container; exit status 0 is success."""
        return cls(action={"exec": {"command": list(command)}}, **timing)

    @override
    def conflicts(self) -> Iterator[str]:
        if self.timeout >= self.period:
            yield f"timeout {self.timeout} must be below the period {self.period}"

    def document(self) -> types.Probe:
        """The probe as the API has it."""
        probe: types.Probe = {
            "periodSeconds": self.period.whole_seconds(),
            "timeoutSeconds": self.timeout.whole_seconds(),
            "failureThreshold": self.failures,
        }
        return {**self.action, **probe}  # type: ignore[typeddict-item]  # one action, whose kind the constructor knows


class Probes(ClosedModel):
    """The three probes of one container."""

    startup: Probe
    liveness: Probe
    readiness: Probe

    @classmethod
    def http(cls, liveness: str, readiness: str, port: str = "http", startup: Duration = Duration("60s")) -> Probes:
        """Three GET requests by their paths, with PLATFORM's periods. `startup` is the longest time of a start."""
        return cls(
            startup=Probe.http(liveness, port, period=STARTUP_PERIOD, failures=_attempts(startup)),
            liveness=Probe.http(liveness, port),
            readiness=Probe.http(readiness, port, period=READINESS_PERIOD),
        )

    @classmethod
    def tcp(cls, readiness: Probe, port: str = "http", startup: Duration = Duration("120s")) -> Probes:
        """The program has begun and is alive while its port opens."""
        return cls(
            startup=Probe.tcp(port, period=STARTUP_PERIOD, failures=_attempts(startup)),
            liveness=Probe.tcp(port, **SLOW),
            readiness=readiness,
        )


def _attempts(budget: Duration) -> int:
    return budget.whole_seconds() // STARTUP_PERIOD.whole_seconds()

"""Health: the checks that decide whether a service is ready."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import override

from voice_policies.measure import Bytes, Duration, PositiveDuration
from voice_policies.names import TextPattern
from voice_policies.policy import Policy


class HealthCheck(Policy):
    """One check of a dependency or a disk that the service uses."""

    name: Annotated[str, TextPattern(r"^[a-z][a-z0-9.-]{0,127}$", "postgresql.read")]
    kind: Literal["postgresql", "redis", "grpc", "http", "tcp", "disk"]
    target: Annotated[str, Field(min_length=1, max_length=253)]
    """The outbound call whose address is checked; for a disk, the path."""
    critical: bool
    """True: a failed check makes the process not ready. False: a failed check makes it degraded, but still ready."""
    timeout: PositiveDuration = Duration("1s")
    """A check without an answer after this time has failed."""
    max_latency: Duration | None = None
    """A success that takes longer is reported as degraded. `None`: every success within the timeout is healthy."""
    min_free: Bytes | None = None
    """Free space below which a disk is unhealthy."""

    @override
    def conflicts(self) -> Iterator[str]:
        if self.max_latency is not None and self.max_latency >= self.timeout:
            yield f"max_latency {self.max_latency} must be below timeout {self.timeout}"
        if (self.kind == "disk") != (self.min_free is not None):
            yield "min_free goes with kind disk: set it for a disk, and leave it out of other kinds"


class Health(Policy):
    """The checks of `/ready`. `/health` runs no check: it reports only that the process lives."""

    checks: Annotated[tuple[HealthCheck, ...], Field(strict=False)] = ()
    cache_duration: Duration = Duration("2s")
    """Time for which a result is reused, so that probes do not load the target. The default is below the
    readiness period of 5 s."""
    drain_duration: Duration = Duration("5s")
    """Time after SIGTERM in which `/ready` fails but the process accepts work. Meanwhile Kubernetes withdraws
    the endpoint."""

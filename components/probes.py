"""Startup, liveness and readiness: three different questions.

Startup: has it begun? Liveness: is it stuck? (looks at no dependency). Readiness: can it serve now?
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from voice_policies import ClosedModel, Duration

if TYPE_CHECKING:
    from components.kubernetes.types import Container, Probe


class HttpProbes(ClosedModel):
    """The three probes of one HTTP port. Periods are PLATFORM's: every 2 s for up to 60 s, every 10 s, every 5 s."""

    port: str = "http"
    liveness_path: str = "/health"
    readiness_path: str = "/ready"
    startup_period: Duration = Duration("2s")
    startup_budget: Duration = Duration("60s")
    """Longest time a start may take."""
    liveness_period: Duration = Duration("10s")
    readiness_period: Duration = Duration("5s")
    timeout: Duration = Duration("1s")
    """Of each probe; below every period."""

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        shortest = min(self.startup_period, self.liveness_period, self.readiness_period)
        if self.timeout >= shortest:
            yield f"timeout {self.timeout} must be below the shortest period {shortest}"

    def onto(self, container: Container) -> None:
        """Add the three probes to a container."""
        attempts = self.startup_budget.whole_seconds() // self.startup_period.whole_seconds()
        container["startupProbe"] = self._probe(self.liveness_path, self.startup_period, attempts)
        container["livenessProbe"] = self._probe(self.liveness_path, self.liveness_period, 3)
        container["readinessProbe"] = self._probe(self.readiness_path, self.readiness_period, 3)

    def _probe(self, path: str, period: Duration, failures: int) -> Probe:
        return {
            "httpGet": {"path": path, "port": self.port},
            "periodSeconds": period.whole_seconds(),
            "timeoutSeconds": self.timeout.whole_seconds(),
            "failureThreshold": failures,
        }

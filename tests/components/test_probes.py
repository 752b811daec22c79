from __future__ import annotations

import pytest
from pydantic import ValidationError
from voice_policies import Duration

from components.probes import Probe, Probes

TIMES = {"periodSeconds": 10, "timeoutSeconds": 1, "failureThreshold": 3}


@pytest.mark.parametrize(
    ("probe", "action"),
    [
        (Probe.http("/ready", "status"), {"httpGet": {"path": "/ready", "port": "status"}}),
        (Probe.tcp("tcp"), {"tcpSocket": {"port": "tcp"}}),
        (Probe.exec("pg_isready", "-h", "127.0.0.1"), {"exec": {"command": ["pg_isready", "-h", "127.0.0.1"]}}),
    ],
    ids=["http", "tcp", "exec"],
)
def test_each_constructor_makes_one_action_with_the_default_times_of_kubernetes(
    probe: Probe, action: dict[str, object]
) -> None:
    assert probe.document() == {**action, **TIMES}


def test_a_timeout_as_long_as_the_period_is_refused() -> None:
    with pytest.raises(ValidationError, match="timeout 2s must be below the period 2s"):
        Probe.tcp(period=Duration("2s"), timeout=Duration("2s"))


@pytest.mark.parametrize(
    "probes",
    [
        Probes.http("/live", "/ready", startup=Duration("5m")),
        Probes.tcp(readiness=Probe.http("/ready"), startup=Duration("5m")),
    ],
    ids=["http", "tcp"],
)
def test_the_startup_probe_repeats_the_liveness_action_for_the_declared_time(probes: Probes) -> None:
    assert probes.startup.period.seconds * probes.startup.failures == 300
    assert probes.startup.action == probes.liveness.action != probes.readiness.action

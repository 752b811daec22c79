"""V01, V02: volumes have room for everything that their programs write, and startup probes wait for start-up work."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from voice_policies import Bytes, Duration

from components.server import Server
from components.writes import FILL_LIMIT, Disk
from stack.audit.finding import Breach, Rule
from stack.model.platform import Platform


def volumes_fit_their_writes(platform: Platform) -> Iterator[Breach | None]:
    """Compare the declared writes to every volume with its size."""
    for component in platform.components:
        for disk in component.disks():
            yield _too_small(disk)


def _too_small(disk: Disk) -> Breach | None:
    if not disk.writes:
        return Breach(disk.path, "the workload declares no writes to this volume", "the workload's writes")
    if disk.written <= disk.room:
        return None
    parts = " + ".join(f"{_text(write.size)} ({write.reason})" for write in disk.writes)
    room = f"{FILL_LIMIT:.0%} of {disk.size} = {_text(disk.room)}" if disk.persistent else str(disk.size)
    fitting = disk.written * (1 / FILL_LIMIT) if disk.persistent else disk.written
    return Breach(disk.path, f"{parts} = {_text(disk.written)} > {room}", "the volume's size", _text(fitting))


def _text(size: Bytes) -> str:
    return f"{-(-size.units // 2**20)}Mi"


def startup_probes_wait_for_startup(platform: Platform) -> Iterator[Breach | None]:
    """Compare the work at the start of each server with the budget of its startup probe."""
    servers = (component for component in platform.components if isinstance(component, Server))
    for server, workload in ((each, workload) for each in servers for workload in each.workloads()):
        work, probes = workload.start_work, workload.container.probes
        if work and probes:
            budget, needed = probes.startup.period * probes.startup.failures, _seconds(work.duration)
            arithmetic = f"{_text(work.size)} ({work.reason}) ÷ {_text(work.rate)}/s = {needed} > {budget}"
            path = f"{server.namespace}/{workload.name}"
            found = Breach(path, arithmetic, "the startup probe's period × failures", needed)
            yield found if work.duration > budget else None


def _seconds(duration: Duration) -> str:
    return f"{ceil(duration.seconds)}s"


RULES = (
    Rule(
        id="V01",
        title="every volume holds what its program writes at the declared load",
        severity="error",
        rationale="kubelet evicts a pod whose emptyDir is full, and a store whose disk is full fails at every start",
        source="nginx-proxy#1208, valkey#2008, opentelemetry-collector-contrib#32456",
        violates="a replica receives a dump of 614Mi into an emptyDir of 64Mi",
        holds="the same dump, and an emptyDir of 615Mi",
        check=volumes_fit_their_writes,
    ),
    Rule(
        id="V02",
        title="the startup probe waits until the server has done its start-up work",
        severity="error",
        rationale="kubelet kills a server that is still reading its data, and the restarted server begins again",
        source="opentelemetry-collector-contrib#32863",
        violates="a log of 2Gi replays at 20Mi/s for 103 s, and the startup probe gives up after 60 s",
        holds="the same log, and a startup probe that gives up after 120 s",
        check=startup_probes_wait_for_startup,
    ),
)

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import InstanceOf
from voice_policies import Duration

from components.container import Container, Image
from components.links import Links
from components.node import Sizing
from components.server import Server, Workload
from components.workloads import StatefulSet

SIZING = Sizing.of(cpu=("100m", "200m"), memory=("64Mi", "128Mi"))


class SmallServer(Server):
    folder: ClassVar[str] = "20-data"
    declared: tuple[InstanceOf[Workload], ...]

    def workloads(self) -> Iterator[Workload]:
        return iter(self.declared)


def server(*workloads: Workload, links: Links | None = None) -> SmallServer:
    return SmallServer(
        name="store",
        namespace="stores",
        image=Image(reference="store:1"),
        sizing=SIZING,
        links=links or Links(()),
        declared=workloads,
    )


def store(**declared: Any) -> StatefulSet:
    return StatefulSet(**{"name": "store", "container": Container(), "shutdown": Duration("10s"), **declared})


def rendered(*workloads: Workload, links: Links | None = None) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for resource in server(*workloads, links=links).resources():
        found.setdefault(resource["kind"], []).append(resource)
    return found


def pod_of(*workloads: Workload) -> Any:
    (found,) = rendered(*workloads)["StatefulSet"]
    return found["spec"]["template"]["spec"]

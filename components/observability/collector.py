"""The OpenTelemetry Collector as a gateway: it receives telemetry over OTLP, and queues it while a backend is down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field
from typing_extensions import override
from voice_policies import Bytes, Conflict, Duration

from components.component import Exemption
from components.container import POD_IP, Container, go_runtime
from components.files import file_text
from components.observability.collector_config import (
    COMPACTED_COPY,
    GRPC_PORT,
    HEALTH_PORT,
    HTTP_PORT,
    LARGEST_BATCH_BYTES,
    METRICS_PORT,
    QUEUE_PATH,
    Backend,
    Sampling,
    configuration,
)
from components.priority import Priority
from components.probes import Probes
from components.scrape import Scrape
from components.server import Server
from components.services import each_pod, to_port
from components.volumes import ConfigFiles
from components.workloads import DATA_VOLUME, StatefulSet
from components.writes import FILL_LIMIT, Write, fitting_disk

__all__ = ["Collector"]

CONFIG_PATH = "/etc/otelcol"
SHUTDOWN = Duration("30s")
"""Time that the Collector has at shutdown to put received data into its queues on disk."""
FRAGMENTATION = 2
"""Assumed size of a queue's file ÷ size of its data. bbolt reuses free pages only if enough are contiguous."""


class Collector(Server):
    """Replicas, each with a volume for data that a backend has not accepted yet.

    The queues of all replicas together hold a backend's data for `outage`. If there are several replicas, one of them
    may be missing.
    """

    folder: ClassVar[str] = "30-observability"
    priority: ClassVar[Priority] = "core"
    exemptions: ClassVar[tuple[Exemption, ...]] = (
        Exemption(rule="own_readiness", reason="the Collector has one health endpoint, for liveness and readiness"),
    )
    scrape: ClassVar[Scrape] = Scrape(port=METRICS_PORT)
    replicas: Annotated[int, Field(ge=1, le=20)]
    storage: Bytes
    """Volume of each replica."""
    outage: Duration
    """The longest outage of a backend without loss of data."""
    backends: Annotated[tuple[Backend, ...], Field(min_length=1)]
    sampling: Sampling

    @override
    def conflicts(self) -> Iterator[str | Conflict]:
        names = [backend.name for backend in self.backends]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"backends: {name} appears twice"
        for backend in self.backends:
            if (backend.user is None) != (backend.secret is None):
                yield f"backends.{backend.name}: user and secret go together: set both or neither"
        needed = sum((write.size for write in self._writes()), Bytes("0"))
        room = self.storage * FILL_LIMIT
        if needed > room:
            yield Conflict(
                "backends",
                f"the data of an outage of {self.outage} needs {needed.gibibytes:.1f} GiB in each of {self.replicas} "
                f"replicas, and {FILL_LIMIT:.0%} of the disk ({self.storage}) is {room.gibibytes:.1f} GiB; "
                f"expected a disk of at least {fitting_disk(needed)}",
            )

    def _writes(self) -> Iterator[Write]:
        for backend in self.backends:
            size = self.queue(backend) * FRAGMENTATION
            yield Write(DATA_VOLUME, size, f"queue of {backend.name}, {FRAGMENTATION} × for free pages")
        copies = COMPACTED_COPY * len(self.backends)
        yield Write(DATA_VOLUME, copies, f"compaction of {len(self.backends)} queues")

    def queue(self, backend: Backend) -> Bytes:
        """Size of a backend's queue in one replica, at least the size of one batch.

        A changed size restarts the replicas. The size is rounded up, so that an additional service seldom changes it.
        For example, a size from 4 to 8 GiB is rounded up to whole GiB, and a size from 8 to 16 GiB to a multiple of
        2 GiB.
        """
        share = max(1, self.replicas - 1)
        needed = backend.bytes_per_second * (self.outage.seconds / share)
        step = 1 << max(0, needed.units.bit_length() - 3)
        return max(Bytes.of_units(-(-needed.units // step) * step), Bytes.of_units(LARGEST_BATCH_BYTES))

    @property
    def files(self) -> dict[str, str]:
        """Names and texts of the configuration files, as mounted."""
        queues = [(backend, self.queue(backend)) for backend in self.backends]
        document = configuration(queues, self.sampling, self.sizing.memory_limit)
        return {"collector.json": file_text(document)}

    @override
    def workloads(self) -> Iterator[StatefulSet]:
        otlp = [to_port("otlp-grpc", GRPC_PORT, "grpc"), to_port("otlp-http", HTTP_PORT, "http")]
        yield StatefulSet(
            name=self.name,
            container=Container(
                args=(f"--config={CONFIG_PATH}/collector.json",),
                ports={
                    "otlp-grpc": GRPC_PORT,
                    "otlp-http": HTTP_PORT,
                    "metrics": METRICS_PORT,
                    "health": HEALTH_PORT,
                },
                env={"POD_IP": POD_IP, **go_runtime(self.sizing)},
                mounts={"config": CONFIG_PATH, DATA_VOLUME: QUEUE_PATH},
                secrets=tuple(backend.secret for backend in self.backends if backend.secret),
                probes=Probes.http("/", "/", port="health"),
            ),
            volumes={"config": ConfigFiles(f"{self.name}-config", self.files)},
            replicas=self.replicas,
            storage=self.storage,
            writes=tuple(self._writes()),
            governing_service=f"{self.name}-replicas",
            shutdown=SHUTDOWN,
            services={
                self.name: {"ports": otlp},
                f"{self.name}-replicas": each_pod(GRPC_PORT),
            },
        )

"""One Valkey server: in dev the cache; in every environment the durable store of event streams and token budgets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from typing_extensions import override
from voice_policies import Bytes, Duration

from components.component import PLAIN_TEXT, Exemption
from components.container import Container
from components.node import Sizing
from components.priority import Priority
from components.probes import READY, SLOW, STARTUP_PERIOD, Probe, Probes
from components.scrape import BlackboxModule, Scrape
from components.server import Server
from components.services import tcp
from components.valkey.access import ACL_FILE, CONFIG_PATH, HEALTH_USER, RUN_PATH, WRITE_ACL, AclUser, user_file
from components.volumes import ConfigFiles, Scratch
from components.workloads import DATA_VOLUME, StatefulSet
from components.writes import StartWork, Write

__all__ = ["PORT", "Valkey"]

PORT = 6379
MEMORY_SHARE = 0.6
"""Share of the memory limit for data. The rest is for copies: while Valkey rewrites the log or synchronises a replica,
it copies data that changes."""
DATA_PATH = "/data"
CONFIGURATION = Bytes("1Mi")
"""Largest size of the configuration and the user file on the volume `run`."""
LOG_COPIES = 4
"""Largest size of the log as a multiple of the data:

- 1 for the last rewrite
- 1 for its growth by 100 % (`auto-aof-rewrite-percentage`)
- 1 for the next rewrite
- 1 for the writes during the next rewrite
"""
REPLAY_RATE = Bytes("20Mi")
"""Bytes of the log that the server loads per second. Valkey 9.1 on a busy CPU loaded logs of 100 MiB at 56 to 338 MiB/s
from the page cache. The assumed rate leaves a margin for a cold disk."""
SHUTDOWN = Duration("30s")
"""Longest time to write the remaining data and stop."""
PING = ({"send": "PING"}, {"expect": r"^\+PONG"})
LOGIN = ({"send": f"AUTH {HEALTH_USER} -"}, {"expect": r"^\+OK"})
"""Dialogue of the blackbox exporter: each step of `query_response` waits for `expect`, then sends `send`."""
SCRAPE = Scrape.probe(BlackboxModule(name="valkey", prober="tcp", settings={"query_response": [*LOGIN, *PING]}), PORT)
_PING = ("valkey-cli", "-e", "--user", HEALTH_USER, "--pass", "", "--no-auth-warning", "ping")
PROBES = Probes(
    startup=Probe.exec(*_PING, period=STARTUP_PERIOD, failures=150),
    readiness=Probe.exec(*_PING, **READY),
    liveness=Probe.tcp("tcp", **SLOW),
)
"""While the server loads its log, it answers PING with an error. So startup may take 150 × 2 s = 5 minutes."""


class Valkey(Server):
    """One server.

    With `storage` the server is durable: each write is on disk before the acknowledgement, and no data is evicted.

    There is one pod instead of a replicated pair: replication is asynchronous, so a failover could lose acknowledged
    events. While the pod moves, publishers with an outbox keep their events in the outbox; other events are lost.
    Without `storage` the server is a cache that may lose its data at any time.
    """

    folder: ClassVar[str] = "20-data"
    priority: ClassVar[Priority] = "foundation"
    exemptions: ClassVar[tuple[Exemption, ...]] = (
        PLAIN_TEXT,
        Exemption(
            rule="headless_service",
            reason="the only pod needs no DNS name: callers use the Service",
        ),
    )
    scrape: ClassVar[Scrape] = SCRAPE
    users: tuple[AclUser, ...]
    storage: Bytes | None = None

    @property
    def files(self) -> dict[str, str]:
        """Names and texts of the configuration files, as mounted."""
        return {
            "valkey.conf": server_configuration(self.sizing, durable=self.storage is not None),
            "users.acl": user_file(self.users),
            "write-acl.sh": WRITE_ACL,
        }

    @override
    def workloads(self) -> Iterator[StatefulSet]:
        """The server, and an init container that hashes the passwords. The server reads only hashes."""
        mounts = {"config": CONFIG_PATH, "run": RUN_PATH}
        scratch = {} if self.storage else {DATA_VOLUME: Scratch()}
        data = data_size(self.sizing)
        log = StartWork(data * 2, REPLAY_RATE, "the log, which grows to twice the data before its rewrite")
        yield StatefulSet(
            name=self.name,
            init=Container(
                name="write-acl",
                command=("sh", f"{CONFIG_PATH}/write-acl.sh"),
                mounts=mounts,
                secrets=tuple(user.secret for user in self.users),
            ),
            container=Container(
                command=("valkey-server", f"{CONFIG_PATH}/valkey.conf"),
                ports={"tcp": PORT},
                mounts={**mounts, DATA_VOLUME: DATA_PATH},
                probes=PROBES,
            ),
            volumes={"config": ConfigFiles(f"{self.name}-config", self.files), "run": Scratch(), **scratch},
            storage=self.storage,
            writes=(
                Write("run", CONFIGURATION, "configuration and users"),
                Write(DATA_VOLUME, data * LOG_COPIES, f"log and its rewrite, {LOG_COPIES} × the data")
                if self.storage
                else Write(DATA_VOLUME, Bytes("0"), "neither snapshots nor a log"),
            ),
            start_work=log if self.storage else None,
            shutdown=SHUTDOWN,
            services={self.name: tcp(PORT)},
        )


def data_size(sizing: Sizing) -> Bytes:
    """Largest size of the data in memory."""
    return Bytes.of_units(int(sizing.memory_limit.units * MEMORY_SHARE))


def server_configuration(sizing: Sizing, *, durable: bool) -> str:
    """`valkey.conf`. Snapshots are off: a cache needs none, and the log of a durable server holds every write."""
    lines = [
        f"port {PORT}",
        "bind * -::*",
        "protected-mode no",
        f"aclfile {ACL_FILE}",
        f"dir {DATA_PATH}",
        'save ""',
        f"maxmemory {data_size(sizing).units}",
        f"maxmemory-policy {'noeviction' if durable else 'allkeys-lru'}",
        *(["appendonly yes", "appendfsync always"] if durable else ["appendonly no"]),
        "tcp-keepalive 60",
    ]
    return "".join(f"{line}\n" for line in lines)

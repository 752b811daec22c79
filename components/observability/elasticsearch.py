"""Elasticsearch: the full-text index of the services, and the store of logs and (through Jaeger) traces.

Every caller has its own user with only the declared rights. HTTP traffic is not encrypted: the interface has no TLS,
and datastores are not members of the mesh. A NetworkPolicy admits only the declared callers. Nodes talk to each other
over TLS, because Elasticsearch requires it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic_core import to_json
from typing_extensions import override
from voice_policies import Bytes, Conflict, Duration

from components.component import PLAIN_TEXT, Exemption
from components.container import POD_IP, POD_NAME, TEMPORARY_PATH, Container
from components.observability.elasticsearch_setup import SUPERUSER, IndexUser, requests
from components.observability.setup_job import sender, setup_files, write_login
from components.priority import Priority
from components.probes import READY, SLOW, Probe, Probes
from components.retention import Stream, shared_disk_conflicts
from components.scrape import ANSWERS, Scrape
from components.secret_keys import CERTIFICATE, SecretKeys
from components.server import Server, Workload
from components.services import each_pod, tcp
from components.volumes import ConfigFiles, Scratch
from components.workloads import DATA_VOLUME, Job, StatefulSet
from components.writes import Write

__all__ = ["TRANSPORT_PORT", "Elasticsearch"]

HTTP_PORT, TRANSPORT_PORT, READINESS_PORT = 9200, 9300, 9399
HOME = "/usr/share/elasticsearch"
CONFIG_PATH = "/etc/elasticsearch"
RUN_PATH = "/run/elasticsearch"
DATA_PATH = f"{HOME}/data"
SHUTDOWN = Duration("110s")
"""Longest time to close the shards of a node. With the pre-stop sleep and a margin, the grace period is two minutes."""
TRANSPORT = SecretKeys(name="elasticsearch-transport", keys=tuple(CERTIFICATE), forms=CERTIFICATE)
"""A certificate that all nodes share, its key, and the authority that signed it."""
LARGEST_SEGMENT = Bytes("5Gi")
"""Largest segment that Lucene merges to: Elasticsearch's `index.merge.policy.max_merged_segment`."""
CONFIGURATION = Bytes("16Mi")
HEAP_SHARE = 0.5
"""Share of the memory limit for the heap. The rest is the file cache through which Lucene reads its segments."""

JVM_LOG = "-Xlog:disable -Xlog:all=warning:stderr:utctime,level,tags"
"""Log to stderr only. By default the JVM writes up to 2 GiB of garbage-collection logs into `logs`: 32 files of 64 MiB.
Source: Elastic's `jvm.options`."""
LOGIN = "health.curl"
"""File with curl's user and password for the readiness probe, next to the configuration."""
_JOINED = f"exec 3<>/dev/tcp/127.0.0.1/{READINESS_PORT}"
_CAUGHT_UP = f"""{_JOINED} || exit 1
seen={TEMPORARY_PATH}/green-$(cut -d ' ' -f 22 /proc/1/stat)
[ -e "$seen" ] || {{
  curl --silent --fail --max-time 2 --config {HOME}/config/{LOGIN} \\
    'http://127.0.0.1:{HTTP_PORT}/_cluster/health?wait_for_status=green&timeout=1s' > {TEMPORARY_PATH}/health &&
  touch "$seen"
}}
"""
"""A started node becomes ready only when the cluster is green. Before that some shards may have no second copy. A
rollout or a drain stops the next node only after the started node is ready. The file `green-…` records that the cluster
was green. Its name holds the start time of the container's process, so a restarted container waits again. A ready node
stays ready when the cluster loses another node."""
PROBES = Probes(
    startup=Probe.tcp(period=Duration("5s"), timeout=Duration("3s"), failures=60),
    readiness=Probe.exec("bash", "-c", _JOINED, **READY),
    liveness=Probe.tcp(**SLOW),
)
"""A node is ready when it belongs to a cluster with a master. Elasticsearch then opens a readiness port. The probe runs
inside the container, as in Elastic's operator, because that port listens on localhost."""
REPLICATED_PROBES = PROBES.model_copy(update={"readiness": Probe.exec("bash", "-c", _CAUGHT_UP, **READY)})
"""Probes in a cluster of several nodes. A starting node is ready only after the cluster has been green once."""


class Elasticsearch(Server):
    """Identical nodes. Each may become master, stores data and answers requests."""

    folder: ClassVar[str] = "20-data"
    priority: ClassVar[Priority] = "foundation"
    exemptions: ClassVar[tuple[Exemption, ...]] = (PLAIN_TEXT,)
    scrape: ClassVar[Scrape] = Scrape.probe(ANSWERS, HTTP_PORT)
    nodes: Annotated[int, Field(ge=1, le=7)]
    storage: Bytes
    """Volume of each node."""
    streams: tuple[Stream, ...]
    """Data with a retention time. Each stream has a lifecycle policy of the same name."""
    users: tuple[IndexUser, ...]

    @override
    def conflicts(self) -> Iterator[str | Conflict]:
        if self.nodes == 2:
            yield "nodes is 2: two nodes survive no more losses than one node; use 1, or at least 3"
        for stream in self.streams:
            if stream.copies > self.nodes:
                yield f"{stream.name}: {stream.copies} copies need {stream.copies} nodes, but nodes is {self.nodes}"
        yield from shared_disk_conflicts("streams", self.streams, self.storage * self.nodes)

    @override
    def streams_kept(self) -> Iterator[Stream]:
        yield from self.streams

    @property
    def replicated(self) -> bool:
        """True if there is more than one node."""
        return self.nodes > 1

    @property
    def node_secrets(self) -> tuple[SecretKeys, ...]:
        """Secrets that the nodes read."""
        return (SUPERUSER.secret, TRANSPORT) if self.replicated else (SUPERUSER.secret,)

    @property
    def files(self) -> dict[str, str]:
        """Names and texts of the configuration files, as mounted."""
        lines = "".join(f"{key}: {to_json(value).decode()}\n" for key, value in self._settings().items())
        return {"elasticsearch.yml": lines, "prepare.sh": self._prepare()}

    @property
    def setup(self) -> dict[str, str]:
        """The files of the Job that sends the setup requests."""
        return setup_files(f"http://{self.name}:{HTTP_PORT}", SUPERUSER, requests(self.streams, self.users))

    def _settings(self) -> dict[str, object]:
        shared: dict[str, object] = {
            "cluster.name": "voice",
            "node.name": "${POD_NAME}",
            "network.host": "0.0.0.0",  # noqa: S104 - the NetworkPolicy admits only declared callers
            "network.publish_host": "${POD_IP}",
            "http.port": HTTP_PORT,
            "transport.port": TRANSPORT_PORT,
            "readiness.port": READINESS_PORT,
            # Memory mapping needs vm.max_map_count raised on the node, and no pod here may change the node.
            "node.store.allow_mmap": False,
            "xpack.security.enabled": True,
            "xpack.security.http.ssl.enabled": False,
            "xpack.ml.enabled": False,
        }
        if not self.replicated:
            return {**shared, "discovery.type": "single-node"}
        return {
            **shared,
            "discovery.seed_hosts": [f"{self.name}-nodes:{TRANSPORT_PORT}"],
            "xpack.security.transport.ssl.enabled": True,
            "xpack.security.transport.ssl.verification_mode": "certificate",
            "xpack.security.transport.ssl.certificate": "transport/certificate",
            "xpack.security.transport.ssl.key": "transport/private-key",
            "xpack.security.transport.ssl.certificate_authorities": ["transport/authority"],
        }

    def _writes(self, heap: int) -> Iterator[Write]:
        for stream in self.streams:
            share = stream.kept * (1 / self.nodes)
            yield Write(DATA_VOLUME, share, f"{stream.name}, 1/{self.nodes} of {stream.copies} copies")
            yield Write(DATA_VOLUME, min(share, LARGEST_SEGMENT), f"a segment of {stream.name} that a merge writes")
        yield Write(
            DATA_VOLUME, Bytes.of_units(heap * 1024**2), "one heap dump: the JVM does not overwrite an existing dump"
        )
        yield Write("run", CONFIGURATION, "configuration, keystore and certificates")
        yield Write("logs", CONFIGURATION, "the JVM's crash report; logs go to the console")

    def _prepare(self) -> str:
        """Script that writes configuration and keystore. Only a node with an empty disk lists the initial masters."""
        login = write_login(SUPERUSER, LOGIN) if self.replicated else ""
        founders = to_json([f"{self.name}-{index}" for index in range(self.nodes)]).decode()
        found = f"[ -d {DATA_PATH}/_state ] || echo 'cluster.initial_master_nodes: {founders}' >> elasticsearch.yml\n"
        certificates = f"mkdir -p transport\ncp {TRANSPORT.path}/* transport/\n"
        return f"""\
set -eu
umask 077
cd {RUN_PATH}
cp -R {HOME}/config/. .
cp {CONFIG_PATH}/elasticsearch.yml elasticsearch.yml
{certificates + found if self.replicated else ""}export ES_PATH_CONF={RUN_PATH}
rm -f elasticsearch.keystore
elasticsearch-keystore create
{login}tr -d '\\n' < {SUPERUSER.password_file} | elasticsearch-keystore add --stdin bootstrap.password
"""

    @override
    def workloads(self) -> Iterator[Workload]:
        """The nodes, and the Job that creates policies, templates and users."""
        heap = int(self.sizing.memory_limit.units * HEAP_SHARE) // 1024**2
        yield StatefulSet(
            name=self.name,
            init=Container(
                name="prepare",
                command=("sh", f"{CONFIG_PATH}/prepare.sh"),
                mounts={DATA_VOLUME: DATA_PATH, "config": CONFIG_PATH, "run": RUN_PATH},
                secrets=self.node_secrets,
            ),
            container=Container(
                ports={"http": HTTP_PORT, "transport": TRANSPORT_PORT},
                env={
                    "POD_IP": POD_IP,
                    "POD_NAME": POD_NAME,
                    "ES_JAVA_OPTS": f"-Xms{heap}m -Xmx{heap}m {JVM_LOG}",
                    "ES_TMPDIR": TEMPORARY_PATH,
                },
                mounts={"run": f"{HOME}/config", "logs": f"{HOME}/logs", DATA_VOLUME: DATA_PATH},
                probes=REPLICATED_PROBES if self.replicated else PROBES,
            ),
            volumes={
                "config": ConfigFiles(f"{self.name}-config", self.files),
                "run": Scratch(),
                "logs": Scratch(),
            },
            replicas=self.nodes,
            storage=self.storage,
            writes=tuple(self._writes(heap)),
            governing_service=f"{self.name}-nodes",
            quorum=self.replicated,
            shutdown=SHUTDOWN,
            services={self.name: tcp(HTTP_PORT), f"{self.name}-nodes": each_pod(TRANSPORT_PORT)},
        )
        yield Job(
            name=f"{self.name}-setup",
            container=sender([SUPERUSER.secret, *(user.account.secret for user in self.users)]),
            volumes={"requests": ConfigFiles(f"{self.name}-setup", self.setup)},
        )

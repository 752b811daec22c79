"""Elasticsearch: the full-text index of the services, and what keeps logs and, through Jaeger, traces.

Security is on: every caller has a user of its own, with a role over its own indices. The interface speaks plain HTTP,
as the platform declares it: the network policy admits the declared callers alone. What they send is not encrypted,
since datastores are no members of the mesh. Between the nodes Elasticsearch insists on TLS of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field
from pydantic_core import to_json
from voice_policies import Bytes, Duration

from components.access import service_account
from components.component import Component
from components.container import Image, hardened_container
from components.disruption_budget import disruption_budget
from components.network_policy import NetworkEnd, network_policy
from components.node import Sizing
from components.observability.elasticsearch_setup import SUPERUSER, IndexUser, requests
from components.observability.retention import Stream, disk_conflicts
from components.observability.setup_job import setup_files, setup_job, setup_labels, setup_pod
from components.operation import Name
from components.policy_config import CONFIG_DIGEST_ANNOTATION, config_files, digest_of
from components.scrape import ANSWERS, Scrape
from components.secret_keys import SecretKeys
from components.stateful_set import (
    DATA_VOLUME,
    configuration_writer,
    mount,
    scratch,
    stateful_set,
    tcp_service,
    with_volumes,
)
from components.workload import alone_on_its_host, pod_spec, pre_stop, secret_volumes

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import Container, PodSpec, Probe, Volume

HTTP_PORT, TRANSPORT_PORT, READINESS_PORT = 9200, 9300, 9399
HOME = "/usr/share/elasticsearch"
CONFIG_PATH = "/etc/elasticsearch"
RUN_PATH = "/run/elasticsearch"
DATA_PATH = f"{HOME}/data"
STOP = Duration("110s")
"""Longest time to flush and hand over shards; with the pre-stop sleep, a grace of two minutes."""
TRANSPORT = SecretKeys(name="elasticsearch-transport", keys=("certificate", "private-key", "authority"))
"""PEM: a certificate that every node holds, its key, and the authority that signed it."""
HEAP_SHARE = 0.5
"""Of the memory limit: the rest is the file cache, which Lucene reads its segments through."""

JVM_LOG = "-Xlog:disable -Xlog:all=warning:stderr:utctime,level,tags"
"""Elastic's own recipe against the default, two gigabytes of files about garbage collection in `logs`."""


class Elasticsearch(Component):
    """Nodes that are all alike: each may be elected, keeps data and answers."""

    kind: ClassVar[str] = "Elasticsearch"
    folder: ClassVar[str] = "20-data"
    scrape: ClassVar[Scrape] = Scrape.probe(ANSWERS, HTTP_PORT)
    image: Image
    sizing: Sizing
    nodes: Annotated[int, Field(ge=1, le=7)]
    storage: Bytes
    """Of each node."""
    streams: tuple[Stream, ...]
    """What is kept for a time, each by a lifecycle policy of its name."""
    users: tuple[IndexUser, ...]
    ingress: tuple[NetworkEnd, ...] = ()
    egress: tuple[NetworkEnd, ...] = ()
    setup_egress: tuple[NetworkEnd, ...] = ()

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        if self.nodes == 2:
            yield "nodes is 2: they survive no more losses than 1"
        for stream in self.streams:
            if stream.copies > self.nodes:
                yield f"{stream.name}: {stream.copies} copies need as many nodes, and there are {self.nodes}"
        yield from disk_conflicts(self.streams, self.storage * self.nodes)

    @property
    def setup_name(self) -> Name:
        """Of the Job that makes policies, templates and users."""
        return f"{self.name}-setup"

    @property
    def pods(self) -> tuple[dict[str, str], ...]:
        """The nodes, and the Job that sets them up."""
        return self.selector, setup_labels(self.setup_name)

    @property
    def replicated(self) -> bool:
        """Whether there is more than one node."""
        return self.nodes > 1

    @property
    def node_secrets(self) -> tuple[SecretKeys, ...]:
        """What the nodes themselves read."""
        return (SUPERUSER.secret, TRANSPORT) if self.replicated else (SUPERUSER.secret,)

    @property
    def files(self) -> dict[str, str]:
        """Its configuration, as mounted."""
        lines = "".join(f"{key}: {to_json(value).decode()}\n" for key, value in self._settings().items())
        return {"elasticsearch.yml": lines, "prepare.sh": self._prepare()}

    @property
    def setup(self) -> dict[str, str]:
        """What the Job sends."""
        return setup_files(f"http://{self.name}:{HTTP_PORT}", SUPERUSER, requests(self.streams, self.users))

    def _settings(self) -> dict[str, object]:
        shared: dict[str, object] = {
            "cluster.name": "voice",
            "node.name": "${POD_NAME}",
            "network.host": "0.0.0.0",  # noqa: S104 - the pod's own; the network policy says who reaches it
            "network.publish_host": "${POD_IP}",
            "http.port": HTTP_PORT,
            "transport.port": TRANSPORT_PORT,
            "readiness.port": READINESS_PORT,
            # Memory mapping needs vm.max_map_count raised on the node, which nothing here may do.
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

    def _prepare(self) -> str:
        """The image's defaults, ours, and the keystore. The founding nodes are named on an empty disk alone."""
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
tr -d '\\n' < {SUPERUSER.password_file} | elasticsearch-keystore add --stdin bootstrap.password
"""

    def resources(self) -> Iterator[Resource]:
        """What the nodes need first, then the nodes and what sets them up."""
        yield service_account(self.metadata())
        yield config_files(self.metadata("config"), self.files)
        yield network_policy(self.metadata(), self.selector, self.ingress, self.egress)
        yield tcp_service(self.metadata(), self.selector, HTTP_PORT)
        yield tcp_service(self.metadata("nodes"), self.selector, TRANSPORT_PORT, headless=True)
        annotations = {CONFIG_DIGEST_ANNOTATION: digest_of(self.files)}
        nodes = stateful_set(
            self.metadata(),
            self.selector,
            {"metadata": {"labels": self.labels, "annotations": annotations}, "spec": self._pod()},
            replicas=self.nodes,
        )
        nodes["spec"]["serviceName"] = f"{self.name}-nodes"
        # None is ready before a master is elected, and for that they must all start.
        nodes["spec"]["podManagementPolicy"] = "Parallel"
        yield from with_volumes(nodes, self.storage)
        if self.replicated:
            yield disruption_budget(self.metadata(), self.selector)
        yield from self._setup()

    def _setup(self) -> Iterator[Resource]:
        metadata = self.metadata("setup")
        secrets = [SUPERUSER.secret, *(user.account.secret for user in self.users)]
        yield service_account(metadata)
        yield config_files(metadata, self.setup)
        yield network_policy(metadata, setup_labels(self.setup_name), (), self.setup_egress)
        yield setup_job(metadata, setup_pod(self.setup_name, self.image, secrets), self.setup)

    def _pod(self) -> PodSpec:
        volumes: list[Volume] = [
            {"name": "config", "configMap": {"name": f"{self.name}-config"}},
            scratch("run"),
            scratch("logs"),
            *secret_volumes(self.node_secrets),
        ]
        pod = pod_spec(self.name, self._node(), volumes, self.selector, STOP)
        pod["initContainers"] = [self._prepare_container()]
        if self.replicated:
            pod["affinity"] = alone_on_its_host(self.selector)
        return pod

    def _prepare_container(self) -> Container:
        container = hardened_container("prepare", self.image, self.sizing)
        mount(container, DATA_VOLUME, DATA_PATH)
        return configuration_writer(container, CONFIG_PATH, RUN_PATH, self.node_secrets)

    def _node(self) -> Container:
        container = hardened_container(self.name, self.image, self.sizing)
        heap = int(self.sizing.memory_limit.units * HEAP_SHARE) // 1024**2
        container["env"] = [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "ES_JAVA_OPTS", "value": f"-Xms{heap}m -Xmx{heap}m {JVM_LOG}"},
            {"name": "ES_TMPDIR", "value": "/tmp"},  # noqa: S108 - the container's own emptyDir
        ]
        container["ports"] = [
            {"name": "http", "containerPort": HTTP_PORT},
            {"name": "transport", "containerPort": TRANSPORT_PORT},
        ]
        mount(container, "run", f"{HOME}/config")
        mount(container, "logs", f"{HOME}/logs")
        mount(container, DATA_VOLUME, DATA_PATH)
        _probes_onto(container)
        return container


def _probes_onto(container: Container) -> None:
    """Ready when the node is in a cluster that has a master, which a port of its own tells; alive while HTTP opens.

    That port is asked from within, as Elastic's own operator does: it need not be bound to the pod's address.
    """
    connects = f"exec 3<>/dev/tcp/127.0.0.1/{READINESS_PORT}"
    joined: Probe = {"exec": {"command": ["bash", "-c", connects]}, "periodSeconds": 5, "timeoutSeconds": 3}
    answers: Probe = {"tcpSocket": {"port": "http"}, "periodSeconds": 10, "timeoutSeconds": 3, "failureThreshold": 3}
    container["startupProbe"] = {**answers, "periodSeconds": 5, "failureThreshold": 60}
    container["readinessProbe"] = {**joined, "failureThreshold": 3}
    container["livenessProbe"] = answers
    container["lifecycle"] = pre_stop()

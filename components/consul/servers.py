"""Consul's servers: the catalogue and key-value store that the platform is asked to offer.

Services find each other by Kubernetes DNS: the address that a pod answers on is known there first, from its readiness,
and needs no agent beside each pod. The catalogue tells the same names to who asks Consul: the servers register the
declared services from a file. No catalogue sync runs, which would need rights on every Service of the cluster to copy
what the model knows. What stands outside the cluster an operator registers through the HTTP interface.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field
from voice_policies import Bytes, Duration

from components.access import service_account
from components.component import Component
from components.consul.access import SECRET
from components.consul.catalogue import CatalogueService, permit_script, rules
from components.consul.snapshots import ACTIONS, snapshot_job, snapshot_labels, snapshot_scripts
from components.container import Image, hardened_container
from components.disruption_budget import disruption_budget
from components.network_policy import NetworkEnd, network_policy
from components.node import Sizing
from components.operation import Name
from components.policy_config import CONFIG_DIGEST_ANNOTATION, config_files, digest_of, file_text
from components.scrape import BlackboxModule, Scrape
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
    from components.kubernetes.types import Container, Probe

RPC_PORT, GOSSIP_PORT, HTTP_PORT = 8300, 8301, 8500
CONFIG_PATH = "/etc/consul"
RUN_PATH = "/run/consul"
DATA_PATH = "/consul/data"
STOP = Duration("60s")
"""Longest time to hand over leadership and leave."""
WRITE_SECRETS = f"""\
set -eu
umask 077
cd {SECRET.path}
printf '{{"encrypt":"%s","acl":{{"tokens":{{' "$(cat gossip-key)" > {RUN_PATH}/secrets.json
printf '"initial_management":"%s","agent":"%s","config_file_service_registration":"%s"}}}}}}' \\
  "$(cat management-token)" "$(cat management-token)" "$(cat registration-token)" >> {RUN_PATH}/secrets.json
cp management-token registration-token {RUN_PATH}
"""
"""The copies are for the operator's script, which runs beside the server."""


class Consul(Component):
    """Servers that elect a leader: none may be had of two, and four survive no more losses than three."""

    kind: ClassVar[str] = "Consul"
    folder: ClassVar[str] = "20-data"
    scrape: ClassVar[Scrape] = Scrape.probe(
        BlackboxModule(name="consul", prober="http", settings={"fail_if_body_not_matches_regexp": [f":{RPC_PORT}"]}),
        HTTP_PORT,
        "/v1/status/leader",
    )
    """Its own metrics need a token."""
    image: Image
    sizing: Sizing
    servers: Annotated[int, Field(ge=1, le=7)]
    storage: Bytes
    services: tuple[CatalogueService, ...]
    """What the catalogue tells."""
    ingress: tuple[NetworkEnd, ...] = ()
    egress: tuple[NetworkEnd, ...] = ()
    bucket_url: str | None = None
    """Where snapshots go, `https://HOST/BUCKET`; `None` makes none."""
    snapshot_egress: tuple[NetworkEnd, ...] = ()

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        if self.servers % 2 == 0:
            yield f"servers is {self.servers}: an even number survives no more losses than {self.servers - 1}"

    @property
    def pods(self) -> tuple[dict[str, str], ...]:
        """The servers, and the jobs of their snapshots."""
        return (self.selector, snapshot_labels(self.snapshot_name)) if self.bucket_url else (self.selector,)

    @property
    def snapshot_name(self) -> Name:
        """Of what saves and restores snapshots."""
        return f"{self.name}-snapshot"

    @property
    def files(self) -> dict[str, str]:
        """Its configuration, as mounted."""
        configuration = {
            "server": True,
            "datacenter": "voice",
            "data_dir": DATA_PATH,
            "bootstrap_expect": self.servers,
            "retry_join": [f"{self.name}-servers.{self.namespace}.svc.cluster.local"],
            "client_addr": "0.0.0.0",  # noqa: S104 - the pod's own; the network policy says who reaches it
            "leave_on_terminate": False,
            "disable_update_check": True,
            "ports": {
                "http": HTTP_PORT,
                "server": RPC_PORT,
                "serf_lan": GOSSIP_PORT,
                "serf_wan": -1,
                "dns": -1,
                "grpc_tls": -1,
            },
            "acl": {"enabled": True, "default_policy": "deny", "enable_token_persistence": True},
        }
        return {
            "consul.json": file_text(configuration),
            "services.json": file_text({"services": [service.definition() for service in self.services]}),
            "services.hcl": rules(self.services),
            "write-secrets.sh": WRITE_SECRETS,
            "permit-services.sh": permit_script(CONFIG_PATH, RUN_PATH),
        }

    def resources(self) -> Iterator[Resource]:
        """What they need first, then the servers."""
        yield service_account(self.metadata())
        yield config_files(self.metadata("config"), self.files)
        yield network_policy(self.metadata(), self.selector, self.ingress, self.egress)
        yield tcp_service(self.metadata(), self.selector, HTTP_PORT)
        yield tcp_service(self.metadata("servers"), self.selector, RPC_PORT, headless=True)
        pod = pod_spec(
            self.name,
            self._server(),
            [
                {"name": "config", "configMap": {"name": f"{self.name}-config"}},
                scratch("run"),
                *secret_volumes((SECRET,)),
            ],
            self.selector,
            STOP,
        )
        pod["initContainers"] = [self._write_secrets()]
        pod["affinity"] = alone_on_its_host(self.selector)
        annotations = {CONFIG_DIGEST_ANNOTATION: digest_of(self.files)}
        servers = stateful_set(
            self.metadata(),
            self.selector,
            {"metadata": {"labels": self.labels, "annotations": annotations}, "spec": pod},
            replicas=self.servers,
        )
        servers["spec"]["serviceName"] = f"{self.name}-servers"
        # None is ready before a leader is elected, and for that they must all start.
        servers["spec"]["podManagementPolicy"] = "Parallel"
        yield from with_volumes(servers, self.storage)
        if self.servers > 1:
            yield disruption_budget(self.metadata(), self.selector)
        if self.bucket_url:
            yield from self._snapshots(self.bucket_url)

    def _snapshots(self, bucket_url: str) -> Iterator[Resource]:
        metadata = self.metadata("snapshot")
        yield service_account(metadata)
        yield config_files(metadata, snapshot_scripts(bucket_url))
        yield network_policy(metadata, snapshot_labels(self.snapshot_name), (), self.snapshot_egress)
        url = f"http://{self.name}:{HTTP_PORT}"
        for action in ACTIONS:
            yield snapshot_job(self.metadata(action), action, self.snapshot_name, self.image, url)

    def _server(self) -> Container:
        container = hardened_container(self.name, self.image, self.sizing)
        paths = (f"{CONFIG_PATH}/consul.json", f"{CONFIG_PATH}/services.json", f"{RUN_PATH}/secrets.json")
        files = [f"-config-file={path}" for path in paths]
        container["command"] = ["consul", "agent", "-bind=$(POD_IP)", "-node=$(POD_NAME)", *files]
        container["env"] = [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]
        container["ports"] = [
            {"name": "http", "containerPort": HTTP_PORT},
            {"name": "rpc", "containerPort": RPC_PORT},
            {"name": "gossip", "containerPort": GOSSIP_PORT},
            {"name": "gossip-udp", "containerPort": GOSSIP_PORT, "protocol": "UDP"},
        ]
        mount(container, "config", CONFIG_PATH, read_only=True)
        mount(container, "run", RUN_PATH)
        mount(container, DATA_VOLUME, DATA_PATH)
        _probes_onto(container)
        return container

    def _write_secrets(self) -> Container:
        """Key and tokens into a file of their own, which the server reads beside its configuration."""
        writer = hardened_container("write-secrets", self.image, self.sizing)
        return configuration_writer(writer, CONFIG_PATH, RUN_PATH, (SECRET,))


def _probes_onto(container: Container) -> None:
    """Ready when it knows a leader; alive while the port opens."""
    leader: Probe = {
        "exec": {
            "command": ["sh", "-c", f"wget -q -O - http://127.0.0.1:{HTTP_PORT}/v1/status/leader | grep -q :{RPC_PORT}"]
        },
        "periodSeconds": 5,
        "timeoutSeconds": 3,
    }
    port: Probe = {"tcpSocket": {"port": "http"}, "periodSeconds": 10, "timeoutSeconds": 3, "failureThreshold": 3}
    container["startupProbe"] = {**port, "periodSeconds": 2, "timeoutSeconds": 1, "failureThreshold": 60}
    container["readinessProbe"] = {**leader, "failureThreshold": 3}
    container["livenessProbe"] = port
    container["lifecycle"] = pre_stop()

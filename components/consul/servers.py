"""Consul servers: the service catalogue and key-value store that the platform must offer.

Services find each other by Kubernetes DNS: it lists only ready pods, and no pod needs an agent. For programs that ask
Consul, the servers register the declared services from a file. No catalogue sync runs, because it would need rights on
every Service of the cluster. A person registers hosts outside the cluster through the HTTP interface.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field
from typing_extensions import override
from voice_policies import Bytes, Duration

from components.component import PLAIN_TEXT, Exemption
from components.consul.access import METRICS, SECRET
from components.consul.catalogue import METRICS_POLICY, METRICS_RULES, POLICY, CatalogueService, permit_script, rules
from components.consul.snapshots import STATE, snapshot_jobs
from components.container import POD_IP, POD_NAME, Container, go_runtime
from components.files import file_text
from components.priority import Priority
from components.probes import READY, Probe, Probes
from components.scrape import Scrape
from components.server import Server, Workload
from components.services import each_pod, tcp
from components.volumes import ConfigFiles, Scratch
from components.workloads import DATA_VOLUME, StatefulSet
from components.writes import StartWork, Write

__all__ = ["GOSSIP_PORT", "HTTP_PORT", "RPC_PORT", "Consul"]

RPC_PORT, GOSSIP_PORT, HTTP_PORT = 8300, 8301, 8500
CONFIG_PATH = "/etc/consul"
SERVICES_PATH = "/etc/voice/services"
RUN_PATH = "/run/consul"
DATA_PATH = "/consul/data"
REPLAY_RATE = Bytes("20Mi")
"""Assumed bytes per second at which a starting server applies its snapshot and Raft's log."""
SHUTDOWN = Duration("60s")
"""Longest time for a server to stop. A stopped server stays a member, because `leave_on_terminate` is off."""
WRITE_SECRETS = f"""\
set -eu
umask 077
cd {SECRET.path}
printf '{{"encrypt":"%s","acl":{{"tokens":{{' "$(cat gossip-key)" > {RUN_PATH}/secrets.json
printf '"initial_management":"%s","agent":"%s","config_file_service_registration":"%s"}}}}}}' \\
  "$(cat management-token)" "$(cat management-token)" "$(cat registration-token)" >> {RUN_PATH}/secrets.json
cp management-token registration-token {RUN_PATH}
cp {METRICS.path}/token {RUN_PATH}/metrics-token
"""
"""A shell script that writes the secrets into the servers' configuration.

It runs in the init container. It also copies the tokens for `permit_script`, which a person runs in a server's
container.
"""
_LEADER = f"wget -q -O - http://127.0.0.1:{HTTP_PORT}/v1/status/leader | grep -q :{RPC_PORT}"
_PEER = f'wget -q -O - http://127.0.0.1:{HTTP_PORT}/v1/status/peers | grep -q "\\"$POD_IP:{RPC_PORT}\\""'
PROBES = Probes.tcp(readiness=Probe.exec("sh", "-c", f"{_LEADER} && {_PEER}", **READY))
"""A server is ready when it knows a leader and is itself one of Raft's peers."""


class Consul(Server):
    """Consul servers that elect a leader.

    Their number must be odd. For example, a fourth server does not help: three servers survive one loss, and four too.
    """

    folder: ClassVar[str] = "20-data"
    priority: ClassVar[Priority] = "foundation"
    exemptions: ClassVar[tuple[Exemption, ...]] = (PLAIN_TEXT,)
    scrape: ClassVar[Scrape] = Scrape(port=HTTP_PORT, path="/v1/agent/metrics", series=1_000, token=METRICS)
    """Consul chooses Prometheus's format if the request accepts OpenMetrics. Consul 1.22 exposes 850 series."""
    servers: Annotated[int, Field(ge=1, le=7)]
    storage: Bytes
    services: tuple[CatalogueService, ...]
    bucket_url: str | None = None
    """Bucket of the snapshots, `https://HOST/BUCKET`. `None` disables snapshots."""

    @override
    def conflicts(self) -> Iterator[str]:
        if self.servers % 2 == 0:
            yield f"servers is {self.servers}: expected an odd number; {self.servers - 1} survive as many losses"

    @property
    def files(self) -> dict[str, str]:
        """Names and texts of the configuration files, as mounted."""
        configuration = {
            "server": True,
            "datacenter": "voice",
            "data_dir": DATA_PATH,
            "bootstrap_expect": self.servers,
            "retry_join": [f"{self.name}-servers.{self.namespace}.svc.cluster.local"],
            "client_addr": "0.0.0.0",  # noqa: S104 - the NetworkPolicy admits only declared callers
            "leave_on_terminate": False,
            "disable_update_check": True,
            # Consul reads a changed list of declared services without a restart.
            "auto_reload_config": True,
            "ports": {
                "http": HTTP_PORT,
                "server": RPC_PORT,
                "serf_lan": GOSSIP_PORT,
                "serf_wan": -1,
                "dns": -1,
                "grpc_tls": -1,
            },
            # A server sets its gauges every ten seconds. It drops a gauge that it has not set for 60 s.
            "telemetry": {"prometheus_retention_time": "60s", "disable_hostname": True},
            "acl": {"enabled": True, "default_policy": "deny", "enable_token_persistence": True},
        }
        return {"consul.json": file_text(configuration), "write-secrets.sh": WRITE_SECRETS}

    @property
    def service_files(self) -> dict[str, str]:
        """The declared services, the ACL rules for their registration and for the metrics, and `permit_script`."""
        return {
            "services.json": file_text({"services": [service.definition() for service in self.services]}),
            f"{POLICY}.hcl": rules(self.services),
            f"{METRICS_POLICY}.hcl": METRICS_RULES,
            "permit.sh": permit_script(SERVICES_PATH, RUN_PATH),
        }

    @override
    def workloads(self) -> Iterator[Workload]:
        mounts = {"config": CONFIG_PATH, "run": RUN_PATH}
        paths = (f"{CONFIG_PATH}/consul.json", f"{SERVICES_PATH}/services.json", f"{RUN_PATH}/secrets.json")
        files = (f"-config-file={path}" for path in paths)
        yield StatefulSet(
            name=self.name,
            init=Container(
                name="write-secrets",
                command=("sh", f"{CONFIG_PATH}/write-secrets.sh"),
                mounts=mounts,
                secrets=(SECRET, METRICS),
            ),
            container=Container(
                command=("consul", "agent", "-bind=$(POD_IP)", "-node=$(POD_NAME)", *files),
                ports={"http": HTTP_PORT, "rpc": RPC_PORT, "gossip": GOSSIP_PORT},
                udp_ports={"gossip-udp": GOSSIP_PORT},
                env={"POD_IP": POD_IP, "POD_NAME": POD_NAME, **go_runtime(self.sizing)},
                mounts={**mounts, "services": SERVICES_PATH, DATA_VOLUME: DATA_PATH},
                probes=PROBES,
            ),
            volumes={
                "config": ConfigFiles(f"{self.name}-config", self.files),
                "services": ConfigFiles(f"{self.name}-services", self.service_files, reloaded=True),
                "run": Scratch(),
            },
            replicas=self.servers,
            storage=self.storage,
            writes=(
                Write(DATA_VOLUME, STATE * 3, "two snapshots that Raft keeps, and a third that it writes"),
                Write(DATA_VOLUME, STATE * 2, "Raft's log since the last snapshot"),
                Write("run", Bytes("1Mi"), "secrets and tokens"),
            ),
            start_work=StartWork(STATE * 3, REPLAY_RATE, "newest snapshot and Raft's log"),
            governing_service=f"{self.name}-servers",
            quorum=True,
            shutdown=SHUTDOWN,
            services={self.name: tcp(HTTP_PORT), f"{self.name}-servers": each_pod(RPC_PORT)},
        )
        if self.bucket_url:
            url = f"http://{self.name}:{HTTP_PORT}"
            yield from snapshot_jobs(self.name, url, self.bucket_url)

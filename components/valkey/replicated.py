"""A replicated cache: a primary and its replicas, Sentinels that elect another, a proxy that knows which it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from components.access import service_account
from components.component import Component, Exemption
from components.container import Image, hardened_container
from components.disruption_budget import disruption_budget
from components.network_policy import NAME_LABEL, NetworkEnd, network_policy
from components.node import Sizing
from components.operation import Name
from components.policy_config import CONFIG_DIGEST_ANNOTATION, config_files, digest_of
from components.scrape import BlackboxModule, Scrape
from components.secret_keys import SecretKeys
from components.stateful_set import DATA_VOLUME, mount, scratch, stateful_set, tcp_service
from components.valkey.access import CONFIG_PATH, RUN_PATH, WRITE_ACL, AclUser, user_file
from components.valkey.server import PING, PORT, SCRAPE, STOP, probes_onto, server_configuration
from components.workload import alone_on_its_host, pod_spec, pre_stop, secret_mounts, secret_volumes

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import Container, Deployment, ObjectMeta, PodSpec, Probe, Volume

SENTINEL_PORT = 26379
PRIMARY = "cache"
"""What the Sentinels call the set of servers."""
SECRET = SecretKeys(name="redis-replication", keys=("password",))
QUOTED_PASSWORD = f"""\
password=$(sed 's/["\\\\]/\\\\&/g' {SECRET.path}/password)
"""
"""Sentinel writes its file anew without quotes: a password with spaces does not outlive its container."""
REPLICATION_RULES = "+psync +replconf +ping"
SENTINEL_RULES = (
    "allchannels +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish +info "
    "+client|setname +client|kill +script|kill"
)
"""Of the documentation of Sentinel, "Sentinel and ACL"."""
PROXY_SIZING = Sizing.of(cpu=("100m", "500m"), memory=("64Mi", "128Mi"))
SENTINEL_SIZING = Sizing.of(cpu=("50m", "200m"), memory=("64Mi", "128Mi"))
PROXIES = 2


class ReplicatedValkey(Component):
    """The proxies carry the name that callers know. An address of each pod's own lets a lost one stay resolvable.

    Replication is asynchronous: a failover may lose the last writes. A primary that no replica follows refuses writes,
    so that two sides of a broken network never both take them.
    """

    kind: ClassVar[str] = "ReplicatedValkey"
    folder: ClassVar[str] = "20-data"
    scrape: ClassVar[Scrape] = SCRAPE
    """Of the proxies and of the servers."""
    sentinel_scrape: ClassVar[Scrape] = Scrape.probe(
        BlackboxModule(name="sentinel", prober="tcp", settings={"query_response": [*PING]}), SENTINEL_PORT
    )
    image: Image
    proxy_image: Image
    sizing: Sizing
    users: tuple[AclUser, ...]
    nodes: Annotated[int, Field(ge=2, le=7)] = 3
    sentinels: Annotated[int, Field(ge=1, le=7)] = 3
    quorum: Annotated[int, Field(ge=1, le=7)] = 2
    """Sentinels that must agree that the primary is gone."""
    ingress: tuple[NetworkEnd, ...] = ()
    proxy_egress: tuple[NetworkEnd, ...] = ()
    node_ingress: tuple[NetworkEnd, ...] = ()
    node_egress: tuple[NetworkEnd, ...] = ()
    sentinel_ingress: tuple[NetworkEnd, ...] = ()
    sentinel_egress: tuple[NetworkEnd, ...] = ()

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        if self.sentinels < 3 or self.sentinels % 2 == 0:
            yield f"sentinels is {self.sentinels}: expected an odd number from 3, so that a majority outlives a loss"
        if not self.sentinels // 2 < self.quorum <= self.sentinels:
            yield (
                f"quorum is {self.quorum}: of {self.sentinels} sentinels expected "
                f"{self.sentinels // 2 + 1} to {self.sentinels}"
            )

    def named(self, part: str) -> Name:
        """The name of one of its parts."""
        return f"{self.name}-{part}"

    @property
    def pods(self) -> tuple[dict[str, str], ...]:
        """Proxies, servers and Sentinels."""
        return self.selector, {NAME_LABEL: self.named("node")}, {NAME_LABEL: self.named("sentinel")}

    @property
    def files(self) -> dict[str, str]:
        """Its configuration, as mounted."""
        everyone = (
            *self.users,
            AclUser(name="replication", secret=SECRET, rules=REPLICATION_RULES),
            AclUser(name="sentinel", secret=SECRET, rules=SENTINEL_RULES),
        )
        return {
            "valkey.conf": server_configuration(self.sizing, durable=False) + "min-replicas-to-write 1\n",
            "users.acl": user_file(everyone),
            "configure-node.sh": WRITE_ACL + self._configure_node(),
            "configure-sentinel.sh": self._configure_sentinel(),
            "haproxy.cfg": self._proxy_configuration(),
        }

    def _find_primary(self) -> str:
        """Whom the Sentinels follow; at the first start, when none answers, the first server."""
        sentinels = " ".join(f"{self.named('sentinel')}-{index}" for index in range(self.sentinels))
        return f"""\
primary=
for sentinel in {sentinels}; do
  [ -n "$primary" ] || primary=$(
    timeout 2 valkey-cli -e -h "$sentinel" -p {SENTINEL_PORT} sentinel get-master-addr-by-name {PRIMARY} | head -n 1
  ) || true
done
primary=${{primary:-{self.named("node")}-0}}
"""

    def _configure_node(self) -> str:
        return f"""\
{self._find_primary()}{QUOTED_PASSWORD}cp {CONFIG_PATH}/valkey.conf {RUN_PATH}/valkey.conf
cat >> {RUN_PATH}/valkey.conf <<END
replica-announce-ip $POD_NAME
masteruser replication
masterauth "$password"
END
[ "$primary" = "$POD_NAME" ] || echo "replicaof $primary {PORT}" >> {RUN_PATH}/valkey.conf
"""

    def _configure_sentinel(self) -> str:
        return f"""\
set -eu
umask 077
{self._find_primary()}{QUOTED_PASSWORD}cat > {RUN_PATH}/sentinel.conf <<END
port {SENTINEL_PORT}
protected-mode no
dir {RUN_PATH}
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $POD_NAME
sentinel monitor {PRIMARY} $primary {PORT} {self.quorum}
sentinel auth-user {PRIMARY} sentinel
sentinel auth-pass {PRIMARY} "$password"
sentinel down-after-milliseconds {PRIMARY} 5000
sentinel failover-timeout {PRIMARY} 30000
sentinel parallel-syncs {PRIMARY} 1
END
"""

    def _proxy_configuration(self) -> str:
        """Asks each server for its role, as a user that may do nothing else, and sends everyone to the primary."""
        names = [f"{self.named('node')}-{index}" for index in range(self.nodes)]
        servers = "".join(
            f"  server {name} {name}:{PORT} check inter 1s fall 2 rise 1 on-marked-down shutdown-sessions\n"
            for name in names
        )
        return f"""\
global
  maxconn 4096
defaults
  mode tcp
  timeout connect 1s
  timeout client 1h
  timeout server 1h
  timeout check 1s
frontend clients
  bind :{PORT}
  default_backend primary
backend primary
  option tcp-check
  tcp-check send "AUTH health -\\r\\n"
  tcp-check expect string +OK
  tcp-check send "ROLE\\r\\n"
  tcp-check expect string master
{servers}"""

    @property
    def exemptions(self) -> tuple[Exemption, ...]:
        """Every hardening default it gives up."""
        return (
            Exemption(rule="headless_service", reason="each pod has a Service of its own, whose name Sentinel keeps"),
            Exemption(rule="own_readiness", reason="proxy and Sentinel tell one thing of themselves: that they answer"),
        )

    def resources(self) -> Iterator[Resource]:
        """What they need first, then servers, Sentinels and proxies."""
        proxies, nodes, sentinels = self.pods
        yield service_account(self.metadata())
        yield config_files(self.metadata("config"), self.files)
        yield network_policy(self.metadata(), proxies, self.ingress, self.proxy_egress)
        yield network_policy(self.metadata("node"), nodes, self.node_ingress, self.node_egress)
        yield network_policy(self.metadata("sentinel"), sentinels, self.sentinel_ingress, self.sentinel_egress)
        yield tcp_service(self.metadata(), proxies, PORT)
        yield from self._members("node", self.nodes, PORT, self._node())
        yield from self._members("sentinel", self.sentinels, SENTINEL_PORT, self._sentinel())
        yield self._proxies()
        for part, labels in (("", proxies), ("node", nodes), ("sentinel", sentinels)):
            yield disruption_budget(self.metadata(part), labels)

    def _members(self, part: str, count: int, port: int, container: Container) -> Iterator[Resource]:
        labels = {NAME_LABEL: self.named(part)}
        for index in range(count):
            pod_name = {"statefulset.kubernetes.io/pod-name": f"{self.named(part)}-{index}"}
            service = tcp_service(self.metadata(f"{part}-{index}"), pod_name, port)
            service["spec"]["publishNotReadyAddresses"] = True
            yield service
        pod = self._pod(labels, container)
        pod["initContainers"] = [self._configure(part)]
        pod["affinity"] = alone_on_its_host(labels)
        yield stateful_set(
            self.metadata(part), labels, {"metadata": self._template(labels), "spec": pod}, replicas=count
        )

    def _template(self, labels: dict[str, str]) -> ObjectMeta:
        return {
            "labels": {**self.labels, **labels},
            "annotations": {CONFIG_DIGEST_ANNOTATION: digest_of(self.files)},
        }

    def _pod(self, labels: dict[str, str], container: Container) -> PodSpec:
        volumes: list[Volume] = [
            {"name": "config", "configMap": {"name": f"{self.name}-config"}},
            scratch("run"),
            scratch(DATA_VOLUME),
            *secret_volumes(self.secrets),
        ]
        return pod_spec(self.name, container, volumes, labels, STOP)

    def _configure(self, part: str) -> Container:
        container = hardened_container("configure", self.image, SENTINEL_SIZING)
        container["command"] = ["sh", f"{CONFIG_PATH}/configure-{part}.sh"]
        container["env"] = [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
        mount(container, "config", CONFIG_PATH, read_only=True)
        mount(container, "run", RUN_PATH)
        container["volumeMounts"] += secret_mounts(self.secrets)
        return container

    def _node(self) -> Container:
        container = hardened_container("valkey", self.image, self.sizing)
        container["command"] = ["valkey-server", f"{RUN_PATH}/valkey.conf"]
        container["ports"] = [{"name": "tcp", "containerPort": PORT}]
        mount(container, "run", RUN_PATH)
        mount(container, DATA_VOLUME, "/data")
        probes_onto(container)
        return container

    def _sentinel(self) -> Container:
        container = hardened_container("sentinel", self.image, SENTINEL_SIZING)
        container["command"] = ["valkey-sentinel", f"{RUN_PATH}/sentinel.conf"]
        container["ports"] = [{"name": "tcp", "containerPort": SENTINEL_PORT}]
        mount(container, "run", RUN_PATH)
        _tcp_probes_onto(container)
        return container

    def _proxies(self) -> Deployment:
        container = hardened_container("haproxy", self.proxy_image, PROXY_SIZING)
        container["command"] = ["haproxy", "-W", "-db", "-f", f"{CONFIG_PATH}/haproxy.cfg"]
        container["ports"] = [{"name": "tcp", "containerPort": PORT}]
        mount(container, "config", CONFIG_PATH, read_only=True)
        _tcp_probes_onto(container)
        pod = pod_spec(
            self.name,
            container,
            [{"name": "config", "configMap": {"name": f"{self.name}-config"}}],
            self.selector,
            STOP,
        )
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": self.metadata(),
            "spec": {
                "replicas": PROXIES,
                "minReadySeconds": 5,
                "progressDeadlineSeconds": 180,
                "revisionHistoryLimit": 5,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "selector": {"matchLabels": self.selector},
                "template": {"metadata": self._template(self.selector), "spec": pod},
            },
        }


def _tcp_probes_onto(container: Container) -> None:
    """Both start at once and answer as long as their port opens."""
    port: Probe = {"tcpSocket": {"port": "tcp"}, "periodSeconds": 5, "timeoutSeconds": 3, "failureThreshold": 3}
    container["startupProbe"] = {**port, "periodSeconds": 2, "timeoutSeconds": 1, "failureThreshold": 30}
    container["readinessProbe"] = port
    container["livenessProbe"] = {**port, "periodSeconds": 10}
    container["lifecycle"] = pre_stop()

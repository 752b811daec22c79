"""A replicated cache: a primary with replicas, Sentinels that elect a primary, and proxies that lead to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field
from typing_extensions import override
from voice_policies import Duration

from components.component import Exemption
from components.container import POD_NAME, Container, Image
from components.node import Replicas, Sizing
from components.operation import Name
from components.priority import Priority
from components.probes import READY, Probe, Probes
from components.scrape import BlackboxModule, Scrape
from components.secret_keys import SecretKeys
from components.server import Server, Workload
from components.services import tcp
from components.valkey.access import CONFIG_PATH, RUN_PATH, WRITE_ACL, AclUser, user_file
from components.valkey.server import PING, PORT, PROBES, SCRAPE, SHUTDOWN, server_configuration
from components.volumes import ConfigFiles, Scratch
from components.workloads import DATA_VOLUME, Deployment, StatefulSet

if TYPE_CHECKING:
    from components.kubernetes.types import ServiceSpec

__all__ = ["SENTINEL_PORT", "ReplicatedValkey"]

SENTINEL_PORT = 26379
PRIMARY = "cache"
"""Name of the servers in Sentinel's configuration."""
SECRET = SecretKeys(name="redis-replication", keys=("password",))
QUOTED_PASSWORD = f"""\
password=$(sed 's/["\\\\]/\\\\&/g' {SECRET.path}/password)
"""
"""Sentinel rewrites its file without quotes, so a password with spaces is lost when the container restarts."""
REPLICATION_RULES = "+psync +replconf +ping"
SENTINEL_RULES = (
    "allchannels +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish +info "
    "+client|setname +client|kill +script|kill"
)
"""Source: the documentation of Sentinel, "Sentinel and ACL"."""
PROXY_SIZING = Sizing.of(cpu=("100m", "500m"), memory=("64Mi", "128Mi"))
SENTINEL_SIZING = Sizing.of(cpu=("50m", "200m"), memory=("64Mi", "128Mi"))
PROXIES = 2
CONNECTS = Probes.tcp(readiness=Probe.tcp("tcp", **READY), port="tcp", startup=Duration("60s"))
"""Proxy and Sentinel are ready at once."""


class ReplicatedValkey(Server):
    """A replicated cache.

    Callers connect to the proxies. Each pod has its own address, so that the name of a lost pod still resolves.
    Replication is asynchronous, so a failover may lose the last writes. A primary without a replica refuses writes, so
    that both sides of a broken network never accept them.
    """

    folder: ClassVar[str] = "20-data"
    priority: ClassVar[Priority] = "foundation"
    exemptions: ClassVar[tuple[Exemption, ...]] = (
        Exemption(rule="headless_service", reason="each pod has its own Service, whose name Sentinel stores"),
        Exemption(rule="own_readiness", reason="proxy and Sentinel report only that they answer"),
    )
    scrape: ClassVar[Scrape] = SCRAPE
    """The scrape of proxies and servers."""
    sentinel_scrape: ClassVar[Scrape] = Scrape.probe(
        BlackboxModule(name="sentinel", prober="tcp", settings={"query_response": [*PING]}), SENTINEL_PORT
    )
    proxy_image: Image
    users: tuple[AclUser, ...]
    nodes: Annotated[int, Field(ge=2, le=7)] = 3
    sentinels: Annotated[int, Field(ge=1, le=7)] = 3
    quorum: Annotated[int, Field(ge=1, le=7)] = 2
    """Number of Sentinels that must agree that the primary is down."""

    @override
    def conflicts(self) -> Iterator[str]:
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
    def node_files(self) -> dict[str, str]:
        """The configuration of the servers, as mounted."""
        everyone = (
            *self.users,
            AclUser(name="replication", secret=SECRET, rules=REPLICATION_RULES),
            AclUser(name="sentinel", secret=SECRET, rules=SENTINEL_RULES),
        )
        return {
            "valkey.conf": server_configuration(self.sizing, durable=False) + "min-replicas-to-write 1\n",
            "users.acl": user_file(everyone),
            "configure.sh": WRITE_ACL + self._configure_node(),
        }

    def _find_primary(self) -> str:
        """The address of the primary that the Sentinels know; the first server if no Sentinel answers yet."""
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
        """The proxy asks each server for its role as the health user, and sends connections to the primary."""
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

    @override
    def workloads(self) -> Iterator[Workload]:
        """The proxies, then servers and Sentinels."""
        yield self._proxies()
        yield self._members(
            "node",
            self.nodes,
            self.node_files,
            (SECRET, *(user.secret for user in self.users)),
            Container(
                name="valkey",
                command=("valkey-server", f"{RUN_PATH}/valkey.conf"),
                ports={"tcp": PORT},
                mounts={"run": RUN_PATH, DATA_VOLUME: "/data"},
                probes=PROBES,
            ),
        )
        yield self._members(
            "sentinel",
            self.sentinels,
            {"configure.sh": self._configure_sentinel()},
            (SECRET,),
            Container(
                name="sentinel",
                sizing=SENTINEL_SIZING,
                command=("valkey-sentinel", f"{RUN_PATH}/sentinel.conf"),
                ports={"tcp": SENTINEL_PORT},
                mounts={"run": RUN_PATH},
                probes=CONNECTS,
            ),
        )

    def _proxies(self) -> Deployment:
        return Deployment(
            name=self.name,
            container=Container(
                name="haproxy",
                image=self.proxy_image,
                sizing=PROXY_SIZING,
                command=("haproxy", "-W", "-db", "-f", f"{CONFIG_PATH}/haproxy.cfg"),
                ports={"tcp": PORT},
                mounts={"config": CONFIG_PATH},
                probes=CONNECTS,
            ),
            volumes={"config": ConfigFiles(f"{self.name}-config", {"haproxy.cfg": self._proxy_configuration()})},
            replicas=Replicas.exactly(PROXIES),
            shutdown=SHUTDOWN,
            services={self.name: tcp(PORT)},
        )

    def _members(
        self, part: str, count: int, files: Mapping[str, str], secrets: tuple[SecretKeys, ...], container: Container
    ) -> StatefulSet:
        return StatefulSet(
            name=self.named(part),
            account=self.name,
            init=Container(
                name="configure",
                sizing=SENTINEL_SIZING,
                command=("sh", f"{CONFIG_PATH}/configure.sh"),
                env={"POD_NAME": POD_NAME},
                mounts={"config": CONFIG_PATH, "run": RUN_PATH},
                secrets=secrets,
            ),
            container=container,
            volumes={
                "config": ConfigFiles(f"{self.named(part)}-config", files),
                "run": Scratch(),
                DATA_VOLUME: Scratch(),
            },
            replicas=count,
            quorum=True,
            shutdown=SHUTDOWN,
            services=dict(self._addresses(part, count, container.ports["tcp"])),
        )

    def _addresses(self, part: str, count: int, port: int) -> Iterator[tuple[str, ServiceSpec]]:
        """A Service for each pod, so that the others find it before it is ready."""
        for index in range(count):
            name = f"{self.named(part)}-{index}"
            selector = {"statefulset.kubernetes.io/pod-name": name}
            yield name, {**tcp(port), "selector": selector, "publishNotReadyAddresses": True}

"""Exporters that read a store's own statistics and serve them as metrics: one for Valkey, one for Elasticsearch.

Sources of flags, variables and paths: redis_exporter 1.88 `main.go` and `exporter/http.go`, elasticsearch_exporter 1.11
`main.go`, read on 2026-11-30.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override
from voice_policies import ClosedModel, Duration

from components.component import Exemption
from components.container import Container, go_runtime
from components.observability.setup_job import Account
from components.probes import Probes
from components.scrape import Scrape
from components.secret_keys import SecretKeys
from components.server import Server
from components.services import tcp
from components.workloads import ONE, Deployment

if TYPE_CHECKING:
    from components.kubernetes.types import EnvVarSource

__all__ = ["ELASTICSEARCH", "REDIS", "VALKEY_ACCOUNT", "VALKEY_RULES", "StoreExporter"]

SHUTDOWN = Duration("10s")


class ExporterProgram(ClosedModel):
    """Port, credentials' environment variables and health path of one exporter."""

    scrape: Scrape
    user_variable: str
    password_variable: str
    health_path: str


REDIS = ExporterProgram(
    scrape=Scrape(port=9121),
    user_variable="REDIS_USER",
    password_variable="REDIS_PASSWORD",  # noqa: S106 - the variable's name
    health_path="/health",
)
"""redis_exporter. A scrape of `/scrape?target=HOST` reads the metrics of HOST, as with the blackbox exporter.

A scrape of `/metrics` reads the exporter's own metrics."""
ELASTICSEARCH = ExporterProgram(
    scrape=Scrape(port=9114),
    user_variable="ES_USERNAME",
    password_variable="ES_PASSWORD",  # noqa: S106 - the variable's name
    health_path="/healthz",
)
"""elasticsearch_exporter. It reads the health of the cluster and the statistics of its nodes."""
VALKEY_ACCOUNT = Account(user="metrics", secret=SecretKeys(name="valkey-exporter-valkey", keys=("password",)))
"""The exporter's user at every Valkey server."""
VALKEY_RULES = "+info +ping +client|setname"
"""ACL rules of the user `metrics`: the user may read statistics, but no key."""


class StoreExporter(Server):
    """One replica. The exporter stores nothing: it reads the store at each scrape."""

    folder: ClassVar[str] = "30-observability"
    exemptions: ClassVar[tuple[Exemption, ...]] = (
        Exemption(rule="own_readiness", reason="the exporter has one health endpoint, for liveness and readiness"),
        Exemption(
            rule="secrets_as_files",
            reason="the exporter reads its password from an environment variable; a rotated password needs a restart",
        ),
        Exemption(rule="two_replicas", reason="the exporter stores nothing; a restart loses one or two scrapes"),
    )
    account: Account
    """The user at the store. It may read statistics and nothing else."""
    program: ExporterProgram
    arguments: tuple[str, ...]

    @property
    @override
    def secrets(self) -> tuple[SecretKeys, ...]:
        return (self.account.secret,)

    @override
    def workloads(self) -> Iterator[Deployment]:
        program, (key,) = self.program, self.account.secret.keys
        password: EnvVarSource = {"secretKeyRef": {"name": self.account.secret.name, "key": key}}
        yield Deployment(
            name=self.name,
            container=Container(
                args=self.arguments,
                env={
                    **go_runtime(self.sizing),
                    program.user_variable: self.account.user,
                    program.password_variable: password,
                },
                ports={"http": program.scrape.port},
                probes=Probes.http(program.health_path, program.health_path),
            ),
            replicas=ONE,
            shutdown=SHUTDOWN,
            services={self.name: tcp(program.scrape.port)},
        )

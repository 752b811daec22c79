"""Grafana, provisioned from files: data sources that link to each other, and dashboards.

Every environment has one replica. Grafana's database lives in the pod, so a second replica would not know the sessions
of the first. A restart of the pod loses only the users' sessions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override
from voice_policies import Bytes, ClosedModel, Duration

from components.component import Exemption
from components.container import Container, go_runtime
from components.files import file_text
from components.observability import dashboards
from components.observability.dashboards import Dashboard
from components.observability.elasticsearch_setup import LOGS_PATTERN, user_secret
from components.observability.setup_job import Account
from components.observability.tempo import EXEMPLAR_LABEL
from components.probes import READY, Probe, Probes
from components.scrape import Scrape
from components.secret_keys import SecretKeys
from components.server import Server
from components.services import tcp
from components.volumes import ConfigFiles, Scratch, Volume
from components.workloads import ONE, Deployment
from components.writes import Write

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import KeyToPath, ObjectMeta, VolumeProjection
    from components.kubernetes.types import Volume as KubernetesVolume

__all__ = ["ACCOUNT", "Grafana", "Sources"]

PORT = 3000
CONFIG_PATH = "/etc/grafana"
DATA_PATH = "/var/lib/grafana"
SHUTDOWN = Duration("30s")
ACCOUNT = Account(user="grafana", secret=user_secret("grafana"))
SECRET = SecretKeys(name="grafana", keys=("admin-password", "secret-key"))
CONFIG_MAP_LIMIT = Bytes("1Mi")
"""Largest ConfigMap. Kubernetes has one limit for ConfigMaps and Secrets (`core/v1`: `MaxSecretSize`)."""
AROUND = {"spanStartTimeShift": "-5m", "spanEndTimeShift": "5m"}
"""Grafana searches the logs and metrics of a span from 5 min before its start to 5 min after its end."""
PATHS = {
    "grafana.ini": "grafana.ini",
    "datasources.yaml": "provisioning/datasources/datasources.yaml",
    "dashboards.yaml": "provisioning/dashboards/dashboards.yaml",
}
"""Path of each file below `CONFIG_PATH`."""


class Sources(ClosedModel):
    """Addresses of the servers that Grafana reads."""

    prometheus: str
    alertmanager: str
    tempo: str
    jaeger: str
    elasticsearch: str


class Grafana(Server):
    """One process, configured by files only."""

    kind: ClassVar[str] = "Grafana"
    folder: ClassVar[str] = "30-observability"
    exemptions: ClassVar[tuple[Exemption, ...]] = (
        Exemption(
            rule="two_replicas",
            reason="a second pod would not know the sessions of the first; a restart loses only sessions",
        ),
    )
    scrape: ClassVar[Scrape] = Scrape(port=PORT)
    sources: Sources
    dashboards: tuple[Dashboard, ...]

    @override
    def conflicts(self) -> Iterator[str]:
        uids = [dashboard.uid for dashboard in self.dashboards]
        for uid in sorted({uid for uid in uids if uids.count(uid) > 1}):
            yield f"dashboard {uid} is declared twice"
        for dashboard in self.dashboards:
            size = len(_text(dashboard).encode())
            if size > CONFIG_MAP_LIMIT.units:
                yield f"dashboard {dashboard.uid} has {size} bytes: a ConfigMap holds at most {CONFIG_MAP_LIMIT.units}"

    @property
    def files(self) -> dict[str, str]:
        """The configuration without the dashboards. Grafana reads a changed dashboard without a restart."""
        return {
            "grafana.ini": _ini(self._settings()),
            "datasources.yaml": file_text({"apiVersion": 1, "prune": True, "datasources": list(self._sources())}),
            "dashboards.yaml": file_text({"apiVersion": 1, "providers": [_provider()]}),
        }

    def _settings(self) -> dict[str, dict[str, str]]:
        return {
            "server": {"http_port": str(PORT)},
            "paths": {"data": DATA_PATH, "provisioning": f"{CONFIG_PATH}/provisioning"},
            "security": {
                "admin_password": f"$__file{{{SECRET.path}/admin-password}}",
                "secret_key": f"$__file{{{SECRET.path}/secret-key}}",
                "disable_gravatar": "true",
                "cookie_samesite": "strict",
            },
            "users": {"allow_sign_up": "false", "default_theme": "system"},
            "auth.anonymous": {"enabled": "false"},
            "analytics": {
                "reporting_enabled": "false",
                "check_for_updates": "false",
                "check_for_plugin_updates": "false",
            },
            "plugins": {"preinstall_disabled": "true"},
            "snapshots": {"external_enabled": "false"},
            # Prometheus evaluates the alerts, and Alertmanager sends them. Grafana needs no alerting of its own.
            "unified_alerting": {"enabled": "false"},
            "log": {"mode": "console"},
            "log.console": {"format": "json"},
        }

    def _sources(self) -> Iterator[dict[str, Any]]:
        yield _source(
            "Prometheus",
            "prometheus",
            dashboards.PROMETHEUS,
            self.sources.prometheus,
            {
                "httpMethod": "POST",
                "alertmanagerUid": dashboards.ALERTMANAGER,
                "exemplarTraceIdDestinations": [
                    {"name": label, "datasourceUid": dashboards.TEMPO} for label in (EXEMPLAR_LABEL, "trace_id")
                ],
            },
            isDefault=True,
        )
        alerts = {"implementation": "prometheus", "handleGrafanaManagedAlerts": False}
        yield _source("Alertmanager", "alertmanager", dashboards.ALERTMANAGER, self.sources.alertmanager, alerts)
        to_logs_and_metrics = {"tracesToLogsV2": _trace_to_logs(), "nodeGraph": {"enabled": True}}
        service_map = {"serviceMap": {"datasourceUid": dashboards.PROMETHEUS}, "tracesToMetrics": _trace_to_metrics()}
        yield _source("Tempo", "tempo", dashboards.TEMPO, self.sources.tempo, {**to_logs_and_metrics, **service_map})
        yield _source("Jaeger", "jaeger", dashboards.JAEGER, self.sources.jaeger, to_logs_and_metrics)
        yield _source(
            "Logs",
            "elasticsearch",
            dashboards.ELASTICSEARCH,
            self.sources.elasticsearch,
            {
                "index": LOGS_PATTERN,
                "timeField": "@timestamp",
                "logMessageField": "body.text",
                "logLevelField": "severity_text",
                "dataLinks": [
                    {
                        "field": "trace_id",
                        "url": "$${__value.raw}",
                        "urlDisplayLabel": "Trace",
                        "datasourceUid": dashboards.TEMPO,
                    }
                ],
            },
            basicAuth=True,
            basicAuthUser=ACCOUNT.user,
            secureJsonData={"basicAuthPassword": f"$__file{{{ACCOUNT.password_file}}}"},
        )

    @override
    def workloads(self) -> Iterator[Deployment]:
        """The pod. It is ready when Grafana answers and reaches its database."""
        yield Deployment(
            name=self.name,
            container=Container(
                env=go_runtime(self.sizing),
                ports={"http": PORT},
                mounts={"config": CONFIG_PATH, "data": DATA_PATH},
                secrets=(SECRET, ACCOUNT.secret),
                probes=Probes.tcp(readiness=Probe.http("/api/health", **READY)),
            ),
            volumes={
                "config": Provisioning(self.name, self.files, self.dashboards),
                "data": Scratch(Bytes("256Mi")),
            },
            writes=(Write("data", Bytes("64Mi"), "database of sessions, and its copy during a migration"),),
            replicas=ONE,
            shutdown=SHUTDOWN,
            services={self.name: tcp(PORT)},
        )


@dataclass(frozen=True, slots=True)
class Provisioning(Volume):
    """One volume from several ConfigMaps. Each dashboard has its own ConfigMap, because dashboards are large."""

    grafana: str
    files: Mapping[str, str]
    dashboards: Sequence[Dashboard]
    read_only = True

    @property
    @override
    def read_at_start(self) -> Mapping[str, str]:
        """The files that Grafana reads only at its start. It reads changed dashboards without a restart."""
        return self.files

    @override
    def document(self, name: str) -> KubernetesVolume:
        """The ConfigMaps as one volume, each file at the path that Grafana expects."""
        sources = [_projection(f"{self.grafana}-config", PATHS)]
        for dashboard in self.dashboards:
            file = f"{dashboard.uid}.json"
            sources.append(_projection(f"{self.grafana}-dashboard-{dashboard.uid}", {file: f"dashboards/{file}"}))
        return {"name": name, "projected": {"sources": sources}}

    @override
    def resources(self, metadata: ObjectMeta) -> Iterator[Resource]:
        yield from ConfigFiles(f"{self.grafana}-config", self.files).resources(metadata)
        for dashboard in self.dashboards:
            name, files = f"{self.grafana}-dashboard-{dashboard.uid}", {f"{dashboard.uid}.json": _text(dashboard)}
            yield from ConfigFiles(name, files).resources(metadata)


def _text(dashboard: Dashboard) -> str:
    # This imports the Grafana Foundation SDK. The import takes 70 ms, and few commands need it.
    from components.observability.dashboard_json import dashboard_json  # noqa: PLC0415

    return dashboard_json(dashboard)


def _projection(config_map: str, paths: Mapping[str, str]) -> VolumeProjection:
    items: list[KeyToPath] = [{"key": file, "path": path} for file, path in paths.items()]
    return {"configMap": {"name": config_map, "items": items}}


def _ini(sections: dict[str, dict[str, str]]) -> str:
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items())
        for name, settings in sections.items()
    )


def _provider() -> dict[str, Any]:
    return {
        "name": "voice",
        "folder": "VoiceAssistant",
        "type": "file",
        "disableDeletion": True,
        "allowUiUpdates": False,
        "updateIntervalSeconds": 60,
        "options": {"path": f"{CONFIG_PATH}/dashboards"},
    }


def _source(name: str, kind: str, uid: str, url: str, settings: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": kind,
        "uid": uid,
        "url": url,
        "access": "proxy",
        "editable": False,
        "jsonData": settings,
        **more,
    }


def _trace_to_logs() -> dict[str, Any]:
    # `$$` is an escaped `$`. Grafana would replace `${…}` in a provisioned file with an environment variable.
    query = 'trace_id:"$${__span.traceId}"'
    return {"datasourceUid": dashboards.ELASTICSEARCH, "customQuery": True, "query": query, **AROUND}


def _trace_to_metrics() -> dict[str, Any]:
    rate = "sum by (span_name) (rate(traces_spanmetrics_calls_total{$$__tags}[5m]))"
    return {
        "datasourceUid": dashboards.PROMETHEUS,
        "tags": [{"key": "service.name", "value": "service"}],
        "queries": [{"name": "Spans per second", "query": rate}],
        **AROUND,
    }

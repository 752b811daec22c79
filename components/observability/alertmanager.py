"""Alertmanager: sends alerts to each team, and pages a person for critical alerts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import Field
from typing_extensions import override
from voice_policies import Bytes, ClosedModel, Duration

from components.container import Container, go_runtime
from components.files import file_text
from components.observability.rules import Severity
from components.operation import Name
from components.priority import Priority
from components.probes import Probes
from components.scrape import Scrape
from components.secret_keys import SecretKeys
from components.server import Server
from components.services import each_pod, tcp
from components.volumes import ConfigFiles
from components.workloads import DATA_VOLUME, StatefulSet
from components.writes import Write

__all__ = ["GOSSIP_PORT", "NOBODY", "PORT", "WEBHOOK_KEY", "AlertRoute", "Alertmanager", "Inhibition", "Receiver"]

PORT, GOSSIP_PORT = 9093, 9094
CONFIG_PATH = "/etc/alertmanager"
DATA_PATH = "/alertmanager"
SHUTDOWN = Duration("10s")
STATE = Bytes("64Mi")
"""Assumed size of silences and notification log. The log holds some 1 KiB for each alert, for five days."""
NOBODY = "nobody"
"""A receiver without a webhook: Alertmanager shows its alerts and notifies nobody."""
WEBHOOK_KEY = "webhook-url"


class Receiver(ClosedModel):
    """A webhook for alerts. The address is a secret, because anyone who knows it can post there."""

    name: Name
    secret: SecretKeys

    def document(self) -> dict[str, Any]:
        """The receiver in Alertmanager's configuration. A file holds the address."""
        return {
            "name": self.name,
            "webhook_configs": [{"url_file": f"{self.secret.path}/{WEBHOOK_KEY}", "send_resolved": True}],
        }


class AlertRoute(ClosedModel):
    """Sends alerts to a receiver. `team` and `severity` select the alerts; `None` selects all values."""

    receiver: Name
    team: Name | None = None
    severity: Severity | None = None
    repeat: Duration
    """Time after which Alertmanager sends an alert again, if it still fires."""
    continue_: bool = False
    """True: Alertmanager also evaluates the routes after this one."""

    def document(self) -> dict[str, Any]:
        """The route in Alertmanager's configuration."""
        matched = {"team": self.team, "severity": self.severity}
        matchers = [f'{label}="{value}"' for label, value in matched.items() if value]
        return {
            "receiver": self.receiver,
            "matchers": matchers,
            "repeat_interval": str(self.repeat),
            "continue": self.continue_,
        }


class Inhibition(ClosedModel):
    """An alert that explains other alerts. While it fires, Alertmanager does not send the other alerts."""

    alert: str
    severities: tuple[Severity, ...]
    """Severities of the other alerts."""
    equal: Annotated[tuple[str, ...], Field(min_length=1)]
    """Labels. Another alert is inhibited only if it has the same values of these labels as this alert."""

    def document(self) -> dict[str, Any]:
        """The inhibition in Alertmanager's configuration."""
        return {
            "source_matchers": [f'alertname="{self.alert}"'],
            "target_matchers": [f'alertname!="{self.alert}"', f'severity=~"{"|".join(self.severities)}"'],
            "equal": list(self.equal),
        }


class Alertmanager(Server):
    """Replicas that tell each other by gossip which notifications they have sent."""

    kind: ClassVar[str] = "Alertmanager"
    folder: ClassVar[str] = "30-observability"
    priority: ClassVar[Priority] = "core"
    scrape: ClassVar[Scrape] = Scrape(port=PORT)
    replicas: Annotated[int, Field(ge=1, le=5)]
    storage: Bytes
    """Volume for silences and the log of notifications."""
    receivers: tuple[Receiver, ...] = ()
    routes: tuple[AlertRoute, ...] = ()
    """Routes in order. The first route that matches gets the alert. If its `continue_` is true, the next route that
    matches gets the alert too, and so on. Alerts without a match go to `default`."""
    default: Name = NOBODY
    inhibitions: tuple[Inhibition, ...] = ()

    @override
    def conflicts(self) -> Iterator[str]:
        known = [NOBODY, *(receiver.name for receiver in self.receivers)]
        for name in sorted({name for name in known if known.count(name) > 1}):
            yield f"receivers: {name} appears twice"
        accepted = f"expected one of {', '.join(sorted(set(known)))}"
        if self.default not in known:
            yield f"default: receiver {self.default} is not declared; {accepted}"
        for index, route in enumerate(self.routes):
            if route.receiver not in known:
                yield f"routes[{index}]: receiver {route.receiver} is not declared; {accepted}"
            if route.team is None and route.severity is None and not route.continue_:
                yield f"routes[{index}]: matches every alert; expected a team, a severity, or continue_"
        for receiver in self.receivers:
            if WEBHOOK_KEY not in receiver.secret.keys:
                yield f"receivers.{receiver.name}: its secret has no key {WEBHOOK_KEY}"

    @property
    def files(self) -> dict[str, str]:
        """Names and texts of the configuration files, as mounted."""
        configuration = {
            "global": {"resolve_timeout": "5m"},
            "route": {
                "receiver": self.default,
                "group_by": ["alertname", "job"],
                "group_wait": "30s",
                "group_interval": "5m",
                "repeat_interval": "12h",
                "routes": [route.document() for route in self.routes],
            },
            "inhibit_rules": [inhibition.document() for inhibition in self.inhibitions],
            "receivers": [{"name": NOBODY}, *(receiver.document() for receiver in self.receivers)],
        }
        return {"alertmanager.json": file_text(configuration)}

    @property
    def replica_names(self) -> tuple[str, ...]:
        """DNS name of each replica, valid in every namespace."""
        service = f"{self.name}-replicas.{self.namespace}.svc.cluster.local"
        return tuple(f"{self.name}-{index}.{service}" for index in range(self.replicas))

    @override
    def workloads(self) -> Iterator[StatefulSet]:
        peers = [f"--cluster.peer={name}:{GOSSIP_PORT}" for name in self.replica_names]
        gossip = [f"--cluster.listen-address=0.0.0.0:{GOSSIP_PORT}", *peers]
        yield StatefulSet(
            name=self.name,
            container=Container(
                args=(
                    f"--config.file={CONFIG_PATH}/alertmanager.json",
                    f"--storage.path={DATA_PATH}",
                    *(gossip if self.replicas > 1 else ["--cluster.listen-address="]),
                ),
                env=go_runtime(self.sizing),
                ports={"http": PORT, "gossip": GOSSIP_PORT},
                udp_ports={"gossip-udp": GOSSIP_PORT},
                mounts={"config": CONFIG_PATH, DATA_VOLUME: DATA_PATH},
                secrets=tuple(receiver.secret for receiver in self.receivers),
                probes=Probes.http("/-/healthy", "/-/ready"),
            ),
            volumes={"config": ConfigFiles(f"{self.name}-config", self.files)},
            replicas=self.replicas,
            storage=self.storage,
            writes=(Write(DATA_VOLUME, STATE * 2, "silences and notification log, and the files that replace both"),),
            governing_service=f"{self.name}-replicas",
            shutdown=SHUTDOWN,
            services={self.name: tcp(PORT), f"{self.name}-replicas": each_pod(GOSSIP_PORT)},
        )

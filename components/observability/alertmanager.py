"""Alertmanager: tells each team what is wrong with its part, and wakes somebody where that cannot wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field
from voice_policies import Bytes, ClosedModel, Duration

from components.access import service_account
from components.component import Component
from components.container import Image, hardened_container
from components.disruption_budget import disruption_budget
from components.network_policy import NetworkEnd, network_policy
from components.node import Sizing
from components.observability.rules import Severity
from components.operation import Name
from components.policy_config import CONFIG_DIGEST_ANNOTATION, config_files, digest_of, file_text
from components.probes import HttpProbes
from components.scrape import Scrape
from components.secret_keys import SecretKeys
from components.stateful_set import DATA_VOLUME, mount, stateful_set, tcp_service, with_volumes
from components.workload import pod_spec, pre_stop, secret_mounts, secret_volumes

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import Container, PodSpec

PORT, GOSSIP_PORT = 9093, 9094
CONFIG_PATH = "/etc/alertmanager"
DATA_PATH = "/alertmanager"
STOP = Duration("10s")
NOBODY = "nobody"
"""The receiver that tells nobody: alerts are then only shown."""
WEBHOOK_KEY = "webhook-url"


class Receiver(ClosedModel):
    """Who is told, at a web address that is a secret: whoever knows it can write there."""

    name: Name
    secret: SecretKeys

    def document(self) -> dict[str, Any]:
        """As the configuration says it: the address stands in a file."""
        return {
            "name": self.name,
            "webhook_configs": [{"url_file": f"{self.secret.path}/{WEBHOOK_KEY}", "send_resolved": True}],
        }


class AlertRoute(ClosedModel):
    """Which alerts a receiver is told: those of a team, of a severity, or of both."""

    receiver: Name
    team: Name | None = None
    severity: Severity | None = None
    repeat: Duration
    """Before it is told again of what has not ended."""
    goes_on: bool = False
    """Whether the routes behind it are told too."""

    def document(self) -> dict[str, Any]:
        """As the configuration says it."""
        matched = {"team": self.team, "severity": self.severity}
        matchers = [f'{label}="{value}"' for label, value in matched.items() if value]
        return {
            "receiver": self.receiver,
            "matchers": matchers,
            "repeat_interval": str(self.repeat),
            "continue": self.goes_on,
        }


class Inhibition(ClosedModel):
    """An alert that says why others fire, which are then not told."""

    alert: str
    severities: tuple[Severity, ...]
    """Of what it silences, where the labels `equal` agree."""
    equal: Annotated[tuple[str, ...], Field(min_length=1)]

    def document(self) -> dict[str, Any]:
        """As the configuration says it."""
        return {
            "source_matchers": [f'alertname="{self.alert}"'],
            "target_matchers": [f'alertname!="{self.alert}"', f'severity=~"{"|".join(self.severities)}"'],
            "equal": list(self.equal),
        }


class Alertmanager(Component):
    """Replicas that agree by gossip on what was told."""

    kind: ClassVar[str] = "Alertmanager"
    folder: ClassVar[str] = "30-observability"
    scrape: ClassVar[Scrape] = Scrape(port=PORT)
    image: Image
    sizing: Sizing
    replicas: Annotated[int, Field(ge=1, le=5)]
    storage: Bytes
    """Silences, and what was told."""
    receivers: tuple[Receiver, ...] = ()
    routes: tuple[AlertRoute, ...] = ()
    """In order: the first that matches is told. What none matches is told to `default`."""
    default: Name = NOBODY
    inhibitions: tuple[Inhibition, ...] = ()
    ingress: tuple[NetworkEnd, ...] = ()
    egress: tuple[NetworkEnd, ...] = ()

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        known = [NOBODY, *(receiver.name for receiver in self.receivers)]
        for name in sorted({name for name in known if known.count(name) > 1}):
            yield f"receivers: {name} stands twice"
        accepted = f"expected one of {', '.join(sorted(set(known)))}"
        if self.default not in known:
            yield f"default: receiver {self.default} is not declared; {accepted}"
        for index, route in enumerate(self.routes):
            if route.receiver not in known:
                yield f"routes[{index}]: receiver {route.receiver} is not declared; {accepted}"
            if route.team is None and route.severity is None:
                yield f"routes[{index}]: matches every alert, and none after it is reached"
        for receiver in self.receivers:
            if WEBHOOK_KEY not in receiver.secret.keys:
                yield f"receivers.{receiver.name}: its secret has no key {WEBHOOK_KEY}"

    @property
    def files(self) -> dict[str, str]:
        """Its configuration, as mounted."""
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
        """DNS name of each replica, from within the namespace or without."""
        service = f"{self.name}-replicas.{self.namespace}.svc.cluster.local"
        return tuple(f"{self.name}-{index}.{service}" for index in range(self.replicas))

    def resources(self) -> Iterator[Resource]:
        """What they need first, then the replicas."""
        yield service_account(self.metadata())
        yield config_files(self.metadata("config"), self.files)
        yield network_policy(self.metadata(), self.selector, self.ingress, self.egress)
        yield tcp_service(self.metadata(), self.selector, PORT)
        yield tcp_service(self.metadata("replicas"), self.selector, GOSSIP_PORT, headless=True)
        servers = stateful_set(
            self.metadata(),
            self.selector,
            {
                "metadata": {"labels": self.labels, "annotations": {CONFIG_DIGEST_ANNOTATION: digest_of(self.files)}},
                "spec": self._pod(),
            },
            replicas=self.replicas,
        )
        servers["spec"]["serviceName"] = f"{self.name}-replicas"
        yield from with_volumes(servers, self.storage)
        if self.replicas > 1:
            yield disruption_budget(self.metadata(), self.selector)

    def _pod(self) -> PodSpec:
        config: Any = {"name": "config", "configMap": {"name": f"{self.name}-config"}}
        return pod_spec(self.name, self._server(), [config, *secret_volumes(self.secrets)], self.selector, STOP)

    def _server(self) -> Container:
        container = hardened_container(self.name, self.image, self.sizing)
        peers = [f"--cluster.peer={name}:{GOSSIP_PORT}" for name in self.replica_names]
        gossip = [f"--cluster.listen-address=0.0.0.0:{GOSSIP_PORT}", *peers]
        container["args"] = [
            f"--config.file={CONFIG_PATH}/alertmanager.json",
            f"--storage.path={DATA_PATH}",
            *(gossip if self.replicas > 1 else ["--cluster.listen-address="]),
        ]
        container["ports"] = [
            {"name": "http", "containerPort": PORT},
            {"name": "gossip", "containerPort": GOSSIP_PORT},
            {"name": "gossip-udp", "containerPort": GOSSIP_PORT, "protocol": "UDP"},
        ]
        mount(container, "config", CONFIG_PATH, read_only=True)
        mount(container, DATA_VOLUME, DATA_PATH)
        container["volumeMounts"] += secret_mounts(self.secrets)
        HttpProbes(liveness_path="/-/healthy", readiness_path="/-/ready").onto(container)
        container["lifecycle"] = pre_stop()
        return container

"""The operators whose custom resources we render: what serves each kind, and how it is installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from voice_policies import ClosedModel

from components.component import Component
from components.operation import Sentence


class Operator(ClosedModel):
    """A prerequisite of a cluster: the program that acts on custom resources."""

    name: Sentence
    version: str
    """The oldest that our resources were held against."""
    install: str
    """The command that installs it."""
    group: str
    """The API group that it serves."""
    plurals: dict[str, str]
    """Kind → the plural that its resource definition is named by."""

    def definition(self, kind: str) -> str:
        """The name of the resource definition of a kind."""
        return f"{self.plurals[kind]}.{self.group}"


ISTIO_INSTALL = (
    "istioctl install --set profile=minimal --set components.cni.enabled=true"
    # Callers reach gRPC services by headless names; without this the mesh passes them by, breakers and all.
    " --set values.pilot.env.PILOT_ENABLE_EDS_FOR_HEADLESS_SERVICES=true"
)
OPERATORS = (
    Operator(
        name="CloudNativePG",
        version="1.30",
        install="kubectl cnpg install generate --version 1.30.0 | kubectl apply --server-side -f -",
        group="postgresql.cnpg.io",
        plurals={
            "Cluster": "clusters",
            "Database": "databases",
            "Pooler": "poolers",
            "ScheduledBackup": "scheduledbackups",
        },
    ),
    Operator(
        name="CloudNativePG's Barman Cloud plugin, which needs cert-manager",
        version="0.15",
        install=(
            "helm upgrade --install plugin-barman-cloud plugin-barman-cloud --namespace cnpg-system"
            " --repo https://cloudnative-pg.github.io/charts --set image.tag=v0.15.0 --set sidecarImage.tag=v0.15.0"
        ),
        group="barmancloud.cnpg.io",
        plurals={"ObjectStore": "objectstores"},
    ),
    Operator(
        name="Istio",
        version="1.31",
        install=ISTIO_INSTALL,
        group="networking.istio.io",
        plurals={"DestinationRule": "destinationrules", "Sidecar": "sidecars", "VirtualService": "virtualservices"},
    ),
    Operator(
        name="Istio",
        version="1.31",
        install=ISTIO_INSTALL,
        group="security.istio.io",
        plurals={"AuthorizationPolicy": "authorizationpolicies", "PeerAuthentication": "peerauthentications"},
    ),
)


def operator_of(api_version: str) -> Operator | None:
    """The operator that serves an API version; `None` for Kubernetes' own."""
    group = api_version.partition("/")[0]
    return next((operator for operator in OPERATORS if operator.group == group), None)


def definition_of(resource: Mapping[str, Any]) -> str | None:
    """The resource definition that a resource needs; `None` for Kubernetes' own kinds."""
    operator = operator_of(resource["apiVersion"])
    return operator.definition(resource["kind"]) if operator else None


def required(components: Iterable[Component]) -> dict[str, Operator]:
    """Every resource definition that must be there before the components are, with the operator that brings it."""
    found: dict[str, Operator] = {}
    for component in components:
        for resource in component.resources():
            operator = operator_of(resource["apiVersion"])
            if operator:
                found[operator.definition(resource["kind"])] = operator
    return found

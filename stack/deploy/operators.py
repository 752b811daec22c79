"""The operators whose custom resources we render, each with its kinds and its install command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from voice_policies import ClosedModel

from components.operation import Sentence

if TYPE_CHECKING:
    from stack.model.platform import Platform

__all__ = ["OPERATORS"]


class Operator(ClosedModel):
    """A program in the cluster that acts on custom resources. The cluster must have it before a deployment."""

    name: Sentence
    version: str
    """The oldest version that our resources were tested with."""
    install: str
    """The command that installs the operator."""
    needs: str | None = None
    """Another program that must be installed before the operator."""
    plurals: dict[str, dict[str, str]]
    """API group → kind → plural of the kind. A CustomResourceDefinition has the name `plural.group`."""

    @property
    def definitions(self) -> Iterator[str]:
        """The names of the operator's CustomResourceDefinitions."""
        return (f"{plural}.{group}" for group, kinds in self.plurals.items() for plural in kinds.values())

    @property
    def way_out(self) -> str:
        """The command that installs the operator, for an error message."""
        before = f", after {self.needs}" if self.needs else ""
        return f"install {self.name} {self.version}{before}: `{self.install}`"


ISTIO_INSTALL = (
    "istioctl install --set profile=minimal --set components.cni.enabled=true"
    # Callers reach a gRPC service by the name of its headless Service. Without this setting the mesh applies no policy
    # to these names, so the breakers on such calls would be missing.
    " --set values.pilot.env.PILOT_ENABLE_EDS_FOR_HEADLESS_SERVICES=true"
)
OPERATORS = (
    Operator(
        name="CloudNativePG",
        version="1.30",
        install="kubectl cnpg install generate --version 1.30.0 | kubectl apply --server-side -f -",
        plurals={
            "postgresql.cnpg.io": {
                "Cluster": "clusters",
                "Database": "databases",
                "Pooler": "poolers",
                "ScheduledBackup": "scheduledbackups",
            }
        },
    ),
    Operator(
        name="CloudNativePG's Barman Cloud plugin",
        version="0.15",
        install=(
            "helm upgrade --install plugin-barman-cloud plugin-barman-cloud --namespace cnpg-system"
            " --repo https://cloudnative-pg.github.io/charts --set image.tag=v0.15.0 --set sidecarImage.tag=v0.15.0"
        ),
        needs="cert-manager",
        plurals={"barmancloud.cnpg.io": {"ObjectStore": "objectstores"}},
    ),
    Operator(
        name="Istio",
        version="1.31",
        install=ISTIO_INSTALL,
        plurals={
            "networking.istio.io": {
                "DestinationRule": "destinationrules",
                "ServiceEntry": "serviceentries",
                "Sidecar": "sidecars",
                "VirtualService": "virtualservices",
            },
            "security.istio.io": {
                "AuthorizationPolicy": "authorizationpolicies",
                "PeerAuthentication": "peerauthentications",
            },
        },
    ),
)


def operator_of(api_version: str) -> Operator | None:
    """The operator that serves an API version. `None` if Kubernetes itself serves the version."""
    group = api_version.partition("/")[0]
    return next((operator for operator in OPERATORS if group in operator.plurals), None)


def required(platform: Platform) -> dict[str, set[str]]:
    """API version → plurals of the custom resources that the cluster must serve in this version."""
    found: dict[str, set[str]] = {}
    for _, resources in platform.resources:
        for resource in resources:
            api_version = resource["apiVersion"]
            if operator := operator_of(api_version):
                group = api_version.partition("/")[0]
                found.setdefault(api_version, set()).add(operator.plurals[group][resource["kind"]])
    return found

"""The declared services in Consul's catalogue.

The servers register the services from a file, with a token that has no other right. Consul runs no health
checks: the registered address is the DNS name of a Kubernetes Service, and a Service sends requests only to ready pods.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from voice_policies import ClosedModel

from components.node import Port
from components.operation import Name

__all__ = ["CatalogueService"]

POLICY = "declared-services"
METRICS_POLICY = "metrics"
METRICS_RULES = 'agent_prefix "" { policy = "read" }\n'
"""The ACL policy of the token that reads the servers' metrics."""


class CatalogueService(ClosedModel):
    """Host and port of a service for gRPC, and host and port for HTTP."""

    name: Name
    grpc_host: str
    grpc_port: Port
    http_host: str
    http_port: Port

    def definition(self) -> dict[str, Any]:
        """The service in the format of Consul's agent."""
        return {
            "name": self.name,
            "address": self.grpc_host,
            "port": self.grpc_port,
            "tagged_addresses": {"http": {"address": self.http_host, "port": self.http_port}},
        }


def rules(services: Iterable[CatalogueService]) -> str:
    """The ACL policy of the token that registers the services."""
    return "".join(f'service "{service.name}" {{ policy = "write" }}\n' for service in services)


def permit_script(config_path: str, run_path: str) -> str:
    """A shell script that creates the ACL policies and the tokens; it runs in a server's container.

    A person runs the script once, after the servers have elected a leader: without a leader Consul stores no tokens. A
    second run with the same files changes nothing. If Consul refused a server's registration, the server tries again
    within two minutes (anti-entropy), and at each start.
    """
    return f"""\
set -eu
cd {run_path}
export CONSUL_HTTP_TOKEN_FILE=management-token
permit() {{
  change=update
  consul acl policy read -name "$2" > /dev/null 2>&1 || change=create
  consul acl policy "$change" -name "$2" -rules "@{config_path}/$2.hcl" > /dev/null
  CONSUL_HTTP_TOKEN_FILE="$1" consul acl token read -self > /dev/null 2>&1 ||
    consul acl token create -description "$3" -policy-name "$2" -secret "$(cat "$1")" > /dev/null
}}
permit registration-token {POLICY} "registers the declared services"
permit metrics-token {METRICS_POLICY} "reads the servers' metrics"
"""

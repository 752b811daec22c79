"""The declared services in Consul's catalogue: servers register them from a file, by a token that may do only that.

No check goes with them: the address is a name of Kubernetes' DNS, behind which readiness stands already.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from voice_policies import ClosedModel

from components.node import Port
from components.operation import Name

__all__ = ["CatalogueService"]

POLICY = "declared-services"


class CatalogueService(ClosedModel):
    """Where a service answers: by gRPC, and beside it by HTTP."""

    name: Name
    grpc_host: str
    grpc_port: Port
    http_host: str
    http_port: Port

    def definition(self) -> dict[str, Any]:
        """In the terms of Consul's agent."""
        return {
            "name": self.name,
            "address": self.grpc_host,
            "port": self.grpc_port,
            "tagged_addresses": {"http": {"address": self.http_host, "port": self.http_port}},
        }


def rules(services: Iterable[CatalogueService]) -> str:
    """The policy of the token that registers the services."""
    return "".join(f'service "{service.name}" {{ policy = "write" }}\n' for service in services)


def permit_script(config_path: str, run_path: str) -> str:
    """Makes policy and token what they should be, for sh in a server's container. Repeatable.

    An operator runs it: tokens are kept by the servers themselves, once they have a leader. A server that was refused
    asks again in its next anti-entropy, within two minutes, or when it starts.
    """
    return f"""\
set -eu
cd {run_path}
export CONSUL_HTTP_TOKEN_FILE=management-token
change=update
consul acl policy read -name {POLICY} > /dev/null 2>&1 || change=create
consul acl policy "$change" -name {POLICY} -rules @{config_path}/services.hcl > /dev/null
CONSUL_HTTP_TOKEN_FILE=registration-token consul acl token read -self > /dev/null 2>&1 ||
  consul acl token create -description "registers the declared services" -policy-name {POLICY} \\
    -secret "$(cat registration-token)" > /dev/null
"""

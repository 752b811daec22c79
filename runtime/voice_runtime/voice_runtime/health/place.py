"""The target of a health check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from voice_policies import Address, Connection, HealthCheck


@dataclass(frozen=True, slots=True)
class Place:
    """A health check, the address of the call that it checks, and the connection settings of the callee."""

    policy: HealthCheck
    address: Address
    service: str
    """The name of this process's service. The service's user at a store has the same name."""
    connection: Connection | None

    def password(self) -> str:
        """The password. Each check reads it again, because it may be rotated. Empty without credentials."""
        if self.connection is None or self.connection.credentials is None:
            return ""
        return (Path(self.connection.credentials) / "password").read_text().strip()

"""A database for each service that uses PostgreSQL. The role of the same name owns it and may do nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field
from voice_policies import ClosedModel

from components.operation import Name
from components.secret_keys import SecretKeys

__all__ = ["ServerLimits", "ServiceDatabase"]

SUPERUSER = "postgres"
SUPERUSER_RESERVED = 3
"""PostgreSQL's default, written out for readers."""


class ServiceDatabase(ClosedModel):
    """The database of one service, and the role of the same name."""

    name: Name
    secret: SecretKeys
    """The secret whose key `password` the role has."""
    connection_limit: Annotated[int, Field(ge=1)]
    """Largest number of connections of the role. The server keeps the sum of all roles below its own limit."""


class ServerLimits(ClosedModel):
    """The connections that one server admits."""

    max_connections: int
    reserved: int
    """Connections kept for superusers (3) and for roles that may use reserved connections: operator and exporter."""

    def parameters(self) -> dict[str, str]:
        """The settings of `postgresql.conf` that enforce the limits."""
        return {
            "max_connections": str(self.max_connections),
            "superuser_reserved_connections": str(SUPERUSER_RESERVED),
            "reserved_connections": str(self.reserved - SUPERUSER_RESERVED),
            "password_encryption": "scram-sha-256",
        }


def roles_sql(databases: Iterable[ServiceDatabase]) -> str:
    """SQL for `psql` that creates the declared roles and databases.

    Running it again applies new passwords and services.
    """
    revoke = "".join(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC;\n" for name in ("postgres", "template1"))
    return revoke + "".join(_role_and_database(database) for database in databases)


def _role_and_database(database: ServiceDatabase) -> str:
    name = database.name
    return f"""
\\set password `cat {database.secret.path}/password`
SELECT 'CREATE ROLE "{name}"' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') \\gexec
ALTER ROLE "{name}" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
  CONNECTION LIMIT {database.connection_limit} PASSWORD :'password';
SELECT 'CREATE DATABASE "{name}" OWNER "{name}"' WHERE NOT EXISTS (
  SELECT FROM pg_database WHERE datname = '{name}') \\gexec
REVOKE ALL ON DATABASE "{name}" FROM PUBLIC;
"""  # noqa: S608 - a name is a DNS label, and psql quotes the password


def access_rules(databases: Iterable[ServiceDatabase], connection: str) -> list[str]:
    """Lines of `pg_hba.conf` for connections over the network: each role may connect to its own database only."""
    own = [f"{connection} {database.name} {database.name} all scram-sha-256" for database in databases]
    return [*own, "host all all all reject"]

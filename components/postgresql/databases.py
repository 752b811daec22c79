"""A database for each service that uses PostgreSQL. The database and the role that owns it have the service's name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field
from voice_policies import ClosedModel

from components.operation import Name
from components.secret_keys import SecretKeys

__all__ = ["ServerLimits", "ServiceDatabase"]

SUPERUSER = "postgres"
PROVISIONER = "provisioner"
"""Role that creates the services' roles and databases over the network. It cannot create a superuser."""
PROVISIONER_SECRET = SecretKeys(name="postgresql-provisioner", keys=("password",))
SUPERUSER_RESERVED = 3
"""PostgreSQL's default of `superuser_reserved_connections`."""


class ServiceDatabase(ClosedModel):
    """The database of one service, and the role of the same name."""

    name: Name
    secret: SecretKeys
    """The secret whose key `password` holds the role's password."""
    connection_limit: Annotated[int, Field(ge=1)]
    """Largest number of connections of the role, from all replicas of the service together. If the service connects
    through poolers, from all poolers together."""


class ServerLimits(ClosedModel):
    """The connections that one server admits."""

    max_connections: int
    reserved: int
    """Connections that the services cannot use. Superusers may use every reserved connection. Members of the role
    `pg_use_reserved_connections` may use all but 3 of the reserved connections."""

    def parameters(self) -> dict[str, str]:
        """The settings of `postgresql.conf` that enforce the limits and choose the hash of passwords."""
        return {
            "max_connections": str(self.max_connections),
            "superuser_reserved_connections": str(SUPERUSER_RESERVED),
            "reserved_connections": str(self.reserved - SUPERUSER_RESERVED),
            "password_encryption": "scram-sha-256",
        }


def provisioner_sql() -> str:
    """SQL that creates the provisioner. At the first start, on an empty volume, the superuser runs it with `psql`."""
    return f"""\
\\set password `cat {PROVISIONER_SECRET.path}/password`
CREATE ROLE "{PROVISIONER}" LOGIN CREATEROLE CREATEDB PASSWORD :'password';
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
GRANT CONNECT ON DATABASE postgres TO "{PROVISIONER}";
"""


def roles_sql(databases: Iterable[ServiceDatabase]) -> str:
    """SQL that creates the declared roles and databases. The provisioner runs it with `psql`.

    A second run applies new passwords and adds new services.
    """
    # With this setting the provisioner may give a database to a role that it has created.
    return "SET createrole_self_grant = 'set';\n" + "".join(_role_and_database(database) for database in databases)


def _role_and_database(database: ServiceDatabase) -> str:
    name = database.name
    return f"""
\\set password `cat {database.secret.path}/password`
SELECT 'CREATE ROLE "{name}"' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') \\gexec
ALTER ROLE "{name}" LOGIN NOCREATEDB NOCREATEROLE CONNECTION LIMIT {database.connection_limit} PASSWORD :'password';
SELECT 'CREATE DATABASE "{name}" OWNER "{name}"' WHERE NOT EXISTS (
  SELECT FROM pg_database WHERE datname = '{name}') \\gexec
SET ROLE "{name}";
REVOKE ALL ON DATABASE "{name}" FROM PUBLIC;
RESET ROLE;
"""  # noqa: S608 - a name is a DNS label, and psql quotes the password


def access_rules(connection: str) -> list[str]:
    """Lines of `pg_hba.conf` for connections over the network: each role may connect to its own database only.

    The lines name no service, so a new service does not restart the server.
    """
    return [
        f"{connection} all {SUPERUSER} all reject",
        f"{connection} sameuser all all scram-sha-256",
        "host all all all reject",
    ]

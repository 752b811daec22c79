"""The startup settings of a service that are not policies: ports, log level, connections to its stores."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationError

from voice_policies.bundle import Protocol
from voice_policies.closed_model import ClosedModel
from voice_policies.faults import InvalidInputError, faults_of
from voice_policies.measure import Duration

SETTINGS_FILE_NAME = "settings.json"
"""Name of the settings' file in the directory that a service mounts."""


class Connection(ClosedModel):
    """Settings of one store's or provider's client library.

    If a call is `enforced_by: driver`, the client library enforces `timeout`. A PostgreSQL driver enforces it as
    `statement_timeout`. A Redis, S3 or SMTP client enforces it as its read and write timeout.
    """

    name: str
    protocol: Protocol
    hosts: Annotated[tuple[str, ...], Field(strict=False)]
    """`host:port`, in order of preference."""
    via: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """The address to dial for each of `hosts`, in the same order. It is the host's egress proxy, or the host itself.
    Empty if no host has a proxy."""
    tls: Literal[True] | None = None
    """True for a store outside the cluster that is reached over TLS without a proxy."""
    timeout: Duration
    """Longest attempt timeout of the service's calls to this store or provider."""
    database: str | None = None
    pool: int | None = None
    """Maximum number of connections of one replica."""
    credentials: str | None = None
    """Directory of the secret's files."""


class ServiceSettings(ClosedModel):
    """The settings file of one service."""

    service: str
    environment: str
    log_level: str
    grpc_port: int
    http_port: int
    connections: Annotated[tuple[Connection, ...], Field(strict=False)] = ()

    @classmethod
    def from_json(cls, text: bytes | str, source: str) -> ServiceSettings:
        """Read a settings file; raises `InvalidInputError` naming `source` and every fault."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InvalidInputError(source, faults_of(error, cls)) from None

"""What a service is told at startup that is not a policy: its ports, and how it reaches its stores."""

from __future__ import annotations

from voice_policies import ClosedModel, Duration, Protocol


class Connection(ClosedModel):
    """Settings of one store's or provider's client library.

    Where a call is `enforced_by: driver`, this timeout is the enforcement: a PostgreSQL driver takes it as
    `statement_timeout`, a Redis, S3 or SMTP client as its read and write timeout.
    """

    name: str
    protocol: Protocol
    hosts: tuple[str, ...]
    """`host:port`, in order of preference."""
    via: tuple[str, ...] = ()
    """The egress proxy of each host, where it is outside the cluster."""
    timeout: Duration
    """Longest of the service's attempt timeouts on this target."""
    database: str | None = None
    pool: int | None = None
    """Most connections of one replica."""
    credentials: str | None = None
    """Directory of the secret's files."""


class ServiceSettings(ClosedModel):
    """The settings file of one service."""

    service: str
    environment: str
    log_level: str
    grpc_port: int
    http_port: int
    connections: tuple[Connection, ...]

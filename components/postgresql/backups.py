"""Where backups go, how often they are made and how long they are kept."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from voice_policies import ClosedModel

from components.network_policy import Cidr
from components.operation import Name
from components.secret_keys import SecretKeys

__all__ = ["Backups"]

CREDENTIALS = SecretKeys(name="postgresql-backup", keys=("access-key-id", "secret-access-key"))
DAILY = "0 0 2 * * *"
"""Every day at 02:00 UTC; the operator's cron has a field for seconds."""


class Backups(ClosedModel):
    """A bucket of an S3-compatible object store, encrypted at rest by the store."""

    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    retention: Annotated[str, Field(pattern=r"^[1-9][0-9]*[dwm]$")] = "30d"
    """How far back a recovery can go: days, weeks or months, as the Barman plugin takes it."""
    network: Cidr
    """Addresses of the object store. The backup speaks to it directly: the plugin has no way through an SNI proxy."""
    recover_from: Name | None = None
    """Name in the bucket of the cluster whose backup a new cluster starts from; without it, an empty one."""

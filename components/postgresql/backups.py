"""Backups: the bucket, the schedule and the retention."""

from __future__ import annotations

from typing import Annotated

from voice_policies import ClosedModel, TextPattern

from components.network_policy import Cidr
from components.operation import Name
from components.secret_keys import OBJECT_STORE_KEYS, SecretKeys

__all__ = ["Backups"]

CREDENTIALS = SecretKeys(name="postgresql-backup", keys=tuple(OBJECT_STORE_KEYS), forms=OBJECT_STORE_KEYS)
DAILY = "0 0 2 * * *"
"""Every day at 02:00 UTC; the operator's cron has a field for seconds."""


class Backups(ClosedModel):
    """A bucket of an S3-compatible object store, encrypted at rest by the store."""

    bucket: Annotated[str, TextPattern(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", "voice-backups")]
    retention: Annotated[str, TextPattern(r"^[1-9][0-9]*[dwm]$", "30d")] = "30d"
    """Age of the oldest time that a recovery can reach. Days, weeks or months, in the format of the Barman plugin."""
    network: Cidr
    """Address block of the object store. The plugin connects directly, because it supports no proxy that routes by
    SNI."""
    recover_from: Name | None = None
    """Folder in the bucket. A new cluster starts from the backup in it. `None`: a new cluster starts empty. A cluster
    always backs up to the folder of its own name."""

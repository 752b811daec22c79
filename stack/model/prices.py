"""Prices of resource requests and volumes."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import Field
from voice_policies import ClosedModel

from components.operation import Sentence

__all__ = ["MAX_AGE_DAYS", "Prices"]

MAX_AGE_DAYS = 180
"""Greatest age of a price table, in days. The audit (D04) reports an older table. We chose about half a year."""


class Prices(ClosedModel):
    """A price table in USD. An environment's setting `prices` replaces the tenant's table."""

    cpu_hour: Annotated[float, Field(gt=0)]
    """Price of one requested core for an hour."""
    memory_hour: Annotated[float, Field(gt=0)]
    """Price of one requested GiB of memory for an hour."""
    storage_month: Annotated[float, Field(ge=0)]
    """Price of one GiB of a volume for a month."""
    source: Sentence
    """Provider, product and region of the prices."""
    read_on: Annotated[date, Field(strict=False)]
    """Day on which the prices were taken from their source, such as `"2026-11-30"`."""

    def age(self, on: date) -> int:
        """Age of the prices in days."""
        return (on - self.read_on).days

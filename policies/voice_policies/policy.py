"""The base of every policy."""

from __future__ import annotations

from voice_policies.closed_model import ClosedModel


class Policy(ClosedModel):
    """A part of a `PolicyBundle` that one layer enforces."""

"""Checks of the numbers that a service passes to engines, outboxes and transports."""

from __future__ import annotations

from math import inf


def check_at_least(least: int, of: str, **numbers: float) -> None:
    """Raise `ValueError` if a number is below `least`, or is NaN."""
    for name, number in numbers.items():
        if not number >= least:  # also true for NaN
            raise ValueError(f"{name} of {of} must be {least} or more, not {number}")


def check_seconds(of: str, **numbers: float) -> None:
    """Raise `ValueError` if a number of seconds is not above 0, or is not finite."""
    for name, seconds in numbers.items():
        if not 0 < seconds < inf:
            raise ValueError(f"{name} of {of} must be finite and above 0 s, not {seconds}")

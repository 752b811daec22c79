"""Compares a measured value with the limit that a goal sets."""


def at_most(limit: float, measured: float) -> str:
    """`met` if the measured value is at most the limit, else `missed`."""
    return "met" if measured <= limit else "missed"

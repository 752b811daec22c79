"""The verdict on a goal."""


def at_most(limit: float, measured: float) -> str:
    """`met` if the measured value is at most the limit, else `missed`."""
    return "met" if measured <= limit else "missed"

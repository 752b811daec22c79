"""Context variables that are set temporarily."""

from __future__ import annotations

from contextvars import Token
from typing import Any


def restore(token: Token[Any]) -> None:
    """Reset the variable to its value before `token`.

    Does nothing if the current context is not the token's. The event loop closes dropped generators in another context.
    """
    try:  # noqa: SIM105  # `suppress` costs more than the rest of the function
        token.var.reset(token)
    except ValueError:
        pass

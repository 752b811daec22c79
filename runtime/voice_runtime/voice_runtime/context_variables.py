"""Context variables that are set temporarily."""

from __future__ import annotations

from contextvars import Token
from typing import Any


def restore(token: Token[Any]) -> None:
    """Reset the variable to its value before the `set` that returned `token`.

    Does nothing if another context made that `set`. For example, the event loop closes an abandoned generator in
    another context.
    """
    try:  # noqa: SIM105  # `suppress` costs more than the rest of the function
        token.var.reset(token)
    except ValueError:
        pass

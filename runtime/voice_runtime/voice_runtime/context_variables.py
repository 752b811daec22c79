"""Context variables that are set temporarily."""

from __future__ import annotations

from contextvars import Token
from typing import Any


def restore(token: Token[Any]) -> None:
    """Reset the variable to its value before `token`.

    In a context other than the token's, as when the event loop closes a dropped generator, it does nothing.
    """
    try:  # noqa: SIM105  # `suppress` costs more than the rest
        token.var.reset(token)
    except ValueError:
        pass

"""Context variables that are set temporarily."""

from __future__ import annotations

from contextvars import Token
from typing import Any


def restore(token: Token[Any]) -> None:
    """Reset the variable to its value before `token`.

    In another context than the token's, such as that of an abandoned generator, there is nothing to reset.
    """
    try:  # noqa: SIM105  # `suppress` costs more than the rest
        token.var.reset(token)
    except ValueError:
        pass

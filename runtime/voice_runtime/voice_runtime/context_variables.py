"""Context variables that are set for a while."""

from __future__ import annotations

from contextvars import Token
from typing import Any


def restore(token: Token[Any]) -> None:
    """Set the variable back to its value before `token`.

    In another context than the token's, such as the one in which an abandoned generator is closed, there is nothing to
    set back.
    """
    try:  # noqa: SIM105  # `suppress` costs more than the rest
        token.var.reset(token)
    except ValueError:
        pass

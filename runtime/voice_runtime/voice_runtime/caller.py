"""The caller of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter


@dataclass(frozen=True, slots=True)
class Caller:
    """Tenant, user or API key of a request. Limits count by it. It never appears in a metric label or a log."""

    tenant: str = ""
    user: str = ""
    api_key: str = field(default="", repr=False)


NOBODY = Caller()


def _user(caller: Caller) -> str:
    """Users are distinct for each tenant. Both names may contain any character."""
    return f"{len(caller.tenant)}:{caller.tenant}{caller.user}"


def _nothing(_: Caller) -> str:
    return ""


KEYS: Mapping[str, Callable[[Caller], str]] = {
    "tenant": attrgetter("tenant"),
    "user": _user,
    "api_key": attrgetter("api_key"),
    "none": _nothing,
}
"""The key of a caller for each kind of limit. Requests without the key share one count."""

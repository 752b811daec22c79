"""The caller of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter


@dataclass(frozen=True, slots=True)
class Caller:
    """Tenant, user and API key of a request. Limits and budgets count by them. Metric labels and logs omit them."""

    tenant: str = ""
    user: str = ""
    api_key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Refuse values that are not text, because limits would count `None` and an empty text separately.

        Raises `TypeError`.
        """
        if not type(self.tenant) is type(self.user) is type(self.api_key) is str:
            for name in ("tenant", "user", "api_key"):
                if not isinstance(value := getattr(self, name), str):
                    raise TypeError(f"{name} of a caller must be text (empty if unknown), not {type(value).__name__}")


NOBODY = Caller()


def _user(caller: Caller) -> str:
    """The key of a user. Equal user names of two tenants get different keys, whatever characters the names contain."""
    return f"{len(caller.tenant)}:{caller.tenant}{caller.user}"


def _shared_key(_: Caller) -> str:
    return ""


KEYS: Mapping[str, Callable[[Caller], str]] = {
    "tenant": attrgetter("tenant"),
    "user": _user,
    "api_key": attrgetter("api_key"),
    "none": _shared_key,
}
"""`key` of a rate limit → the function that reads the key of a caller. Requests with equal keys share one count, for
example all requests without an API key."""

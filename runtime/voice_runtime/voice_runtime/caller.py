"""The caller of a request."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Caller:
    """Tenant, user or API key of a request. Limits count by it. It never appears in a metric label or a log."""

    tenant: str = ""
    user: str = ""
    api_key: str = field(default="", repr=False)

    def key(self, kind: str) -> str:
        """The key for a limit of this kind.

        Requests without the key share one count; users are distinct for each tenant.
        """
        match kind:
            case "tenant":
                return self.tenant
            case "user":
                return f"{len(self.tenant)}:{self.tenant}{self.user}"  # both may contain any character
            case "api_key":
                return self.api_key
        return ""


NOBODY = Caller()

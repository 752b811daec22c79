"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is. Limits are kept by it; it is never a metric label, and the key never shows in a log."""

    tenant: str = ""
    user: str = ""
    api_key: str = field(default="", repr=False)

    def key(self, kind: str) -> str:
        """The key for a limit of this kind. Requests that lack it share one count; users are told apart by tenant."""
        match kind:
            case "tenant":
                return self.tenant
            case "user":
                return f"{self.tenant}/{self.user}"
            case "api_key":
                return self.api_key
        return ""


NOBODY = Caller()

"""The probes as an ASGI application: `/health` for liveness, `/ready` for readiness."""

from __future__ import annotations

from voice_runtime.asgi import Application, Receive, Scope, Send, respond
from voice_runtime.health.monitor import Health

LIVENESS_PATH = "/health"
READINESS_PATH = "/ready"


class HealthApp:
    """Answers the probes, and passes all other requests to `otherwise`, the service's own application."""

    def __init__(self, health: Health, otherwise: Application | None = None) -> None:
        self._health = health
        self._otherwise = otherwise or _not_found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI defines it."""
        path = scope["path"] if scope["type"] == "http" else ""
        if path == LIVENESS_PATH:
            await respond(send, 200, {"status": "alive"})
        elif path == READINESS_PATH:
            report = await self._health.readiness()
            await respond(send, 200 if report.ready else 503, report.to_document())
        else:
            await self._otherwise(scope, receive, send)


async def _not_found(scope: Scope, _: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await respond(send, 404, {"error": f"not found: {scope['path']}; expected {LIVENESS_PATH} or {READINESS_PATH}"})

"""The gateway's routes and their load."""

from __future__ import annotations

from typing import Literal

from voice_policies import Bytes, Idempotency, Ratio

from components.node import Gateway
from components.operation import HttpRoute, Operation, hard, operation, soft, stage
from stack.voiceassistant.catalog.defaults import per_tenant


def route(
    http: HttpRoute,
    target: str,
    *,
    load: str,
    p95: str,
    deadline: str,
    idempotency: Idempotency,
    limit: tuple[str, int],
    circuit_breaker: Literal["off"] | None = None,
    **options: object,
) -> Operation:
    """A route to one operation, with the load of all callers.

    `limit` is the rate and the burst of one tenant, or of one client address on a public route.

    The gateway queries Redis before it calls the callee. The model treats both calls as parallel, because the 3 ms
    (P95) of Redis add almost nothing.
    """
    return operation(
        target.replace(".", "-"),
        stage(
            soft("redis.access", "each gateway pod enforces the limits on its own requests", circuit_breaker="off"),
            hard(target, idempotency, circuit_breaker=circuit_breaker),
        ),
        p95=p95,
        deadline=deadline,
        load=load,
        http=http,
        rate_limits=per_tenant(*limit),
        **options,
    )


MESSAGE = Bytes("1Mi")
"""Largest body of a task, of a webhook, or of a message with the descriptions of its attachments."""
TOKEN = Bytes("16Ki")
"""Largest body with a token or with credentials."""
DOCUMENT = Bytes("25Mi")
"""Largest document. Clients split larger ones before the upload."""


def get(path: str) -> HttpRoute:
    """A GET route: it has no body."""
    return HttpRoute(path=path, method="GET")


def post(path: str, *, public: bool = False, max_body: Bytes = MESSAGE) -> HttpRoute:
    """A POST route with a body."""
    return HttpRoute(path=path, method="POST", public=public, max_body=max_body)


GATEWAY = Gateway(
    name="gateway",
    namespace="voice-gateway",
    availability=Ratio("99.99%"),
    # Each deadline is 250 ms longer than the callee's deadline, so that an answer just before the callee's deadline
    # still reaches the client.
    operations=(
        route(
            post("/v1/tokens/verify", max_body=TOKEN),
            "identity-service.verify",
            load="1000/s",
            p95="200ms",
            deadline="450ms",
            idempotency="idempotent",
            limit=("200/s", 400),
        ),
        route(
            post("/v1/login", public=True, max_body=TOKEN),
            "identity-service.login",
            load="20/s",
            p95="200ms",
            deadline="650ms",
            idempotency="idempotent",
            limit=("5/s", 10),
        ),
        route(
            get("/v1/conversations"),
            "conversation-service.list",
            load="500/s",
            p95="200ms",
            deadline="550ms",
            idempotency="idempotent",
            limit=("100/s", 200),
        ),
        route(
            post("/v1/messages"),
            "conversation-service.send",
            load="50/s",
            p95="2500ms",
            deadline="15250ms",
            idempotency="with_key",
            limit=("10/s", 20),
            transport="streamed",
        ),
        route(
            get("/v1/search"),
            "knowledge-service.search",
            load="300/s",
            p95="500ms",
            deadline="4250ms",
            idempotency="idempotent",
            limit=("50/s", 100),
        ),
        route(
            post("/v1/documents", max_body=DOCUMENT),
            "knowledge-service.upload",
            load="5/s",
            p95="200ms",
            deadline="1750ms",
            idempotency="with_key",
            limit=("1/s", 5),
        ),
        route(
            post("/v1/tasks"),
            "ai-orchestrator.task",
            load="5/s",
            p95="2500ms",
            deadline="14750ms",
            idempotency="with_key",
            limit=("1/s", 5),
        ),
        route(
            get("/v1/dialogue"),
            "voice-engine.dialogue",
            load="20/s",
            p95="2500ms",
            deadline="18250ms",
            idempotency="never",
            limit=("5/s", 10),
            # No breaker at the gateway: APISIX does not count an upgraded connection (status 101) as a success, so its
            # breaker would never forget a failure.
            circuit_breaker="off",
            transport="websocket",
        ),
        route(
            post("/v1/webhooks", public=True),
            "notification-service.webhook",
            load="5/s",
            p95="500ms",
            deadline="750ms",
            idempotency="with_key",
            limit=("2/s", 10),
        ),
        route(
            get("/v1/reports"),
            "analytics-service.report",
            load="2/s",
            p95="1500ms",
            deadline="2250ms",
            idempotency="idempotent",
            limit=("1/s", 5),
        ),
    ),
)

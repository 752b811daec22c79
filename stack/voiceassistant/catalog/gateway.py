"""The entrance: its routes, and what arrives at each."""

from __future__ import annotations

from voice_policies import Bytes, CircuitBreaker, Idempotency, Ratio

from components.node import Gateway
from components.operation import HttpRoute, Operation, hard, operation, soft, stage
from stack.voiceassistant.catalog.defaults import per_tenant

BREAKER = CircuitBreaker()


def route(
    http: HttpRoute,
    target: str,
    load: str,
    latency: str,
    deadline: str,
    idempotency: Idempotency,
    limit: tuple[str, int],
    circuit_breaker: CircuitBreaker | None = BREAKER,
    **options: object,
) -> Operation:
    """A route to one operation: its path and method, load in all, latency target and deadline, limit of a tenant.

    Redis is asked while the request is under way: its time is within the gateway's own, not before the callee's.
    """
    return operation(
        target.replace(".", "-"),
        latency,
        deadline,
        stage(
            soft("redis.access", "limits then per node", circuit_breaker=None),
            hard(target, idempotency, circuit_breaker=circuit_breaker),
        ),
        load=load,
        http=http,
        rate_limits=per_tenant(*limit),
        **options,
    )


DOCUMENT = Bytes("25Mi")
"""Largest document that is taken: a larger one is split before it is uploaded."""


def get(path: str) -> HttpRoute:
    """A route that reads."""
    return HttpRoute(path=path, method="GET")


def post(path: str, *, public: bool = False, max_body: Bytes | None = None) -> HttpRoute:
    """A route that takes a body, 1 MiB unless another bound is given."""
    return HttpRoute(path=path, method="POST", public=public, **({"max_body": max_body} if max_body else {}))


GATEWAY = Gateway(
    name="gateway",
    namespace="voice-gateway",
    availability=Ratio("99.99%"),
    # A deadline leaves 250 ms beyond the callee's own, so that its answer, however late, still arrives.
    operations=(
        route(
            post("/v1/tokens/verify"),
            "identity-service.verify",
            "1000/s",
            "200ms",
            "450ms",
            "idempotent",
            ("200/s", 400),
        ),
        route(
            post("/v1/login", public=True),
            "identity-service.login",
            "20/s",
            "200ms",
            "650ms",
            "idempotent",
            ("5/s", 10),
        ),
        route(
            get("/v1/conversations"),
            "conversation-service.list",
            "500/s",
            "200ms",
            "550ms",
            "idempotent",
            ("100/s", 200),
        ),
        route(
            post("/v1/messages"),
            "conversation-service.send",
            "50/s",
            "2500ms",
            "15250ms",
            "with_key",
            ("10/s", 20),
            transport="streamed",
        ),
        route(get("/v1/search"), "knowledge-service.search", "300/s", "500ms", "4250ms", "idempotent", ("50/s", 100)),
        route(
            post("/v1/documents", max_body=DOCUMENT),
            "knowledge-service.upload",
            "5/s",
            "200ms",
            "1750ms",
            "with_key",
            ("1/s", 5),
        ),
        route(post("/v1/tasks"), "ai-orchestrator.task", "5/s", "2500ms", "14750ms", "with_key", ("1/s", 5)),
        route(
            get("/v1/dialogue"),
            "voice-engine.dialogue",
            "20/s",
            "2500ms",
            "18250ms",
            "never",
            ("5/s", 10),
            # The gateway's would forget no failure: an upgraded connection (101) is no success to it.
            circuit_breaker=None,
            transport="websocket",
        ),
        route(
            post("/v1/webhooks", public=True),
            "notification-service.webhook",
            "5/s",
            "500ms",
            "750ms",
            "with_key",
            ("2/s", 10),
        ),
        route(get("/v1/reports"), "analytics-service.report", "2/s", "1500ms", "2250ms", "idempotent", ("1/s", 5)),
    ),
)

"""The entrance: its routes, and what arrives at each."""

from __future__ import annotations

from voice_policies import Idempotency, Ratio

from components.node import Gateway
from components.operation import Operation, hard, operation, soft, stage
from stack.catalog.defaults import per_tenant


def route(
    target: str,
    load: str,
    latency: str,
    deadline: str,
    idempotency: Idempotency,
    limit: tuple[str, int],
    **options: object,
) -> Operation:
    """A route to one operation: load in all, latency target and deadline at the gateway, limit of each tenant.

    Redis is asked while the request is under way: its time is within the gateway's own, not before the callee's.
    """
    return operation(
        target.replace(".", "-"),
        latency,
        deadline,
        stage(soft("redis.access", "limits then per node", circuit_breaker=None), hard(target, idempotency)),
        load=load,
        rate_limits=per_tenant(*limit),
        **options,
    )


GATEWAY = Gateway(
    name="gateway",
    namespace="voice-gateway",
    availability=Ratio("99.99%"),
    # A deadline leaves 250 ms beyond the callee's own, so that its answer, however late, still arrives.
    operations=(
        route("identity-service.verify", "1000/s", "200ms", "450ms", "idempotent", ("200/s", 400)),
        route("identity-service.login", "20/s", "200ms", "650ms", "idempotent", ("5/s", 10)),
        route("conversation-service.list", "500/s", "200ms", "550ms", "idempotent", ("100/s", 200)),
        route("conversation-service.send", "50/s", "2500ms", "15250ms", "with_key", ("10/s", 20), transport="streamed"),
        route("knowledge-service.search", "300/s", "500ms", "4250ms", "idempotent", ("50/s", 100)),
        route("knowledge-service.upload", "5/s", "200ms", "1750ms", "with_key", ("1/s", 5)),
        route("ai-orchestrator.task", "5/s", "2500ms", "14750ms", "with_key", ("1/s", 5)),
        route("voice-engine.dialogue", "20/s", "2500ms", "18250ms", "never", ("5/s", 10), transport="websocket"),
        route("notification-service.webhook", "5/s", "500ms", "750ms", "with_key", ("2/s", 10)),
        route("analytics-service.report", "2/s", "1500ms", "2250ms", "idempotent", ("1/s", 5)),
    ),
)

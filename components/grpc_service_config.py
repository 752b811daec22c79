"""The calls of a Go service as gRPC service config, mounted beside its bundle.

The fields are those of `grpc/service_config/service_config.proto` in grpc/grpc-proto; retries and their throttling are
gRFC A6, client-side health checks gRFC A17. gRPC's budget of retries has no window: it belongs to a channel, a failure
takes from it and a success gives back. What is enforced elsewhere is not in it: the bundle names the layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from voice_policies import Duration, OutboundCall, Retry, RetryCondition, grpc_method, grpc_service

__all__ = ["inexpressible"]

GRPC_FILE_NAME = "grpc-service-config.json"
MAX_ATTEMPTS = 5
"""Clients treat more as 5 (gRFC A6)."""
MAX_TOKENS = 1000
MIN_TOKEN_RATIO = 0.001
"""Of retry throttling: grpc-go and the C core refuse more tokens, and three decimal places count (gRFC A6)."""
STATUS: dict[RetryCondition, str] = {
    "unavailable": "UNAVAILABLE",
    "attempt_timeout": "DEADLINE_EXCEEDED",
    "aborted": "ABORTED",
}
"""The status of each condition that gRPC can tell by one. A connection that failed is UNAVAILABLE too."""


def inexpressible(retry: Retry) -> Iterator[str]:
    """A sentence for each part of a retry that gRPC cannot do, with what it can."""
    if retry.max_attempts > MAX_ATTEMPTS:
        yield f"gRPC makes {MAX_ATTEMPTS} attempts at most, not {retry.max_attempts}: lower max_retries"
    if not retry.base_delay:
        yield "gRPC always waits: set base_delay above 0s"
    if float(retry.budget.ratio) < MIN_TOKEN_RATIO or _max_tokens(retry) > MAX_TOKENS:
        yield f"gRPC's budget has a ratio of at least 0.1% and a reserve of at most {MAX_TOKENS // 2 - 1}"
    if "resource_exhausted" in retry.conditions:
        yield "gRPC repeats RESOURCE_EXHAUSTED whether or not the callee says when: leave it out"
    if "connection_failed" in retry.conditions and "unavailable" not in retry.conditions:
        yield "gRPC cannot tell connection_failed from unavailable: name both"


def grpc_channels(calls: Iterable[OutboundCall]) -> dict[str, Any]:
    """For each callee that gRPC's own policies guard: where it is, and the service config of the channel to it."""
    found: dict[str, list[OutboundCall]] = {}
    for call in calls:
        if call.enforced_by.timeout == "grpc":
            found.setdefault(call.callee, []).append(call)
    return {callee: _channel(calls) for callee, calls in found.items()}


def _channel(calls: list[OutboundCall]) -> dict[str, Any]:
    (address,) = calls[0].addresses
    config: dict[str, Any] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        # The empty name asks for the health of the whole server: whoever is not serving gets no calls.
        "healthCheckConfig": {"serviceName": ""},
        # One entry for each method: a name that stands twice makes gRPC refuse the whole config.
        "methodConfig": [_method(call) for call in {call.operation: call for call in calls}.values()],
    }
    if retries := [call.retry for call in calls if call.retry and call.retry.max_retries]:
        config["retryThrottling"] = {
            "maxTokens": min(_max_tokens(retry) for retry in retries),
            "tokenRatio": min(float(retry.budget.ratio) for retry in retries),
        }
    return {"target": f"dns:///{address.host}:{address.port}", "serviceConfig": config}


def _max_tokens(retry: Retry) -> int:
    """A failure takes a token and retries stop at half: as many failures as `reserve` may be repeated at first."""
    return 2 * (retry.budget.reserve + 1)


def _method(call: OutboundCall) -> dict[str, Any]:
    """`timeout` is that of the whole call: gRPC has none for a single attempt."""
    method: dict[str, Any] = {
        "name": [{"service": grpc_service(call.callee), "method": grpc_method(call.operation)}],
        "timeout": protobuf_duration(call.timeout.overall),
    }
    if call.retry and call.retry.max_retries:
        method["retryPolicy"] = {
            "maxAttempts": call.retry.max_attempts,
            "initialBackoff": protobuf_duration(call.retry.base_delay),
            "maxBackoff": protobuf_duration(call.retry.max_delay),
            "backoffMultiplier": call.retry.multiplier,
            "retryableStatusCodes": [STATUS[condition] for condition in call.retry.conditions if condition in STATUS],
        }
    return method


def protobuf_duration(duration: Duration) -> str:
    """As JSON spells a `google.protobuf.Duration`."""
    return f"{duration.units / 1_000_000:.6f}".rstrip("0").rstrip(".") + "s"

"""The calls of a Go service as gRPC service config, mounted next to the service's bundle.

Sources of the fields: `grpc/service_config/service_config.proto` in grpc/grpc-proto; gRFC A6 for retries and their
throttling; gRFC A17 for client-side health checks. gRPC's retry budget belongs to a channel and has no window: a
failure takes a token, and a success returns a part of a token. Policies that another layer enforces are not included;
the bundle names the layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from voice_policies import Duration, OutboundCall, Retry, RetryCondition, grpc_method, grpc_service

__all__ = ["inexpressible"]

GRPC_FILE_NAME = "grpc-service-config.json"
MAX_ATTEMPTS = 5
"""gRPC clients treat a higher number as 5 (gRFC A6)."""
MAX_TOKENS = 1000
"""Largest `maxTokens` of retry throttling: grpc-go and the C core refuse a higher number."""
MIN_TOKEN_RATIO = 0.001
"""Lowest `tokenRatio` of retry throttling: gRPC ignores further decimal places (gRFC A6)."""
STATUS: dict[RetryCondition, str] = {
    "unavailable": "UNAVAILABLE",
    "attempt_timeout": "DEADLINE_EXCEEDED",
    "aborted": "ABORTED",
}
"""The gRPC status for each retry condition that one status can express. `connection_failed` has no
entry, because gRPC reports a failed connection as UNAVAILABLE too."""


def inexpressible(retry: Retry) -> Iterator[str]:
    """A sentence for each part of a retry policy that gRPC cannot express. It also says how to change the policy."""
    if retry.max_attempts > MAX_ATTEMPTS:
        yield (
            f"gRPC makes {MAX_ATTEMPTS} attempts at most, not {retry.max_attempts}: "
            f"lower max_retries to {MAX_ATTEMPTS - 1}"
        )
    if not retry.base_delay:
        yield "gRPC always waits before a retry: set base_delay above 0s"
    if float(retry.budget.ratio) < MIN_TOKEN_RATIO or _max_tokens(retry) > MAX_TOKENS:
        yield f"gRPC's retry budget needs a ratio of at least 0.1% and a reserve of at most {MAX_TOKENS // 2 - 1}"
    if "resource_exhausted" in retry.conditions:
        yield "gRPC retries RESOURCE_EXHAUSTED even if the callee sends no retry delay: remove resource_exhausted"
    if "connection_failed" in retry.conditions and "unavailable" not in retry.conditions:
        yield "gRPC cannot tell connection_failed from unavailable: add unavailable to the conditions"


def grpc_channels(calls: Iterable[OutboundCall]) -> dict[str, Any]:
    """Callee → the address and the service config of its channel, for calls whose timeout gRPC enforces."""
    found: dict[str, list[OutboundCall]] = {}
    for call in calls:
        if call.enforced_by.timeout == "grpc":
            found.setdefault(call.callee, []).append(call)
    return {callee: _channel(calls) for callee, calls in found.items()}


def _channel(calls: list[OutboundCall]) -> dict[str, Any]:
    (address,) = calls[0].addresses
    config: dict[str, Any] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        # The empty name means the health of the whole server. A server that is not serving gets no calls.
        "healthCheckConfig": {"serviceName": ""},
        # One entry for each method: gRPC refuses a config that names a method twice.
        "methodConfig": [_method(call) for call in {call.operation: call for call in calls}.values()],
    }
    if retries := [call.retry for call in calls if call.retry and call.retry.max_retries]:
        config["retryThrottling"] = {
            "maxTokens": min(_max_tokens(retry) for retry in retries),
            "tokenRatio": min(float(retry.budget.ratio) for retry in retries),
        }
    return {"target": f"dns:///{address.host}:{address.port}", "serviceConfig": config}


def _max_tokens(retry: Retry) -> int:
    """Tokens of retry throttling.

    A failure takes one token, and retries stop at half of the tokens. So the first `reserve` failures may be retried.
    """
    return 2 * (retry.budget.reserve + 1)


def _method(call: OutboundCall) -> dict[str, Any]:
    """The settings of one method. `timeout` bounds the whole call, because gRPC has no timeout for one attempt."""
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
    """A duration in the JSON format of `google.protobuf.Duration`."""
    return f"{duration.units / 1_000_000:.6f}".rstrip("0").rstrip(".") + "s"

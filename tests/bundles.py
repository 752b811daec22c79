from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

from voice_policies import (
    FILE_NAME,
    Address,
    BundleMetadata,
    Duration,
    EnforcedBy,
    Health,
    InboundOperation,
    OutboundCall,
    PolicyBundle,
    Ratio,
    ServiceLevel,
    Timeout,
    Tracing,
)

_versions = count()


def call(name: str = "rag-engine.context", **overrides: Any) -> OutboundCall:
    """A call. The runtime enforces the policies in `overrides`. The timeouts suffice on a busy machine."""
    enforced = {policy: "runtime" for policy in ("retry", "circuit_breaker", "bulkhead") if overrides.get(policy)}
    callee, _, operation = name.partition(":")[0].partition(".")
    fields: dict[str, Any] = {
        "name": name,
        "callee": callee,
        "operation": operation or "call",
        "protocol": "grpc",
        "addresses": (Address(host=callee, port=9000),),
        "idempotency": "idempotent",
        "necessity": "hard",
        "timeout": Timeout(attempt=Duration("10s"), overall=Duration("1m")),
        "enforced_by": EnforcedBy(timeout="runtime", **enforced),  # type: ignore[arg-type]  # names of layers
    }
    return OutboundCall(**(fields | overrides))


def operation(name: str = "run", **overrides: Any) -> InboundOperation:
    fields: dict[str, Any] = {
        "operation": name,
        "deadline": Duration("20s"),
        "service_level": ServiceLevel(availability=Ratio("99.9%"), latency=Duration("1s")),
    }
    return InboundOperation(**(fields | overrides))


def bundle(
    *outbound: OutboundCall, inbound: tuple[InboundOperation, ...] = (), service: str = "agent-engine", **overrides: Any
) -> PolicyBundle:
    fields: dict[str, Any] = {
        "metadata": BundleMetadata(service=service, environment="test", language="python"),
        "inbound": inbound,
        "outbound": outbound,
        "health": Health(),
        "tracing": Tracing(endpoint="http://collector:4317"),
    }
    return PolicyBundle(**(fields | overrides)).sealed()


def mount(directory: Path, content: PolicyBundle | str) -> Path:
    """Write or replace a bundle as kubelet does: a new directory, then one renamed symbolic link."""
    text = content if isinstance(content, str) else json.dumps(content.to_document())
    version = directory / f"..version_{next(_versions)}"
    version.mkdir(parents=True)
    (version / FILE_NAME).write_text(text)
    fresh = directory / "..data_tmp"
    fresh.symlink_to(version.name)
    fresh.rename(directory / "..data")
    if not (directory / FILE_NAME).is_symlink():
        (directory / FILE_NAME).symlink_to(Path("..data") / FILE_NAME)
    return directory

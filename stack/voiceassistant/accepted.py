"""Findings of the audit that the platform accepts, each with its reason and its expiry date."""

from __future__ import annotations

from datetime import date

from stack.model.profile import AcceptedFinding

NEXT_SPRING, NEXT_YEAR = date(2027, 3, 31), date(2027, 11, 30)


def _accepted(rule: str, path: str, reason: str, expires: date = NEXT_YEAR) -> AcceptedFinding:
    return AcceptedFinding(rule=rule, path=path, reason=reason, expires=expires)


_OF_TARGETS = tuple(
    _accepted(
        "A02",
        f"flow {name}",
        f"{reason}, as the platform's targets say; rule A01 checks that the flow can reach its own target",
    )
    for name, reason in (
        ("voice-dialogue", "voice-engine has the tier standard"),
        ("login", "identity-service, PostgreSQL and the gateway have a target of 99.99% each"),
        ("conversation-list", "conversation-service, PostgreSQL and the gateway have a target of 99.99% each"),
        ("search", "the vector store has a target of 99.9%, like other infrastructure"),
    )
)
IN_DEV = (
    *_OF_TARGETS,
    _accepted("E01", "circuit_breaker without mesh", "dev runs without the mesh: a laptop has no room for its proxies"),
)
BEYOND_DEV = (
    *_OF_TARGETS,
    _accepted(
        "A03",
        "voice-data/events: replicas",
        "events wait in the outbox while the only replica restarts, and the error budget allows 43 minutes a month",
    ),
    _accepted(
        "C05",
        "knowledge-service.search → retrieval-service.search",
        "the mesh ejects single pods, so the second attempt goes to another pod, if there is one",
    ),
)
IN_PROD = (
    *BEYOND_DEV,
    _accepted(
        "S01",
        "images.lock.yaml",
        "no registry was reachable yet, so the lock has no digests; `pulumi up` refuses images without a digest",
        NEXT_SPRING,
    ),
)

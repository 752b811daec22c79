"""R03, T02 on manifests: the retries and timeouts of Istio's VirtualServices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from voice_policies import Duration

from components.declaration import Location
from stack.audit.finding import Breach
from stack.audit.manifests.known import on_manifests
from stack.audit.retry_policies import MAX_ATTEMPTS, WARN_ATTEMPTS
from stack.model.manifests.system import System


class RetriedRoute(NamedTuple):
    """A route of a VirtualService on which the proxies retry."""

    path: str
    where: Location
    attempts: int
    """Attempts of a request, the first attempt included."""
    attempt_timeout: Duration | None
    timeout: Duration | None


def _retried(system: System) -> Iterator[RetriedRoute]:
    for service in system.virtual_services:
        for number, route in enumerate(service.spec.http):
            if route.retries and route.retries.attempts > 0:
                hosts = ", ".join(each.destination.host for each in route.route)
                yield RetriedRoute(
                    f"{service.title} → {hosts}",
                    service.at("http", number, "retries"),
                    1 + route.retries.attempts,
                    _duration(route.retries.per_try_timeout),
                    _duration(route.timeout),
                )


def _duration(text: str | None) -> Duration | None:
    """A timeout of Istio. `None` for no timeout (Istio accepts `0s` for it) and for a text that is no duration."""
    try:
        return Duration(text) or None if text else None
    except ValueError:
        return None


def attempts_are_limited(system: System) -> Iterator[Breach | None]:
    """Check that no route makes more attempts than the limit."""
    for route in _retried(system):
        text = f"1 + {route.attempts - 1} retries = {route.attempts} attempts > {WARN_ATTEMPTS}"
        many = Breach(
            route.path,
            text,
            "retries.attempts",
            str(WARN_ATTEMPTS - 1),
            route.where,
            "error" if route.attempts > MAX_ATTEMPTS else "warning",
        )
        yield many if route.attempts > WARN_ATTEMPTS else None


def attempts_fit_the_timeout(system: System) -> Iterator[Breach | None]:
    """Compare the sum of all attempts' timeouts with the route's timeout."""
    for route in _retried(system):
        if route.attempt_timeout is None or route.timeout is None:
            continue
        needed = route.attempt_timeout * route.attempts
        text = f"{route.attempts} attempts × {route.attempt_timeout} = {needed} > timeout {route.timeout}"
        yield Breach(route.path, text, "timeout", str(needed), route.where) if needed > route.timeout else None


RULES = (
    on_manifests("R03", attempts_are_limited),
    on_manifests("T02", attempts_fit_the_timeout),
)

"""The services of each domain of the catalogue."""

from __future__ import annotations

from types import ModuleType

from voice_policies import Fault, InvalidInputError

from components.node import Service
from stack.voiceassistant.catalog import conversations, intelligence, knowledge


def _services(domain: ModuleType) -> tuple[Service, ...]:
    """The services of a domain. Raises `InvalidInputError` if the domain's `SERVICES` is no tuple of services."""
    found = domain.SERVICES
    if isinstance(found, tuple) and all(isinstance(each, Service) for each in found):
        return found
    accepted = "expected a tuple of services, as in SERVICES = (*SERVICES, SUMMARY)"
    file = f"{domain.__name__.replace('.', '/')}.py"
    raise InvalidInputError(file, [Fault("SERVICES", "is not a tuple of services", accepted)])


TEAM_SERVICES = {
    "conversations": _services(conversations),
    "knowledge": _services(knowledge),
    "intelligence": _services(intelligence),
}
"""Team → the services of its domain."""

"""The catalogue of VoiceAssistant as data: services, dependencies, gateway and flows.

A call that the catalogue does not declare is not permitted.
"""

from stack.voiceassistant.catalog import dependencies, models
from stack.voiceassistant.catalog.domains import TEAM_SERVICES
from stack.voiceassistant.catalog.flows import FLOWS
from stack.voiceassistant.catalog.gateway import GATEWAY
from stack.voiceassistant.catalog.rules import FORBIDDEN, ONLY_CALLERS

DEPENDENCIES = (*dependencies.DEPENDENCIES, models.LLM, models.SPEECH)
SERVICES = tuple(service for services in TEAM_SERVICES.values() for service in services)

__all__ = ["DEPENDENCIES", "FLOWS", "FORBIDDEN", "GATEWAY", "ONLY_CALLERS", "SERVICES", "TEAM_SERVICES"]

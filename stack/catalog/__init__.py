"""What VoiceAssistant is: services, dependencies, gateway and flows, as data. A call that is not here is forbidden."""

from stack.catalog import conversations, intelligence, knowledge
from stack.catalog.dependencies import DEPENDENCIES
from stack.catalog.flows import FLOWS, Flow
from stack.catalog.gateway import GATEWAY
from stack.catalog.rules import FORBIDDEN, ONLY_CALLERS

SERVICES = (*conversations.SERVICES, *knowledge.SERVICES, *intelligence.SERVICES)

__all__ = ["DEPENDENCIES", "FLOWS", "FORBIDDEN", "GATEWAY", "ONLY_CALLERS", "SERVICES", "Flow"]

"""VoiceAssistant as one value: its catalogue on its site."""

from __future__ import annotations

from stack.model.catalogue import Catalogue
from stack.voiceassistant import catalog
from stack.voiceassistant.targets import SITE

CATALOGUE = Catalogue(
    source="stack/voiceassistant/catalog",
    site=SITE,
    nodes=(catalog.GATEWAY, *catalog.SERVICES, *catalog.DEPENDENCIES),
    flows=catalog.FLOWS,
    only_callers=catalog.ONLY_CALLERS,
    forbidden=catalog.FORBIDDEN,
)

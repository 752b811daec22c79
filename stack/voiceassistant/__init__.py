"""VoiceAssistant, the tenant: catalogue, tiers and alerts."""

from stack.voiceassistant.tenant import TENANT

__all__ = ["TENANT"]

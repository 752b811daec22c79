"""VoiceAssistant, the tenant: catalogue, tiers and alerts."""

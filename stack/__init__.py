"""The engine of a platform (model, audit, output, deploy, command line) and its tenant, VoiceAssistant."""

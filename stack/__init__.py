"""What VoiceAssistant is, per environment; what is made of it, and what is checked."""

"""Prompt privacy: permits prompts and answers in spans."""

from __future__ import annotations

from voice_policies.policy import Policy


class PromptPrivacy(Policy):
    """By default no log, span, metric or error holds a prompt or an answer."""

    capture: bool = False
    """True records prompts and answers as attributes of spans."""

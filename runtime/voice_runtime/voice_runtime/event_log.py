"""Writes the events of the policies as structured log lines, and limits the rate of lines for equal events.

The fields of the record name the callee, the operation, the policy and the reason, if the event has them. No line
contains the text of a callee's error, because that text may name a user.
"""

from __future__ import annotations

import logging
from threading import Lock

from voice_runtime.clock import SYSTEM_CLOCK, Clock
from voice_runtime.errors import seconds_of
from voice_runtime.events import Event, PromptListener, logger
from voice_runtime.log_rate import LogRate, since_previous

__all__ = ["EventLog"]

MAX_KEPT = 1_000
"""Number of distinct events that the log remembers. The policies of one bundle cause fewer distinct events."""
_LEVELS = {
    "open": logging.WARNING,
    "forced_open": logging.WARNING,
    "disabled": logging.WARNING,
    "in_cooldown": logging.WARNING,
    "partial": logging.WARNING,
    "full": logging.WARNING,
    "rejected": logging.WARNING,
    "exhausted": logging.WARNING,
    "timeout": logging.WARNING,
    "fallback": logging.WARNING,
    "refused": logging.ERROR,
}
"""Log level of an event: by its new state, otherwise by its kind, otherwise `INFO`."""
_STATES = {
    "open": "opened",
    "closed": "closed",
    "half_open": "admits probes",
    "forced_open": "was opened by hand",
    "disabled": "was disabled by hand",
}
_Key = tuple[str, str, str, str, str]


class EventLog(PromptListener):
    """Writes the first of equal events immediately, and then at most one line every `QUIET` seconds.

    Each later line names the number of events that were omitted since the previous line.

    Two events are equal if they have the same kind, policy, target, new state and reason. `Runtime.load` adds this
    listener.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._now = clock.monotonic
        self._lock = Lock()
        self._kept: dict[_Key, LogRate] = {}

    def on_event(self, event: Event) -> None:
        """Write the event, unless an equal event was written less than `QUIET` seconds ago."""
        if event.policy == "saga":
            return  # every saga is a separate target, so every request would write a line
        key = (event.kind, event.policy, event.target, event.after, event.reason)
        with self._lock:
            rate = self._kept.pop(key, None) or LogRate(self._now)
            if len(self._kept) >= MAX_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = rate
            omitted = rate.admit()
        if omitted is not None:
            _write(event, omitted)


def _write(event: Event, omitted: int) -> None:
    text = _text(event) + since_previous(omitted)
    callee, operation = _names(event)
    fields = {
        "event": event.kind,
        "policy": event.policy,
        "callee": callee,
        "operation": operation,
        "reason": event.reason or (type(event.error).__name__ if event.error else ""),
        "omitted": omitted,
    }
    level = _LEVELS.get(event.after) or _LEVELS.get(event.kind, logging.INFO)
    logger.log(level, "%s", text, extra={name: value for name, value in fields.items() if value})


def _names(event: Event) -> tuple[str, str]:
    """Callee and operation of an event."""
    if event.policy in {"bundle", "degradation"}:
        return "", ""
    if event.policy == "cooldown":
        return event.target, ""  # a model deployment
    callee, dot, operation = event.target.partition(".")
    return (callee, operation) if dot else ("", event.target)  # without a dot: an inbound operation


def _text(event: Event) -> str:
    target, error = event.target, type(event.error).__name__
    match event.kind, event.policy:
        case "transition", "circuit_breaker":
            text = f"circuit breaker of {target} {_STATES[event.after]}"
            text += f" for {seconds_of(event.delay)}" if event.delay is not None else ""
            text += f": {event.reason}" if event.reason else ""
        case "transition", "cooldown":
            text = f"model deployment {target} is in cooldown for {seconds_of(event.delay or 0.0)}: {event.reason}"
        case "transition", _:
            text = f"degradation level of {target} changed from {event.before} to {event.after}: {event.reason}"
        case "retry", _:
            text = (
                f"{target} is called again in {seconds_of(event.delay or 0.0)} after attempt {event.attempt}: {error}"
            )
        case "exhausted", _:
            text = f"retry of {target} gave up after attempt {event.attempt} ({event.reason}): {error}"
        case "fallback", _:
            text = f"{target} failed and its fallback answers: {error}"
        case "refused", _:
            text = f"policy bundle {target} is refused, {event.before} stays in force: {event.error}"
        case "reloaded", _:
            text = f"policy bundle {event.after} is in force"
        case _:
            text = str(event.error)
    return text

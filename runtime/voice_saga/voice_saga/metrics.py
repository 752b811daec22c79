"""The metrics of sagas. Label values are names (of a saga, step, stream or consumer) and kinds, never ids.

Counters are copied before they are read, because the event loop may add a label while another thread exports.
"""

from __future__ import annotations

from voice_runtime.metrics import Metric, Samples

from voice_saga.observation import Observation
from voice_saga.transport import DeadLetters, Outbox

__all__ = ["DEAD_LETTER_METRICS", "METRICS", "OUTBOX_METRICS"]


def _unfinished(observation: Observation) -> Samples:
    yield from observation.unfinished.copy().items()


def _transitions(observation: Observation) -> Samples:
    yield from observation.transitions.copy().items()


def _executions(observation: Observation) -> Samples:
    yield from observation.executions.copy().items()


def _seconds(observation: Observation) -> Samples:
    yield from observation.seconds.copy().items()


def _leases_lost(observation: Observation) -> Samples:
    yield (), observation.leases_lost


def _listener_errors(observation: Observation) -> Samples:
    yield (), observation.events.listener_errors


def _sent(outbox: Outbox) -> Samples:
    yield (), outbox.sent


def _refused(outbox: Outbox) -> Samples:
    yield (), outbox.refused


def _dead_letters(dead_letters: DeadLetters) -> Samples:
    yield from dead_letters.copy().items()


_STEP = ("saga", "step", "branch")

METRICS: tuple[Metric[Observation], ...] = (
    Metric(
        "voice_saga_unfinished",
        "gauge",
        "Unfinished sagas in the journal: running, waiting, compensating or parked.",
        ("saga", "state"),
        _unfinished,
    ),
    Metric(
        "voice_saga_transitions_total",
        "counter",
        "Journal entries that this process wrote.",
        ("saga", "kind"),
        _transitions,
    ),
    Metric(
        "voice_saga_step_executions_total",
        "counter",
        "Executions of steps that have ended.",
        (*_STEP, "kind"),
        _executions,
    ),
    Metric(
        "voice_saga_step_seconds_total",
        "counter",
        "Duration of executions, summed. In an engine with a journal an execution includes its retries.",
        _STEP,
        _seconds,
    ),
    Metric(
        "voice_saga_leases_lost_total",
        "counter",
        "Leases that expired or were taken over while the worker ran the saga.",
        (),
        _leases_lost,
    ),
    Metric(
        "voice_saga_listener_errors_total", "counter", "Exceptions raised by event listeners.", (), _listener_errors
    ),
)
"""Every metric of an engine."""
OUTBOX_METRICS: tuple[Metric[Outbox], ...] = (
    Metric("voice_outbox_sent_total", "counter", "Messages that the transport accepted.", (), _sent),
    Metric("voice_outbox_refused_total", "counter", "Times that the transport refused a message.", (), _refused),
)
"""Every metric of an outbox."""
DEAD_LETTER_METRICS: tuple[Metric[DeadLetters], ...] = (
    Metric(
        "voice_stream_dead_letters_total",
        "counter",
        "Messages that the consumer could not handle.",
        ("stream", "consumer"),
        _dead_letters,
    ),
)
"""Every metric of a transport's consumers."""

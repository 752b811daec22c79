"""Sagas and events: unfinished sagas, executions of steps, and messages that no consumer could handle."""

from __future__ import annotations

from components.observability.dashboards import Dashboard, Row, metrics, rate, ratio

STEP = "saga, step"
LEGEND = "{{saga}}: {{step}}"


_EXECUTIONS = rate("voice_saga_step_executions_total", STEP)
_FAILED = rate("voice_saga_step_executions_total", STEP, 'kind="failed"')
_SAGAS = Row(
    title="Sagas",
    panels=(
        metrics(
            "Unfinished",
            "Sagas that have not ended. A parked saga waits for a person.",
            {"{{saga}}: {{state}}": "max by (saga, state) (voice_saga_unfinished)"},
        ),
        metrics(
            "Transitions",
            "Entries written to the journal, by kind.",
            {"{{saga}}: {{kind}}": rate("voice_saga_transitions_total", "saga, kind")},
            "reqps",
        ),
        metrics(
            "Failed steps",
            "Share of a step's executions that failed.",
            {LEGEND: ratio(_FAILED, _EXECUTIONS)},
            "percentunit",
        ),
        metrics(
            "Time of a step",
            "Mean time of an execution with its retries.",
            {LEGEND: ratio(rate("voice_saga_step_seconds_total", STEP), _EXECUTIONS)},
            "s",
        ),
        metrics(
            "Lost leases",
            "Leases that expired or were taken over while a worker still ran the saga.",
            {"{{job}}": rate("voice_saga_leases_lost_total", "job")},
            "reqps",
        ),
    ),
)
_EVENTS = Row(
    title="Events",
    panels=(
        metrics(
            "Dead letters",
            "Messages that no attempt could handle, in the last hour.",
            {"{{job}}: {{stream}}": "sum by (job, stream) (increase(voice_stream_dead_letters_total[1h]))"},
            red_from=1,
        ),
        metrics(
            "Appended events",
            "Attempts to append to a stream, by publisher. The outbox keeps events whose attempt failed.",
            {"{{job}}: {{kind}}": rate("voice_call_attempts_total", "job, kind", 'name="events.append"')},
            "reqps",
        ),
        metrics(
            "Read events",
            "Attempts to read from a stream, by consumer.",
            {"{{job}}: {{kind}}": rate("voice_call_attempts_total", "job, kind", 'name="events.consume"')},
            "reqps",
        ),
    ),
)


def sagas() -> Dashboard:
    """The dashboard of sagas and event streams."""
    return Dashboard(
        uid="sagas",
        title="Sagas and events",
        rows=(_SAGAS, _EVENTS),
    )

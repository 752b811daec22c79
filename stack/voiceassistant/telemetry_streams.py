"""The telemetry streams with their retentions. The disk of a store without a bucket must hold the whole stream."""

from __future__ import annotations

from voice_policies import Bytes, Duration

from components.observability.elasticsearch_setup import LOGS
from components.observability.jaeger import TRACES
from components.retention import DAY, Stream
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.profile import N_PLUS_ONE
from stack.voiceassistant.profiles import BLOCKS
from stack.voiceassistant.telemetry import log_bytes, trace_bytes

LINE_SHARE, SPAN_SHARE, BLOCK_SHARE = 0.5, 0.4, 0.1
"""Assumed sizes on disk of one copy, relative to OTLP: of a log line in Elasticsearch, of a span in Elasticsearch, and
of a span in a columnar block of Tempo. `_cat/indices` and Tempo's block metadata show the real sizes."""


def log_stream(graph: CallGraph, environment: Environment) -> Stream:
    """Log lines in Elasticsearch, with a second copy if there is more than one node."""
    copies = min(N_PLUS_ONE, environment.server("elasticsearch").replicas)
    daily = _daily(log_bytes(graph, environment), LINE_SHARE)
    return Stream(name=LOGS, daily=daily, retention=environment.profile.retentions[LOGS], copies=copies)


def trace_stream(graph: CallGraph, environment: Environment) -> Stream:
    """Jaeger's traces in Elasticsearch, without a second copy: Tempo has them too."""
    daily = _daily(trace_bytes(graph, environment), SPAN_SHARE)
    return _sampled(environment, daily, environment.profile.retentions[TRACES])


def block_stream(graph: CallGraph, environment: Environment) -> Stream:
    """Tempo's blocks."""
    daily = _daily(trace_bytes(graph, environment), BLOCK_SHARE)
    return _sampled(environment, daily, environment.profile.retentions[BLOCKS])


def _sampled(environment: Environment, daily: Bytes, retention: Duration) -> Stream:
    return Stream(name=TRACES, daily=daily, retention=retention, sampled=environment.settings.trace_sample_ratio)


def _daily(arriving: Bytes, share: float) -> Bytes:
    return Bytes.of_units(round(arriving.units * DAY.seconds * share))

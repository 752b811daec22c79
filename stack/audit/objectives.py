"""O02: objectives that the gateway's metrics cannot measure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from components.node import Gateway, Service
from stack.audit.alerts import rules
from stack.audit.finding import Breach, Rule
from stack.audit.rendered import rendered
from stack.model.platform import Platform

BUCKETS = re.compile(r"default_buckets:\s*\n((?:\s*- [\d.]+\n)+)")
"""Finds the bucket boundaries of APISIX's histograms in its configuration, in milliseconds."""
WHOLE_REQUEST = re.compile(r"_latency_bucket\{[^}]*type=[\"']request[\"']")
"""Finds an expression over the `request` latency. This latency includes the transfer from and to the client
(apisix#6029)."""


def objectives_are_measurable(platform: Platform) -> Iterator[Breach | None]:
    """Check the buckets of the gateway's histograms, and the rules that read these histograms.

    The objective of each route must be a bucket boundary; WebSocket routes are exempt. No rule may measure the
    transfer from and to the client. If a flow has an objective for its first frame, a rule must read a first-byte
    metric.
    """
    boundaries = set(_boundaries(platform))
    for edge in platform.graph.edges if boundaries else ():
        if isinstance(edge.caller, Gateway) and isinstance(edge.callee, Service) and edge.operation.http:
            objective = edge.operation.latency.units / 1000
            text = f"no bucket of the gateway's histogram ends at {objective:g} ms, so Prometheus estimates the ratio"
            found = Breach(
                f"route {edge.operation.name}", text, "default_buckets", f"{objective:g}", edge.operation.location
            )
            is_unmeasured = objective not in boundaries and edge.operation.transport != "websocket"
            yield found if is_unmeasured else None
    known = list(rules(platform).expressions)
    for name, expression in known:
        if "_latency_bucket" in expression:
            text = "the rule's histogram includes the transfer from and to the client"
            yield Breach(f"rule {name}", text, "the expression") if WHOLE_REQUEST.search(expression) else None
    if known and any(milestone.first_stage for flow in platform.graph.flows for milestone in flow.milestones):
        seen = any("first_byte" in expression for _, expression in known)
        text = "a flow has an objective for its first frame, but no rule reads a first-byte metric"
        yield None if seen else Breach("first byte", text, "a rule over a first-byte metric")


def _boundaries(platform: Platform) -> Iterator[float]:
    for config in rendered(platform).of_kind("ConfigMap"):
        if text := config.get("data", {}).get("config.yaml"):
            for listed in BUCKETS.findall(text):
                yield from (float(number) for number in re.findall(r"[\d.]+", listed))


RULES = (
    Rule(
        id="O02",
        title="metrics can measure the objectives",
        severity="error",
        rationale="a percentile between two distant buckets is a guess; a slow client makes the platform look slow",
        source="apisix#9653; apisix#6029",
        violates="an objective of 200 ms, with buckets that end at 100 ms and 500 ms",
        holds="the same objective, with a bucket that ends at 200 ms",
        check=objectives_are_measurable,
    ),
)

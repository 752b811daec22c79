"""Runs the platform's flows between reference services on one machine: `voice-flows build/dev/policies`.

It sends requests into each flow, and prints the time of each hop of an answered request, as the received spans report
it. Then it makes a soft dependency fail and recover. Exit code 0: all flows behave as expected; 1: a flow does not; 2:
bad input.
"""

from __future__ import annotations

import argparse
import re
import secrets
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from voice_policies import Duration, InvalidInputError, OutboundCall, PolicyBundle, Ratio
from voice_runtime.tracing.collector import Collector, ReceivedSpan

from voice_reference.configuration import Behaviour
from voice_reference.processes import Platform, Process, bundles_of, running, wait_until

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For requests over plain HTTP. Otherwise each request would read all certificate authorities, which takes 15 ms."""
SERVER = 2
"""SPAN_KIND_SERVER of OTLP."""
PATIENCE = 30.0
"""Longest wait for one answer, state or trace, in seconds."""
ATTEMPTS = 5
PAUSE = 0.15
"""Seconds between two requests. agent-engine admits ten requests a second from one tenant."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A path of requests through the platform. It begins at the operation `operation` of `service`."""

    title: str
    service: str
    operation: str


FLOWS = (
    Flow("Voice dialogue", "voice-engine", "dialogue"),
    Flow("Retrieve and re-rank", "conversation-service", "send"),
    Flow("Tool call", "ai-orchestrator", "task"),
)


class FlowError(Exception):
    """A flow did not behave as expected."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request and its answer."""

    trace_id: str
    span_id: str
    """The id of the sender's own span, which is not exported."""
    status: int
    fallbacks: tuple[str, ...]


def send(process: Process, operation: str) -> Sent:
    """Begin a trace, as the gateway does, and send a request into it."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    headers = {"traceparent": f"00-{trace_id}-{span_id}-01", "baggage": "tenant.id=acme"}
    answer = httpx.post(f"{process.url}/{operation}", headers=headers, timeout=PATIENCE, trust_env=False, verify=NO_TLS)
    return Sent(trace_id, span_id, answer.status_code, tuple(answer.json().get("fallbacks", ())))


def trace(flow: Flow, platform: Platform, collector: Collector) -> tuple[Sent, list[ReceivedSpan]]:
    """Send one request, and wait for all its spans. Raises `FlowError` if some are missing."""
    earlier = {span.trace_id for span in collector.spans}
    sent = send(platform.processes[flow.service], flow.operation)
    if not collector.wait_for(lambda spans: is_whole(spans, sent), PATIENCE):
        raise FlowError(f"{flow.title}: spans of trace {sent.trace_id} are missing")
    return sent, [span for span in collector.spans if span.trace_id not in earlier]


def answered(flow: Flow, platform: Platform, collector: Collector) -> tuple[Sent, list[ReceivedSpan]]:
    """Send at most `ATTEMPTS` requests, until one is answered with status 200. Returns that request and its spans.

    On a busy machine a simulated store may time out, so a request may fail. The output names each
    failed request.
    """
    for left in reversed(range(ATTEMPTS)):
        sent, spans = trace(flow, platform, collector)
        if sent.status == 200:
            return sent, spans
        if left:
            print(f"\n{flow.title}: answered {sent.status}; sending the request again")
    raise FlowError(f"{flow.title}: {flow.service}.{flow.operation} answers {sent.status}")


def show(flow: Flow, platform: Platform, collector: Collector) -> None:
    """Send requests until one succeeds, and print its hops.

    Raises `FlowError` if
    - no request succeeds,
    - spans are missing or belong to several traces, or
    - a deadline is not shorter than its caller's.
    """
    trace(flow, platform, collector)  # not shown, because the first request of a process also opens its connections
    sent, spans = answered(flow, platform, collector)
    hops = [span for span in spans if span.kind == SERVER]
    traces = {span.trace_id for span in spans}
    print(f"\n{flow.title}: {len(hops)} hops between {len({hop.service for hop in hops})} services")
    for line in tree(spans):
        print(f"  {line}")
    if traces != {sent.trace_id}:
        raise FlowError(f"{flow.title}: {len(traces)} traces where there should be one")
    print(f"  one trace id on all hops: {sent.trace_id}")
    check_deadlines(spans)
    print("  every deadline is shorter than its caller's")


def is_whole(spans: list[ReceivedSpan], sent: Sent) -> bool:
    """True if a trace is complete: the collector has every parent, and the caller's and callee's span of every call.

    The callee's span of a failed call may be missing, because the request may not have reached the callee.
    """
    own = [span for span in spans if span.trace_id == sent.trace_id]
    parents = {span.parent_id for span in own}
    calls = {span.span_id for span in own if is_call(span) and not span.failed}
    return parents - {span.span_id for span in own} == {sent.span_id} and calls <= parents


def is_call(span: ReceivedSpan) -> bool:
    """True for the caller's span of a call to another service.

    False for a call to a simulated store or model, which sends no spans.
    """
    return span.kind != SERVER and not {"voice.simulated", "voice.model.route"} & span.attributes.keys()


def tree(spans: list[ReceivedSpan]) -> Iterator[str]:
    """The hops and simulated calls of one trace, indented. A call between services is one line: the callee's span."""
    ids = {span.span_id for span in spans}
    (root,) = (span for span in spans if span.parent_id not in ids)
    yield from _branch(root, spans, 0)


def _branch(span: ReceivedSpan, spans: list[ReceivedSpan], depth: int) -> Iterator[str]:
    children = sorted((each for each in spans if each.parent_id == span.span_id), key=lambda each: each.begin)
    if not (is_call(span) and children):
        yield _line(span, depth)
        depth += 1
    for event in span.events:
        if event.name.startswith("voice."):
            yield f"{'  ' * depth}! {event.name[6:]}: {' '.join(str(value) for value in event.attributes.values())}"
    for child in children:
        yield from _branch(child, spans, depth)


def _line(span: ReceivedSpan, depth: int) -> str:
    operation = re.split("[/ ]", span.name)[-1]  # the span's name is `Service/run` over gRPC, and `POST run` over HTTP
    attributes = span.attributes
    if "voice.model.route" in attributes:
        call = f"{attributes['voice.model.route']} ({attributes['voice.model.deployment']})"
    else:
        call = f"{attributes.get('voice.call')} ({'no answer' if is_call(span) else 'simulated'})"
    name = f"{span.service}.{operation}" if span.kind == SERVER else call
    left = attributes.get("voice.deadline_seconds")
    deadline = "" if left is None else f"   deadline in {left:.3f} s"
    return f"{'  ' * depth + name:<62} {(span.end - span.begin) / 1e6:7.1f} ms{deadline}"


def check_deadlines(spans: list[ReceivedSpan]) -> None:
    """Check that the deadline of each hop is shorter than its caller's deadline. Raises `FlowError` if not."""
    by_id = {span.span_id: span for span in spans}
    for span in spans:
        left = span.attributes.get("voice.deadline_seconds")
        caller = by_id.get(span.parent_id)
        while caller is not None and caller.kind != SERVER:
            caller = by_id.get(caller.parent_id)
        if left is not None and caller is not None and not left < caller.attributes["voice.deadline_seconds"]:
            longest = caller.attributes["voice.deadline_seconds"]
            raise FlowError(
                f"{span.service}: the deadline is in {left} s; expected less than the {longest} s of {caller.service}"
            )


BREAK_DURATION = Duration("2s")
"""Break of the circuit breaker in this demonstration, shorter than the policy's break of 15 s, to save time."""


def break_and_mend(platform: Platform) -> None:
    """Let rag-engine, a soft dependency of agent-engine, fail and recover. Raises `FlowError`."""
    agent, entrance = platform.processes["agent-engine"], platform.processes["ai-orchestrator"]
    print("\nA soft dependency fails: rag-engine.context, which agent-engine needs for citations")
    digest = agent.bundle.metadata.digest
    agent.mount(with_break_duration(agent.bundle, "rag-engine.context"))
    swapped = f'digest="{agent.bundle.metadata.digest}"'
    wait_until(lambda: swapped in metrics(agent), PATIENCE, "agent-engine's metrics name its new bundle")
    print(
        f"  agent-engine has swapped its policy while running: {short(digest)} → {short(agent.bundle.metadata.digest)}"
    )
    platform.behave("rag-engine", context=Behaviour(error_ratio=Ratio("100%")))
    print("  rag-engine fails")
    follow(entrance, agent, degraded=True, until="open")
    platform.behave("rag-engine")
    print("  rag-engine works again")
    follow(entrance, agent, degraded=False, until="closed")


def follow(entrance: Process, agent: Process, *, degraded: bool, until: str) -> None:
    """Send requests until breaker and answers are as expected. Every request must be answered."""
    seen = ""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        sent = send(entrance, "task")
        if sent.status != 200:
            raise FlowError(f"a request failed with status {sent.status}; expected 200, with or without citations")
        is_degraded, state = "no citations" in sent.fallbacks, breaker_state(agent, "rag-engine.context")
        line = f"  answered {'without citations' if is_degraded else 'with citations'}, breaker {state}"
        if line != seen:
            print(line)
        seen = line
        if (is_degraded, state) == (degraded, until):
            return
        time.sleep(PAUSE)
    raise FlowError(
        f"after {PATIENCE} s expected breaker {until} and answers {'without' if degraded else 'with'} citations;"
        f" the last request:{seen}"
    )


def with_break_duration(bundle: PolicyBundle, name: str) -> PolicyBundle:
    """The same bundle with a shorter break of the circuit breaker."""

    def changed(call: OutboundCall) -> OutboundCall:
        if call.name != name or call.circuit_breaker is None:
            return call
        breaker = call.circuit_breaker.model_copy(update={"break_duration": BREAK_DURATION})
        return call.model_copy(update={"circuit_breaker": breaker})

    return bundle.model_copy(update={"outbound": tuple(changed(call) for call in bundle.outbound)})


def metrics(process: Process) -> str:
    """The metrics that Prometheus would scrape."""
    return httpx.get(f"{process.url}/metrics", timeout=PATIENCE, trust_env=False, verify=NO_TLS).text


def breaker_state(process: Process, name: str) -> str:
    """The state of a call's breaker."""
    prefix = f'voice_circuitbreaker_state{{name="{name}",state="'
    lines = (line for line in metrics(process).splitlines() if line.startswith(prefix) and line.endswith(" 1.0"))
    return next(lines).removeprefix(prefix).partition('"')[0]


def short(digest: str | None) -> str:
    """The beginning of a digest."""
    return (digest or "")[:15]


def run(directory: Path) -> None:
    """Run every flow, then let rag-engine fail and recover.

    Raises `InvalidInputError` for missing or faulty bundles. Raises `FlowError`, `TimeoutError` or `httpx.HTTPError` if
    a process or a flow fails.
    """
    bundles = bundles_of(directory, [flow.service for flow in FLOWS])
    print(f"{len(bundles)} services, a process each: {', '.join(sorted(bundles))}", flush=True)
    with Collector() as collector, running(bundles, collector.endpoint) as platform:
        for flow in FLOWS:
            show(flow, platform, collector)
        break_and_mend(platform)


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="voice-flows", description="Run the platform's flows on one machine.")
    parser.add_argument("policies", type=Path, help="directory of rendered bundles, such as build/dev/policies")
    try:
        run(parser.parse_args(arguments).policies)
    except InvalidInputError as error:
        print(error, file=sys.stderr)
        return 2
    except (FlowError, TimeoutError, httpx.HTTPError) as error:
        print(f"\nfailed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

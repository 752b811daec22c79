"""Measures how callers recover after outages of reference services: `voice-outages build/dev/policies`.

The program sends a steady load through every flow. It freezes, kills, slows down or repeatedly freezes one callee at a
time. Two conditions must hold:
- The callers recover in time: see `Recovery.is_in_time`.
- No call has more attempts than the retries in the bundles allow.

Exit code 0: both conditions hold; 1: a condition does not hold, or a service does not answer or recover; 2: bad input.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from voice_policies import Duration, Fault, InvalidInputError, PolicyBundle
from voice_runtime.tracing.collector import Collector, ReceivedEvent

from voice_reference.configuration import Behaviour
from voice_reference.flows import FLOWS, NO_TLS, PATIENCE, Flow, FlowError, metrics, send
from voice_reference.operations import is_on_the_wire
from voice_reference.processes import Platform, bundles_of, running, wait_until

RATE = 2.5
"""Requests a second, over all flows together."""
OUTAGE = 12.0
"""Duration in seconds of each outage except `flap`."""
FLAP = 3.0
"""Seconds of each freeze in `flap`, and of each run after a freeze."""
FLAPS = 4
MARGIN = 5.0
"""Seconds that a recovery may take beyond the longest break, for the requests and answers of the probes."""
LONGEST_BREAK = 180.0
"""Longest wait in seconds for all circuit breakers to close after an outage."""
SLOW = Behaviour(median=Duration("20s"), p95=Duration("20s"))
"""Behaviour of a slow callee. Each answer takes longer than the timeout of any attempt."""


def freeze(platform: Platform, callee: str) -> None:
    """Freeze the process for `OUTAGE` seconds, as in a long pause of its machine."""
    process = platform.processes[callee].process
    process.send_signal(signal.SIGSTOP)
    time.sleep(OUTAGE)
    process.send_signal(signal.SIGCONT)


def kill(platform: Platform, callee: str) -> None:
    """Kill the process, and start it again on its ports after `OUTAGE` seconds."""
    process = platform.processes[callee].process
    process.kill()
    process.wait()
    time.sleep(OUTAGE)
    platform.restart(callee)


def slow_down(platform: Platform, callee: str) -> None:
    """For `OUTAGE` seconds, make the callee's work take longer than any caller waits."""
    operations = platform.processes[callee].bundle.inbound
    platform.behave(callee, **{each.operation: SLOW for each in operations})
    time.sleep(OUTAGE)
    platform.behave(callee)


def flap(platform: Platform, callee: str) -> None:
    """Freeze the process, and then let it run. Repeat both `FLAPS` times."""
    process = platform.processes[callee].process
    for _ in range(FLAPS):
        process.send_signal(signal.SIGSTOP)
        time.sleep(FLAP)
        process.send_signal(signal.SIGCONT)
        time.sleep(FLAP)


OUTAGES: dict[str, Callable[[Platform, str], None]] = {
    "freeze": freeze,
    "kill": kill,
    "slow": slow_down,
    "flap": flap,
}


@dataclass(frozen=True, slots=True)
class Recovery:
    """The recovery of the callers after one outage of one callee."""

    outage: str
    callee: str
    longest_break: float
    """The longest break of a circuit breaker since the start of the outage, in seconds."""
    refused: int
    """Calls that a circuit breaker refused, during the outage and afterwards."""
    seconds: float
    """Seconds from the callee's first good answer to the last refusal; 0 if the last refusal came earlier."""

    @property
    def is_in_time(self) -> bool:
        """True if the last refusal came within the longest break plus `MARGIN` after the first good answer."""
        return self.seconds <= self.longest_break + MARGIN

    def __str__(self) -> str:
        verdict = "" if self.is_in_time else "   TOO LONG"
        return (
            f"{self.outage:<8}{self.callee:<26}{self.longest_break:>6.1f} s{self.refused:>9}"
            f"{self.seconds:>12.1f} s{verdict}"
        )


HEADER = f"{'outage':<8}{'callee':<26}{'break':>8}{'refused':>9}{'last refusal':>14}"


class Observer:
    """Observes the circuit breakers between services: their decisions in spans, and their states in metrics."""

    def __init__(self, platform: Platform, collector: Collector) -> None:
        self._platform = platform
        self._collector = collector
        calls = (call for process in platform.processes.values() for call in process.bundle.outbound)
        self._watched = {call.name for call in calls if is_on_the_wire(call)}

    def events(self, kind: str, since: float) -> list[ReceivedEvent]:
        """Events of one kind that breakers between services caused after the Unix time `since`."""
        spans = list(self._collector.spans)
        return [
            event
            for span in spans
            for event in span.events
            if event.name == f"voice.{kind}"
            and event.attributes["voice.policy"] == "circuit_breaker"
            and event.attributes["voice.target"] in self._watched
            and event.time >= since * 1e9
        ]

    def all_closed(self) -> bool:
        """True if every breaker between services is closed."""
        state = 'voice_circuitbreaker_state{name="'
        return not any(
            line.startswith(state)
            and 'state="closed"' in line
            and line.endswith(" 0.0")
            and _name(line) in self._watched
            for process in self._platform.processes.values()
            for line in metrics(process).splitlines()
        )


def _name(line: str) -> str:
    return line.partition('name="')[2].partition('"')[0]


@contextmanager
def load(platform: Platform, flows: Iterable[Flow]) -> Iterator[Counter[str]]:
    """Send `RATE` requests a second, to one flow after the other. Yields the counter `service.operation` → requests."""
    sent: Counter[str] = Counter()
    over = threading.Event()

    def request(service: str, operation: str) -> None:
        with suppress(httpx.HTTPError):
            send(platform.processes[service], operation)

    def begin() -> None:
        for flow in itertools.cycle(flows):
            if over.wait(1 / RATE):
                return
            sent[f"{flow.service}.{flow.operation}"] += 1
            pool.submit(request, flow.service, flow.operation)

    with ThreadPoolExecutor(max_workers=int(RATE * PATIENCE)) as pool:
        sender = threading.Thread(target=begin)
        sender.start()
        try:
            yield sent
        finally:
            over.set()
            sender.join()


def recover(platform: Platform, observer: Observer, outage: str, callee: str) -> Recovery:
    """Cause an outage of a callee under load, and wait for the recovery.

    Raises `TimeoutError` if the callee does not answer again, or if a breaker stays open.
    """
    began = time.time()
    OUTAGES[outage](platform, callee)
    wait_until(lambda: _answers(platform, callee), PATIENCE, f"{callee} answers again")
    answered = time.time()
    wait_until(observer.all_closed, LONGEST_BREAK, "every circuit breaker is closed")
    time.sleep(1.0)  # time for the last spans to arrive
    refusals = [event.time / 1e9 for event in observer.events("rejected", began)]
    breaks = [event for event in observer.events("transition", began) if event.attributes["voice.after"] == "open"]
    longest = max((event.attributes["voice.delay_seconds"] for event in breaks), default=0.0)
    return Recovery(outage, callee, longest, len(refusals), max(0.0, max(refusals, default=0.0) - answered))


def _answers(platform: Platform, callee: str) -> bool:
    process = platform.processes[callee]
    operation = process.bundle.inbound[0]
    try:
        headers = {"baggage": "tenant.id=prober"}
        url = f"{process.url}/{operation.operation}"
        answer = httpx.post(url, headers=headers, timeout=operation.deadline.seconds, trust_env=False, verify=NO_TLS)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


def bounds(bundles: dict[str, PolicyBundle], entrance: str) -> Counter[tuple[str, str]]:
    """Caller and name of each call → the most attempts that one request to `entrance` may cause.

    `entrance` is an operation: `service.operation`.
    """
    found: Counter[tuple[str, str]] = Counter()
    service, _, operation = entrance.partition(".")
    bundle = bundles[service]
    calls = {call.name: call for call in bundle.outbound}
    for name in next(each.calls for each in bundle.inbound if each.operation == operation):
        call = calls[name]
        attempts = call.retry.max_attempts if call.retry else 1
        found[service, name] += attempts
        if is_on_the_wire(call):
            for below, count in bounds(bundles, f"{call.callee}.{call.operation}").items():
                found[below] += attempts * count
    return found


def attempts(platform: Platform) -> Counter[tuple[str, str]]:
    """Caller and name of each call → the number of its ended attempts."""
    found: Counter[tuple[str, str]] = Counter()
    for service, process in platform.processes.items():
        for line in metrics(process).splitlines():
            if line.startswith("voice_call_attempts_total{"):
                found[service, _name(line)] += round(float(line.rpartition(" ")[2]))
    return found


def check_attempts(platform: Platform, sent: Counter[str], before: Counter[tuple[str, str]]) -> str:
    """Compare the attempts with the maximum that the bundles allow. Returns a text about the call nearest to its bound.

    Raises `FlowError` if a call has more attempts than the bundles allow.
    """
    bundles = {name: process.bundle for name, process in platform.processes.items()}
    allowed: Counter[tuple[str, str]] = Counter()
    for entrance, count in sent.items():
        for call, bound in bounds(bundles, entrance).items():
            allowed[call] += count * bound
    made = attempts(platform)
    shares = {call: (made[call] - before[call]) / most for call, most in allowed.items()}
    (service, name), share = max(shares.items(), key=lambda pair: pair[1])
    text = f"nearest to its bound: {service} made {share:.0%} of the allowed attempts of {name}"
    if share > 1:
        raise FlowError(text)
    return text


def run(directory: Path, callees: Sequence[str], outages: Iterable[str]) -> bool:
    """Cause each outage at each callee (if `callees` is empty, at every callee). True if all callers recovered in time.

    Raises `InvalidInputError`, `FlowError` and `TimeoutError`.
    """
    bundles = bundles_of(directory, [flow.service for flow in FLOWS])
    called = _callees(bundles)
    if unknown := [callee for callee in callees if callee not in called]:
        accepted = f"expected one of {', '.join(called)}"
        raise InvalidInputError("--callee", [Fault("", f"is {callee!r}", accepted) for callee in unknown])
    with Collector() as collector, running(bundles, collector.endpoint) as platform:
        for flow in FLOWS:
            send(platform.processes[flow.service], flow.operation)  # the first request opens the connections
        observer, before = Observer(platform, collector), attempts(platform)
        print(HEADER, flush=True)
        recoveries: list[Recovery] = []
        with load(platform, FLOWS) as sent:
            for outage, callee in itertools.product(outages, callees or called):
                recoveries.append(recover(platform, observer, outage, callee))
                print(recoveries[-1], flush=True)
        print(check_attempts(platform, sent, before))
    return all(recovery.is_in_time for recovery in recoveries)


def _callees(bundles: dict[str, PolicyBundle]) -> list[str]:
    """The services that other services call over the network."""
    return sorted({call.callee for bundle in bundles.values() for call in bundle.outbound if is_on_the_wire(call)})


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="voice-outages", description="Cause outages of callees, and measure how their callers recover."
    )
    parser.add_argument("policies", type=Path, help="directory of rendered bundles, such as build/dev/policies")
    parser.add_argument("--callee", action="append", default=[], help="a service that fails (default: every callee)")
    parser.add_argument("--outage", action="append", choices=OUTAGES, help="a kind of outage (default: every kind)")
    chosen = parser.parse_args(arguments)
    try:
        return 0 if run(chosen.policies, chosen.callee, chosen.outage or OUTAGES) else 1
    except InvalidInputError as error:
        print(error, file=sys.stderr)
        return 2
    except (FlowError, TimeoutError, httpx.HTTPError) as error:
        print(f"\nfailed: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

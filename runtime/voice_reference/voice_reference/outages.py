"""Outages of reference services, and how long their callers refuse afterwards: `voice-outages build/dev/policies`.

A steady load runs through every flow. Each callee in turn is frozen, killed, slow, or comes and goes. From the callee's
first good answer until the last call that a circuit breaker refused, no more may pass than the break that was in force
and `MARGIN`; and no call may be attempted more often than its bundles' static bound. Exit code 0: both held; 1: not.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from voice_policies import Duration, InvalidInputError, PolicyBundle
from voice_runtime.tracing.collector import Collector, ReceivedEvent

from voice_reference.configuration import Behaviour
from voice_reference.flows import FLOWS, PATIENCE, Flow, FlowError, metrics, send
from voice_reference.operations import is_on_the_wire
from voice_reference.processes import Platform, bundles_of, running, wait_until

RATE = 2.5
"""Requests a second, over all flows."""
OUTAGE = 12.0
"""Seconds that a callee is away."""
FLAP = 3.0
"""Seconds that a callee that comes and goes stays away, and stays."""
FLAPS = 4
MARGIN = 5.0
"""Seconds beyond the break: the next request must come, and its probes must be answered."""
LONGEST_BREAK = 180.0
SLOW = Behaviour(median=Duration("20s"), p95=Duration("20s"))
"""Longer than any attempt may take."""


def freeze(platform: Platform, callee: str) -> None:
    """The process stops, as in a long pause of its machine, and goes on."""
    process = platform.processes[callee].process
    process.send_signal(signal.SIGSTOP)
    time.sleep(OUTAGE)
    process.send_signal(signal.SIGCONT)


def kill(platform: Platform, callee: str) -> None:
    """The process is killed, and is started again on its ports."""
    process = platform.processes[callee].process
    process.kill()
    process.wait()
    time.sleep(OUTAGE)
    platform.restart(callee)


def slow_down(platform: Platform, callee: str) -> None:
    """Its own work takes longer than anybody waits."""
    operations = platform.processes[callee].bundle.inbound
    platform.behave(callee, **{each.operation: SLOW for each in operations})
    time.sleep(OUTAGE)
    platform.behave(callee)


def flap(platform: Platform, callee: str) -> None:
    """The process stops and goes on, again and again."""
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
    """One outage of one callee, as its callers saw it."""

    outage: str
    callee: str
    longest_break: float
    """Seconds: the longest break that began before the last refused call."""
    refused: int
    """Calls that a circuit breaker refused, during the outage and afterwards."""
    seconds: float
    """From the callee's first good answer to the last refused call; 0 without one."""

    @property
    def is_in_time(self) -> bool:
        """True if no caller refused for longer than its break and `MARGIN`."""
        return self.seconds <= self.longest_break + MARGIN

    def __str__(self) -> str:
        verdict = "" if self.is_in_time else "   TOO LONG"
        return (
            f"{self.outage:<8}{self.callee:<26}{self.longest_break:>6.1f} s{self.refused:>9}"
            f"{self.seconds:>12.1f} s{verdict}"
        )


HEADER = f"{'outage':<8}{'callee':<26}{'break':>8}{'refused':>9}{'last refusal':>14}"


class Observer:
    """The decisions of circuit breakers on the wire between services, from the spans that arrived."""

    def __init__(self, platform: Platform, collector: Collector) -> None:
        self._platform = platform
        self._collector = collector
        calls = (call for process in platform.processes.values() for call in process.bundle.outbound)
        self._watched = {call.name for call in calls if is_on_the_wire(call)}

    def events(self, kind: str, since: float) -> list[ReceivedEvent]:
        """The breakers' events of one kind since a time, in seconds since the epoch."""
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
        """True if no breaker is open or half-open."""
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
    """Send `RATE` requests a second through the flows in turn, and count them by their entrance."""
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
    """Take a callee away and give it back, under load. Raises `TimeoutError` if a breaker stays open."""
    began = time.time()
    OUTAGES[outage](platform, callee)
    wait_until(lambda: _answers(platform, callee), PATIENCE, f"{callee} answers again")
    answered = time.time()
    wait_until(observer.all_closed, LONGEST_BREAK, "every circuit breaker is closed")
    time.sleep(1.0)  # the last spans arrive
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
        answer = httpx.post(url, headers=headers, timeout=operation.deadline.seconds, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


def bounds(bundles: dict[str, PolicyBundle], entrance: str) -> Counter[tuple[str, str]]:
    """Attempts of each call, by caller and name, that one request at `service.operation` may make at most."""
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
    """Attempts of each call that have ended, by caller and name."""
    found: Counter[tuple[str, str]] = Counter()
    for service, process in platform.processes.items():
        for line in metrics(process).splitlines():
            if line.startswith("voice_call_attempts_total{"):
                found[service, _name(line)] += round(float(line.rpartition(" ")[2]))
    return found


def refuse_storms(platform: Platform, sent: Counter[str], before: Counter[tuple[str, str]]) -> str:
    """The call that came nearest to its static bound. Raises `FlowError` if one was attempted more often."""
    bundles = {name: process.bundle for name, process in platform.processes.items()}
    allowed: Counter[tuple[str, str]] = Counter()
    for entrance, count in sent.items():
        for call, bound in bounds(bundles, entrance).items():
            allowed[call] += count * bound
    made = attempts(platform)
    shares = {call: (made[call] - before[call]) / most for call, most in allowed.items()}
    (service, name), share = max(shares.items(), key=lambda pair: pair[1])
    text = f"{service} attempted {name} {share:.0%} of the times that the bundles allow"
    if share > 1:
        raise FlowError(text)
    return text


def run(directory: Path, callees: Iterable[str], outages: Iterable[str]) -> bool:
    """Every outage of every callee: true if all recovered in time. Raises `InvalidInputError`, `FlowError`."""
    bundles = bundles_of(directory, [flow.service for flow in FLOWS])
    with Collector() as collector, running(bundles, collector.endpoint) as platform:
        for flow in FLOWS:
            send(platform.processes[flow.service], flow.operation)  # the first request opens the connections
        observer, before = Observer(platform, collector), attempts(platform)
        print(HEADER, flush=True)
        recoveries: list[Recovery] = []
        with load(platform, FLOWS) as sent:
            for outage, callee in itertools.product(outages, callees or _callees(bundles)):
                recoveries.append(recover(platform, observer, outage, callee))
                print(recoveries[-1], flush=True)
        print(refuse_storms(platform, sent, before))
    return all(recovery.is_in_time for recovery in recoveries)


def _callees(bundles: dict[str, PolicyBundle]) -> list[str]:
    """The services that others call on the wire."""
    return sorted({call.callee for bundle in bundles.values() for call in bundle.outbound if is_on_the_wire(call)})


def main(arguments: list[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="voice-outages", description="Take callees away and measure the recovery.")
    parser.add_argument("policies", type=Path, help="rendered bundles, such as build/dev/policies")
    parser.add_argument("--callee", action="append", default=[], help="a service to take away (default: each)")
    parser.add_argument("--outage", action="append", choices=OUTAGES, help="a way to take it away (default: each)")
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

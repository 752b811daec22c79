from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from voice_policies import CircuitBreaker, Duration, PolicyBundle, Retry, Timeout
from voice_reference import outages
from voice_reference.flows import Flow, FlowError
from voice_reference.outages import OUTAGES, Observer, Recovery, attempts, bounds, check_attempts, load, recover
from voice_reference.processes import Platform, running
from voice_runtime.tracing.collector import Collector

from tests.bundles import bundle, call, operation

FLOW = Flow("Three hops", "agent-engine", "run")
TWICE = Retry(max_retries=1, base_delay=Duration("10ms"), max_delay=Duration("10ms"))
POLICIES: dict[str, Any] = {
    # The timeout is long enough for an answer of a busy machine, and short enough that three attempts time out within
    # the outage of 5 s.
    "timeout": Timeout(attempt=Duration("2s"), overall=Duration("5s")),
    "circuit_breaker": CircuitBreaker(
        consecutive_failures=3, break_duration=Duration("2s"), max_break_duration=Duration("4s")
    ),
}


def three_hops() -> dict[str, PolicyBundle]:
    """agent-engine → rag-engine → retrieval-service → a simulated store; two hops retry."""
    context = call("rag-engine.context", **POLICIES)
    search = call("retrieval-service.search", **POLICIES, retry=TWICE)
    store = call("elasticsearch.search", protocol="http", **POLICIES, retry=TWICE)

    def serving(name: str, calls: str) -> dict[str, Any]:
        return {"inbound": (operation(name, calls=(calls,), deadline=Duration("10s")),)}

    return {
        "agent-engine": bundle(context, **serving("run", context.name)),
        "rag-engine": bundle(search, service="rag-engine", **serving("context", search.name)),
        "retrieval-service": bundle(store, service="retrieval-service", **serving("search", store.name)),
    }


@pytest.fixture(scope="module")
def observed() -> Iterator[tuple[Platform, Observer]]:
    with Collector() as collector, running(three_hops(), collector.endpoint) as platform:
        yield platform, Observer(platform, collector)


@pytest.mark.parametrize("outage", OUTAGES)
def test_breakers_close_soon_after_the_callee_is_back(
    observed: tuple[Platform, Observer], monkeypatch: pytest.MonkeyPatch, outage: str
) -> None:
    monkeypatch.setattr(outages, "RATE", 5)
    monkeypatch.setattr(outages, "OUTAGE", 5.0)
    monkeypatch.setattr(outages, "FLAPS", 2)
    # A busy machine delays half-open probes beyond their timeout, and the breaker opens again.
    monkeypatch.setattr(outages, "MARGIN", 20.0)
    platform, observer = observed
    before = attempts(platform)
    with load(platform, [FLOW]) as sent:
        recovery = recover(platform, observer, outage, "retrieval-service")
    assert recovery.refused, "no breaker opened"
    assert recovery.is_in_time, str(recovery)
    assert "nearest to its bound" in check_attempts(platform, sent, before)


def test_unknown_callees_are_refused_in_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "bundles_of", lambda *_: three_hops())
    assert outages.main([str(tmp_path), "--callee", "rag-engin", "--callee", "rag-engine", "--callee", "nobody"]) == 2
    said = capsys.readouterr().err
    assert "2 faults" in said
    assert "is 'rag-engin'; expected one of rag-engine, retrieval-service" in said


def test_the_bound_on_attempts_is_the_product_of_the_attempts_along_a_path() -> None:
    assert bounds(three_hops(), "agent-engine.run") == {
        ("agent-engine", "rag-engine.context"): 1,
        ("rag-engine", "retrieval-service.search"): 2,
        ("retrieval-service", "elasticsearch.search"): 4,
    }


def test_more_attempts_than_the_bound_are_reported(observed: tuple[Platform, Observer]) -> None:
    platform, _ = observed
    with pytest.raises(FlowError, match=r"made .* of the allowed attempts of "):
        check_attempts(
            platform, Counter({"agent-engine.run": 1}), Counter({("agent-engine", "rag-engine.context"): -2})
        )


def test_a_recovery_may_take_the_longest_break_plus_the_margin() -> None:
    late = Recovery("freeze", "rag-engine", longest_break=15.0, refused=9, seconds=20.1)
    assert not late.is_in_time
    assert str(late).endswith("TOO LONG")
    assert replace(late, seconds=20.0).is_in_time

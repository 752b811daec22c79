from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from voice_policies import Ratio
from voice_reference.configuration import Behaviour
from voice_reference.flows import metrics
from voice_reference.processes import Platform, running, wait_until
from voice_runtime.tracing.collector import Collector

from components.node import Service
from stack.model.environments import load_environment
from stack.model.policy_bundles import policy_bundle
from stack.voiceassistant import TENANT
from tests.loopback import NO_TLS

PATIENCE = 180.0
"""Longest wait for an answer or a metric on a busy machine, in seconds."""
BROKEN = Behaviour(error_ratio=Ratio("100%"))
LIMITED = 429


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    dev, bundles = load_environment("dev", TENANT), {}
    for name in ("agent-engine", "voice-engine", "model-adapter"):
        node = TENANT.graph.nodes[name]
        assert isinstance(node, Service)
        bundles[name] = policy_bundle(TENANT.graph, node, dev)
    with Collector() as collector, running(bundles, collector.endpoint) as found:
        yield found


async def _refused(url: str, requests: int, baggage: str) -> int:
    limits = httpx.Limits(max_connections=requests)
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False, verify=NO_TLS, limits=limits) as client:
        headers = {"baggage": baggage}
        answers = await asyncio.gather(*(client.post(url, headers=headers) for _ in range(requests)))
    limited = [answer for answer in answers if answer.status_code == LIMITED]
    assert all(int(answer.headers["retry-after"]) > 0 for answer in limited)
    return len(limited)


def refused(platform: Platform, target: str, requests: int, *, tenant: str = "acme", user: str = "ann") -> int:
    service, _, operation = target.partition(".")
    url = f"{platform.processes[service].url}/{operation}"
    return asyncio.run(_refused(url, requests, f"tenant.id={tenant},user.id={user}"))


def is_at(platform: Platform, service: str, level: str) -> bool:
    line = f'voice_degradation_level{{level="{level}"}} 1.0'
    return line in metrics(platform.processes[service]).splitlines()


def test_a_sliding_window_limits_one_user_and_no_other(platform: Platform) -> None:
    assert refused(platform, "voice-engine.dialogue", 30) == 0
    wait_until(lambda: refused(platform, "voice-engine.dialogue", 30) > 0, PATIENCE, "a user is refused")
    assert refused(platform, "voice-engine.dialogue", 30, user="bob") == 0
    assert refused(platform, "voice-engine.dialogue", 30, tenant="umbrella") == 0


def test_a_token_bucket_limits_one_tenant_and_no_other(platform: Platform) -> None:
    assert refused(platform, "agent-engine.run", 20) == 0
    wait_until(lambda: refused(platform, "agent-engine.run", 100, user="bob") > 0, PATIENCE, "a tenant is refused")
    assert refused(platform, "agent-engine.run", 20, tenant="umbrella") == 0


def test_failures_of_the_providers_lower_the_adaptive_limit_and_raise_the_degradation_level(platform: Platform) -> None:
    """At the highest rate the limit admits 150 requests at once. If it refuses one of 50, its rate has fallen."""
    platform.behave("model-adapter", **{"llm.embed": BROKEN})
    wait_until(lambda: refused(platform, "model-adapter.embed", 50) > 0, PATIENCE, "the rate has fallen")
    wait_until(lambda: is_at(platform, "model-adapter", "full"), PATIENCE, "every feature is off")
    platform.behave("model-adapter")

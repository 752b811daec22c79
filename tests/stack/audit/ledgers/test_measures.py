from __future__ import annotations

from dataclasses import replace

import pytest

from components.links import Link, peer
from components.network_policy import AddressBlock
from components.operation import hard, operation, soft, stage
from stack.audit.ledgers.measures import measures
from stack.model.platform import Platform
from stack.model.tenant import Tier
from tests.small import datastore, gateway, models, service, small_platform
from tests.stack.audit.ledgers.test_cost import caller, priced
from tests.stack.audit.rule_findings import READ, STORE, TWICE, flow

ENTRANCE = gateway(operation("a-run", stage(hard("a.run", "idempotent")), p95="1s", deadline="4s", load="1/s"))


def test_each_measure_of_a_small_model_equals_the_value_computed_by_hand() -> None:
    """Services `a` and `b` each have up to 4 pods and a surge pod: 10 pods. A pod requests 0.1 cores and 0.0625 GiB."""
    either = stage(soft("store.read", "without"), hard("store.write", "idempotent", retry=TWICE))
    a = service("a", operation("run", either, stage(hard("b.run", "idempotent")), p95="1s", deadline="2s"))
    b = service("b", operation("run", stage(soft("store.read", "without")), p95="1s", deadline="1s"))
    store = datastore("store", READ, operation("write", p95="10ms", deadline="50ms"))
    found = measures(small_platform(ENTRANCE, a, b, store, flows=(flow("a-run"),)))
    assert found == {
        "attempts": {"flow": pytest.approx(2)},
        "availability": {"flow": pytest.approx(0.9999 * 0.9995 * 0.9995 * 0.9999)},
        "connections": {"store": 0},
        "pooler_connections": {},
        "requests": {"cpu": pytest.approx(1.0), "memory": pytest.approx(0.625)},
        "cost": {},
        "model_cost": {},
        "edges": {"gateway → a": "hard", "a → b": "hard", "a → store": "hard", "b → store": "soft"},
    }


def test_an_operation_without_a_flow_has_attempts_and_the_cost_has_two_parts() -> None:
    found = measures(priced(caller(), service("b", READ)))
    assert set(found["attempts"]) == {"a.run"}
    assert set(found["cost"]) == {"services", "infrastructure"}
    # Each of two services has 2.3 pods at the expected scale. A pod costs 73 USD a month.
    assert found["cost"]["services"] == pytest.approx(4.6 * 73)
    assert found["cost"]["infrastructure"] == 0


def test_the_calls_to_models_have_a_cost_for_each_entrance() -> None:
    """100/s × 25 % mean load × 730 h × 3,600 s = 65.7 million calls a month.

    A call costs 1,500 tokens in × 0.15 + 100 tokens out × 0.6 = 285 micro-USD. The numbers come from `tests/small`.
    """
    asking = stage(hard("llm.generate", "idempotent"))
    a = service("a", operation("run", asking, p95="9s", deadline="60s", load="100/s"))
    assert measures(priced(a, models()))["model_cost"] == {"a.run": pytest.approx(65.7 * 285)}


def test_measures_list_the_links_of_the_tiers() -> None:
    block = AddressBlock(name="backups", cidr="10.9.0.0/24", ports=(443,))
    links = (Link(peer("shop", "a"), block),)
    small = small_platform(service("a", READ), STORE)
    linked = replace(small.tenant, tiers=(*small.tenant.tiers, Tier(lambda *_: iter(()), links=lambda *_: links)))
    assert measures(Platform(linked, small.environment))["edges"] == {"shop/a → backups": "link"}

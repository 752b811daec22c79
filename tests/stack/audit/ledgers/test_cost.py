from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any, ClassVar

import pytest
from voice_policies import Bytes, Duration, ModelHedge, ModelPrice, Ratio

from components.component import Component
from components.node import Node, Replicas, Service
from components.operation import ModelUse, hard, operation, stage
from components.retention import Stream
from stack.model.flow import Flow
from stack.model.platform import Platform
from stack.model.prices import Prices
from tests import toy
from tests.platforms import DAY
from tests.small import deployment, gateway, models, service, tenant_of
from tests.stack.audit.ledgers.rows import ledger, rows
from tests.stack.audit.rule_findings import READ, TWICE, flow

PRICES = Prices(cpu_hour=1.0, memory_hour=1e-12, storage_month=0.5, source="a test", read_on=DAY)
POD = 73.0
"""0.1 cores × 730 hours × 1 USD. The price of the memory is negligible."""
B = service("b", READ, replicas=Replicas(min=1, max=1))


def caller(**call: Any) -> Service:
    run = operation("run", stage(hard("b.read", "idempotent", **call)), p95="1s", deadline="2s")
    return service("a", run, operation("other", p95="1s", deadline="2s"), replicas=Replicas(min=2, max=4))


def routes() -> Node:
    return gateway(
        operation("chat", stage(hard("a.run", "idempotent")), p95="1s", deadline="3s", load="30/s"),
        operation("list", stage(hard("a.other", "idempotent")), p95="1s", deadline="3s", load="10/s"),
    )


def priced(*nodes: Node, flows: tuple[Flow, ...] = (), environment: Any = toy.ENVIRONMENT) -> Platform:
    tenant = tenant_of(*nodes, flows=flows)
    site = tenant.catalogue.site.model_copy(update={"prices": PRICES})
    teams = {"sales": tuple(node for node in nodes if node.name == "a" and isinstance(node, Service))}
    return Platform(
        replace(
            tenant,
            catalogue=tenant.catalogue.model_copy(update={"site": site}),
            alerting=tenant.alerting.model_copy(update={"teams": teams}),
        ),
        environment,
    )


def near(*values: float) -> tuple[Any, ...]:
    return tuple(pytest.approx(value, rel=1e-9) for value in values)


def test_a_service_costs_its_pods_at_the_minimum_expected_and_maximum_scale() -> None:
    """The expected number of pods of `a` is minimum + 15% × (maximum − minimum) = 2 + 0.15 × (4 − 2) = 2.3."""
    found = rows(priced(caller(), B), "cost", "services")
    assert found == {
        "a": near(2 * POD, 2.3 * POD, 4 * POD),
        "b": near(POD, POD, POD),
        "total": near(3 * POD, 3.3 * POD, 5 * POD),
    }


def test_a_team_pays_for_its_services_and_the_platform_team_for_the_rest() -> None:
    found = rows(priced(caller(), B), "cost", "teams")
    assert found == {
        "sales": near(2 * POD, 2.3 * POD, 4 * POD),
        "platform": near(POD, POD, POD),
        "total": near(3 * POD, 3.3 * POD, 5 * POD),
    }


def test_a_flow_pays_its_share_of_the_executions_at_each_service() -> None:
    """`a` runs 30 + 10 times a second, `b` runs 30 times.

    So chat pays 3/4 of `a` and all of `b`, and list pays 1/4 of `a`.
    The mean load is 25 % of the declared load. So a month has 30/s × 25 % × 730 h × 3,600 s = 19.71 million requests
    of chat. No flow calls a model.
    """
    named = flow("chat").model_copy(update={"name": "talk"})
    found = rows(priced(routes(), caller(), B, flows=(named,)), "cost", "flows")
    chat = 0.75 * 2.3 * POD + POD
    assert found == {
        "talk": near(19.71, chat, 0, chat / 19.71),
        "gateway.list": near(6.57, 0.25 * 2.3 * POD, 0, 0.25 * 2.3 * POD / 6.57),
        "total": near(26.28, 3.3 * POD, 0, 3.3 * POD / 26.28),
    }


def test_services_without_load_have_a_row_of_their_own() -> None:
    found = rows(priced(service("idle", READ, replicas=Replicas(min=1, max=1))), "cost", "flows")
    assert found["services without load"][1] == pytest.approx(POD)


def test_protection_is_spare_pods_and_the_pods_for_retries() -> None:
    """`a` has a spare pod, `b` has none. One pod serves 100/s.

    Retries add 10 % (the default budget) of 30/s = 3/s at `b`.
    """
    found = rows(priced(routes(), caller(retry=TWICE), B), "cost", "cost of protection")
    assert found == {
        "N+1: one spare pod for each of 1 workloads": near(POD),
        "retries: pods that serve sustained retries while callees fail": near(3 / 100 * POD),
    }


class Keeping(Component):
    folder: ClassVar[str] = "20-data"

    def streams_kept(self) -> Iterator[Stream]:
        yield Stream(name="logs", daily=Bytes("3Gi"), retention=Duration("7d"), copies=2, sampled=Ratio("10%"))
        yield Stream(name="metrics", daily=Bytes("1Gi"), retention=Duration("3d"))

    def resources(self) -> Iterator[Any]:
        claim = {"kind": "PersistentVolumeClaim", "metadata": {"namespace": "stores", "name": "data-keeper-0"}}
        size = {"resources": {"requests": {"storage": "60Gi"}}}
        yield {**claim, "spec": size}
        template = {"metadata": {"name": "data"}, "spec": size}
        pod: dict[str, Any] = {"spec": {"containers": []}}
        spec = {"replicas": 2, "volumeClaimTemplates": [template], "template": pod}
        yield {"kind": "StatefulSet", "metadata": {"namespace": "stores", "name": "keeper"}, "spec": spec}


def test_telemetry_costs_its_stored_bytes_and_each_volume_counts_once() -> None:
    """3 GiB × (7 + 1 days) × 2 copies × 0.50 USD = 24 USD. 1 GiB × (3 + 1 days) × 0.50 USD = 2 USD.

    A store holds the current day in addition to the retention.
    Two volumes of 60 GiB cost 2 × 60 × 0.50 USD = 60 USD.
    One volume is rendered twice: as a claim, and in the StatefulSet's template.
    """
    platform = priced(B)
    platform.__dict__["components"] = (*platform.components, Keeping(name="keeper", namespace="stores"))
    protection = rows(platform, "cost", "cost of protection")
    assert protection["telemetry: logs in keeper, 7d kept, 10% sampled"] == near(24)
    assert protection["telemetry: metrics in keeper, 3d kept"] == near(2)
    assert rows(platform, "cost", "infrastructure")["volumes in stores"] == near(60, 60, 60)


def test_without_prices_the_ledger_is_empty() -> None:
    assert ledger(Platform(tenant_of(B), toy.ENVIRONMENT), "cost").tables == ()


def test_memory_has_a_price_of_its_own() -> None:
    """A pod requests 0.1 cores and 64 MiB = 1/16 GiB. At 16 USD an hour for 1 GiB this memory costs 1 USD an hour."""
    whole = priced(B)
    prices = PRICES.model_copy(update={"memory_hour": 16.0})
    site = whole.tenant.catalogue.site.model_copy(update={"prices": prices})
    catalogue = whole.tenant.catalogue.model_copy(update={"site": site})
    dear = Platform(replace(whole.tenant, catalogue=catalogue), whole.environment)
    assert rows(dear, "cost", "services")["b"] == near(*[1.1 * 730] * 3)


def test_each_operation_of_the_gateway_pays_for_the_services_behind_it() -> None:
    def behind(name: str, callee: str) -> Service:
        call = hard(f"{callee}.read", "idempotent", retry=TWICE)
        return service(name, operation("run", stage(call), p95="1s", deadline="2s"))

    public_api = gateway(
        *(
            operation(f"{name}-run", stage(hard(f"{name}.run", "idempotent")), p95="1s", deadline="3s", load="10/s")
            for name in ("a", "b")
        )
    )
    callees = (service("c", READ), service("d", READ), service("idle", READ))
    flows = tuple(flow("a-run").model_copy(update={"name": name}) for name in ("ask", "answer"))
    platform = priced(public_api, behind("a", "c"), behind("b", "d"), *callees, flows=flows)
    found = rows(platform, "cost", "flows")
    assert set(found) == {"ask, answer", "gateway.b-run", "services without load", "total"}
    assert found["ask, answer"] == found["gateway.b-run"]


def test_a_route_costs_its_mean_number_of_units_times_the_price_of_its_preferred_candidate() -> None:
    """100/s at the mean load of 25 % are 65.7 million calls a month, half of them from each of two callers.

    A call of llm costs 800 × 0.15 + 200 × 0.6 = 240 micro-USD, a call of speech 80 × 15 = 1,200 micro-USD.
    """
    price = ModelPrice(unit="character", input=15, as_of=date(2026, 11, 1), source="a contract")
    characters = [deployment(f"{name}-fast", name, price=price, tokenizer=None) for name in ("one", "two")]
    unpriced = [deployment(f"{name}-fast", name, price=None) for name in ("one", "two")]
    llm = models(use=ModelUse(input_p95=900, input_mean=800, output_max=300, output_mean=200))
    speech, voice = (
        models(*made, use=ModelUse(input_p95=90, input_mean=80)).model_copy(update={"name": name})
        for name, made in (("speech", characters), ("voice", unpriced))
    )
    asking = [
        service(
            name,
            operation(
                "run",
                stage(*(hard(f"{each}.generate", "idempotent") for each in ("llm", "speech", "voice"))),
                p95="9s",
                deadline="60s",
                load="50/s",
            ),
        )
        for name in ("a", "b")
    ]
    found = rows(priced(*asking, llm, speech, voice), "cost", "model calls")
    assert found["llm.generate"] == near(65.7, 800 * 65.7, 200 * 65.7, 15_768)
    assert found["speech.generate"] == near(65.7, 80 * 65.7, 0, 78_840)
    assert found["total"] == near(3 * 65.7, 960 * 65.7, 200 * 65.7, 94_608)
    assert found["voice.generate"][-1] == 0
    assert not [each for each in ledger(priced(caller(), B), "cost").tables if each.title.startswith("model calls")]


def test_a_hedge_adds_its_share_of_requests_and_a_note_names_the_priced_unit() -> None:
    """The hedge's budget is 5 %, so 65.7 million calls a month make 65.7 × 1.05 million requests.

    A request costs 80 seconds × 2 micro-USD.
    """
    price = ModelPrice(unit="audio_second", input=2, as_of=date(2026, 11, 1), source="a contract")
    candidates = [
        deployment(f"{name}-fast", name, price=price, capabilities=("embeddings",), tokenizer=None)
        for name in ("one", "two")
    ]
    hedged = {"capabilities": ("embeddings",), "output_limit": None, "hedge": ModelHedge(delay=Duration("100ms"))}
    llm = models(*candidates, use=ModelUse(input_p95=90, input_mean=80), route_policy=hedged)
    call = stage(hard("llm.generate", "idempotent"))
    caller = service("a", operation("run", call, p95="9s", deadline="60s", load="100/s"))
    platform = priced(caller, llm)
    requests = 65.7 * 1.05
    assert rows(platform, "cost", "model calls")["llm.generate"] == near(65.7, 80 * requests, 0, 160 * requests)
    (table,) = (each for each in ledger(platform, "cost").tables if each.title.startswith("model calls"))
    assert table.notes[1:] == ("llm.generate: 2 USD per million audio seconds in (one-fast; a contract, 2026-11-01).",)

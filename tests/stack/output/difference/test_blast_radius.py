from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from voice_policies import Cpu, InvalidInputError

from components.links import Link
from components.network_policy import Peer
from components.node import Node, Replicas, Service
from components.operation import Call, ModelUse, Stage, hard, loop, operation, soft, stage
from stack.audit.ledgers.measures import measures
from stack.model import microservices
from stack.model.environments import Environment
from stack.model.flow import Flow
from stack.model.platform import Platform
from stack.model.prices import Prices
from stack.model.profile import DatabaseLimits
from stack.model.tenant import Tenant, Tier
from stack.output.difference import Side, compare
from stack.output.difference.blast_radius import SENTENCES, blast_radius
from stack.output.difference.report import as_json, markdown, text
from stack.output.difference.sides import side_of, side_of_platform
from stack.output.render import render
from tests import toy
from tests.platforms import DAY, with_profile
from tests.small import gateway, models, service, tenant_of
from tests.stack.audit.rule_findings import READ, STORE, THRICE, TWICE

PRICES = Prices(cpu_hour=1.0, memory_hour=1e-12, storage_month=1, source="a test", read_on=DAY)
"""A pod of the tests requests 0.1 cores, so it costs 0.1 × 730 h × 1 USD = 73 USD a month."""
A_CALL = hard("a.run", "idempotent")
B_CALL = hard("b.read", "idempotent")
STORE_CALL = hard("store.read", "idempotent")


@dataclass(frozen=True)
class World:
    """A small platform: gateway → `a` → `b`, and a store that `a` also calls."""

    to_a: Call = A_CALL
    a_calls: tuple[Stage, ...] = (stage(B_CALL, STORE_CALL),)
    a: dict[str, Any] | None = None
    b: dict[str, Any] | None = None
    more: tuple[Node, ...] = ()
    flow: str = "chat"
    prices: Prices | None = PRICES
    environment: Environment = toy.ENVIRONMENT
    links: tuple[Link, ...] = ()

    @property
    def platform(self) -> Platform:
        """`a` has 2 to 4 replicas and a pool of 10, `b` has 2 to 4 replicas; each has an availability of 99.95 %."""
        route = operation("chat", stage(self.to_a), p95="1s", deadline="5s", load="10/s")
        a = service("a", operation("run", *self.a_calls, p95="1s", deadline="4s"), connection_pool=10)
        nodes = (gateway(route), _changed(a, self.a), _changed(service("b", READ), self.b), STORE, *self.more)
        flow = Flow(name=self.flow, title="a flow", route="chat", latency="1s")  # type: ignore[arg-type]  # pydantic parses the text
        return Platform(self._tenant(tenant_of(*nodes, flows=(flow,))), self.environment)

    def _tenant(self, tenant: Tenant) -> Tenant:
        site = tenant.catalogue.site.model_copy(update={"prices": self.prices})
        tiers = (Tier(microservices.components, lambda *_: self.links),)
        return replace(tenant, catalogue=tenant.catalogue.model_copy(update={"site": site}), tiers=tiers)


def _changed(declared: Service, changes: dict[str, Any] | None) -> Service:
    return declared.model_copy(update=changes)


WORLD = World()


USE = ModelUse(input_p95=1_000, input_mean=800, output_max=400, output_mean=200)
MODEL_CALLS = replace(WORLD, a_calls=(stage(hard("llm.generate", "idempotent")),))


def with_pooler(pool_size: int) -> Environment:
    limits = DatabaseLimits(poolers=2, pool_size=pool_size, max_client_connections=1000)
    return with_profile(toy.ENVIRONMENT, database=limits)


def sentences_of(before: World, after: World) -> list[str]:
    return [each.text for each in blast_radius(measures(before.platform), measures(after.platform))]


C = service("c", READ, replicas=Replicas(min=1, max=1))
GRAFANA = Link(Peer(namespace="watch", name="grafana", ports=()), Peer(namespace="stores", name="store", ports=(5432,)))
CHANGES: dict[str, tuple[World, World, list[str]]] = {
    # a → b makes 2 attempts before the change, and 3 after it.
    "a policy": (
        replace(WORLD, a_calls=(stage(hard("b.read", "idempotent", retry=TWICE)),)),
        replace(WORLD, a_calls=(stage(hard("b.read", "idempotent", retry=THRICE)),)),
        ["worst-case attempts on the chat flow 2 → 3"],
    ),
    # gateway → a makes 2 attempts, and each makes 3 attempts of a → b: 2 × 3 = 6.
    "two policies": (
        WORLD,
        replace(
            WORLD,
            to_a=hard("a.run", "idempotent", retry=TWICE),
            a_calls=(stage(hard("b.read", "idempotent", retry=THRICE), STORE_CALL),),
        ),
        ["worst-case attempts on the chat flow 1 → 6"],
    ),
    # 1 replica × a pool of 10; 0.1 cores and 64 MiB = 0.0625 GiB. The expected scale is the minimum plus 15 % of the
    # range, so it grows by 0.15 pods. The cost grows by 0.15 × 73 USD = 10.95 USD.
    # Before: (4 pods + 1 surge pod) × 10 connections; 2 services × 5 pods × 0.1 cores; (2.3 + 2.3) pods × 73 USD =
    # 335.80 USD.
    "a replica": (
        WORLD,
        replace(WORLD, a={"replicas": Replicas(min=2, max=5)}),
        [
            "+10 connections to store at maximum scale (50 → 60)",
            "+0.1 cores of CPU requested at maximum scale (1 → 1.1)",
            "+0.0625 GiB of memory requested at maximum scale (0.625 → 0.6875)",
            "cost of the services +10.95 USD a month at the expected scale (335.80 → 346.75)",
        ],
    ),
    # 5 pods × 4 connections fewer.
    "a pool": (
        WORLD,
        replace(WORLD, a={"connection_pool": 6}),
        ["-20 connections to store at maximum scale (50 → 30)"],
    ),
    # 99.99 % × 99.95 % × 99.95 % × 99.99 % = 99.8800 %. One more service of 99.95 % lowers this to 99.8301 %.
    "a call": (
        replace(WORLD, more=(C,)),
        replace(WORLD, more=(C,), a_calls=(stage(B_CALL, STORE_CALL, hard("c.read", "idempotent")),)),
        ["availability of the chat flow 99.8800% → 99.8301%", "new permitted edge a → c (hard)"],
    ),
    "a call that becomes soft": (
        WORLD,
        replace(WORLD, a_calls=(stage(soft("b.read", "without"), STORE_CALL),)),
        ["availability of the chat flow 99.8800% → 99.9300%", "edge a → b is soft, and was hard"],
    ),
    # b has no other caller.
    "one call less": (
        WORLD,
        replace(WORLD, a_calls=(stage(STORE_CALL),)),
        ["availability of the chat flow 99.8800% → 99.9300%", "edge a → b is no longer permitted"],
    ),
    # Twice the price of a core: 4.6 pods × 73 USD more.
    "a price": (
        WORLD,
        replace(WORLD, prices=PRICES.model_copy(update={"cpu_hour": 2.0})),
        ["cost of the services +335.80 USD a month at the expected scale (335.80 → 671.60)"],
    ),
    # 0.2 more cores in each pod of b. b has 2.3 pods at the expected scale, and 5 pods at the maximum with surge.
    "a request": (
        WORLD,
        replace(WORLD, b={"sizing": toy.SIZING.model_copy(update={"cpu_request": Cpu("300m"), "cpu_limit": Cpu("1")})}),
        [
            "+1 cores of CPU requested at maximum scale (1 → 2)",
            "cost of the services +335.80 USD a month at the expected scale (335.80 → 671.60)",
        ],
    ),
    # The mean load is 25 % of the declared load. A million tokens cost 0.15 USD as input and 0.60 USD as output.
    # 10/s × 25 % × 730 h × 3,600 s = 6.57 million calls a month. A call costs 800 × 0.15 + 200 × 0.60 = 240 micro-USD.
    # All calls cost 1,576.80 USD.
    # 200 more output tokens cost 0.60 × 200 = 120 micro-USD a call: 788.40 USD.
    "a model's output": (
        replace(MODEL_CALLS, more=(models(use=USE),)),
        replace(MODEL_CALLS, more=(models(use=USE.model_copy(update={"output_mean": 400})),)),
        ["cost of the model calls of chat +788.40 USD a month at the mean load (1,576.80 → 2,365.20)"],
    ),
    # 1 database × 2 poolers × 3 connections more.
    "a pooler's pool": (
        replace(WORLD, environment=with_pooler(10)),
        replace(WORLD, environment=with_pooler(13)),
        ["+6 connections of the poolers to store (20 → 26)"],
    ),
    "a link of a tier": (
        WORLD,
        replace(WORLD, links=(GRAFANA,)),
        ["new permitted edge watch/grafana → stores/store (link)"],
    ),
    # One hard call from a to b makes the edge hard.
    "a soft call beside a hard one": (
        WORLD,
        replace(WORLD, a_calls=(stage(B_CALL, STORE_CALL), stage(soft("b.read", "without", purpose="again")))),
        [],
    ),
    # More rounds of a loop change neither the attempts of one call nor the availability.
    "rounds of a loop": (
        replace(WORLD, a_calls=(loop(B_CALL, at_most=2, typically=1), stage(STORE_CALL))),
        replace(WORLD, a_calls=(loop(B_CALL, at_most=3, typically=1), stage(STORE_CALL))),
        [],
    ),
    "a renamed flow": (
        WORLD,
        replace(WORLD, flow="talk"),
        [
            "worst-case attempts on the chat flow 1 → none",
            "worst-case attempts on the talk flow none → 1",
            "availability of the chat flow 99.8800% → none",
            "availability of the talk flow none → 99.8800%",
        ],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_has_exactly_its_sentences(change: str) -> None:
    before, after, sentences = CHANGES[change]
    assert sentences_of(before, after) == sentences
    assert sentences_of(after, after) == []


def test_the_infrastructure_has_a_cost_of_its_own() -> None:
    def priced(tenths: int) -> Platform:
        site = toy.TENANT.catalogue.site.model_copy(update={"prices": PRICES})
        catalogue = toy.TENANT.catalogue.model_copy(update={"site": site})
        server = toy.PROFILE.servers["stock"]
        sizing = server.sizing.model_copy(update={"cpu_request": Cpu(f"{tenths}00m"), "cpu_limit": Cpu("1")})
        servers = {"stock": server.model_copy(update={"sizing": sizing})}
        return Platform(replace(toy.TENANT, catalogue=catalogue), with_profile(toy.ENVIRONMENT, servers=servers))

    found = [each.text for each in blast_radius(measures(priced(1)), measures(priced(2)))]
    assert "cost of the infrastructure +73.00 USD a month at the expected scale (73.00 → 146.00)" in found
    assert not any("cost of the services" in sentence for sentence in found)


def test_every_measure_has_a_sentence() -> None:
    assert measures(WORLD.platform).keys() == SENTENCES.keys()


RETRIED = replace(WORLD, a_calls=(stage(hard("b.read", "idempotent", retry=TWICE), STORE_CALL),))


def test_a_changed_policy_reloads_only_the_pods_of_its_caller() -> None:
    found = compare(side_of_platform(WORLD.platform), side_of_platform(RETRIED.platform))
    assert text(found).splitlines()[:3] == [
        "blast radius",
        "  worst-case attempts on the chat flow 1 → 2",
        "  Deployment shop/a: pods reload, because the content of a-policy changes",
    ]
    assert markdown(found).splitlines()[2:6] == [
        "**Blast radius**",
        "",
        "- worst-case attempts on the chat flow 1 → 2",
        "- Deployment shop/a: pods reload, because the content of a-policy changes",
    ]
    assert json.loads(as_json(found))["blast_radius"] == [
        {
            "measure": "attempts",
            "subject": "chat",
            "before": 1,
            "after": 2,
            "text": "worst-case attempts on the chat flow 1 → 2",
        }
    ]


def test_pods_that_restart_come_before_pods_that_reload() -> None:
    after = replace(RETRIED, b={"http_port": 8081})
    lines = text(compare(side_of_platform(WORLD.platform), side_of_platform(after.platform))).splitlines()
    assert [line for line in lines if "pods re" in line] == [
        "  Deployment shop/b: pods restart, because its spec.template changes",
        "  Deployment shop/a: pods reload, because the content of a-policy changes",
    ]


def test_a_price_alone_makes_sides_differ() -> None:
    before, after, _ = CHANGES["a price"]
    found = compare(side_of_platform(before.platform), side_of_platform(after.platform))
    assert (found.added, found.removed, found.changed) == ((), (), ())
    assert found


@pytest.fixture
def trees(tmp_path: Path) -> Callable[[World], Path]:
    def rendered(world: World) -> Path:
        out = tmp_path / f"tree-{len(list(tmp_path.iterdir()))}"
        render(world.platform, out)
        return out

    return rendered


@pytest.mark.parametrize("change", CHANGES)
def test_rendered_trees_have_the_blast_radius_of_their_platforms(change: str, trees: Callable[[World], Path]) -> None:
    before, after, sentences = CHANGES[change]
    sides = [side_of(str(trees(world)), toy.TENANT) for world in (before, after)]
    assert [each.text for each in compare(*sides).blast_radius or ()] == sentences


def test_a_tree_without_measures_is_compared_only_by_its_resources(trees: Callable[[World], Path]) -> None:
    tree = trees(WORLD)
    (tree / "ledger.json").unlink()
    found = compare(side_of(str(tree), toy.TENANT), side_of_platform(RETRIED.platform))
    assert found.blast_radius is None
    assert "are not compared: a side has no ledger.json" in text(found).splitlines()[1]
    assert json.loads(as_json(found))["blast_radius"] is None


@pytest.mark.parametrize(
    ("content", "faults"),
    [
        ("[]", ["is []; "]),
        ("{", ["is not JSON; EOF while parsing an object at line 1 column 1"]),
        ('{"attempts": 1}', ["attempts: is 1; "]),
        (
            '{"attempts": {"chat": [1], "search": "many"}, "cost": {"services": -1, "all": NaN}, "edges": {"a": true}}',
            [
                "attempts.chat: is [1]; ",
                "attempts.search: is 'many'; ",
                "cost.services: is -1; ",
                "cost.all: is nan; ",
                "edges.a: is True; ",
            ],
        ),
    ],
    ids=["list", "broken JSON", "measure without subjects", "five wrong values"],
)
def test_a_ledger_of_another_form_is_refused_with_each_wrong_value(
    content: str, faults: list[str], trees: Callable[[World], Path]
) -> None:
    tree = trees(WORLD)
    (tree / "ledger.json").write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInputError) as refused:
        side_of(str(tree), toy.TENANT)
    head, *lines = str(refused.value).splitlines()
    assert head.startswith(f"{tree}: {len(faults)} fault")
    assert [line.partition("expected")[0] for line in lines] == [f"  ledger.json: {fault}" for fault in faults]


def test_a_measure_that_a_side_lacks_is_not_compared() -> None:
    old = {measure: values for measure, values in measures(WORLD.platform).items() if measure != "cost"}
    assert compare(Side({}, old), Side({}, measures(WORLD.platform))).blast_radius == ()

"""Each rule finds what it is for in a small model, and holds on the same model once it is mended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voice_policies import Bulkhead, Bytes, Cpu, Duration, InvalidInputError, Ratio, Retry

from components.edge.egress_proxy import EgressProxy
from components.links import Link, Links, peer
from components.network_policy import AddressBlock, Peer
from components.node import Dependency, Host, Node, Replicas
from components.operation import Operation, hard, loop, operation, soft, stage
from stack.audit import RULES, Finding, Verdict, audit
from stack.audit.availability import flow_availability
from stack.audit.retries import worst_paths
from stack.audit.timeouts import critical_path, worst_case
from stack.model.call_graph import CallGraph
from stack.model.environments import environment
from stack.model.flow import Flow
from stack.model.platform import Platform
from stack.model.profile import DatabaseLimits
from stack.model.settings import ApiServer
from stack.voiceassistant import TENANT
from stack.voiceassistant.profiles import PROFILES
from stack.voiceassistant.targets import STORE_LABEL
from tests.platforms import (
    ENVIRONMENTS,
    datastore,
    gateway,
    graph_of,
    platform,
    real_environment,
    service,
    small_platform,
    tenant_of,
    with_profile,
)

READ = operation("read", p95="10ms", deadline="50ms")
STORE = datastore("store", READ)
TWICE = Retry(max_retries=1, base_delay=Duration("10ms"), max_delay=Duration("10ms"))
THRICE = TWICE.model_copy(update={"max_retries": 2})


def verdict(rule: str, looked_at: Platform) -> Verdict:
    return next(known for known in RULES if known.id == rule).verdict(looked_at)


def findings(rule: str, *nodes: Node, flows: tuple[Flow, ...] = ()) -> tuple[Finding, ...]:
    return verdict(rule, small_platform(*nodes, flows=flows)).findings


def flow(route: str, latency: str = "1s", availability: str | None = None) -> Flow:
    return Flow(
        name="flow",
        title="a flow",
        route=route,
        latency=Duration(latency),
        availability=Ratio(availability) if availability else None,
    )


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_rule_holds_on_the_platform_and_looked_at_something(environment: str) -> None:
    for found in audit(platform(environment)):
        assert found.text == "holds", found


def test_a_rule_without_anything_to_look_at_does_not_apply() -> None:
    alone = small_platform(service("a", operation("run", p95="1s", deadline="2s")))
    assert {found.text for found in audit(alone) if found.rule.id in {"R01", "R06", "A01", "D01"}} == {"does not apply"}


def test_rule_names_are_unique_and_every_threshold_has_a_source() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    assert all(rule.source for rule in RULES)


def chain(*attempts: Retry | None) -> list[Node]:
    """Services that call each other in a row, and a store behind the last."""
    nodes: list[Node] = [STORE]
    target = "store.read"
    for number, retry in enumerate(reversed(attempts)):
        name = f"hop{len(attempts) - number}"
        nodes.append(
            service(name, operation("run", stage(hard(target, "idempotent", retry=retry)), p95="1s", deadline="60s"))
        )
        target = f"{name}.run"
    return nodes


@pytest.mark.parametrize(
    ("attempts", "arithmetic", "severity"),
    [
        ((TWICE, TWICE, TWICE), "2 × 2 × 2 = 8 attempts > 5", "warning"),
        ((THRICE, None, THRICE, TWICE), "3 × 3 × 2 = 18 attempts > 5", "error"),
    ],
)
def test_r01_multiplies_attempts_along_a_path(
    attempts: tuple[Retry | None, ...], arithmetic: str, severity: str
) -> None:
    (found,) = findings("R01", *chain(*attempts))
    assert (found.arithmetic, found.severity) == (arithmetic, severity)
    assert found.path.startswith("hop1.run → ")
    assert findings("R01", *chain(TWICE, None, TWICE)) == ()


@given(st.lists(st.sampled_from([None, TWICE, THRICE]), min_size=1, max_size=5), st.integers(0, 4))
def test_r01_finds_the_worst_path_of_any_tree(attempts: list[Retry | None], width: int) -> None:
    """Side branches without retries never hide the path that has them."""
    nodes = chain(*attempts)
    calls = [
        hard("hop1.run", "idempotent"),
        *[hard("store.read", "idempotent", purpose=f"side-{n}") for n in range(width)],
    ]
    graph = graph_of(*nodes, service("root", operation("run", stage(*calls), p95="1s", deadline="60s")))
    expected = 1
    for retry in attempts:
        expected *= retry.max_attempts if retry else 1

    def product(path: tuple[object, ...]) -> float:
        result = 1
        for edge in path:
            result *= edge.call.max_attempts  # type: ignore[attr-defined]
        return result

    (path,) = worst_paths(graph, product)
    assert product(path) == expected


def test_r02_finds_two_interior_hops_that_retry() -> None:
    (found,) = findings("R02", *chain(TWICE, TWICE, None))
    assert "2 interior hops retry: hop1.run → hop2.run; hop2.run → hop3.run" in found.arithmetic
    assert findings("R02", *chain(TWICE, None, TWICE)) == ()


def test_r06_finds_a_retry_on_what_may_not_be_repeated() -> None:
    caller = service("a", operation("run", stage(hard("store.read", "never", retry=TWICE)), p95="1s", deadline="60s"))
    (found,) = findings("R06", caller, STORE)
    assert found.path == "a.run → store.read"
    assert "attempt_timeout" in found.arithmetic
    unsent = TWICE.model_copy(update={"conditions": ("connection_failed",)})
    mended = service("a", operation("run", stage(hard("store.read", "never", retry=unsent)), p95="1s", deadline="60s"))
    assert findings("R06", mended, STORE) == ()


def test_t01_finds_a_deadline_below_the_worst_case() -> None:
    slow = operation("run", stage(hard("store.read", "idempotent", retry=TWICE)), p95="1s", deadline="100ms")
    (found,) = findings("T01", service("a", slow), STORE)
    assert found.arithmetic == "deadline 100ms < 110ms, its calls' worst case"
    assert found.proposal == "110ms"
    held = slow.model_copy(update={"deadline": Duration("110ms")})
    assert findings("T01", service("a", held), STORE) == ()


def test_t01_finds_a_gateway_that_gives_up_before_its_callee() -> None:
    """The deadline does not travel over HTTP, so the gateway must outwait the callee's worst case."""
    inner = service(
        "a", operation("run", stage(hard("store.read", "idempotent", timeout=Duration("4s"))), p95="1s", deadline="5s")
    )
    route = operation("a-run", stage(hard("a.run", "idempotent", timeout=Duration("3s"))), p95="1s", deadline="9s")
    (found,) = findings("T01", gateway(route), inner, STORE)
    assert found.arithmetic == "3s < 4s, its worst case, and the deadline does not travel on this edge"


def test_t01_lets_a_propagated_deadline_be_shorter_as_long_as_one_attempt_fits() -> None:
    def caller(timeout: str) -> Node:
        return service(
            "b",
            operation("run", stage(hard("a.run", "idempotent", timeout=Duration(timeout))), p95="1s", deadline="9s"),
        )

    inner = service(
        "a", operation("run", stage(hard("store.read", "idempotent", retry=TWICE)), p95="1s", deadline="5s")
    )
    assert findings("T01", caller("60ms"), inner, STORE) == ()
    (found,) = findings("T01", caller("40ms"), inner, STORE)
    assert found.arithmetic == "40ms < 50ms, one attempt of a.run → store.read"


def test_t04_finds_objectives_that_do_not_add_up() -> None:
    slow = operation(
        "run",
        stage(hard("store.read", "idempotent")),
        stage(hard("store.read", "idempotent")),
        p95="15ms",
        deadline="1s",
    )
    route = operation("a-run", stage(hard("a.run", "idempotent")), p95="1s", deadline="2s")
    found = findings("T04", gateway(route), service("a", slow), STORE, flows=(flow("a-run", "10ms"),))
    assert [(f.path, f.arithmetic) for f in found] == [
        ("flow flow", "P95 objectives along the critical path: 15ms > 10ms"),
        ("a.run", "P95 objectives along the critical path: 20ms > 15ms"),
    ]


def run(*stages: object) -> tuple[CallGraph, Node, Operation]:
    target = operation("run", *stages, p95="1s", deadline="60s")  # type: ignore[arg-type]
    node = service("a", target)
    store = datastore("store", READ, operation("scan", p95="30ms", deadline="200ms"))
    return graph_of(node, store), node, target


def test_stages_add_parallel_calls_max_loops_multiply_and_streams_overlap() -> None:
    graph, node, target = run(
        stage(hard("store.read", "idempotent"), soft("store.scan", "without")),
        loop(hard("store.read", "idempotent", purpose="each"), at_most=5, typically=2),
        stage(hard("store.scan", "idempotent", purpose="stream"), overlaps=True),
    )
    assert critical_path(graph, node, target) == Duration("50ms")
    assert worst_case(graph, node, target) == Duration("650ms")


def test_a01_finds_a_flow_that_promises_too_much() -> None:
    route = operation("a-run", stage(hard("a.run", "idempotent")), p95="1s", deadline="2s")
    inner = service(
        "a", operation("run", stage(hard("store.read", "idempotent")), p95="1s", deadline="2s"), tier="standard"
    )
    (found,) = findings("A01", gateway(route), inner, STORE, flows=(flow("a-run", availability="99.95%"),))
    assert found.arithmetic.startswith("gateway 99.99% × a 99.95% × store 99.99% = 99.93")
    assert findings("A01", gateway(route), inner, STORE, flows=(flow("a-run", availability="99.9%"),)) == ()


def test_a01_counts_a_shared_dependency_once_and_a_soft_one_not_at_all() -> None:
    route = operation("a-run", stage(hard("a.run", "idempotent")), p95="1s", deadline="2s")
    calls = stage(hard("store.read", "idempotent"), hard("b.run", "idempotent"), soft("c.run", "without"))
    nodes = [
        gateway(route),
        service("a", operation("run", calls, p95="1s", deadline="2s")),
        service("b", operation("run", stage(hard("store.read", "idempotent")), p95="1s", deadline="2s")),
        service("c", operation("run", p95="1s", deadline="2s")),
        STORE,
    ]
    asked = flow("a-run", availability="99%")
    graph = graph_of(*nodes, flows=[asked])
    assert flow_availability(graph, asked).availability() == pytest.approx(0.9999**2 * 0.9995**2, abs=1e-12)


def providers(*egress: str) -> Dependency:
    return Dependency(
        name="providers",
        kind="provider",
        purpose="either suffices",
        protocol="https",
        addresses=tuple(Host(host=f"api-{n}.example.com", port=443, egress=proxy) for n, proxy in enumerate(egress)),
        availability=Ratio("99.5%"),
        operations=(READ,),
    )


@pytest.mark.parametrize(
    ("egress", "expected"),
    [
        (("egress-proxy-a", "egress-proxy-b"), 1 - (1 - 0.995 * 0.999) ** 2),
        (("egress-proxy-a", "egress-proxy-a"), 0.999 * (1 - 0.005**2)),
        (("egress-proxy-a",), 0.999 * 0.995),
    ],
)
def test_a01_knows_what_the_members_of_a_group_share(egress: tuple[str, ...], expected: float) -> None:
    route = operation("read", stage(hard("providers.read", "idempotent")), p95="1s", deadline="2s")
    asked = flow("read", availability="99%")
    graph = graph_of(gateway(route), providers(*egress), flows=[asked])
    assert flow_availability(graph, asked).availability() == pytest.approx(0.9999 * expected, abs=1e-12)


def with_environment(**changes: object) -> Platform:
    user = service(
        "a", operation("run", stage(hard("store.read", "idempotent")), p95="1s", deadline="2s"), connection_pool=10
    )
    return Platform(tenant_of(user, STORE), with_profile(real_environment("prod"), **changes))


def test_d01_finds_pools_that_do_not_fit() -> None:
    tight = DatabaseLimits(max_connections=30, poolers=2, pool_size=10, max_client_connections=20)
    servers, clients = verdict("D01", with_environment(database=tight)).findings
    assert servers.arithmetic == "10 × 1 databases × 2 poolers = 20 > 30 − 13 reserved = 17"
    assert servers.proposal == "8"
    assert clients.arithmetic == "Σ (max replicas + 1) × pool = 50 > 20 clients of one pooler"
    assert clients.severity == "critical", "30 clients at the minimum already"
    roomy = DatabaseLimits(poolers=2, pool_size=10, max_client_connections=50)
    assert verdict("D01", with_environment(database=roomy)).text == "holds"


def test_d01_counts_what_connects_to_the_server_itself_where_there_is_no_pooler() -> None:
    dev = real_environment("dev")
    many = dict.fromkeys(("identity-service", "conversation-service"), Replicas(min=4, max=4))
    settings = dev.settings.model_copy(update={"replicas": many})
    found = verdict("D01", Platform(TENANT, dev.model_copy(update={"settings": settings}))).findings
    assert {(each.path, each.arithmetic) for each in found} == {
        (f"{name} → postgresql", "(max replicas + 1) × pool = 50 > 20 connections of its role") for name in many
    }
    few = dev.profile.database.model_copy(update={"max_connections": 100})
    (found_,) = verdict("D01", Platform(TENANT, with_profile(dev, database=few))).findings
    assert (found_.path, found_.arithmetic) == (
        "services → postgresql",
        "Σ (max replicas + 1) × pool = 110 > 100 − 13 reserved = 87",
    )


def test_d02_finds_requests_beyond_quota_and_nodes() -> None:
    quota = (
        real_environment("prod")
        .profile.quotas["voice-apps"]
        .model_copy(update={"cpu_requests": Cpu("400m"), "memory_limits": Bytes("1Mi"), "pods": 4})
    )
    quotas = {**real_environment("prod").profile.quotas, "voice-apps": quota}
    found = verdict("D02", with_environment(quotas=quotas)).findings
    assert [f.arithmetic for f in found] == [
        "Σ (max replicas + 1) × requests.cpu = 750m > 400m",
        "Σ (max replicas + 1) × limits.memory = 1920Mi > 1Mi",
        "Σ (max replicas + 1) × pods = 5 > 4",
    ]


def test_d02_adds_up_every_workload_of_every_namespace() -> None:
    quotas = {**real_environment("prod").profile.quotas}
    quotas["voice-data"] = quotas["voice-data"].model_copy(update={"memory_requests": Bytes("1Gi")})
    changed = with_profile(real_environment("prod"), quotas=quotas)
    (found,) = verdict("D02", Platform(TENANT, changed)).findings
    assert found.path == "voice-data → quota"
    assert found.proposal == "50624Mi"


def test_d02_holds_where_83_cpu_meet_a_quota_of_100() -> None:
    """The negative control: HPA maxima that add up to 83 CPU fit a quota of 100."""
    big = service(
        "a", operation("run", p95="1s", deadline="2s"), replicas=Replicas(min=2, max=82), sizing=real_sizing()
    )
    assert verdict("D02", Platform(tenant_of(big), real_environment("prod"))).text == "holds"


def real_sizing() -> object:
    return {"cpu_request": "1", "cpu_limit": "2", "memory_request": "1Gi", "memory_limit": "2Gi"}


def test_what_no_layer_can_express_is_refused_before_it_is_rendered() -> None:
    retrying = stage(hard("store.read", "idempotent", retry=TWICE))
    refused = small_platform(service("a", operation("run", retrying, p95="1s", deadline="2s"), language="go"), STORE)
    with pytest.raises(InvalidInputError, match=r"a\.run → store\.read: retry is declared; driver and mesh cannot"):
        _ = refused.components


def test_what_contradicts_itself_is_refused_with_its_edge() -> None:
    caller = service("a", operation("run", stage(hard("store.read", "never", retry=TWICE)), p95="1s", deadline="60s"))
    with pytest.raises(InvalidInputError, match=r"a\.run → store\.read: is refused; a call that is never repeated"):
        _ = small_platform(caller, STORE).components


def test_e01_finds_a_policy_that_no_layer_can_express() -> None:
    retrying = stage(hard("store.read", "idempotent", retry=TWICE, bulkhead=Bulkhead(max_concurrent=1)))
    (found,) = findings("E01", service("a", operation("run", retrying, p95="1s", deadline="2s"), language="go"), STORE)
    assert found.arithmetic == "retry is declared, and driver and mesh cannot express it on this edge"
    assert findings("E01", service("a", operation("run", retrying, p95="1s", deadline="2s")), STORE) == ()


ADAPTER_HTTP = Peer(namespace="voice-apps", name="model-adapter", ports=(8005,))
RAG_ENGINE = peer("voice-apps", "rag-engine")


def without(source: Peer, target: str) -> Links:
    """The links of prod without those between two ends."""
    return Links(link for link in platform("prod").links if (link.source, link.target.name) != (source, target))


class Tampered(Platform):
    """A platform whose rendered network policies are not what was declared."""

    def __init__(self, *, ingress_open: bool = False, egress_open: bool = False, egress_closed: bool = False) -> None:
        real = platform("prod")
        super().__init__(real.tenant, real.environment)
        links: dict[str, Links] = {}
        if egress_closed:
            links["rag-engine"] = without(RAG_ENGINE, "retrieval-service")
        if egress_open:
            links["rag-engine"] = Links([*real.links, Link(RAG_ENGINE, ADAPTER_HTTP)])
        if ingress_open:
            links["model-adapter"] = Links([*real.links, Link(RAG_ENGINE, ADAPTER_HTTP)])
        self.__dict__["components"] = tuple(
            component.model_copy(update={"links": links[component.name]}) if component.name in links else component
            for component in real.components
        )


def test_n01_finds_a_declared_call_that_is_denied() -> None:
    (found,) = verdict("N01", Tampered(egress_closed=True)).findings
    assert found.path == "rag-engine → retrieval-service:9000"


def test_n02_finds_a_way_that_nobody_declared_and_needs_both_ends_open() -> None:
    assert verdict("N02", Tampered(ingress_open=True)).findings == ()
    assert verdict("N02", Tampered(egress_open=True)).findings == ()
    (found,) = verdict("N02", Tampered(ingress_open=True, egress_open=True)).findings
    assert found.path == "rag-engine → model-adapter:8005"


class Leaking(Platform):
    """A platform whose proxies, or the policies around them, do not do what was declared."""

    def __init__(self, name: str, **update: object) -> None:
        real = platform("prod")
        super().__init__(real.tenant, real.environment)
        self.__dict__["components"] = tuple(
            found.model_copy(update=update) if found.name == name else found for found in real.components
        )


def proxy_b() -> EgressProxy:
    (found,) = [each for each in platform("prod").components if each.name == "egress-proxy-b"]
    assert isinstance(found, EgressProxy)
    return found


def n05(**update: object) -> set[tuple[str, str]]:
    findings = verdict("N05", Leaking("egress-proxy-b", **update)).findings
    return {(found.path.replace("egress-proxy-b → ", ""), found.arithmetic.partition(",")[0]) for found in findings}


def test_n05_finds_a_host_that_nobody_declared() -> None:
    adapter, voice = proxy_b().allow_lists
    lists = (adapter, voice.model_copy(update={"hosts": (*voice.hosts, *adapter.hosts)}))
    assert n05(allow_lists=lists) == {("voice-engine → api.mistral.ai:443", "open")}


def test_n05_finds_a_declared_host_that_the_allow_list_lacks() -> None:
    assert n05(allow_lists=proxy_b().allow_lists[:1]) == {("voice-engine → speech.googleapis.com:443", "declared")}


def test_n05_finds_two_callers_whose_ports_are_exchanged() -> None:
    adapter, voice = proxy_b().allow_lists
    lists = (adapter.model_copy(update={"port": voice.port}), voice.model_copy(update={"port": adapter.port}))
    assert n05(allow_lists=lists) == {
        ("model-adapter → speech.googleapis.com:443", "open"),
        ("voice-engine → api.mistral.ai:443", "open"),
        ("model-adapter → api.mistral.ai:443", "declared"),
        ("voice-engine → speech.googleapis.com:443", "declared"),
    }


def test_n05_finds_a_proxy_that_may_not_go_out() -> None:
    assert {closed for _, closed in n05(outward=())} == {"declared"}


def test_n05_finds_a_service_that_passes_no_proxy() -> None:
    block = AddressBlock(name="anywhere", cidr="0.0.0.0/0", ports=(443,))
    links = Links([*platform("prod").links, Link(RAG_ENGINE, block)])
    paths = {found.path for found in verdict("N05", Leaking("rag-engine", links=links)).findings}
    assert "rag-engine → no proxy → the internet:443" in paths
    assert "rag-engine → no proxy → backup-store:443" in paths


@pytest.mark.parametrize(
    ("update", "port"),
    [({"api_server": ApiServer(cidr="0.0.0.0/0")}, 6443), ({"nodes": "0.0.0.0/0"}, 10250)],
)
def test_n05_finds_a_port_that_is_open_to_anywhere(update: dict[str, object], port: int) -> None:
    real = platform("staging")
    settings = real.environment.settings.model_copy(update=update)
    paths = {found.path for found in verdict("N05", Platform(real.tenant, environment(settings, PROFILES))).findings}
    assert f"prometheus → no proxy → the internet:{port}" in paths
    assert f"prometheus → no proxy → the cloud's metadata service:{port}" in paths


def test_n05_finds_a_store_that_may_not_be_reached() -> None:
    closed = without(peer("voice-data", "postgresql", STORE_LABEL), "backup-store")
    (found,) = verdict("N05", Leaking("postgresql", links=closed)).findings
    assert (found.path, found.arithmetic.partition(",")[0]) == ("postgresql → no proxy → backup-store:443", "declared")


def test_n02_finds_a_proxy_that_may_reach_the_clusters_own_network() -> None:
    block = AddressBlock(name="anywhere", cidr="0.0.0.0/0", ports=(443,))
    paths = {found.path for found in verdict("N02", Leaking("egress-proxy-b", outward=(block,))).findings}
    assert "egress-proxy-b → the cloud's metadata service:443" in paths
    assert "egress-proxy-b → stranger in the cluster's network:443" in paths

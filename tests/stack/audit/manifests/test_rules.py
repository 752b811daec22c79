from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from stack.audit.finding import Finding
from stack.audit.manifests import RULES, audit_manifests
from stack.model.manifests.system import load_system
from tests.stack.audit.rule_findings import SNAPSHOT_LINES
from tests.stack.model.manifests.small_system import (
    Content,
    resource,
    service,
    variable,
    with_spec,
    workload,
    write,
)

STORE = (workload("store", ports=[{"containerPort": 6379, "name": "redis"}]), service("store", 6379))


def findings(directory: Path, *contents: Content) -> list[Finding]:
    """The findings of all rules. A fixture for one rule must satisfy all other rules."""
    for old in directory.glob("*.yaml"):
        old.unlink()
    outcome = audit_manifests(load_system(write(directory, *contents)), on=date(2026, 11, 30))
    found = [each.finding for each in outcome.judged]
    SNAPSHOT_LINES.extend(
        f"{each.rule} {each.severity}: {each.path}: {each.arithmetic} [{each.field}] [{each.proposal}]"
        f" in line {each.where.line if each.where else None}"
        for each in found
    )
    return found


def found(directory: Path, *contents: Content) -> list[tuple[str, str, str]]:
    return [(each.rule, each.severity, each.path) for each in findings(directory, *contents)]


def shop(**fields: Any) -> Content:
    return workload("shop", env=[variable("STORE", "store:6379")], **fields)


def test_n04_finds_a_port_that_the_service_does_not_offer(tmp_path: Path) -> None:
    wrong = workload("shop", env=[variable("STORE", "store:6380")])
    (finding,) = findings(tmp_path, wrong, *STORE)
    assert (finding.rule, finding.severity, finding.path) == ("N04", "error", "Deployment shop → store:6380")
    assert (finding.arithmetic, finding.proposal) == ("STORE names port 6380, but Service store offers 6379", "6379")
    assert findings(tmp_path, shop(), *STORE) == []


@pytest.mark.parametrize("fields", [{"clusterIP": "None"}, {"type": "ExternalName"}], ids=["headless", "ExternalName"])
def test_n04_finds_nothing_if_a_service_restricts_no_port(fields: dict[str, str], tmp_path: Path) -> None:
    wrong = workload("shop", env=[variable("STORE", "store:6380")])
    assert findings(tmp_path, wrong, STORE[0], service("store", 6379, **fields)) == []


@pytest.mark.parametrize(
    ("host", "warned"),
    [
        ("gone:80", True),
        ("gone.default:80", True),
        ("gone.elsewhere:80", False),
        ("gone.default.svc.cluster.local:80", True),
        ("example.com:443", False),
        ("alias:80", False),
    ],
)
def test_n04_finds_a_name_that_no_manifest_defines(host: str, warned: bool, tmp_path: Path) -> None:
    pod = {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["alias"]}]}
    client = workload("shop", pod=pod, env=[variable("OTHER", host)])
    expected = [("N04", "warning", f"Deployment shop → {host}")] if warned else []
    assert found(tmp_path, client, *STORE) == expected


def test_n04_names_the_namespaces_that_have_a_service_of_the_missing_name(tmp_path: Path) -> None:
    others = [
        {**document, "metadata": {**document["metadata"], "namespace": namespace}}
        for namespace in ("two", "one")
        for document in STORE
    ]
    (missing,) = findings(tmp_path, shop(), *others)
    text = (
        "STORE names store, but no Service of namespace default has that name; a Service with that name is in one, two"
    )
    assert missing.arithmetic == text


def test_n04_finds_nothing_if_an_operator_may_create_the_service(tmp_path: Path) -> None:
    operated = {**resource("Pooler", "gone"), "apiVersion": "postgresql.example.com/v1"}
    assert found(tmp_path, workload("shop", env=[variable("OTHER", "gone:80")]), *STORE, operated) == []


def test_n04_finds_a_service_without_a_matching_pod_or_port(tmp_path: Path) -> None:
    (finding,) = findings(tmp_path, service("store"))
    assert (finding.rule, finding.severity, finding.path) == ("N04", "warning", "Service store")
    assert finding.arithmetic == "selector app=store selects no pod of these manifests"
    assert found(tmp_path, STORE[0], service("store", 6379, "http")) == [("N04", "error", "Service store")]
    assert found(tmp_path, STORE[0], service("store", 6379, "redis")) == []
    without_selector = resource("Service", "store", {"ports": [{"port": 1}]})
    assert found(tmp_path, without_selector) == []


def test_n04_finds_a_probe_of_a_port_name_that_the_container_lacks(tmp_path: Path) -> None:
    for port, broken in (("redis", False), ("http", True), ("6380", False), (6380, False)):
        probed = workload(
            "store", ports=[{"containerPort": 6379, "name": "redis"}], livenessProbe={"tcpSocket": {"port": port}}
        )
        expected = [("N04", "error", "Deployment store → store.livenessProbe")] if broken else []
        assert found(tmp_path, probed, service("store", 6379)) == expected


def test_n04_checks_an_address_without_a_port_and_ignores_names_of_images(tmp_path: Path) -> None:
    client = workload("shop", env=[variable("STORE_HOST", "gone")])
    assert found(tmp_path, client, *STORE) == [("N04", "warning", "Deployment shop → gone")]
    for fields in ({"env": [variable("BUILD_IMAGE", "store:7")]}, {"args": ["--build-image=store:7"]}):
        assert found(tmp_path, workload("shop", **fields), *STORE) == []
    assert found(tmp_path, workload("shop", args=["--store=store:7"]), *STORE) != []


def test_n04_names_every_workload_that_lacks_the_target_port(tmp_path: Path) -> None:
    pods = [workload(name) for name in ("a", "b")]
    for each in pods:
        each["spec"]["template"]["metadata"]["labels"] = {"app": "store"}
    (finding,) = findings(tmp_path, *pods, service("store", 80, "http"))
    assert finding.arithmetic.endswith("a port in Deployment a, Deployment b")


def policy(name: str, app: str, **spec: Any) -> Content:
    return resource("NetworkPolicy", name, {"podSelector": {"matchLabels": {"app": app}}, **spec})


OF_SHOP = {"podSelector": {"matchLabels": {"app": "shop"}}}
DNS = {"ports": [{"port": 53, "protocol": "UDP"}]}


@pytest.mark.parametrize(
    ("rules", "denied"),
    [
        ([], True),
        ([{"from": [OF_SHOP]}], False),
        ([{"from": [OF_SHOP], "ports": [{"port": 6379}]}], False),
        ([{"from": [OF_SHOP], "ports": [{"port": "redis"}]}], False),
        ([{"from": [OF_SHOP], "ports": [{"port": 6000, "endPort": 7000}]}], False),
        ([{"from": [OF_SHOP], "ports": [{"port": 6380}]}], True),
        ([{"from": [{"podSelector": {"matchLabels": {"app": "store"}}}]}], True),
        ([{"from": [{"podSelector": {}}]}], False),
        (
            [{"from": [{"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["shop"]}]}}]}],
            False,
        ),
        ([{"from": [{"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}]}], False),
        ([{"from": [{"podSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}}]}], True),
        ([{"from": [{"namespaceSelector": {}}]}], False),
        ([{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}]}], True),
        ([{"from": [{"namespaceSelector": {"matchLabels": {"team": "shop"}}}]}], False),
        ([{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}], False),
        ([{"ports": [{"port": 6379, "protocol": "UDP"}]}], False),
        ([{}], False),
    ],
    ids=[
        "no rule",
        "rule without ports",
        "number of the port",
        "name of the port",
        "range of ports",
        "another port",
        "another pod",
        "every pod",
        "label In",
        "label Exists",
        "label DoesNotExist",
        "every namespace",
        "another namespace",
        "namespace with unknown labels",
        "address block",
        "UDP port without peers",
        "every connection",
    ],
)
def test_n01_finds_ingress_that_no_policy_admits(rules: list[Content], denied: bool, tmp_path: Path) -> None:
    expected = [("N01", "error", "Deployment shop → store:6379")] if denied else []
    assert found(tmp_path, shop(), *STORE, policy("p", "store", ingress=rules)) == expected


def test_n01_names_every_policy_and_checks_every_pod_of_the_service(tmp_path: Path) -> None:
    named = {"containerPort": 6379, "name": "redis"}
    labels = {"matchLabels": {"version": "closed"}}

    def version(name: str, *ports: Content) -> Content:
        made = workload(f"store-{name}", ports=list(ports))
        made["spec"]["template"]["metadata"]["labels"] = {"app": "store", "version": name}
        return made

    pods = [version("a"), version("open", named), version("closed", named)]
    policies = [resource("NetworkPolicy", name, {"podSelector": labels, "ingress": []}) for name in ("p", "q")]
    (finding,) = findings(tmp_path, shop(), *pods, service("store", 6379, "redis"), *policies)
    assert finding.arithmetic == (
        "NetworkPolicies p, q apply, but none admits ingress to port 6379 of Deployment store-closed"
    )


def test_n01_skips_an_address_that_no_manifest_defines_and_checks_the_next_address(tmp_path: Path) -> None:
    client = workload("shop", env=[variable("OTHER", "example.com:443"), variable("STORE", "store:6379")])
    undeclared = workload("store")
    expected = [("N01", "error", "Deployment shop → store:6379")]
    assert found(tmp_path, client, undeclared, STORE[1], policy("p", "store", ingress=[])) == expected


def test_n04_lists_every_port_that_the_service_offers(tmp_path: Path) -> None:
    offering = service("store", 6379)
    offering["spec"]["ports"].append({"port": 6378, "name": "other"})
    wrong = workload("shop", env=[variable("STORE", "store:6380")])
    (finding,) = findings(tmp_path, wrong, STORE[0], offering)
    assert finding.arithmetic == "STORE names port 6380, but Service store offers 6378, 6379"
    assert finding.proposal == ""


def test_n01_finds_egress_that_no_policy_admits(tmp_path: Path) -> None:
    of_store = {"to": [{"podSelector": {"matchLabels": {"app": "store"}}}]}
    for rules, denied in (([DNS], True), ([DNS, of_store], False)):
        expected = [("N01", "error", "Deployment shop → store:6379")] if denied else []
        closed = policy("p", "shop", policyTypes=["Egress"], egress=rules)
        assert found(tmp_path, shop(), *STORE, closed) == expected


def test_n01_uses_the_union_of_all_policies_and_ignores_pods_on_the_nodes_network(tmp_path: Path) -> None:
    closed, opened = policy("closed", "store", ingress=[]), policy("opened", "store", ingress=[{"from": [OF_SHOP]}])
    assert found(tmp_path, shop(), *STORE, closed, opened) == []
    on_node = workload("store", pod={"hostNetwork": True})
    assert found(tmp_path, shop(), on_node, STORE[1], closed) == []


def test_n06_finds_pods_whose_policies_deny_dns(tmp_path: Path) -> None:
    of_store = {"to": [{"podSelector": {}}], "ports": [{"port": 6379}]}
    over_tcp, every_udp = {"ports": [{"port": 53}]}, {"ports": [{"protocol": "UDP"}]}
    in_range = {"ports": [{"port": 1, "endPort": 1024, "protocol": "UDP"}]}
    named = {"ports": [{"port": "dns", "protocol": "UDP"}]}
    for rules, closed in (
        ([of_store], True),
        ([over_tcp, of_store], True),
        ([of_store, DNS], False),
        ([of_store, every_udp], False),
        ([of_store, in_range], False),
        ([of_store, named], False),
        ([{"to": [{"podSelector": {}}]}], False),
    ):
        expected = [("N06", "error", "Deployment shop")] if closed else []
        assert found(tmp_path, shop(), *STORE, policy("p", "shop", egress=rules)) == expected


def test_n06_skips_a_workload_without_policies_and_names_every_policy_of_the_next_workload(tmp_path: Path) -> None:
    other = workload("other", env=[variable("STORE", "store:6379")])
    of_store = {"to": [{"podSelector": {}}], "ports": [{"port": 6379}]}
    closed = [policy(name, "shop", policyTypes=["Egress"], egress=[of_store]) for name in ("p", "q")]
    (finding,) = findings(tmp_path, other, shop(), *STORE, *closed)
    assert finding.path == "Deployment shop"
    assert "NetworkPolicies p, q" in finding.arithmetic


@pytest.mark.parametrize(
    ("handler", "grace", "late"),
    [
        ({"exec": {"command": ["sh", "-c", "sleep 30"]}}, 30, True),
        ({"exec": {"command": ["sleep", "29"]}}, 30, False),
        ({"exec": {"command": ["sh", "-c", "sleep 1m"]}}, 60, True),
        ({"exec": {"command": ["sh", "-c", "sleep 29.5s"]}}, 29, True),
        ({"sleep": {"seconds": 10}}, 10, True),
        ({"exec": {"command": ["drain"]}}, 1, False),
        ({"httpGet": {"port": 80}}, 1, False),
        (None, 1, False),
    ],
    ids=[
        "sleep of 30 s in 30 s",
        "sleep of 29 s in 30 s",
        "sleep of one minute in 60 s",
        "sleep of 29.5 s in 29 s",
        "kubelet's sleep of 10 s in 10 s",
        "command without a sleep",
        "HTTP request",
        "no handler",
    ],
)
def test_t05_finds_a_sleep_as_long_as_the_grace_period(
    handler: Content, grace: int, late: bool, tmp_path: Path
) -> None:
    ending = workload("store", pod={"terminationGracePeriodSeconds": grace}, lifecycle={"preStop": handler})
    assert found(tmp_path, ending, STORE[1]) == ([("T05", "error", "Deployment store → store.preStop")] if late else [])


@pytest.mark.parametrize(
    ("probe", "late"),
    [({"timeoutSeconds": 10}, True), ({"timeoutSeconds": 9}, False), ({"periodSeconds": 1}, True), ({}, False)],
    ids=["timeout equals the default period", "shorter timeout", "default timeout equals the period", "defaults"],
)
def test_t07_finds_a_timeout_as_long_as_the_period(probe: Content, late: bool, tmp_path: Path) -> None:
    probed = workload("store", readinessProbe={"exec": {"command": ["true"]}, **probe})
    assert found(tmp_path, probed, STORE[1]) == (
        [("T07", "error", "Deployment store → store.readinessProbe")] if late else []
    )


def test_p03_finds_an_ordered_stateful_set_with_rolling_updates(tmp_path: Path) -> None:
    ordered = workload("store", kind="StatefulSet")
    assert found(tmp_path, ordered, STORE[1]) == [("P03", "warning", "StatefulSet store")]
    (explicit,) = findings(tmp_path, with_spec(ordered, replicas=1, podManagementPolicy="OrderedReady"), STORE[1])
    assert explicit.where is not None
    line = Path(explicit.where.file).read_text(encoding="utf-8").splitlines()[explicit.where.line - 1]
    assert line.strip() == "podManagementPolicy: OrderedReady"
    for fields in ({"podManagementPolicy": "Parallel"}, {"updateStrategy": {"type": "OnDelete"}}):
        assert found(tmp_path, with_spec(ordered, **fields), STORE[1]) == []


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("DB_PASSWORD", "changeme", True),
        ("DB_PASSWORD", "", False),
        ("ALLOW_EMPTY_PASSWORD", "yes", False),
        ("DB_PASSWORD_FILE", "/run/secret", False),
        ("DB_PASSWORD", "/run/secret", False),
        ("DB_PASSWORD", "$(OTHER)", False),
        ("DATABASE", "Host=db;Username=a;Password=b", True),
        ("DATABASE", "postgresql://a:b@example.com/c", True),
        ("DATABASE", "postgresql://a:$(PASSWORD)@example.com/c", False),
        ("DATABASE", "postgresql://a@example.com/c", False),
        ("OPENAI_API_KEY", "sk-1", True),
        ("TOKENIZER", "bpe", False),
    ],
)
def test_s01_finds_a_secret_in_a_variable(name: str, value: str, plain: bool, tmp_path: Path) -> None:
    held = workload("store", env=[variable(name, value)])
    assert found(tmp_path, held, STORE[1]) == ([("S01", "error", f"Deployment store → store.{name}")] if plain else [])


def test_s01_finds_a_secret_in_the_manifest_of_a_secret(tmp_path: Path) -> None:
    for key, value, plain in (
        ("admin-password", "Yg==", True),
        ("tls.key", "Yg==", True),
        ("token", "Yg==", True),
        ("admin-password", "", False),
        ("admin-password", "<vault>", False),
        ("settings.yaml", "Yg==", False),
    ):
        for field in ("data", "stringData"):
            held = resource("Secret", "s", **{field: {key: value}})
            assert found(tmp_path, *STORE, held) == ([("S01", "error", f"Secret s.{key}")] if plain else [])


@pytest.mark.parametrize(
    ("key", "value", "plain"),
    [
        ("DB_PASSWORD", "changeme", True),
        ("DB_PASSWORD", "$(OTHER)", False),
        ("db.password", "changeme", True),
        ("LEVEL", "info", False),
        ("settings.env", "LEVEL=info\nDB_PASSWORD=changeme\n", True),
        ("settings.env", "LEVEL=info\nDB_PASSWORD=$DB_PASSWORD\n", False),
        ("settings.yaml", "store:\n  password: changeme\n", True),
        ("workers", 4, False),
    ],
)
def test_s01_finds_a_secret_in_a_config_map(key: str, value: str | int, plain: bool, tmp_path: Path) -> None:
    held = resource("ConfigMap", "s", data={key: value})
    assert found(tmp_path, *STORE, held) == ([("S01", "error", f"ConfigMap s.{key}")] if plain else [])


@pytest.mark.parametrize(
    ("image", "moves"),
    [
        ("mongo", True),
        ("example.com:5000/mongo", True),
        ("mongo:latest", True),
        ("mongo:7", False),
        ("mongo@sha256:" + "0" * 64, False),
    ],
)
def test_s01_reports_an_image_with_the_tag_latest_once_for_all_workloads(
    image: str, moves: bool, tmp_path: Path
) -> None:
    contents = (workload("store", image=image), workload("other", image=image), STORE[1])
    assert found(tmp_path, *contents) == ([("S01", "warning", f"image {image}")] if moves else [])


CPU: Content = {"resources": {"requests": {"cpu": "100m"}}}
METRIC: Content = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}
BY_CONTAINER = {"type": "ContainerResource", "containerResource": {"name": "cpu"}}


def autoscaler(name: str = "store", **spec: Any) -> Content:
    target = {"kind": "Deployment", "name": name}
    return resource("HorizontalPodAutoscaler", name, {"scaleTargetRef": target, "maxReplicas": 3, **spec})


def test_d03_finds_missing_requests_a_missing_target_and_replicas_beside_an_autoscaler(tmp_path: Path) -> None:
    scaled = workload("store", **CPU)
    assert found(tmp_path, scaled, STORE[1], autoscaler()) == []
    limited = workload("store", resources={"limits": {"cpu": "1"}})
    assert found(tmp_path, limited, STORE[1], autoscaler(metrics=[METRIC])) == []
    assert found(tmp_path, *STORE, autoscaler(metrics=[METRIC])) == [("D03", "error", "Deployment store → store")]
    assert found(tmp_path, *STORE, autoscaler(metrics=[BY_CONTAINER])) == []
    assert found(tmp_path, with_spec(scaled, replicas=2), STORE[1], autoscaler()) == [
        ("D03", "error", "Deployment store")
    ]
    assert found(tmp_path, *STORE, autoscaler("stores")) == [("D03", "warning", "HorizontalPodAutoscaler stores")]
    both = [autoscaler("absent"), autoscaler(metrics=[METRIC])]
    assert [path for *_, path in found(tmp_path, *STORE, *both)] == [
        "Deployment store → store",
        "HorizontalPodAutoscaler absent",
    ]


def test_h02_finds_an_autoscaler_that_counts_a_sidecar(tmp_path: Path) -> None:
    beside = workload("store", **CPU)
    beside["spec"]["template"]["spec"]["containers"].append({"name": "proxy", **CPU})
    assert found(tmp_path, beside, STORE[1], autoscaler(metrics=[METRIC])) == [("H02", "warning", "Deployment store")]
    assert found(tmp_path, beside, STORE[1], autoscaler(metrics=[BY_CONTAINER])) == []
    memory = {**METRIC, "resource": {**METRIC["resource"], "name": "memory"}}
    for container in beside["spec"]["template"]["spec"]["containers"]:
        container["resources"] = {"requests": {"cpu": "100m", "memory": "64Mi"}}
    (finding,) = findings(tmp_path, workload("shop"), beside, STORE[1], autoscaler(metrics=[METRIC, memory]))
    assert finding.arithmetic.startswith("the utilization of cpu, memory is the sum over the containers store, proxy")


@pytest.mark.parametrize(
    ("spec", "replicas", "blocks"),
    [
        ({"minAvailable": 2}, 2, True),
        ({"minAvailable": 1}, 2, False),
        ({"minAvailable": 1}, 1, True),
        ({"minAvailable": "100%"}, 2, True),
        ({"maxUnavailable": 0}, 2, True),
        ({"maxUnavailable": "0%"}, 2, True),
        ({"maxUnavailable": 1}, 1, False),
        ({"minAvailable": 1}, 0, False),
        ({"maxUnavailable": 0}, 0, False),
        ({"maxUnavailable": "0"}, 2, True),
        ({"minAvailable": "51%"}, 2, True),
        ({"minAvailable": "50%"}, 2, False),
        ({"minAvailable": "all"}, 2, False),
    ],
    ids=str,
)
def test_a03_finds_a_budget_that_allows_no_eviction(spec: Content, replicas: int, blocks: bool, tmp_path: Path) -> None:
    budget = resource("PodDisruptionBudget", "b", {"selector": {"matchLabels": {"app": "store"}}, **spec})
    expected = [("A03", "error", "PodDisruptionBudget b")] if blocks else []
    assert found(tmp_path, with_spec(STORE[0], replicas=replicas), STORE[1], budget) == expected


def test_a03_finds_replicas_without_a_budget(tmp_path: Path) -> None:
    assert found(tmp_path, with_spec(STORE[0], replicas=2), STORE[1]) == [("A03", "warning", "Deployment store")]
    scaled = autoscaler(minReplicas=2, metrics=[BY_CONTAINER])
    assert found(tmp_path, *STORE, scaled) == [("A03", "warning", "Deployment store")]
    assert found(tmp_path, with_spec(STORE[0], replicas=1), STORE[1]) == []
    assert found(tmp_path, with_spec(workload("job"), replicas=2), *STORE) == []


def test_e01_finds_a_policy_or_a_budget_that_selects_no_pod(tmp_path: Path) -> None:
    assert found(tmp_path, *STORE, policy("p", "stores")) == [("E01", "warning", "NetworkPolicy p → app=stores")]
    for peer, idle in (("shops", True), ("shop", False)):
        admitting = policy("p", "store", ingress=[{"from": [{"podSelector": {"matchLabels": {"app": peer}}}]}])
        expected = [("E01", "warning", f"NetworkPolicy p → app={peer}")] if idle else []
        assert found(tmp_path, workload("shop"), *STORE, admitting) == expected
    elsewhere = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "shops"}}}
    assert found(tmp_path, *STORE, policy("p", "store", ingress=[{"from": [elsewhere]}])) == []
    budget = resource("PodDisruptionBudget", "b", {"selector": {"matchLabels": {"app": "stores"}}})
    assert found(tmp_path, *STORE, budget) == [("E01", "warning", "PodDisruptionBudget b → app=stores")]
    blocking = with_spec(budget, maxUnavailable=0)
    assert found(tmp_path, *STORE, blocking) == [("E01", "warning", "PodDisruptionBudget b → app=stores")]
    without = resource("PodDisruptionBudget", "b", {"maxUnavailable": 0})
    assert found(tmp_path, *STORE, without) == [("E01", "warning", "PodDisruptionBudget b")]
    operated = {**resource("Prometheus", "k8s"), "apiVersion": "monitoring.example.com/v1"}
    assert found(tmp_path, *STORE, budget, policy("p", "stores"), service("other"), operated) == []


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ({"retries": {"attempts": 2}}, []),
        ({"retries": {"attempts": 3}}, [("R03", "warning")]),
        ({"retries": {"attempts": 4}}, [("R03", "warning")]),
        ({"retries": {"attempts": 5}}, [("R03", "error")]),
        ({"retries": {"attempts": 2, "perTryTimeout": "2s"}, "timeout": "6s"}, []),
        ({"retries": {"attempts": 2, "perTryTimeout": "2s"}, "timeout": "5s"}, [("T02", "warning")]),
        ({"retries": {"attempts": 2, "perTryTimeout": "2s"}, "timeout": "0s"}, []),
        ({"retries": {"attempts": 2, "perTryTimeout": "soon"}, "timeout": "5s"}, []),
        ({"timeout": "1s"}, []),
        ({"retries": {"attempts": 1, "perTryTimeout": "3s"}, "timeout": "5s"}, [("T02", "warning")]),
        ({"retries": {"attempts": 0, "perTryTimeout": "6s"}, "timeout": "5s"}, []),
    ],
    ids=str,
)
def test_r03_and_t02_check_the_retries_of_a_route(
    route: Content, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    destination = [{"destination": {"host": "store"}}]
    routes = resource("VirtualService", "v", {"hosts": ["store"], "http": [{"route": destination, **route}]})
    looked_at = found(tmp_path, *STORE, routes)
    assert looked_at == [(*each, "VirtualService v → store") for each in expected]


def test_r03_and_t02_check_the_routes_that_follow_a_skipped_route(tmp_path: Path) -> None:
    destinations = [{"destination": {"host": host}} for host in ("store", "other")]
    bare: Content = {"retries": {"attempts": 1}}
    late: Content = {"retries": {"attempts": 3, "perTryTimeout": "2s"}, "timeout": "5s"}
    http = [{"route": destinations, **route} for route in ({}, bare, late)]
    routes = resource("VirtualService", "v", {"hosts": ["store"], "http": http})
    many, slow = findings(tmp_path, *STORE, routes)
    assert (many.path, many.proposal) == ("VirtualService v → store, other", "2")
    assert slow.arithmetic == "4 attempts × 2s = 8s > timeout 5s"


def test_a_finding_names_the_line_that_declares_the_value(tmp_path: Path) -> None:
    (finding,) = findings(tmp_path, workload("store", env=[variable("DB_PASSWORD", "changeme")]), STORE[1])
    assert finding.where is not None
    lines = Path(finding.where.file).read_text(encoding="utf-8").splitlines()
    assert lines[finding.where.line - 1].strip() == "- name: DB_PASSWORD"


def test_the_outcome_names_the_directory(tmp_path: Path) -> None:
    system = load_system(write(tmp_path, *STORE))
    assert audit_manifests(system, on=date(2026, 11, 30)).source == str(tmp_path)


def test_each_rule_for_manifests_is_listed_once() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)

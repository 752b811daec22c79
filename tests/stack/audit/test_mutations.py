"""Each mutation of the rendered resources that would break the platform, or make it less safe, breaks a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy, deepcopy
from functools import cache
from typing import Any, NamedTuple

import pytest

from components.component import Component
from stack.audit import RULES
from stack.audit.finding import Finding
from stack.model.platform import Platform
from tests.platforms import DAY, platform

Document = dict[str, Any]
NAME = "app.kubernetes.io/name"


class Mutation(NamedTuple):
    """A change of one rendered resource."""

    title: str
    rule: str
    """The rule that must find the change."""
    kind: str
    change: Callable[[Document], object] | None = None
    """`None` deletes the resource."""
    only: Callable[[Document], object] = lambda _: True
    """Selects the resource. The first selected resource is changed."""


def pod(document: Document) -> Document:
    spec = document["spec"]
    template: Document = (spec["jobTemplate"]["spec"] if document["kind"] == "CronJob" else spec)["template"]
    return template["spec"]  # type: ignore[no-any-return]  # a rendered document has no types


def program(document: Document) -> Document:
    return pod(document)["containers"][0]  # type: ignore[no-any-return]  # a rendered document has no types


def volume(document: Document, kind: str) -> Document | None:
    return next((each[kind] for each in pod(document).get("volumes", ()) if kind in each), None)


def in_volume(kind: str, **change: object) -> dict[str, Any]:
    """The arguments of a mutation that changes the first volume of a kind."""
    return {"change": lambda found: volume(found, kind).update(change), "only": lambda found: volume(found, kind)}  # type: ignore[union-attr]  # `only` selects documents with the volume


def secret_variable(document: Document) -> Document | None:
    sources = (each.get("valueFrom", {}) for each in program(document).get("env", ()))
    return next((source["secretKeyRef"] for source in sources if "secretKeyRef" in source), None)


def in_spec(**change: object) -> Callable[[Document], object]:
    return lambda found: found["spec"].update(change)


def in_pod(**change: object) -> Callable[[Document], object]:
    return lambda found: pod(found).update(change)


def named(name: str) -> Callable[[Document], bool]:
    return lambda found: bool(found["metadata"]["name"] == name)


def autoscaled(document: Document) -> bool:
    return SERVICE(document) and "replicas" not in document["spec"]


def served(document: Document) -> bool:
    return any(rule.get("from") for rule in document["spec"].get("rules", ()))


def without_pods(field: str) -> Callable[[Document], object]:
    return in_spec(**{field: {"matchLabels": {NAME: "nobody"}}})


def text(line: str) -> Callable[[Document], object]:
    return lambda found: found["data"].update({"settings": f"level=info\n{line}\n"})


SERVICE = named("model-adapter")
PERMISSIVE = in_spec(mtls={"mode": "PERMISSIVE"})
ROLLING = {"type": "RollingUpdate"}
MISSING = {"name": "missing"}
MISSING_KEY = [{"key": "missing", "path": "a"}]

MUTATIONS = (
    Mutation("a namespace is deleted", "P05", "Namespace"),
    Mutation("a class is deleted", "P05", "PriorityClass"),
    Mutation("an account is deleted", "P05", "ServiceAccount"),
    Mutation("a ConfigMap is deleted", "P05", "ConfigMap"),
    Mutation("a role is deleted", "P05", "Role"),
    Mutation("a role of the cluster is deleted", "P05", "ClusterRole"),
    Mutation("the backups' object store is deleted", "P05", "ObjectStore"),
    Mutation("the database cluster is deleted", "P05", "Cluster"),
    Mutation("an unknown class", "P05", "Deployment", in_pod(priorityClassName="missing")),
    Mutation("an unknown class of a job", "P05", "CronJob", in_pod(priorityClassName="missing")),
    Mutation("no class", "P04", "CronJob", lambda found: pod(found).pop("priorityClassName")),
    Mutation("an unknown account", "P05", "Deployment", in_pod(serviceAccountName="missing")),
    Mutation("an unknown pull secret", "P05", "Deployment", in_pod(imagePullSecrets=[MISSING])),
    Mutation("an unknown ConfigMap", "P05", "Deployment", **in_volume("configMap", name="missing")),
    Mutation("an unknown key of a ConfigMap", "P05", "Deployment", **in_volume("configMap", items=MISSING_KEY)),
    Mutation(
        "variables from an unknown ConfigMap",
        "P05",
        "Deployment",
        lambda found: program(found).update(envFrom=[{"configMapRef": MISSING}]),
    ),
    Mutation(
        "an unknown ConfigMap in a projected volume",
        "P05",
        "Deployment",
        **in_volume("projected", sources=[{"configMap": MISSING}]),
    ),
    Mutation("an unknown secret", "P05", "Deployment", **in_volume("secret", secretName="missing")),
    Mutation("an unknown key of a secret", "P05", "Deployment", **in_volume("secret", items=MISSING_KEY)),
    Mutation(
        "a variable from an unknown key",
        "P05",
        "Deployment",
        lambda found: secret_variable(found).update(key="missing"),  # type: ignore[union-attr]  # `only` selects it
        secret_variable,
    ),
    Mutation(
        "an unknown claim",
        "P05",
        "Deployment",
        lambda found: pod(found)["volumes"].append({"name": "a", "persistentVolumeClaim": {"claimName": "missing"}}),
    ),
    Mutation("a binding to an unknown role", "P05", "RoleBinding", lambda found: found["roleRef"].update(MISSING)),
    Mutation(
        "a binding of an unknown account", "P05", "RoleBinding", lambda found: found["subjects"][0].update(MISSING)
    ),
    Mutation("the pods are recreated", "A03", "Deployment", in_spec(strategy={"type": "Recreate"}), autoscaled),
    Mutation(
        "a rollout stops all pods",
        "A03",
        "Deployment",
        in_spec(strategy={**ROLLING, "rollingUpdate": {"maxUnavailable": "100%", "maxSurge": 0}}),
        autoscaled,
    ),
    Mutation(
        "a rollout stops all members of a store",
        "A03",
        "StatefulSet",
        in_spec(updateStrategy={**ROLLING, "rollingUpdate": {"maxUnavailable": 9}}),
        lambda found: found["spec"]["replicas"] > 1,
    ),
    Mutation("one database instance", "A03", "Cluster", in_spec(instances=1)),
    Mutation("one pooler", "A03", "Pooler", in_spec(instances=1)),
    Mutation("a pooler's budget is deleted", "A03", "PodDisruptionBudget", only=named("postgresql-pooler")),
    Mutation("a budget is deleted", "A03", "PodDisruptionBudget", only=SERVICE),
    Mutation(
        "a budget permits to evict all pods", "A03", "PodDisruptionBudget", in_spec(maxUnavailable="100%"), SERVICE
    ),
    Mutation("a budget permits no eviction", "A03", "PodDisruptionBudget", in_spec(maxUnavailable=0), SERVICE),
    Mutation("a budget selects no pod", "E01", "PodDisruptionBudget", without_pods("selector")),
    Mutation(
        "an autoscaler of an unknown workload",
        "D03",
        "HorizontalPodAutoscaler",
        lambda found: found["spec"]["scaleTargetRef"].update(MISSING),
    ),
    Mutation(
        "an autoscaler of another kind",
        "D03",
        "HorizontalPodAutoscaler",
        lambda found: found["spec"]["scaleTargetRef"].update(kind="StatefulSet"),
    ),
    Mutation(
        "an egress proxy leads to another host",
        "N05",
        "ConfigMap",
        lambda found: found["data"].update(
            {name: text.replace("api.openai.com", "example.com") for name, text in found["data"].items()}
        ),
        named("egress-proxy-a-allow-lists"),
    ),
    Mutation(
        "a route of the gateway leads to an unknown Service",
        "N04",
        "ConfigMap",
        lambda found: found["data"].update(
            {"apisix.yaml": found["data"]["apisix.yaml"].replace("identity-service.", "identity.")}
        ),
        lambda found: "apisix.yaml" in found["data"],
    ),
    Mutation("a service's pods are deleted", "N04", "Deployment", only=SERVICE),
    Mutation("a Service is deleted", "N04", "Service", only=named("model-adapter-grpc")),
    Mutation("a Service selects no pod", "N04", "Service", in_spec(selector={NAME: "nobody"}), SERVICE),
    Mutation(
        "a Service leads to an unknown port number",
        "N04",
        "Service",
        lambda found: found["spec"]["ports"][0].update(targetPort=1),
    ),
    Mutation(
        "a Service leads to an unknown port name",
        "N04",
        "Service",
        lambda found: found["spec"]["ports"][0].update(targetPort="missing"),
    ),
    Mutation("the members of the cache are deleted", "N04", "StatefulSet", only=named("redis-node")),
    Mutation("the cache has fewer members", "N04", "StatefulSet", in_spec(replicas=1), named("redis-node")),
    Mutation(
        "a probe of an unknown port name",
        "N04",
        "Deployment",
        lambda found: program(found)["readinessProbe"]["httpGet"].update(port="missing"),
        SERVICE,
    ),
    Mutation("no readiness probe", "T07", "Deployment", lambda found: program(found).pop("readinessProbe"), SERVICE),
    Mutation("no pre-stop sleep", "P01", "Deployment", lambda found: program(found).pop("lifecycle"), SERVICE),
    Mutation("a short grace period", "T05", "Deployment", in_pod(terminationGracePeriodSeconds=1), SERVICE),
    Mutation("the policy for DNS is deleted", "N06", "NetworkPolicy", only=named("allow-dns")),
    Mutation("a NetworkPolicy is deleted", "N01", "NetworkPolicy", only=SERVICE),
    Mutation("the default NetworkPolicy is deleted", "N02", "NetworkPolicy", only=named("default-deny")),
    Mutation("a NetworkPolicy selects no pod", "E01", "NetworkPolicy", without_pods("podSelector")),
    Mutation("a NetworkPolicy admits everybody", "N02", "NetworkPolicy", in_spec(ingress=[{}]), SERVICE),
    Mutation("a NetworkPolicy admits nobody", "N01", "NetworkPolicy", in_spec(ingress=[]), SERVICE),
    Mutation(
        "a NetworkPolicy admits an unknown port name",
        "N01",
        "NetworkPolicy",
        lambda found: [port.update(port="missing") for rule in found["spec"]["ingress"] for port in rule["ports"]],
        SERVICE,
    ),
    Mutation(
        "a PeerAuthentication is not strict",
        "S03",
        "PeerAuthentication",
        in_spec(mtls={"mode": "PERMISSIVE"}),
        SERVICE,
    ),
    Mutation("the default PeerAuthentication is deleted", "S03", "PeerAuthentication", only=named("mesh")),
    Mutation("an AuthorizationPolicy is deleted", "S03", "AuthorizationPolicy"),
    Mutation("an AuthorizationPolicy selects no pod", "E01", "AuthorizationPolicy", without_pods("selector")),
    Mutation(
        "an AuthorizationPolicy admits everybody",
        "S03",
        "AuthorizationPolicy",
        in_spec(rules=[{}]),
    ),
    Mutation(
        "an AuthorizationPolicy admits a stranger",
        "S03",
        "AuthorizationPolicy",
        lambda found: found["spec"]["rules"][0]["from"][0]["source"]["principals"].append("cluster.local/ns/a/sa/b"),
        served,
    ),
    Mutation(
        "an AuthorizationPolicy refuses a caller",
        "S03",
        "AuthorizationPolicy",
        lambda found: found["spec"]["rules"][0]["from"][0]["source"]["principals"].pop(),
        served,
    ),
    Mutation("an AuthorizationPolicy denies", "S03", "AuthorizationPolicy", in_spec(action="DENY")),
    Mutation("a Sidecar is deleted", "S03", "Sidecar"),
    Mutation(
        "a Sidecar lacks a host",
        "S03",
        "Sidecar",
        lambda found: found["spec"]["egress"][0].update(hosts=[]),
    ),
    Mutation(
        "a Sidecar permits every host",
        "S03",
        "Sidecar",
        in_spec(outboundTrafficPolicy={"mode": "ALLOW_ANY"}),
    ),
    Mutation(
        "pods without a proxy",
        "S03",
        "Deployment",
        lambda found: found["spec"]["template"]["metadata"]["labels"].pop("sidecar.istio.io/inject"),
        lambda found: "sidecar.istio.io/inject" in found["spec"]["template"]["metadata"]["labels"],
    ),
    Mutation("a DestinationRule is deleted", "E01", "DestinationRule"),
    Mutation("a VirtualService is deleted", "R09", "VirtualService"),
    Mutation(
        "a VirtualService leads to an unknown Service",
        "N04",
        "VirtualService",
        lambda found: found["spec"]["http"][-1]["route"][0]["destination"].update(host="a.b.svc.cluster.local"),
    ),
    Mutation("a namespace admits every pod", "S01", "Namespace", lambda found: found["metadata"].update(labels={})),
    Mutation("a role grants everything", "S01", "Role", lambda found: found["rules"][0].update(verbs=["*"])),
    Mutation("a pod shares the network of its node", "S01", "Deployment", in_pod(hostNetwork=True)),
    Mutation("a password in a URL", "S01", "ConfigMap", text("store = postgresql://user:hunter2@store/shop")),
    Mutation("a password in an env file", "S01", "ConfigMap", text("export DB_PASSWORD=hunter2")),
    Mutation("a password in a data source name", "S01", "ConfigMap", text("host=store user=shop password=hunter2")),
    Mutation("a token in a file", "S01", "ConfigMap", text("TOKEN=hunter2")),
    Mutation("a password in YAML", "S01", "ConfigMap", text("password: hunter2")),
)


def mutated(environment: str, mutation: Mutation) -> Platform | None:
    """The platform with the mutation. `None` if it renders no such resource."""
    real = platform(environment)
    found: list[tuple[Component, tuple[Any, ...]]] = []
    done = False
    for component, resources in real.resources:
        changed = []
        for resource in resources:
            chosen = not done and resource["kind"] == mutation.kind and mutation.only(dict(resource))
            done = done or bool(chosen)
            if chosen and mutation.change is None:
                continue
            changed.append(deepcopy(resource) if chosen else resource)
            if chosen and mutation.change:
                mutation.change(changed[-1])  # type: ignore[arg-type]  # a rendered document has no types
        found.append((component, tuple(changed)))
    tampered = copy(real)
    tampered.__dict__["resources"] = tuple(found)
    return tampered if done else None


def findings(rule: str, looked_at: Platform) -> Iterator[Finding]:
    yield from next(known for known in RULES if known.id == rule).verdict(looked_at, DAY).findings


@cache
def known_paths(environment: str, rule: str) -> frozenset[str]:
    return frozenset(finding.path for finding in findings(rule, platform(environment)))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.title)
def test_a_rule_finds_each_mutation_of_the_rendered_resources(mutation: Mutation) -> None:
    looked_at = 0
    for environment in ("dev", "prod"):
        tampered = mutated(environment, mutation)
        if tampered is not None:
            looked_at += 1
            found = {finding.path for finding in findings(mutation.rule, tampered)}
            assert found - known_paths(environment, mutation.rule), environment
    assert looked_at

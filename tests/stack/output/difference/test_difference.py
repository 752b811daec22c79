from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from voice_policies import InvalidInputError

from stack.output.difference import Difference, Effect, Identity, Risk, Side, compare

LABELS = {"app.kubernetes.io/name": "agent"}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "agent", "namespace": "apps"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": LABELS},
        "template": {
            "metadata": {"labels": LABELS},
            "spec": {
                "containers": [{"name": "agent", "image": "agent:1"}],
                "volumes": [
                    {"name": "policy", "configMap": {"name": "agent-policy"}},
                    {"name": "all", "projected": {"sources": [{"configMap": {"name": "shared"}}]}},
                ],
            },
        },
    },
}
STATEFUL_SET = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "metadata": {"name": "redis", "namespace": "data"},
    "spec": {
        "serviceName": "redis",
        "template": {"spec": {"containers": [{"name": "redis", "image": "redis:1"}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"storageClassName": "fast"}}],
    },
}
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "files", "namespace": "data"},
    "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}},
}
CLUSTER = {
    "apiVersion": "postgresql.cnpg.io/v1",
    "kind": "Cluster",
    "metadata": {"name": "postgresql", "namespace": "data"},
    "spec": {
        "instances": 3,
        "imageName": "postgresql:18.6",
        "resources": {"limits": {"memory": "4Gi"}},
        "postgresql": {"parameters": {"max_connections": "200"}},
        "storage": {"size": "50Gi"},
        "walStorage": {"size": "10Gi"},
    },
}
POOLER = {
    "apiVersion": "postgresql.cnpg.io/v1",
    "kind": "Pooler",
    "metadata": {"name": "postgresql-pooler", "namespace": "data"},
    "spec": {"pgbouncer": {"parameters": {"default_pool_size": "20"}}, "template": {"spec": {"containers": []}}},
}
AGENT = Identity.of(DEPLOYMENT)
REDIS = Identity.of(STATEFUL_SET)
FILES = Identity.of(CLAIM)


def config_map(name: str, text: str, namespace: str = "apps", note: str = "") -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "annotations": {"note": note}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"policy.json": text}}


def with_field(resource: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    changed: Any = deepcopy(resource)
    *parents, last = path.split(".")
    inner = changed
    for part in parents:
        inner = inner[int(part)] if part.isdigit() else inner[part]
    inner[last] = value
    return changed  # type: ignore[no-any-return]  # the fields on the path have no type


def difference(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Difference:
    return compare(*(Side({Identity.of(one): one for one in side}, {}) for side in (before, after)))


def test_equal_trees_do_not_differ() -> None:
    assert not difference([DEPLOYMENT, CLAIM], [CLAIM, deepcopy(DEPLOYMENT)])


def test_added_removed_and_changed_resources_are_found() -> None:
    found = difference([DEPLOYMENT, config_map("old", "")], [with_field(DEPLOYMENT, "spec.replicas", 3), CLAIM])
    assert found.added == (FILES,)
    assert [str(identity) for identity in found.removed] == ["ConfigMap apps/old"]
    assert [(change.identity, change.fields[0].path) for change in found.changed] == [(AGENT, "spec.replicas")]
    assert not found.effects


def test_a_new_version_of_an_api_changes_a_resource_and_does_not_replace_it() -> None:
    found = difference([DEPLOYMENT], [with_field(DEPLOYMENT, "apiVersion", "apps/v2")])
    assert [field.path for field in found.changed[0].fields] == ["apiVersion"]


@pytest.mark.parametrize("path", ["spec.template.spec.containers.0.image", "spec.template.metadata.labels"])
def test_a_changed_pod_template_restarts_pods(path: str) -> None:
    found = difference([DEPLOYMENT], [with_field(DEPLOYMENT, path, {"a": "b"})])
    assert found.effects == (Effect(AGENT, "restart", "its spec.template changes"),)


@pytest.mark.parametrize(
    ("resource", "path", "field"),
    [
        (CLUSTER, "spec.imageName", "spec.imageName"),
        (CLUSTER, "spec.resources.limits.memory", "spec.resources"),
        (CLUSTER, "spec.postgresql.parameters.max_connections", "spec.postgresql.parameters"),
        (POOLER, "spec.template.spec.containers", "spec.template"),
        (POOLER, "spec.pgbouncer.parameters.default_pool_size", "spec.pgbouncer.parameters"),
    ],
)
def test_a_changed_pod_field_of_an_operators_resource_restarts_its_pods(
    resource: dict[str, Any], path: str, field: str
) -> None:
    found = difference([resource], [with_field(resource, path, "other")])
    assert found.effects == (Effect(Identity.of(resource), "restart", f"its {field} changes"),)


@pytest.mark.parametrize("name", ["agent-policy", "shared"])
def test_changed_content_of_a_mounted_config_map_reloads_pods(name: str) -> None:
    found = difference([DEPLOYMENT, config_map(name, "1")], [DEPLOYMENT, config_map(name, "2")])
    assert found.effects == (Effect(AGENT, "reload", f"the content of {name} changes"),)


@pytest.mark.parametrize(
    "after",
    [config_map("agent-policy", "1", note="new"), config_map("another", "2"), config_map("agent-policy", "1")],
    ids=["changed annotation", "other ConfigMap", "no change"],
)
def test_pods_reload_only_for_changed_data_of_mounted_config_maps(after: dict[str, Any]) -> None:
    assert not difference([DEPLOYMENT, config_map("agent-policy", "1")], [DEPLOYMENT, after]).effects


def test_a_config_map_of_another_namespace_reloads_nothing() -> None:
    found = difference(
        [DEPLOYMENT, config_map("agent-policy", "1", "data")], [DEPLOYMENT, config_map("agent-policy", "2", "data")]
    )
    assert found.changed
    assert not found.effects


def test_a_new_workload_has_no_pods_that_reload() -> None:
    found = difference([config_map("agent-policy", "1")], [DEPLOYMENT, config_map("agent-policy", "2")])
    assert found.added == (AGENT,)
    assert not found.effects


def test_pods_that_restart_are_not_also_reported_as_reloading() -> None:
    after = with_field(DEPLOYMENT, "spec.template.spec.containers.0.image", "agent:2")
    found = difference([DEPLOYMENT, config_map("agent-policy", "1")], [after, config_map("agent-policy", "2")])
    assert [effect.pods for effect in found.effects] == ["restart"]


def test_a_changed_selector_replaces_a_deployment() -> None:
    found = difference([DEPLOYMENT], [with_field(DEPLOYMENT, "spec.selector.matchLabels", {"a": "b"})])
    assert found.changed[0].replaces
    assert found.effects == (Effect(AGENT, "restart", "the workload is replaced"),)
    assert not found.data_at_risk


@pytest.mark.parametrize(
    ("before", "path", "value", "at_risk"),
    [
        (STATEFUL_SET, "spec.volumeClaimTemplates.0.spec.storageClassName", "slow", (Risk(REDIS, "replaced"),)),
        (STATEFUL_SET, "spec.volumeClaimTemplates.0.spec.resources", {"requests": {"storage": "2Gi"}}, ()),
        (STATEFUL_SET, "spec.serviceName", "other", (Risk(REDIS, "replaced"),)),
        (STATEFUL_SET, "spec.template.spec.containers.0.image", "redis:2", ()),
        (CLAIM, "spec.storageClassName", "slow", (Risk(FILES, "replaced"),)),
        (CLAIM, "spec.resources.requests.storage", "2Gi", ()),
        (CLAIM, "spec.resources.requests.storage", "1000Mi", (Risk(FILES, "shrunk"),)),
        (CLUSTER, "spec.storage.size", "60Gi", ()),
        (CLUSTER, "spec.storage.size", "40Gi", (Risk(Identity.of(CLUSTER), "shrunk"),)),
        (CLUSTER, "spec.walStorage.size", "1Gi", (Risk(Identity.of(CLUSTER), "shrunk"),)),
    ],
)
def test_only_data_that_would_be_replaced_or_shrunk_is_at_risk(
    before: dict[str, Any], path: str, value: object, at_risk: tuple[Risk, ...]
) -> None:
    assert difference([before], [with_field(before, path, value)]).data_at_risk == at_risk


def test_an_invalid_size_is_refused() -> None:
    with pytest.raises(InvalidInputError) as refused:
        difference([CLUSTER], [with_field(with_field(CLUSTER, "spec.storage.size", "1G"), "spec.walStorage.size", 1.5)])
    assert [str(fault).partition(";")[0] for fault in refused.value.faults] == [
        "postgresql.spec.storage.size: is '1G'",
        "postgresql.spec.walStorage.size: is 1.5",
    ]


@pytest.mark.parametrize("kind", ["RoleBinding", "ClusterRoleBinding", "Job"])
def test_a_resource_with_a_changed_immutable_field_is_replaced(kind: str) -> None:
    field = "spec" if kind == "Job" else "roleRef"
    before = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}, field: {"template": 1, "name": "one"}}
    after = with_field(with_field(before, f"{field}.template", 2), f"{field}.name", "other")
    (change,) = difference([before], [after]).changed
    assert change.replaces


@pytest.mark.parametrize("resource", [STATEFUL_SET, CLAIM, CLUSTER], ids=lambda resource: resource["kind"])
def test_removed_data_is_at_risk(resource: dict[str, Any]) -> None:
    assert difference([resource], []).data_at_risk == (Risk(Identity.of(resource), "removed"),)


def test_a_removed_namespace_puts_its_data_at_risk() -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "data"}}
    found = difference([namespace, CLAIM], [CLAIM])
    assert found.data_at_risk == (Risk(Identity.of(namespace), "removed"),)
    assert not difference([namespace], []).data_at_risk


def test_a_stateful_set_without_claims_holds_no_data() -> None:
    assert not difference([with_field(STATEFUL_SET, "spec.volumeClaimTemplates", [])], []).data_at_risk


def test_a_path_matches_a_changed_field_only_by_whole_names() -> None:
    (change,) = difference([DEPLOYMENT], [with_field(DEPLOYMENT, "spec.replicas", 3)]).changed
    assert change.touches("spec")
    assert change.touches("spec.replicas")
    assert not change.touches("spec.replica")


@pytest.mark.parametrize("kind", ["Cluster", "Deployment", "Pooler", "StatefulSet"])
@pytest.mark.parametrize("spec", [{}, {"spec": {}}, {"spec": {"template": None}}], ids=["no spec", "empty", "null"])
def test_a_resource_with_an_incomplete_spec_is_compared(kind: str, spec: dict[str, Any]) -> None:
    whole = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "a", "namespace": "shop"}}
    before, after = whole | {"spec": {"replicas": 1}}, whole | spec
    (change,) = difference([before], [after]).changed
    assert change.fields

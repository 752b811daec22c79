"""Service accounts and roles. A pod gets a token for the API server only if its workload declares `rights`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from components.kubernetes.types import (
        ClusterRole,
        ClusterRoleBinding,
        ObjectMeta,
        PolicyRule,
        Role,
        RoleBinding,
        ServiceAccount,
        Subject,
    )

RBAC: Final = "rbac.authorization.k8s.io/v1"
TOKEN_VOLUME = "api-token"  # noqa: S105 - the volume's name
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - where client libraries look


def service_account(metadata: ObjectMeta) -> ServiceAccount:
    """An account without a mounted token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata,
        "automountServiceAccountToken": False,
    }


def pod_reader(account: ObjectMeta, namespace: str, *more: PolicyRule) -> Iterator[Role | RoleBinding]:
    """A Role, bound to an account. The Role permits reading the pods of a namespace, and grants the rules `more`."""
    metadata: ObjectMeta = {**account, "namespace": namespace}
    pods: PolicyRule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    yield {"apiVersion": RBAC, "kind": "Role", "metadata": metadata, "rules": [pods, *more]}
    yield {
        "apiVersion": RBAC,
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account["name"]},
        "subjects": [_subject(account)],
    }


def node_metrics_reader(account: ObjectMeta) -> Iterator[ClusterRole | ClusterRoleBinding]:
    """A ClusterRole that permits reading kubelets' metrics, bound to an account."""
    yield from _cluster_reader(account, "kubelets", "nodes/metrics", "get")


def node_reader(account: ObjectMeta) -> Iterator[ClusterRole | ClusterRoleBinding]:
    """A ClusterRole that permits reading the nodes with their conditions, bound to an account."""
    yield from _cluster_reader(account, "nodes", "nodes", "list", "watch")


def _cluster_reader(
    account: ObjectMeta, suffix: str, resource: str, *verbs: str
) -> Iterator[ClusterRole | ClusterRoleBinding]:
    """A ClusterRole, bound to an account. Nodes belong to no namespace, so a Role cannot grant rights over them."""
    rule: PolicyRule = {"apiGroups": [""], "resources": [resource], "verbs": list(verbs)}
    name = f"{account['namespace']}-{account['name']}-{suffix}"
    metadata: ObjectMeta = {"name": name, "labels": account["labels"]}
    yield {"apiVersion": RBAC, "kind": "ClusterRole", "metadata": metadata, "rules": [rule]}
    yield {
        "apiVersion": RBAC,
        "kind": "ClusterRoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [_subject(account)],
    }


def _subject(account: ObjectMeta) -> Subject:
    return {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}

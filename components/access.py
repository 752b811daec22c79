"""Who a pod is to the API server. Ours is nobody: an account of its own, no token, no rights, unless it names them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.kubernetes.types import ObjectMeta, PolicyRule, Role, RoleBinding, ServiceAccount

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


def pod_reader(reader: ObjectMeta, namespace: str, *more: PolicyRule) -> Iterator[Role | RoleBinding]:
    """A role over the pods of one namespace, and whatever `more` says, for the account that `reader` names."""
    metadata: ObjectMeta = {**reader, "namespace": namespace}
    pods: PolicyRule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    yield {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata,
        "rules": [pods, *more],
    }
    yield {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": reader["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": reader["name"], "namespace": reader["namespace"]}],
    }

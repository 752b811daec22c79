"""Who a pod is to the API server. Ours is nobody: an account of its own, no token, no rights, unless it names them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from voice_policies import ClosedModel

from components.operation import Sentence

if TYPE_CHECKING:
    from components.kubernetes.types import ObjectMeta, PolicyRule, Role, RoleBinding, ServiceAccount

TOKEN_VOLUME = "api-token"  # noqa: S105 - the volume's name
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - where client libraries look


class ApiAccess(ClosedModel):
    """The opt-out of having no API token: rights on named objects, and why they are needed."""

    reason: Sentence
    group: str = ""
    resource: str
    names: Annotated[tuple[str, ...], Field(min_length=1)]
    verbs: tuple[Literal["get", "watch", "update", "patch"], ...] = ("get", "watch")


def service_account(metadata: ObjectMeta) -> ServiceAccount:
    """An account without a mounted token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata,
        "automountServiceAccountToken": False,
    }


def role_and_binding(metadata: ObjectMeta, access: ApiAccess) -> Iterator[Role | RoleBinding]:
    """A namespaced role over exactly the named objects, bound to the account that has the same name."""
    yield {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata,
        "rules": [
            {
                "apiGroups": [access.group],
                "resources": [access.resource],
                "resourceNames": list(access.names),
                "verbs": list(access.verbs),
            }
        ],
    }
    yield {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": metadata["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": metadata["name"], "namespace": metadata["namespace"]}],
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

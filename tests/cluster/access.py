from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.cluster.manifests import Object, of_kind

ANY = "*"


@dataclass(frozen=True, order=True)
class Permission:
    """One verb on one resource. `group` is empty for the core API. An empty `name` means every object."""

    verb: str
    group: str
    resource: str
    name: str = ""

    def granted_by(self, rule: Object) -> bool:
        return (
            bool({self.verb, ANY} & set(rule["verbs"]))
            and bool({self.group, ANY} & set(rule.get("apiGroups", [])))
            and bool({self.resource, ANY} & set(rule.get("resources", [])))
            and (not rule.get("resourceNames") or self.name in rule["resourceNames"])
        )


@dataclass(frozen=True, order=True)
class Account:
    """A ServiceAccount."""

    namespace: str
    name: str


@dataclass(frozen=True, order=True)
class Question:
    """May `account` do `permission` in `namespace`?"""

    account: Account
    namespace: str
    permission: Permission

    def review(self) -> Object:
        resource, _, subresource = self.permission.resource.partition("/")
        attributes = {
            "namespace": self.namespace,
            "verb": self.permission.verb,
            "group": self.permission.group,
            "resource": resource,
            "subresource": subresource,
            "name": self.permission.name,
        }
        account = self.account
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{account.namespace}", "system:authenticated"]
        user = f"system:serviceaccount:{account.namespace}:{account.name}"
        return {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
        }


class Grants:
    """The permissions that the given Roles and bindings grant to ServiceAccounts."""

    def __init__(self, objects: Iterable[Object]) -> None:
        objects = list(objects)
        self._rules = {_role_key(role): role.get("rules") or [] for role in of_kind(objects, "Role", "ClusterRole")}
        self._bindings = list(of_kind(objects, "RoleBinding", "ClusterRoleBinding"))

    def allow(self, question: Question) -> bool:
        return any(
            question.permission.granted_by(rule) for rule in self._rules_of(question.account, question.namespace)
        )

    def _rules_of(self, account: Account, namespace: str) -> Iterator[Object]:
        for binding in self._bindings:
            scope = binding["metadata"].get("namespace", namespace)
            if scope == namespace and account in _accounts(binding):
                role = binding["roleRef"]
                yield from self._rules[role["kind"], scope if role["kind"] == "Role" else "", role["name"]]


def spelled_out(roles: Iterable[Object]) -> set[Permission]:
    """Every permission that a rule of `roles` names."""
    return {
        Permission(verb, group, resource, name)
        for role in roles
        for rule in role.get("rules") or []
        for verb in rule["verbs"]
        for group in rule.get("apiGroups", [])
        for resource in rule.get("resources", [])
        for name in rule.get("resourceNames") or [""]
    }


def _role_key(role: Object) -> tuple[str, str, str]:
    return role["kind"], role["metadata"].get("namespace", ""), role["metadata"]["name"]


def _accounts(binding: Object) -> set[Account]:
    subjects = of_kind(binding.get("subjects") or [], "ServiceAccount")
    return {Account(subject["namespace"], subject["name"]) for subject in subjects}

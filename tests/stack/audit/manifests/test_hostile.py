from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from voice_policies import InvalidInputError

from stack.audit.manifests import audit_manifests
from stack.model.manifests.system import load_system
from tests.stack.audit.manifests.test_rules import METRIC, OF_SHOP, autoscaler, policy, shop
from tests.stack.model.manifests.small_system import Content, resource, service, variable, workload, write

ROUTE = {"route": [{"destination": {"host": "store"}}], "retries": {"attempts": 2, "perTryTimeout": "1s"}}
SYSTEM: list[Content] = [
    resource("Namespace", "default"),
    shop(
        pod={"hostAliases": [{"hostnames": ["a"]}], "terminationGracePeriodSeconds": 10},
        lifecycle={"preStop": {"exec": {"command": ["sleep", "5"]}}},
        livenessProbe={"httpGet": {"port": 80}, "timeoutSeconds": 2},
        envFrom=[{"configMapRef": {"name": "c"}}],
        args=["--store=http://store:1"],
    ),
    workload("store", kind="StatefulSet", ports=[{"containerPort": 6379, "name": "redis"}]),
    service("store", 6379, "redis"),
    resource("ConfigMap", "c", data={"OTHER": "store:6379"}),
    resource("Secret", "s", stringData={"password": "a"}),
    autoscaler("shop", metrics=[METRIC]),
    resource("PodDisruptionBudget", "b", {"selector": {"matchLabels": {"app": "shop"}}, "minAvailable": 1}),
    policy("p", "store", policyTypes=["Ingress"], ingress=[{"from": [OF_SHOP], "ports": [{"port": 6379}]}]),
    policy("q", "shop", egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.1/32"]}}]}]),
    resource("VirtualService", "v", {"http": [{**ROUTE, "timeout": "1s"}]}),
    workload("job", kind="Deployment", env=[variable("A", "$(B)")]),
]


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*path, key)
        yield from paths(inner, (*path, key))


PLACES = list(paths(SYSTEM))
STRANGE: list[Any] = [None, True, 0, -1, 2**70, 1.5, "", "a", "{{", "$(A)", "::", [], {}, [None], [[1]], {"a": {}}]


def audited(directory: Any, contents: list[Any]) -> None:
    try:
        outcome = audit_manifests(load_system(write(directory, *contents)), on=date(2026, 11, 30))
    except InvalidInputError as error:
        assert all(fault.source or not fault.path for fault in error.faults)
    else:
        assert outcome.verdicts


def test_the_unchanged_system_is_audited(tmp_path: Any) -> None:
    audited(tmp_path, SYSTEM)
    load_system(tmp_path)


@example(place=(1, "spec", "template", "spec", "containers"), value=[None])
@given(place=st.sampled_from(PLACES), value=st.sampled_from(STRANGE))
def test_a_strange_value_is_audited_or_refused(
    place: tuple[Any, ...], value: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    changed = copy.deepcopy(SYSTEM)
    holder: Any = changed
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    audited(tmp_path_factory.mktemp("manifests"), changed)

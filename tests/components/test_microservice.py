from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from components.microservice import Microservice
from components.node import Replicas
from stack.model.platform import Platform
from tests import toy

ORDERS, PRICES = Platform(toy.TENANT, toy.ENVIRONMENT).microservices


def changed(**update: object) -> dict[str, list[dict[str, Any]]]:
    component = Microservice.model_validate({**dict(ORDERS), **update})
    found: dict[str, list[dict[str, Any]]] = {}
    for resource in component.resources():
        found.setdefault(resource["kind"], []).append(dict(resource))
    return found


def test_a_service_has_exactly_these_resources() -> None:
    assert {kind: len(resources) for kind, resources in changed().items()} == {
        "ServiceAccount": 1,
        "ConfigMap": 2,
        "NetworkPolicy": 1,
        "Service": 2,
        "Deployment": 1,
        "HorizontalPodAutoscaler": 1,
        "PodDisruptionBudget": 1,
    }


def test_a_service_with_a_fixed_number_of_replicas_has_no_autoscaler() -> None:
    fixed = changed(replicas=Replicas(min=2, max=2))
    assert "HorizontalPodAutoscaler" not in fixed
    assert fixed["Deployment"][0]["spec"]["replicas"] == 2


def test_a_deployment_with_an_autoscaler_sets_no_number_of_replicas() -> None:
    assert "replicas" not in changed()["Deployment"][0]["spec"]


def test_a_single_replica_has_no_disruption_budget() -> None:
    assert "PodDisruptionBudget" not in changed(replicas=Replicas(min=1, max=1))


def test_the_grpc_service_is_headless_so_that_clients_balance_calls() -> None:
    grpc = next(service for service in changed()["Service"] if service["metadata"]["name"] == "orders-grpc")
    assert grpc["spec"]["clusterIP"] == "None"


def test_a_changed_policy_restarts_the_pods_only_with_restart_on_policy_change() -> None:
    def annotations(*, restart: bool) -> dict[str, str]:
        template = changed(restart_on_policy_change=restart)["Deployment"][0]["spec"]["template"]
        found: dict[str, str] = template["metadata"].get("annotations", {})
        return found

    assert "voiceassistant.dev/policy-digest" not in annotations(restart=False)
    assert annotations(restart=True)["voiceassistant.dev/policy-digest"] == ORDERS.bundle.metadata.digest


def test_the_config_map_has_the_digest_of_its_bundle() -> None:
    policy = next(found for found in changed()["ConfigMap"] if found["metadata"]["name"] == "orders-policy")
    assert policy["metadata"]["annotations"] == {"voiceassistant.dev/policy-digest": ORDERS.bundle.metadata.digest}
    assert ORDERS.bundle.metadata.digest in policy["data"]["policy.json"]


def test_the_bundle_of_another_service_is_refused() -> None:
    with pytest.raises(ValidationError, match="bundle of prices cannot be mounted into orders"):
        changed(bundle=PRICES.bundle)


def test_a_bundle_without_digest_is_refused() -> None:
    unsealed = ORDERS.bundle.model_copy(update={"metadata": ORDERS.bundle.metadata.model_copy(update={"digest": None})})
    with pytest.raises(ValidationError, match="must be sealed"):
        changed(bundle=unsealed)


def test_secrets_are_files_that_only_owner_and_group_read() -> None:
    pod = changed()["Deployment"][0]["spec"]["template"]["spec"]
    secrets = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert [(secret["secretName"], secret["defaultMode"]) for secret in secrets] == [("orders-stock", 0o440)]

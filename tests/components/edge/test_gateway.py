from __future__ import annotations

from typing import Any

import pytest
from voice_policies import Bytes, Duration

from components.container import Image
from components.edge.gateway import ApisixGateway
from components.links import Links
from components.mesh.proxy import INBOUND_PORTS_ANNOTATION, INJECT_LABEL
from components.node import Replicas
from components.secret_keys import SecretKeys
from tests.toy import SIZING

TLS = SecretKeys(name="gateway-tls", keys=("certificate", "private-key"))


def gateway(**changes: Any) -> ApisixGateway:
    values: dict[str, Any] = {
        "name": "gateway",
        "namespace": "edge",
        "image": Image(reference="apisix:1"),
        "sizing": SIZING,
        "links": Links(()),
        "replicas": Replicas.exactly(2),
        "files": {"config.yaml": "", "apisix.yaml": "#END\n"},
        "variables": {"TLS_CERTIFICATE": (TLS, "certificate"), "TLS_KEY": (TLS, "private-key")},
        "exposed_as": "LoadBalancer",
        "address": "https://shop.example.com",
        "longest_request": Duration("30s"),
        "ingress_grace": Duration("20s"),
        "bodies": Bytes("300Mi"),
    }
    return ApisixGateway(**{**values, **changes})


def of_kind(kind: str, **changes: Any) -> dict[str, Any]:
    (found,) = [dict(resource) for resource in gateway(**changes).resources() if resource["kind"] == kind]
    return found


@pytest.mark.parametrize("exposed_as", ["LoadBalancer", "NodePort"])
def test_the_service_keeps_the_clients_address_and_has_ports_80_and_443(exposed_as: str) -> None:
    spec = of_kind("Service", exposed_as=exposed_as)["spec"]
    assert (spec["type"], spec["externalTrafficPolicy"]) == (exposed_as, "Local")
    assert [(port["port"], port["targetPort"]) for port in spec["ports"]] == [(80, "http"), (443, "https")]


def test_apisix_mounts_only_scratch_volumes_and_the_init_container_fills_one_with_the_configuration() -> None:
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    (copying,), (container,) = pod["initContainers"], pod["containers"]
    empty = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
    assert {mount["name"] for mount in container["volumeMounts"]} == empty
    assert copying["command"][-1] == "cp -r /usr/local/apisix/conf/. /conf && cp /etc/apisix/*.yaml /conf"
    for each in (copying, container):
        assert each["securityContext"]["readOnlyRootFilesystem"] is True
        assert each["securityContext"]["runAsUser"] >= 10001


def test_the_gateway_reads_only_the_secret_of_its_certificate() -> None:
    assert gateway().secrets == (TLS,)


def test_in_a_mesh_only_outgoing_connections_of_the_gateway_pass_the_proxy() -> None:
    assert "sidecar" not in str(of_kind("Deployment"))
    metadata = of_kind("Deployment", mesh_proxy=SIZING)["spec"]["template"]["metadata"]
    assert metadata["labels"][INJECT_LABEL] == "true"
    assert metadata["annotations"][INBOUND_PORTS_ANNOTATION] == ""


def test_a_stopping_gateway_serves_for_the_ingress_grace_and_then_finishes_its_requests() -> None:
    pod = of_kind("Deployment", ingress_grace=Duration("30s"))["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 30}}}
    # The ingress grace, the longest request, and the margin.
    assert pod["terminationGracePeriodSeconds"] == 30 + 30 + 5

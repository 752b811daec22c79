from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import STORAGE_CLASS
from tests.cluster.engine.conftest import PrepareSite
from tests.cluster.engine.deployed import Deployed
from tests.cluster.engine.subjects import TOY

pytestmark = pytest.mark.faults

PARCELS = """\
PARCELS = toy.ORDERS.model_copy(update={"name": "parcels"})
NODES = (toy.ORDERS, toy.PRICES, PARCELS, toy.STOCK)
"""


@pytest.fixture(scope="module")
def deployed(prepare_site: PrepareSite) -> Iterator[Deployed]:
    """Each test undoes its own changes."""
    with prepare_site(TOY, "dev") as site:
        stack = site.stack()
        stack.run("up")
        yield Deployed(site, stack)


def test_a_larger_volume_is_refused_if_its_storage_class_permits_no_growth(deployed: Deployed) -> None:
    deployed.site.project.replace("toy.py", 'Bytes("1Gi")', 'Bytes("2Gi")')
    said = deployed.refusal()
    assert f"grows from 1Gi to 2Gi, but the storage class '{STORAGE_CLASS}' forbids growth" in said
    deployed.site.project.replace("toy.py", 'Bytes("2Gi")', 'Bytes("1Gi")')
    assert deployed.changes() == []


def test_an_update_undoes_scaling_by_hand(deployed: Deployed) -> None:
    deployed.site.cluster.kubectl.run("scale", "--namespace=stores", "--replicas=0", "statefulset/stock")
    assert deployed.changes() == ["update StatefulSet stores/stock spec.replicas"]


def test_an_update_undoes_an_image_that_was_set_by_hand(deployed: Deployed) -> None:
    deployed.site.cluster.kubectl.run("set", "image", "--namespace=shop", "deployment/orders", "orders=other:1")
    assert deployed.changes() == ["update Deployment shop/orders spec.template.spec.containers[0].image"]


def test_an_update_creates_an_object_that_was_deleted_by_hand(deployed: Deployed) -> None:
    deployed.site.cluster.kubectl.run("delete", "--namespace=shop", "deployment/prices")
    assert deployed.changes() == ["create Deployment shop/prices"]


def test_an_update_creates_a_namespace_that_was_deleted_by_hand(deployed: Deployed) -> None:
    deployed.site.cluster.kubectl.run("delete", "namespace", "shop")
    changes = deployed.changes()
    assert {change.split()[0] for change in changes} == {"create"}
    assert "create Namespace shop" in changes
    assert not [change for change in changes if "stores/" in change]


def test_the_same_cluster_under_another_address_changes_only_the_provider(deployed: Deployed) -> None:
    kubeconfig = json.loads(deployed.site.cluster.kubectl.kubeconfig.read_text())
    (cluster,) = kubeconfig["clusters"]
    cluster["cluster"]["tls-server-name"] = "127.0.0.1"
    cluster["cluster"]["server"] = cluster["cluster"]["server"].replace("127.0.0.1", "localhost")
    with deployed.configured({"kubernetes:kubeconfig": json.dumps(kubeconfig)}):
        assert deployed.changes() == ["update kubernetes cluster kubeconfig"]
    assert deployed.changes() == ["update kubernetes cluster kubeconfig"]


def test_another_cluster_is_refused(deployed: Deployed) -> None:
    identifier = deployed.stack.automation.get_config("kubernetes:clusterIdentifier").value
    with deployed.configured({"kubernetes:clusterIdentifier": "another"}):
        assert f"is 'another', but the context 'test' leads to the cluster '{identifier}'" in deployed.refusal()


def test_a_context_that_does_not_exist_is_refused(deployed: Deployed) -> None:
    with deployed.configured({"kubernetes:context": "absent"}):
        assert (
            "config.kubernetes:context: is 'absent'; expected a context of the kubeconfig: test" in deployed.refusal()
        )


def test_a_cluster_that_does_not_answer_is_refused(deployed: Deployed) -> None:
    kubeconfig = deployed.site.cluster.kubectl.kubeconfig.read_text()
    with deployed.configured({"kubernetes:kubeconfig": re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", kubeconfig)}):
        assert "config.kubernetes:context: is 'test', and kubectl cannot query its cluster" in deployed.refusal()


def test_adding_and_removing_a_service_restarts_only_its_store(deployed: Deployed) -> None:
    project, stack = deployed.site.project, deployed.stack
    project.replace("toy.py", "NODES = (toy.ORDERS, toy.PRICES, toy.STOCK)\n", PARCELS)
    stack.configure({}, {"parcels-stock": {"password": "new"}})
    added = deployed.changes()
    assert restarted(added) == ["StatefulSet stores/stock"]
    project.replace("toy.py", PARCELS, "NODES = (toy.ORDERS, toy.PRICES, toy.STOCK)\n")
    (command,) = re.findall(r"run `(pulumi config rm [^`]*)`", deployed.refusal())[:1]
    project.run(command)
    removed = deployed.changes()
    assert restarted(removed) == ["StatefulSet stores/stock"]
    assert [each.split()[1:3] for each in removed if each.startswith("delete")] == [
        each.split()[1:3] for each in added if each.startswith("create")
    ]


def restarted(changes: list[str]) -> list[str]:
    words = (change.split() for change in changes)
    return [f"{kind} {name}" for op, kind, name, *paths in words if any("spec.template" in path for path in paths)]

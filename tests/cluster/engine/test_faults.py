"""Faults in the life of a stack, and their repair: the toy tenant on Pulumi's engine."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from pulumi.automation import CommandError

from tests.cluster.cluster import STORAGE_CLASS
from tests.cluster.engine.conftest import PrepareSite
from tests.cluster.engine.deploy_document import block
from tests.cluster.engine.engine import CommandFailedError, Stack
from tests.cluster.engine.site import Site, resources
from tests.cluster.engine.subjects import TOY
from tests.cluster.manifests import Object, claims, identity

pytestmark = pytest.mark.faults

PARCELS = """\
PARCELS = toy.ORDERS.model_copy(update={"name": "parcels"})
NODES = (toy.ORDERS, toy.PRICES, PARCELS, toy.STOCK)
"""


@dataclass(frozen=True)
class Deployed:
    """The toy tenant on a cluster, and the stack that deploys it."""

    site: Site
    stack: Stack

    def changes(self) -> list[str]:
        """The changes of an update, after a preview that says the same."""
        previewed = [str(change) for change in self.stack.run("preview")]
        updated = [str(change) for change in self.stack.run("up")]
        # A refresh in the middle of a rollout finds what is not ready yet.
        self.site.cluster.wait_ready()
        assert previewed == updated
        return updated

    @contextmanager
    def configured(self, settings: Mapping[str, str]) -> Iterator[None]:
        """Changes values of the configuration for as long as the body runs."""
        before = self.stack.automation.get_all_config()
        self.stack.configure(settings)
        try:
            yield
        finally:
            for key in settings:
                if key in before:
                    self.stack.automation.set_config(key, before[key])
                else:
                    self.stack.automation.remove_config(key)

    def refusal(self) -> str:
        """The message of a refused preview; the state does not change."""
        before = self.stack.resources()
        with pytest.raises(CommandError) as refused:
            self.stack.run("preview")
        assert self.stack.resources() == before
        return str(refused.value)


@pytest.fixture(scope="module")
def deployed(prepare_site: PrepareSite) -> Iterator[Deployed]:
    """The toy tenant, deployed. A test that changes it changes it back."""
    with prepare_site(TOY, "dev") as site:
        stack = site.stack()
        stack.run("up")
        yield Deployed(site, stack)


@pytest.mark.parametrize("binding", ["Immediate", "WaitForFirstConsumer"])
def test_a_volume_has_its_size_from_the_first_and_grows_alone(prepare_site: PrepareSite, binding: str) -> None:
    with prepare_site(TOY, "dev") as site:
        site.cluster.create([storage_class("wide", binding, expandable=True)])
        declared = [{**claim, "storageClassName": "wide"} for claim in claims(resources(site.platform))]
        site.cluster.add_volumes(declared)
        deployed = Deployed(site, site.stack())
        deployed.stack.run("up")
        assert sizes(site) == {"PersistentVolumeClaim stores/data-stock-0": "1Gi"}
        site.project.replace("toy.py", 'Bytes("1Gi")', 'Bytes("2Gi")')
        assert deployed.changes() == [
            "update PersistentVolumeClaim stores/data-stock-0 spec.resources.requests.storage"
        ]
        assert sizes(site) == {"PersistentVolumeClaim stores/data-stock-0": "2Gi"}
        assert deployed.changes() == []


def test_a_volume_that_cannot_grow_is_refused_before_the_update(deployed: Deployed) -> None:
    deployed.site.project.replace("toy.py", 'Bytes("1Gi")', 'Bytes("2Gi")')
    said = deployed.refusal()
    assert f"grows from 1Gi to 2Gi, and its storage class '{STORAGE_CLASS}' does not let it" in said
    deployed.site.project.replace("toy.py", 'Bytes("2Gi")', 'Bytes("1Gi")')
    assert deployed.changes() == []


@pytest.mark.parametrize("creations", [5, 15, 30])
def test_a_killed_update_comes_back_by_the_documented_commands(prepare_site: PrepareSite, creations: int) -> None:
    with prepare_site(TOY, "dev") as site:
        stack = site.stack()
        with site.project.begin("exec pulumi up --stack dev --skip-preview") as update:
            while len(made(site)) < creations:
                assert update.poll() is None, "the update ended before it was killed"
                time.sleep(0.02)
            os.killpg(update.pid, signal.SIGKILL)
        site.project.run(block("After an update that was interrupted").replace("prod", "dev"))
        rendered = {identity(each) for each in resources(site.platform)}
        assert rendered <= {
            identity(each["outputs"]) for each in stack.resources() if "kind" in each.get("outputs", {})
        }
        site.cluster.wait_ready()
        deployed = Deployed(site, stack)
        # Pulumi keeps the variable of the one command among the provider's inputs.
        assert deployed.changes() == ["update kubernetes cluster upsertExistingObjects"]
        assert deployed.changes() == []


def test_an_object_that_was_scaled_by_hand_is_scaled_back(deployed: Deployed) -> None:
    deployed.site.cluster.kubectl.run("scale", "--namespace=stores", "--replicas=0", "statefulset/stock")
    assert deployed.changes() == ["update StatefulSet stores/stock spec.replicas"]


def test_an_image_that_was_set_by_hand_is_set_back(deployed: Deployed) -> None:
    deployed.site.cluster.kubectl.run("set", "image", "--namespace=shop", "deployment/orders", "orders=other:1")
    assert deployed.changes() == ["update Deployment shop/orders spec.template.spec.containers[0].image"]


def test_an_object_that_was_deleted_by_hand_is_created_again(deployed: Deployed) -> None:
    deployed.site.cluster.kubectl.run("delete", "--namespace=shop", "deployment/prices")
    assert deployed.changes() == ["create Deployment shop/prices"]


def test_a_namespace_that_was_deleted_by_hand_is_created_again(deployed: Deployed) -> None:
    deployed.site.cluster.kubectl.run("delete", "namespace", "shop")
    changes = deployed.changes()
    assert {change.split()[0] for change in changes} == {"create"}
    assert "create Namespace shop" in changes
    assert not [change for change in changes if "stores/" in change]


def test_the_same_cluster_under_another_address_changes_its_provider_alone(deployed: Deployed) -> None:
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
        assert f"is 'another', and test is the cluster '{identifier}'" in deployed.refusal()


def test_a_context_that_does_not_exist_is_refused(deployed: Deployed) -> None:
    with deployed.configured({"kubernetes:context": "absent"}):
        assert "config.kubernetes:context: is 'absent'; expected one of test" in deployed.refusal()


def test_a_cluster_that_does_not_answer_is_refused(deployed: Deployed) -> None:
    kubeconfig = deployed.site.cluster.kubectl.kubeconfig.read_text()
    with deployed.configured({"kubernetes:kubeconfig": re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", kubeconfig)}):
        assert "config.kubernetes:context: is 'test', and its cluster does not answer" in deployed.refusal()


def test_a_service_that_comes_and_goes_leaves_the_others_alone(deployed: Deployed) -> None:
    project, stack = deployed.site.project, deployed.stack
    project.replace("toy.py", "NODES = (toy.ORDERS, toy.PRICES, toy.STOCK)\n", PARCELS)
    stack.configure({}, {"parcels-stock": {"password": "new"}})
    came = deployed.changes()
    assert restarted(came) == ["StatefulSet stores/stock"]
    project.replace("toy.py", PARCELS, "NODES = (toy.ORDERS, toy.PRICES, toy.STOCK)\n")
    (command,) = re.findall(r"run `(pulumi config rm [^`]*)`", deployed.refusal())[:1]
    project.run(command)
    went = deployed.changes()
    assert restarted(went) == ["StatefulSet stores/stock"]
    assert [each.split()[1:3] for each in went if each.startswith("delete")] == [
        each.split()[1:3] for each in came if each.startswith("create")
    ]


def test_a_destruction_of_what_is_protected_deletes_nothing(prepare_site: PrepareSite) -> None:
    with prepare_site(TOY, "prod") as site:
        stack = site.stack()
        stack.run("up")
        before = live(site)
        with pytest.raises(CommandFailedError, match=r"(?s)destruction.*protect"):
            site.project.run("pulumi destroy --stack prod --skip-preview")
        assert live(site) == before
        assert Deployed(site, stack).changes() == []
        site.project.run("pulumi state unprotect --all --stack prod\npulumi destroy --stack prod")
        left = live(site).keys()
        assert {"Namespace /stores", "PersistentVolumeClaim stores/data-stock-0", "StatefulSet stores/stock"} <= left
        assert "Deployment shop/orders" not in left


def storage_class(name: str, binding: str, *, expandable: bool) -> Object:
    """The default class: of several the newest is."""
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": annotations},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": binding,
        "allowVolumeExpansion": expandable,
    }


def sizes(site: Site) -> dict[str, str]:
    """The requested size of each claim."""
    live_claims = site.cluster.kubectl.objects("persistentvolumeclaims")
    return {identity(claim): claim["spec"]["resources"]["requests"]["storage"] for claim in live_claims}


def live(site: Site) -> dict[str, str]:
    """The uid of everything in the cluster of the kinds that the tenant renders, by identity."""
    kinds = ",".join(sorted({each["kind"] for each in resources(site.platform)}))
    return {identity(each): each["metadata"]["uid"] for each in site.cluster.kubectl.objects(kinds)}


def made(site: Site) -> list[Object]:
    """The Kubernetes resources that the state holds while an update writes it."""
    (file,) = (site.project.state / "stacks").rglob(f"{site.environment}.json")
    try:
        found = json.loads(file.read_text())["checkpoint"]["latest"].get("resources", [])
    except ValueError:
        return []
    return [each for each in found if each["type"].startswith("kubernetes:")]


def restarted(changes: list[str]) -> list[str]:
    """The workloads whose pods restart."""
    words = (change.split() for change in changes)
    return [f"{kind} {name}" for op, kind, name, *paths in words if any("spec.template" in path for path in paths)]

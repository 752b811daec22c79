"""Each test has its own cluster, unless ENGINE_CONTEXT names one."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from tests.cluster.engine.conftest import PrepareSite
from tests.cluster.engine.deploy_document import block
from tests.cluster.engine.deployed import Deployed
from tests.cluster.engine.engine import CommandFailedError
from tests.cluster.engine.site import Site, resources
from tests.cluster.engine.subjects import TOY
from tests.cluster.manifests import Object, claims, identity

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("binding", ["Immediate", "WaitForFirstConsumer"])
def test_a_volume_has_its_declared_size_and_grows_without_other_changes(
    prepare_site: PrepareSite, binding: str
) -> None:
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


@pytest.mark.parametrize("creations", [5, 15, 30], ids=lambda creations: f"after {creations} creations")
def test_the_documented_commands_repair_a_killed_update(prepare_site: PrepareSite, creations: int) -> None:
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
        # In Pulumi's state the provider still has an input from the environment variable of the documented command.
        assert deployed.changes() == ["update kubernetes cluster upsertExistingObjects"]
        assert deployed.changes() == []


def test_destroy_is_refused_until_resources_are_unprotected_and_then_keeps_resources_with_data(
    prepare_site: PrepareSite,
) -> None:
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
    """A default class. If several classes are default, Kubernetes uses the newest."""
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
    live_claims = site.cluster.kubectl.objects("persistentvolumeclaims")
    return {identity(claim): claim["spec"]["resources"]["requests"]["storage"] for claim in live_claims}


def live(site: Site) -> dict[str, str]:
    kinds = ",".join(sorted({each["kind"] for each in resources(site.platform)}))
    return {identity(each): each["metadata"]["uid"] for each in site.cluster.kubectl.objects(kinds)}


def made(site: Site) -> list[Object]:
    """The Kubernetes resources in the state. Empty before the first write, and while an update writes the state."""
    try:
        state = json.loads(site.project.text(f"stacks/*/{site.environment}.json.gz"))
    except (ValueError, OSError):
        return []
    found = state["checkpoint"]["latest"].get("resources", [])
    return [each for each in found if each["type"].startswith("kubernetes:")]

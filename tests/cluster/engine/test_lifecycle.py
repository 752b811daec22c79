"""dev on Pulumi's engine, from its first preview to its destruction."""

import json
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.engine.conftest import CONTEXT, PrepareSite
from tests.cluster.engine.engine import Change, Stack
from tests.cluster.engine.site import Site, namespaces, secret_values
from tests.cluster.manifests import Document, identity, of_kind
from tests.stack.deploy.program_run import offline

pytestmark = pytest.mark.engine


@dataclass(frozen=True)
class Deployed:
    """dev, and what its first preview and its first update said."""

    site: Site
    stack: Stack
    previewed: list[Change]
    updated: list[Change]


@pytest.fixture(scope="module")
def deployed(prepare_site: PrepareSite) -> Iterator[Deployed]:
    """dev after its first update."""
    with prepare_site("dev") as site:
        stack = site.stack("dev")
        previewed = stack.run("preview")
        yield Deployed(site, stack, previewed, stack.run("up"))


def test_the_first_update_creates_what_the_preview_said(deployed: Deployed, report: Callable[[str], None]) -> None:
    assert Counter(change.op for change in deployed.previewed).keys() == {"create"}
    assert deployed.updated == deployed.previewed
    report(f"dev: {len(deployed.updated)} resources created by Pulumi's engine")


def test_every_object_is_in_the_cluster_and_ready(deployed: Deployed) -> None:
    cluster = deployed.site.cluster
    cluster.wait_ready()
    rendered = [dict(each) for component in offline("dev").components for each in component.resources()]
    documents = [Document(Path(), json.dumps(each), each) for each in rendered]
    assert len(cluster.stored(documents)) == len(rendered)


def test_volumes_have_the_size_that_they_are_declared_with(deployed: Deployed) -> None:
    live = deployed.site.cluster.kubectl.objects("persistentvolumeclaims")
    sizes = {identity(claim): claim["spec"]["resources"] for claim in live}
    declared = [dict(each) for component in offline("dev").components for each in component.resources()]
    assert sizes == {
        identity(claim): claim["spec"]["resources"] for claim in of_kind(declared, "PersistentVolumeClaim")
    }


def test_a_second_update_changes_nothing(deployed: Deployed) -> None:
    assert deployed.stack.run("up") == []


def test_a_refresh_finds_nothing(deployed: Deployed) -> None:
    assert deployed.stack.run("refresh") == []
    assert deployed.stack.run("up") == []


def test_one_setting_changes_what_it_is_about(deployed: Deployed) -> None:
    deployed.stack.configure("log_level", "info")
    expected = [
        f'update ConfigMap voice-apps/{service.name}-settings data["settings.json"]'
        for service in offline("dev").microservices
    ]
    assert [str(change) for change in deployed.stack.run("preview")] == sorted(expected)
    assert [str(change) for change in deployed.stack.run("up")] == sorted(expected)


def test_no_secret_stands_in_the_state(deployed: Deployed) -> None:
    state = json.dumps(deployed.stack.resources())
    values = [value for keys in secret_values("dev").values() for value in keys.values()]
    assert values
    for value in values:
        assert value not in state
        assert b64encode(value.encode()).decode() not in state


def test_a_destruction_leaves_nothing(deployed: Deployed) -> None:
    deployed.stack.run("destroy")
    assert deployed.stack.resources() == []
    left = {each["metadata"]["name"] for each in deployed.site.cluster.kubectl.objects("namespaces")}
    assert not left & namespaces("dev")


@pytest.mark.skipif(CONTEXT is not None, reason="a cluster of one's own may lack the operators that prod needs")
def test_prod_can_be_previewed(prepare_site: PrepareSite) -> None:
    with prepare_site("prod") as site:
        site.project.pin_images(offline("prod"))
        changes = site.stack("prod").run("preview")
    assert {change.op for change in changes} == {"create"}
    assert len(changes) > 600

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.files import CONFIG_DIGEST_ANNOTATION
from tests.cluster.engine.conftest import PrepareSite
from tests.cluster.engine.deploy_document import DESTROY, commands, for_dev
from tests.cluster.engine.engine import Change, Stack
from tests.cluster.engine.site import Site, namespaces, resources
from tests.cluster.engine.subjects import VOICEASSISTANT
from tests.cluster.manifests import Document, identity, of_kind

pytestmark = pytest.mark.engine


@dataclass(frozen=True)
class Deployed:
    site: Site
    stack: Stack
    previewed: list[Change]
    updated: list[Change]


@pytest.fixture(scope="module")
def deployed(prepare_site: PrepareSite) -> Iterator[Deployed]:
    with prepare_site(VOICEASSISTANT, "dev") as site:
        stack = site.stack()
        previewed = stack.run("preview")
        yield Deployed(site, stack, previewed, stack.run("up"))


def test_the_first_update_creates_what_the_preview_announced(
    deployed: Deployed, record_property: Callable[[str, object], None]
) -> None:
    assert {change.op for change in deployed.previewed} == {"create"}
    assert deployed.updated == deployed.previewed
    record_property("ledger", f"{len(deployed.updated)} resources of dev created")


def test_every_object_is_in_the_cluster_and_ready(deployed: Deployed) -> None:
    deployed.site.cluster.wait_ready()
    rendered = resources(deployed.site.platform)
    documents = [Document(Path(), json.dumps(each), each) for each in rendered]
    assert len(deployed.site.cluster.stored(documents)) == len(rendered)


def test_volumes_have_their_declared_size(deployed: Deployed) -> None:
    live = deployed.site.cluster.kubectl.objects("persistentvolumeclaims")
    declared = of_kind(resources(deployed.site.platform), "PersistentVolumeClaim")
    assert {identity(claim): claim["spec"]["resources"] for claim in live} == {
        identity(claim): claim["spec"]["resources"] for claim in declared
    }


def test_a_second_update_changes_nothing(deployed: Deployed) -> None:
    assert deployed.stack.run("up") == []


def test_a_refresh_finds_no_difference(deployed: Deployed) -> None:
    assert deployed.stack.run("refresh") == []
    assert deployed.stack.run("up") == []


def test_a_changed_log_level_changes_only_settings_and_pods_of_services(deployed: Deployed) -> None:
    deployed.stack.configure({"log_level": "info"})
    digest = f'spec.template.metadata.annotations["{CONFIG_DIGEST_ANNOTATION}"]'
    expected = sorted(
        change
        for service in deployed.site.platform.microservices
        for change in (
            f'update ConfigMap {service.namespace}/{service.name}-settings data["settings.json"]',
            f"update Deployment {service.namespace}/{service.name} {digest}",
        )
    )
    assert sorted(map(str, deployed.stack.run("preview"))) == expected
    assert sorted(map(str, deployed.stack.run("up"))) == expected


def test_the_state_contains_no_secret_in_plain_text(deployed: Deployed) -> None:
    text = deployed.site.project.text("*")
    for secret, values in deployed.site.secrets.items():
        assert secret in text
        for value in values.values():
            assert max(value.splitlines(), key=len) not in text
            assert b64encode(value.encode()).decode() not in text


def test_the_documented_commands_destroy_everything(deployed: Deployed) -> None:
    for command in commands(DESTROY):
        deployed.site.project.run(for_dev(command, deployed.site))
    assert deployed.stack.automation.workspace.list_stacks() == []
    left = {each["metadata"]["name"] for each in deployed.site.cluster.kubectl.objects("namespaces")}
    assert not left & namespaces(deployed.site.platform)

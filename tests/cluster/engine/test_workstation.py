"""The test cluster runs no containers, so the gateway does not answer the last request of `voice up`."""

import sys
from collections.abc import Iterator

import pytest

from tests.cluster.engine.conftest import PrepareSite
from tests.cluster.engine.deploy_document import DEPLOY, commands, for_dev
from tests.cluster.engine.site import Site, namespaces, resources
from tests.cluster.engine.subjects import VOICEASSISTANT
from tests.cluster.manifests import identity

pytestmark = pytest.mark.engine
VOICE = f"'{sys.executable}' -m stack.cli"


@pytest.fixture(scope="module")
def site(prepare_site: PrepareSite) -> Iterator[Site]:
    with prepare_site(VOICEASSISTANT, "dev") as site:
        yield site


def test_one_command_deploys_dev(site: Site) -> None:
    said = site.project.run(f"{VOICE} up dev --context {site.context} --image reference-service:dev || test $? = 1")
    assert "gateway.voice-gateway: https://api.voicehelper.localhost" in said
    assert "voice: no answer to POST https://api.voicehelper.localhost/v1/login" in said
    site.cluster.wait_ready()
    kinds = sorted({each["kind"] for each in resources(site.platform)})
    there = {identity(each) for each in site.cluster.kubectl.objects(",".join(kinds))}
    assert {identity(each) for each in resources(site.platform)} <= there


def test_the_documented_commands_deploy_and_roll_back(site: Site) -> None:
    for command in commands(DEPLOY):
        site.project.run(for_dev(command, site))


def test_one_command_removes_dev(site: Site) -> None:
    assert site.project.run(f"{VOICE} down dev --context {site.context}").endswith("dev: removed\n")
    left = {each["metadata"]["name"] for each in site.cluster.kubectl.objects("namespaces")}
    assert not left & namespaces(site.platform)

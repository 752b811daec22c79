"""`voice up` and `voice down` with Pulumi's engine, on a cluster of the caller's.

No container runs on the test cluster's nodes, so nothing answers the request at the end. Only a container engine could
prove the answer, the image's build and kind.
"""

import sys

import pytest

from tests.cluster.engine.conftest import PrepareSite
from tests.cluster.engine.site import namespaces, resources
from tests.cluster.engine.subjects import VOICEASSISTANT
from tests.cluster.manifests import identity

pytestmark = pytest.mark.engine
VOICE = f"'{sys.executable}' -m stack.cli"


def test_one_command_deploys_dev_and_another_removes_it(prepare_site: PrepareSite) -> None:
    with prepare_site(VOICEASSISTANT, "dev") as site:
        context = site.cluster.kubectl.run("config", "current-context").strip()
        said = site.project.run(f"{VOICE} up dev --context {context} --image reference-service:dev || test $? = 1")
        assert "gateway.voice-gateway: https://api.voicehelper.localhost" in said
        assert "voice: no answer to POST https://api.voicehelper.localhost/v1/login" in said
        site.cluster.wait_ready()
        kinds = sorted({each["kind"] for each in resources(site.platform)})
        there = {identity(each) for each in site.cluster.kubectl.objects(",".join(kinds))}
        assert {identity(each) for each in resources(site.platform)} <= there
        assert site.project.run(f"{VOICE} down dev --context {context}").endswith("dev: removed\n")
        left = {each["metadata"]["name"] for each in site.cluster.kubectl.objects("namespaces")}
        assert not left & namespaces(site.platform)

"""`voice up` and `voice down` with Pulumi's engine on the control plane, where pods are ready and answer nothing."""

import json
import subprocess
import sys

import pytest

from tests.cluster.engine.conftest import CONTEXT, PrepareSite
from tests.cluster.engine.site import namespaces
from tests.cluster.engine.subjects import VOICEASSISTANT

pytestmark = pytest.mark.engine


@pytest.mark.skipif(CONTEXT is not None, reason="it names an image that no node can pull")
def test_an_environment_goes_up_and_down(prepare_site: PrepareSite) -> None:
    with prepare_site(VOICEASSISTANT, "dev") as site:
        context = site.cluster.kubectl.run("config", "current-context").strip()

        def voice(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "stack.cli", *arguments, "--context", context]
            return subprocess.run(
                command,
                cwd=site.project.folder,
                env=site.project.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )

        done = voice("up", "dev", "--image", "registry.example/reference:1")
        assert "gateway.voice-gateway: https://api.voicehelper.localhost" in done.stdout, done.stderr
        assert "voice: no answer to POST https://api.voicehelper.localhost/v1/login" in done.stderr
        assert done.returncode == 1
        site.cluster.wait_ready()
        deployments = site.cluster.kubectl.objects("deployments")
        images = [each["spec"]["template"]["spec"]["containers"][0]["image"] for each in deployments]
        assert images.count("registry.example/reference:1") == len(site.platform.microservices)
        assert "Secret" not in json.dumps(done.stdout)
        removed = voice("down", "dev")
        assert removed.returncode == 0, removed.stderr
        left = {each["metadata"]["name"] for each in site.cluster.kubectl.objects("namespaces")}
        assert not left & namespaces(site.platform)

from __future__ import annotations

from pathlib import Path

import pytest

from components.edge.egress_proxy import EgressProxy
from components.operation import operation
from stack.model.egress import allow_lists
from stack.model.platform import Platform
from tests.components.edge.envoy_program import rendered, validated
from tests.platforms import ENVIRONMENTS, platform, real_environment, with_nodes
from tests.small import service


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_platform_without_external_calls_has_no_egress_proxy(environment: str) -> None:
    alone = Platform(
        with_nodes(service("alone", operation("run", p95="1s", deadline="2s"), namespace="voice-apps")),
        real_environment(environment),
    )
    assert [each.name for each in alone.microservices] == ["alone"]
    assert not any(isinstance(each, EgressProxy) for each in alone.components)
    assert allow_lists(alone.graph) == {}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_envoy_accepts_every_rendered_file_without_a_warning(environment: str, tmp_path: Path) -> None:
    proxies = [each for each in platform(environment).components if isinstance(each, EgressProxy)]
    assert proxies
    for proxy in proxies:
        done = validated(rendered(proxy), tmp_path)
        assert (done.returncode, done.stderr) == (0, "")

from __future__ import annotations

import pytest

from components.edge.egress_proxy import EgressProxy
from components.operation import operation
from stack.model.egress import allow_lists
from stack.model.platform import Platform
from tests.platforms import ENVIRONMENTS, real_environment, with_nodes
from tests.small import service


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_no_proxy_is_left_where_nothing_goes_out(environment: str) -> None:
    alone = Platform(
        with_nodes(service("alone", operation("run", p95="1s", deadline="2s"))), real_environment(environment)
    )
    assert [each.name for each in alone.microservices] == ["alone"]
    assert not any(isinstance(each, EgressProxy) for each in alone.components)
    assert allow_lists(alone.graph) == {}

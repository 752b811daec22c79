from __future__ import annotations

from typing import Any

import pytest

from stack.model.policy_bundles import outbound_call
from tests import toy


@pytest.mark.parametrize("mesh", [True, False], ids=["mesh is on", "mesh is off"])
def test_the_runtime_enforces_the_policies_of_python_callers_only(mesh: bool) -> None:
    for edge in toy.TENANT.graph.edges:
        policy = outbound_call(edge, toy.SITE, mesh=mesh)
        layers: dict[str, Any] = policy.enforced_by.model_dump(exclude_none=True)
        assert "timeout" in layers
        language = getattr(edge.caller, "language", "")
        if language == "python":
            assert set(layers.values()) == {"runtime"}
        else:
            assert "runtime" not in layers.values()


def test_a_mesh_that_is_off_enforces_no_policy() -> None:
    for edge in toy.TENANT.graph.edges:
        layers: dict[str, Any] = outbound_call(edge, toy.SITE, mesh=False).enforced_by.model_dump(exclude_none=True)
        assert "mesh" not in layers.values()

from __future__ import annotations

from stack.output.environments import comparison
from tests.platforms import platform


def test_a_server_with_a_pod_on_each_node_has_no_number_of_replicas() -> None:
    text = comparison([platform("dev"), platform("prod")])
    assert "| fluent-bit | – | 1 per node × 50m CPU, 64Mi, 1Gi |" in text
    assert "| gateway | 1 × 200m CPU, 384Mi | 3 to 6 × 1 CPU, 1Gi |" in text

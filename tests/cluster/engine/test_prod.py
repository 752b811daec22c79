import json

import pytest

from tests.cluster.engine.conftest import CONTEXT, PrepareSite
from tests.cluster.engine.subjects import VOICEASSISTANT, pin_images
from tests.cluster.manifests import Object

pytestmark = pytest.mark.engine

POD_METRICS: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "pods.metrics.k8s.io",
        # The API server requires this annotation for an API group of Kubernetes.
        "annotations": {"api-approved.kubernetes.io": "unapproved: it stands in for metrics-server"},
    },
    "spec": {
        "group": "metrics.k8s.io",
        "scope": "Namespaced",
        "names": {"plural": "pods", "kind": "PodMetrics"},
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
"""The API that metrics-server serves, without metrics. A preview needs no metrics, because no autoscaler runs."""


@pytest.mark.skipif(CONTEXT is not None, reason="the caller's cluster may lack the operators that prod needs")
def test_prod_can_be_previewed(prepare_site: PrepareSite) -> None:
    with prepare_site(VOICEASSISTANT, "prod") as site:
        pin_images(site.platform, site.project.folder)
        definition = site.project.folder / "pod-metrics.json"
        definition.write_text(json.dumps(POD_METRICS))
        site.cluster.add_definitions(definition)
        changes = site.stack().run("preview")
    assert {change.op for change in changes} == {"create"}
    assert len(changes) > 600

"""What Prometheus asks for metrics, and how it finds it: pods by label and port, in namespaces that it is told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pydantic import Field
from voice_policies import ClosedModel

from components.access import TOKEN_PATH
from components.network_policy import NAME_LABEL
from components.observability.blackbox_exporter import TLS, Probe
from components.operation import Name

KUBELET_PORT = 10250
KUBELET = "kubelet"
KUBELET_METRICS = ("kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes")
CERTIFICATES = "certificates"
POD = "__meta_kubernetes_pod_"


class ScrapeTarget(ClosedModel):
    """The pods of one component, on the port that serves its metrics. Its name is the label `job`."""

    name: Name
    namespace: Name
    port: Annotated[int, Field(ge=1, le=65_535)]
    path: Annotated[str, Field(pattern=r"^(/[a-z0-9/_-]+)?$")] = "/metrics"
    label: str = NAME_LABEL
    """The label that carries the component's name."""
    pods: Annotated[int, Field(ge=1)]
    """Most of them at once."""
    series: Annotated[int, Field(ge=1)]
    """What one of them exposes, at most."""
    probe: Probe | None = None
    """How the prober asks what has no metrics of its own, at `path` if over HTTP; `None` asks the pod for metrics."""
    tells_of_others: bool = False
    """Whether its series name a pod and a namespace that they are about, which are then not its own."""

    def job(self, prober: str) -> dict[str, Any]:
        """Its job: running pods that carry the name and declare the port."""
        return {
            "job_name": self.name,
            **({"honor_labels": True} if self.tells_of_others else {}),
            **({"metrics_path": self.path} if self.probe is None else probing(self.probe)),
            "kubernetes_sd_configs": [discovery([self.namespace])],
            "relabel_configs": [
                {"source_labels": [f"{POD}phase"], "regex": "Succeeded|Failed", "action": "drop"},
                {"source_labels": [f"{POD}label_{_meta(self.label)}"], "regex": self.name, "action": "keep"},
                {"source_labels": [f"{POD}container_port_number"], "regex": str(self.port), "action": "keep"},
                {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
                {"source_labels": [f"{POD}name"], "target_label": "pod"},
                {"source_labels": [f"{POD}node_name"], "target_label": "node"},
                *(probed(prober, self.probe, self.path) if self.probe else ()),
            ],
        }


def discovery(namespaces: Iterable[str]) -> dict[str, Any]:
    """Pods of these namespaces. Jobs that ask the same share one watch."""
    return {"role": "pod", "namespaces": {"names": sorted(namespaces)}}


def kubelet_job(namespaces: Iterable[str]) -> dict[str, Any]:
    """How full the volumes are: only the kubelets know. Nodes are found by the pods on them, so none is listed.

    A kubelet's certificate is its own unless the cluster signs it, so it cannot be verified everywhere; the token that
    is sent admits to reading metrics and no more.
    """
    return {
        "job_name": KUBELET,
        "scheme": "https",
        "authorization": {"type": "Bearer", "credentials_file": f"{TOKEN_PATH}/token"},
        "tls_config": {"ca_file": f"{TOKEN_PATH}/ca.crt", "insecure_skip_verify": True},
        "kubernetes_sd_configs": [discovery(namespaces)],
        "relabel_configs": [
            # Every pod of a node becomes the same target, which is asked once.
            {"source_labels": [f"{POD}host_ip"], "regex": "(.+)", "action": "keep"},
            {
                "source_labels": [f"{POD}host_ip"],
                "regex": "(.+)",
                "replacement": f"$1:{KUBELET_PORT}",
                "target_label": "__address__",
            },
            {"source_labels": [f"{POD}node_name"], "target_label": "node"},
        ],
        "metric_relabel_configs": [
            {
                "source_labels": ["__name__"],
                "regex": "kubelet_volume_stats_(available|capacity)_bytes",
                "action": "keep",
            }
        ],
    }


def certificates_job(prober: str, hosts: Iterable[str]) -> dict[str, Any]:
    """Asks `prober` for the certificate that each `host:port` shows to its clients."""
    return {
        "job_name": CERTIFICATES,
        **probing(TLS),
        "static_configs": [{"targets": sorted(hosts)}],
        "relabel_configs": probed(prober, TLS),
    }


def probing(module: str) -> dict[str, Any]:
    """What a job asks the prober."""
    return {"metrics_path": "/probe", "params": {"module": [module]}}


def probed(prober: str, module: str, path: str = "") -> list[dict[str, Any]]:
    """The prober is asked in the target's stead. The label `probe` tells that `up` is the prober's answer."""
    return [
        {"source_labels": ["__address__"], "target_label": "__param_target", "replacement": f"$1{path}"},
        {"source_labels": ["__address__"], "target_label": "instance"},
        {"target_label": "probe", "replacement": module},
        {"target_label": "__address__", "replacement": prober},
    ]


def duplicates(targets: Iterable[ScrapeTarget]) -> Iterator[str]:
    """A sentence for each name that two targets share: their series would be taken for one component's."""
    names = [target.name for target in targets]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"targets: {name} stands twice"


def _meta(label: str) -> str:
    """A label as Prometheus writes it into a meta label's name."""
    return re.sub("[^a-zA-Z0-9_]", "_", label)

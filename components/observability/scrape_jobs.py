"""Prometheus's scrape jobs: for pods of servers, kubelets, proxies of the mesh, and probed hosts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pydantic import Field
from voice_policies import ClosedModel

from components.access import TOKEN_PATH
from components.mesh.proxy import STATISTICS, STATS_PATH, STATS_PORT
from components.network_policy import NAME_LABEL
from components.operation import Name
from components.scrape import Scrape

__all__ = [
    "CERTIFICATES",
    "KUBELET",
    "KUBELET_METRICS",
    "KUBELET_PORT",
    "MESH_PROXY",
    "ProbedHosts",
    "ScrapeTarget",
]

KUBELET_PORT = 10250
KUBELET = "kubelet"
KUBELET_METRICS = ("kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes")
CERTIFICATES = "certificates"
MESH_PROXY = "mesh-proxy"
POD = "__meta_kubernetes_pod_"


class ScrapeTarget(ClosedModel):
    """The pods of one server, and the metrics to scrape. The label `job` holds the server's name."""

    name: Name
    namespace: Name
    label: str = NAME_LABEL
    """The label that carries the server's name."""
    pods: Annotated[int, Field(ge=1)]
    """Largest number of pods at the same time."""
    scrape: Scrape

    def job(self, prober: str) -> dict[str, Any]:
        """The scrape job. Its pods declare the port, have not ended, and carry the server's name in `label`."""
        scrape, module = self.scrape, self.scrape.module
        return {
            "job_name": self.name,
            **({"honor_labels": True} if scrape.honor_labels else {}),
            **(probing(module.name) if module else {"metrics_path": scrape.path}),
            **({"authorization": _bearer(f"{scrape.token.path}/{scrape.token.keys[0]}")} if scrape.token else {}),
            "kubernetes_sd_configs": [discovery([self.namespace])],
            "relabel_configs": [
                {"source_labels": [f"{POD}phase"], "regex": "Succeeded|Failed", "action": "drop"},
                {"source_labels": [f"{POD}label_{_meta_label(self.label)}"], "regex": self.name, "action": "keep"},
                {"source_labels": [f"{POD}container_port_number"], "regex": str(scrape.port), "action": "keep"},
                {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
                {"source_labels": [f"{POD}name"], "target_label": "pod"},
                {"source_labels": [f"{POD}node_name"], "target_label": "node"},
                *(probed(prober, module.name, scrape.path) if module else ()),
            ],
        }


def discovery(namespaces: Iterable[str]) -> dict[str, Any]:
    """Discovery of pods in these namespaces. Scrape jobs with the same discovery share one watch."""
    return {"role": "pod", "namespaces": {"names": sorted(namespaces)}}


def kubelet_job(namespaces: Iterable[str]) -> dict[str, Any]:
    """The job that scrapes kubelets for the usage of volumes.

    Prometheus discovers nodes through their pods, so it needs no permission to list nodes. By default a kubelet signs
    its own certificate, so the job does not verify the certificate.
    At a kubelet the token gives access to metrics only.
    """
    return {
        "job_name": KUBELET,
        "scheme": "https",
        "authorization": _bearer(f"{TOKEN_PATH}/token"),
        "tls_config": {"ca_file": f"{TOKEN_PATH}/ca.crt", "insecure_skip_verify": True},
        "kubernetes_sd_configs": [discovery(namespaces)],
        "relabel_configs": [
            # All pods of a node become one target, which is scraped once.
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
            {"source_labels": ["__name__"], "regex": "|".join(KUBELET_METRICS), "action": "keep"}
        ],
    }


def mesh_proxy_job(namespaces: Iterable[str]) -> dict[str, Any]:
    """The job that scrapes the mesh's proxy in each pod. The label `caller` holds the name of the proxy's workload."""
    return {
        "job_name": MESH_PROXY,
        "metrics_path": STATS_PATH,
        "kubernetes_sd_configs": [discovery(namespaces)],
        "relabel_configs": [
            {"source_labels": [f"{POD}phase"], "regex": "Succeeded|Failed", "action": "drop"},
            {"source_labels": [f"{POD}container_port_number"], "regex": str(STATS_PORT), "action": "keep"},
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": [f"{POD}name"], "target_label": "pod"},
            {"source_labels": [f"{POD}label_{_meta_label(NAME_LABEL)}"], "target_label": "caller"},
        ],
        "metric_relabel_configs": [
            {"source_labels": ["__name__"], "regex": "|".join(STATISTICS.values()), "action": "keep"}
        ],
    }


class ProbedHosts(ClosedModel):
    """Addresses to which the prober or an exporter connects, such as the gateway's.

    The label `job` holds `name`.
    """

    name: Name
    module: Name
    """The value of the label `probe`. Without an `exporter`, `module` also names a module of the prober."""
    exporter: str | None = None
    """`host:port` of an exporter that reads the host's metrics at `/scrape`. `None`: the prober probes the host."""
    health: str | None = None
    """A metric that is 1 while the host works. `None`: `probe_success` shows whether the host works."""
    hosts: Annotated[tuple[str, ...], Field(min_length=1)]
    """`host:port`, or a URL for a module over HTTP."""

    def job(self, prober: str) -> dict[str, Any]:
        """The scrape job of these hosts."""
        return {
            "job_name": self.name,
            **({"metrics_path": "/scrape"} if self.exporter else probing(self.module)),
            "static_configs": [{"targets": sorted(self.hosts)}],
            "relabel_configs": probed(self.exporter or prober, self.module),
        }


def probing(module: str) -> dict[str, Any]:
    """The fields of a scrape job in which the prober probes each target with `module`."""
    return {"metrics_path": "/probe", "params": {"module": [module]}}


def probed(prober: str, module: str, path: str = "") -> list[dict[str, Any]]:
    """Relabelling that sends the scrape to the prober. So a target's `up` shows only that the prober answers."""
    return [
        {"source_labels": ["__address__"], "target_label": "__param_target", "replacement": f"$1{path}"},
        {"source_labels": ["__address__"], "target_label": "instance"},
        {"target_label": "probe", "replacement": module},
        {"target_label": "__address__", "replacement": prober},
    ]


def duplicates(targets: Iterable[ScrapeTarget | ProbedHosts]) -> Iterator[str]:
    """A message for each name that targets share. Prometheus could not tell their series apart."""
    names = [target.name for target in targets]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"targets: {name} appears twice"


def _bearer(file: str) -> dict[str, str]:
    return {"type": "Bearer", "credentials_file": file}  # Prometheus reads the file at each scrape


def _meta_label(label: str) -> str:
    """A label's name as Prometheus writes it in a meta label."""
    return re.sub("[^a-zA-Z0-9_]", "_", label)

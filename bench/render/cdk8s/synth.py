"""Renders the objects of OBJECTS.json into the folder OUT.

Services use constructs of cdk8s-plus; other components are plain objects. Usage: python synth.py OBJECTS.json OUT.
"""
# ruff: noqa: INP001 - the bench runs this file by its path, in a separate virtual environment

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import cdk8s
import cdk8s_plus_34 as kplus

Manifest = dict[str, Any]


def deployment(chart: cdk8s.Chart, manifest: Manifest) -> kplus.Deployment:
    """The workload of a service. Security settings that this function does not set are the defaults of cdk8s-plus."""
    name = manifest["metadata"]["name"]
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    http, grpc = (port["containerPort"] for port in container["ports"])
    health, ready = (kplus.Probe.from_http_get(path, port=http) for path in ("/health", "/ready"))
    made = kplus.Deployment(
        chart,
        "deployment",
        metadata=_metadata(manifest),
        replicas=manifest["spec"].get("replicas"),
        service_account=kplus.ServiceAccount.from_service_account_name(chart, "account", name),
        security_context=kplus.PodSecurityContextProps(user=10001, group=10001, ensure_non_root=True),
        containers=[
            kplus.ContainerProps(
                name=name,
                image=container["image"],
                ports=[
                    kplus.ContainerPort(name="http", number=http),
                    kplus.ContainerPort(name="grpc", number=grpc),
                ],
                resources=kplus.ContainerResources(
                    cpu=kplus.CpuResources(request=kplus.Cpu.units(1), limit=kplus.Cpu.units(2)),
                    memory=kplus.MemoryResources(request=cdk8s.Size.gibibytes(2), limit=cdk8s.Size.gibibytes(4)),
                ),
                env_variables={"VOICE_POLICY_PATH": kplus.EnvValue.from_value("/etc/voice/policy")},
                startup=health,
                liveness=health,
                readiness=ready,
            )
        ],
    )
    for volume in ("policy", "settings"):
        config = kplus.ConfigMap.from_config_map_name(chart, f"{volume}-reference", f"{name}-{volume}")
        made.containers[0].mount(
            f"/etc/voice/{volume}", kplus.Volume.from_config_map(chart, f"{volume}-volume", config)
        )
    return made


def member(chart: cdk8s.Chart, manifest: Manifest, pods: kplus.Deployment) -> None:
    """Add an object of a service that is not its Deployment."""
    metadata, spec = _metadata(manifest), manifest.get("spec", {})
    match manifest["kind"]:
        case "ServiceAccount":
            kplus.ServiceAccount(chart, "service-account", metadata=metadata)
        case "ConfigMap":
            kplus.ConfigMap(chart, f"map-{metadata.name}", metadata=metadata, data=manifest["data"])
        case "Service":
            ports = [kplus.ServicePort(name=port["name"], port=port["port"]) for port in spec["ports"]]
            kplus.Service(chart, f"service-{metadata.name}", metadata=metadata, selector=pods, ports=ports)
        case "NetworkPolicy":
            deny = kplus.NetworkPolicyTrafficDefault.DENY
            kplus.NetworkPolicy(
                chart,
                "network-policy",
                metadata=metadata,
                selector=pods,
                ingress=kplus.NetworkPolicyTraffic(default=deny, rules=_rules(chart, spec["ingress"], "from")),
                egress=kplus.NetworkPolicyTraffic(default=deny, rules=_rules(chart, spec["egress"], "to")),
            )
        case "HorizontalPodAutoscaler":
            target = kplus.MetricTarget.average_utilization(70)
            kplus.HorizontalPodAutoscaler(
                chart,
                "autoscaler",
                metadata=metadata,
                target=pods,
                min_replicas=spec["minReplicas"],
                max_replicas=spec["maxReplicas"],
                metrics=[kplus.Metric.resource_cpu(target)],
            )
        case _:
            plain(chart, manifest)


def plain(chart: cdk8s.Chart, manifest: Manifest) -> None:
    """Add an object from its manifest, without a construct of cdk8s-plus."""
    made = cdk8s.ApiObject(
        chart,
        f"{manifest['kind']}-{manifest['metadata']['name']}",
        api_version=manifest["apiVersion"],
        kind=manifest["kind"],
        metadata=_metadata(manifest),
    )
    made.add_json_patch(cdk8s.JsonPatch.add("/spec", manifest.get("spec", {})))


def _metadata(manifest: Manifest) -> cdk8s.ApiObjectMetadata:
    metadata = manifest["metadata"]
    return cdk8s.ApiObjectMetadata(name=metadata["name"], namespace=metadata.get("namespace"))


def _rules(chart: cdk8s.Chart, rules: list[Manifest], side: str) -> list[kplus.NetworkPolicyRule]:
    return [
        kplus.NetworkPolicyRule(
            peer=kplus.Pods.select(chart, f"{side}-{index}", labels=rule[side][0]["podSelector"]["matchLabels"]),
            ports=[kplus.NetworkPolicyPort.tcp(port["port"]) for port in rule["ports"]],
        )
        for index, rule in enumerate(rules)
    ]


def main() -> None:
    """Synthesize every component."""
    source, out = sys.argv[1:]
    app = cdk8s.App(outdir=out)
    objects = json.loads(Path(source).read_text(encoding="utf-8"))
    for name, group in groupby(objects, key=lambda one: one["component"]):
        chart, members = cdk8s.Chart(app, name, disable_resource_name_hashes=True), list(group)
        pods = [deployment(chart, manifest) for manifest in members if manifest["kind"] == "Deployment"]
        for manifest in members:
            if not pods:
                plain(chart, manifest)
            elif manifest["kind"] != "Deployment":
                member(chart, manifest, pods[0])
    app.synth()


main()

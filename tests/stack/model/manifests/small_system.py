from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stack.model.manifests.system import System, load_system

Content = dict[str, Any]


class _Dumper(yaml.SafeDumper):
    """Writes repeated values in full, because the loader refuses aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def resource(kind: str, name: str, spec: Mapping[str, Any] | None = None, **fields: Any) -> Content:
    groups = {
        "Deployment": "apps/v1",
        "StatefulSet": "apps/v1",
        "HorizontalPodAutoscaler": "autoscaling/v2",
        "PodDisruptionBudget": "policy/v1",
        "NetworkPolicy": "networking.k8s.io/v1",
        "VirtualService": "networking.istio.io/v1",
    }
    content = {"apiVersion": groups.get(kind, "v1"), "kind": kind, "metadata": {"name": name}}
    return {**content, **({} if spec is None else {"spec": dict(spec)}), **fields}


def workload(name: str, *, kind: str = "Deployment", pod: Mapping[str, Any] | None = None, **changes: Any) -> Content:
    """`changes` are fields of the container, `pod` has other fields of the pod."""
    container = {"name": name, "image": f"example/{name}:1.0", **changes}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container], **(pod or {})}}
    return resource(kind, name, {"template": template})


def with_spec(content: Content, **fields: Any) -> Content:
    return {**content, "spec": {**content["spec"], **fields}}


def service(name: str, port: int = 80, target: int | str | None = None, **fields: Any) -> Content:
    ports = [{"port": port, **({} if target is None else {"targetPort": target})}]
    return resource("Service", name, {"selector": {"app": name}, "ports": ports, **fields})


def variable(name: str, value: str) -> Content:
    return {"name": name, "value": value}


def write(directory: Path, *contents: Content | str) -> Path:
    for number, content in enumerate(contents):
        text = content if isinstance(content, str) else yaml.dump(content, Dumper=_Dumper, sort_keys=False)
        (directory / f"{number:02}.yaml").write_text(text, encoding="utf-8")
    return directory


def system(directory: Path, *contents: Content | str) -> System:
    return load_system(write(directory, *contents))

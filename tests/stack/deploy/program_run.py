"""Runs the Pulumi program as Pulumi's language host does, with a monitor that records registrations."""

from __future__ import annotations

import asyncio
import json
import runpy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import pulumi
import pytest
import yaml
from pulumi.runtime import mocks, rpc

from stack.deploy.cluster import NotFoundError
from stack.deploy.operators import required
from stack.model.environments import load_environment
from stack.model.image_lock import ImageLock
from stack.model.platform import Platform
from stack.model.settings import PROJECT, ROOT, SECRETS
from stack.voiceassistant import TENANT


def offline(environment_name: str) -> Platform:
    return Platform(TENANT, load_environment(environment_name, TENANT))


DIGEST = f"@sha256:{64 * '0'}"
CONTEXT = "kubernetes:context"
IDENTIFIER = "kubernetes:clusterIdentifier"
CLUSTER: Mapping[str, Any] = {
    "/api/v1/namespaces/kube-system": {"metadata": {"uid": "00000000-0000-4000-8000-000000000001"}},
    **{
        f"/apis/{api_version}": {"resources": [{"name": plural} for plural in plurals]}
        for api_version, plurals in required(offline("prod")).items()
    },
    "/apis/storage.k8s.io/v1/storageclasses": {"items": []},
    "/apis/metrics.k8s.io/v1beta1": {"resources": [{"name": "nodes"}, {"name": "pods"}]},
    "/apis/scheduling.k8s.io/v1/priorityclasses": {"items": []},
    "/apis/apps/v1/namespaces/kube-system/daemonsets": {"items": []},
    "/apis/apps/v1/namespaces/kube-flannel/daemonsets": {"items": []},
}
"""Path → the answer of an empty cluster that has every operator."""


@dataclass(frozen=True)
class Registration:
    type: str
    name: str
    urn: str
    parent: str
    provider: str
    dependencies: frozenset[str]
    secret_outputs: tuple[str, ...]
    protected: bool
    retained: bool
    create_timeout: str
    frames: int = field(compare=False)
    """Number of stack frames that Pulumi's state keeps."""
    properties: dict[str, Any]


@dataclass(frozen=True)
class Run:
    registrations: tuple[Registration, ...]
    outputs: dict[str, Any]

    @property
    def kubernetes(self) -> Iterator[Registration]:
        return (found for found in self.registrations if found.type.startswith("kubernetes:"))

    @property
    def by_urn(self) -> dict[str, Registration]:
        return {found.urn: found for found in self.registrations}


BALANCER = "192.0.2.1"
NODE_PORT = 30443


class _Echo(mocks.Mocks):
    """A cluster that creates everything as requested, and adds the fields that only a cluster decides."""

    def call(self, args: mocks.MockCallArgs) -> Any:
        raise AssertionError(f"the program must call no function of a provider, but called {args.token}")

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        return f"{args.name}-id", {**args.inputs, **_decided(args.typ, args.inputs)}


def _decided(type_: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    if type_ != "kubernetes:core/v1:Service":
        return {}
    spec = inputs["spec"]
    match spec.get("type"):
        case "LoadBalancer":
            return {"status": {"loadBalancer": {"ingress": [{"ip": BALANCER}]}}}
        case "NodePort":
            return {"spec": {**spec, "ports": [{**port, "nodePort": NODE_PORT} for port in spec["ports"]]}}
        case _:
            return {}


class _Recorder(mocks.MockMonitor):
    def __init__(self) -> None:
        super().__init__(_Echo())
        self.registrations: list[Registration] = []

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        # Pulumi's engine omits the type of the stack from the URNs of the stack's children, but the mock does not.
        return super().make_urn(parent, type_, name).replace("pulumi:pulumi:Stack$", "")

    def ReadResource(self, request: Any) -> Any:  # noqa: N802 - the protocol's name
        raise AssertionError(f"the program must read no object into its state, but read {request.id}")

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - the protocol's name
        response = super().RegisterResource(request)  # type: ignore[no-untyped-call]  # Pulumi's mocks have no types
        self.registrations.append(
            Registration(
                type=request.type,
                name=request.name,
                urn=response.urn,
                parent=request.parent,
                provider=request.provider,
                dependencies=frozenset(request.dependencies),
                secret_outputs=tuple(request.additionalSecretOutputs),
                protected=request.protect,
                retained=request.retainOnDelete,
                create_timeout=request.customTimeouts.create,
                frames=len(request.stackTrace.frames),
                properties=rpc.deserialize_properties(request.object),
            )
        )
        return response


def run_program(
    stack: str,
    config: Mapping[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    *,
    encrypted: Sequence[str] = (SECRETS,),
    cluster: Mapping[str, Any] = CLUSTER,
) -> Run:
    monkeypatch.setattr("stack.deploy.cluster.kubectl", partial(_kubectl, cluster))
    monkeypatch.setenv("PULUMI_ERROR_OUTPUT_STRING", "true")  # an Output inside a string is an error
    pulumi.runtime.set_all_config({key: _as_pulumi_writes(value) for key, value in config.items()}, [*encrypted])
    # Pulumi uses the thread's current event loop. An `asyncio.run` of an earlier test leaves the thread without one.
    asyncio.set_event_loop(asyncio.new_event_loop())
    monitor = _Recorder()
    pulumi.runtime.reset_options()
    mocks.set_mocks(mocks=monitor.mocks, project=PROJECT, stack=stack, preview=False, monitor=monitor)
    mocks.test(lambda: runpy.run_path(str(ROOT / "stack"), run_name="__main__") and None)()  # type: ignore[no-untyped-call]  # Pulumi's mocks have no types
    stack_resource: Any = pulumi.runtime.get_root_resource()
    outputs = asyncio.get_event_loop().run_until_complete(pulumi.Output.from_input(stack_resource.outputs).future())
    assert isinstance(outputs, dict)
    return Run(tuple(monitor.registrations), outputs)


def admitted(
    stack: str, config: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch, *, cluster: Mapping[str, Any] = CLUSTER
) -> Platform:
    """The platform that the program would register. The run registers nothing, because registrations take seconds."""
    platforms: list[Platform] = []

    def register(platform: Platform, _: object) -> list[object]:
        platforms.append(platform)
        return []

    monkeypatch.setattr("stack.deploy.main.register", register)
    monkeypatch.setattr("stack.deploy.main.outputs", lambda *_: {})
    run_program(stack, config, monkeypatch, cluster=cluster)
    (platform,) = platforms
    return platform


def _kubectl(cluster: Mapping[str, Any], _: str | None, *arguments: str) -> str:
    if arguments[0] == "config":
        return "test\nother\n"
    path = arguments[-1].removeprefix("--raw=")
    if path.endswith("/persistentvolumeclaims"):
        return json.dumps(cluster.get(path, {"items": []}))
    if path not in cluster:
        raise NotFoundError(f"Error from server (NotFound): {path}")
    return json.dumps(cluster[path])


def _as_pulumi_writes(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def configured(environment_name: str, **changes: Any) -> dict[str, Any]:
    file = yaml.safe_load((ROOT / f"Pulumi.{environment_name}.yaml").read_text())
    values = {
        secret.name: {key: f"value of {secret.name}/{key}" for key in secret.keys}
        for component in offline(environment_name).components
        for secret in component.secrets
    }
    keyed = {f"{PROJECT}:{key}": value for key, value in changes.items()}
    identifier = CLUSTER["/api/v1/namespaces/kube-system"]["metadata"]["uid"]
    return {**file["config"], CONTEXT: "test", IDENTIFIER: identifier, SECRETS: values, **keyed}


@cache
def deployed(environment: str) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        pin_images(patch)
        return run_program(environment, configured(environment), patch)


def pin_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageLock, "pinned", lambda _, reference: reference.partition("@")[0] + DIGEST)

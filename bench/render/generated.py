"""Renders a tenant of many services with `voice render`. The services are copies of the catalogue's services.

python -m bench.render.generated 1600 -o build/bench/1600
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

from voice_policies import Saga, SagaStep

from components.node import Host, Service
from components.operation import Call, Operation, Stage
from stack import cli
from stack.model import microservices
from stack.model.egress import egress_port
from stack.model.tenant import Tenant, Tier
from stack.voiceassistant import TENANT, catalog

_OWN = {service.name for service in catalog.SERVICES}
_HOSTED = {node.name for node in catalog.DEPENDENCIES if any(isinstance(address, Host) for address in node.addresses)}
_CALLERS_OF_HOSTS = [
    service.name
    for service in catalog.SERVICES
    if any(call.callee in _HOSTED for operation in service.operations for call in operation.calls)
]


def tenant(services_wanted: int) -> Tenant:
    """VoiceAssistant's application tier with the given number of services.

    Other tiers are left out, because not every compared tool has types for the custom resources of our datastores.
    """
    nodes = (catalog.GATEWAY, *services(services_wanted), *catalog.DEPENDENCIES)
    catalogue = TENANT.catalogue.model_copy(update={"nodes": nodes, "only_callers": {}, "forbidden": frozenset()})
    return replace(TENANT, catalogue=catalogue, tiers=(Tier(microservices.components),))


def services(wanted: int) -> Iterator[Service]:
    """`wanted` services: copies of the catalogue. The services of a copy call each other and shared dependencies.

    `wanted` must be a multiple of the number of services in the catalogue.
    """
    copies, rest = divmod(wanted, len(catalog.SERVICES))
    if rest:
        raise ValueError(f"{wanted} services: expected a multiple of {len(catalog.SERVICES)}")
    for number, _ in zip(_numbers(), range(copies), strict=False):
        for service in catalog.SERVICES:
            operations = tuple(_operation(operation, number) for operation in service.operations)
            yield Service(**{**dict(service), "name": _name(service.name, number), "operations": operations})


def _numbers() -> Iterator[int]:
    """Numbers for copies. A number with which two callers get the same egress port is left out."""
    taken: set[int] = set()
    for number in count():
        ports = {egress_port(_name(caller, number)) for caller in _CALLERS_OF_HOSTS}
        if len(ports) == len(_CALLERS_OF_HOSTS) and not ports & taken:
            taken |= ports
            yield number


def _operation(operation: Operation, number: int) -> Operation:
    """A copy of an operation.

    Every constructor runs, so validation costs as much as for real services.
    """
    stages = tuple(
        Stage(**{**dict(stage), "calls": tuple(Call(**_call(call, number)) for call in stage.calls)})
        for stage in operation.stages
    )
    saga = _saga(operation.saga, number) if operation.saga else None
    return Operation(**{**dict(operation), "stages": stages, "saga": saga})


def _saga(saga: Saga, number: int) -> Saga:
    steps = tuple(
        SagaStep(
            **{**dict(step), **{kind: _calls(dict(step)[kind], number) for kind in ("calls", "compensation_calls")}}
        )
        for step in saga.steps
    )
    return Saga(**{**dict(saga), "steps": steps})


def _calls(names: tuple[str, ...], number: int) -> tuple[str, ...]:
    parts = (name.partition(".") for name in names)
    return tuple(f"{_name(callee, number) if callee in _OWN else callee}.{rest}" for callee, _, rest in parts)


def _call(call: Call, number: int) -> dict[str, Any]:
    return {**dict(call), "callee": _name(call.callee, number) if call.callee in _OWN else call.callee}


def _name(name: str, number: int) -> str:
    return f"{name}-{number}" if number else name


def main() -> None:
    """Run `voice render` on the given number of services."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("-o", "--out", required=True)
    options = parser.parse_args()
    cli.voice(["render", "prod", "-o", options.out], lambda: tenant(options.count))


if __name__ == "__main__":
    main()

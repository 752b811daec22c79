"""Renders an application tier of many services, as `voice render` renders ours: copies of the catalogue side by side.

python -m bench.render.generated 1600 -o build/bench/1600
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from voice_policies import Saga, SagaStep

from components.node import Service
from components.operation import Call, Operation, Stage
from stack import cli
from stack.model import egress
from stack.model import platform as topology
from stack.model.call_graph import CallGraph
from stack.model.catalogue import Catalogue
from stack.voiceassistant import catalog
from stack.voiceassistant.targets import SITE
from stack.voiceassistant.tiers import applications

_OWN = {service.name for service in catalog.SERVICES}


def services(count: int) -> Iterator[Service]:
    """`count` services, a multiple of the catalogue's: each copy calls its own copies and the shared dependencies."""
    copies, rest = divmod(count, len(catalog.SERVICES))
    if rest:
        raise ValueError(f"{count} services: expected a multiple of {len(catalog.SERVICES)}")
    for number in range(copies):
        for service in catalog.SERVICES:
            operations = tuple(_operation(operation, number) for operation in service.operations)
            yield Service(**{**dict(service), "name": _name(service.name, number), "operations": operations})


def _operation(operation: Operation, number: int) -> Operation:
    """Made anew through every constructor, so that validation costs what a catalogue of this size costs."""
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
    """Run the command itself, on as many services as are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("-o", "--out", required=True)
    options = parser.parse_args()
    # Others describe a service's kinds of objects; the custom resources of our datastores are ours alone.
    topology.TIERS = (applications,)  # type: ignore[assignment]  # fewer than the platform has
    nodes = (catalog.GATEWAY, *services(options.count), *catalog.DEPENDENCIES)
    topology.call_graph = lambda: CallGraph(Catalogue(source="bench", site=SITE, nodes=nodes, flows=catalog.FLOWS))
    # By a name's hash a thousand callers of hosts outside share ports here and there, which is refused.
    numbers: dict[bytes, int] = {}
    vars(egress)["crc32"] = lambda name: numbers.setdefault(name, len(numbers))
    sys.argv[1:] = ["render", "prod", "-o", options.out]
    cli.voice()


if __name__ == "__main__":
    main()

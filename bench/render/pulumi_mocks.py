"""Registers a rendered tree with Pulumi's mocks, to time Pulumi's SDK without a cluster.

python -m bench.render.pulumi_mocks build/bench/render/16.json
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pulumi

from stack.deploy.program import resource_type


class Echo(pulumi.runtime.Mocks):
    """A fake of Pulumi's engine. It creates every resource as requested."""

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        """Return the name as id, and the inputs as outputs."""
        return args.name, args.inputs

    def call(self, _args: pulumi.runtime.MockCallArgs) -> tuple[dict[Any, Any], None]:
        """Return an empty result for every function."""
        return {}, None


def register(objects: list[dict[str, Any]]) -> None:
    """Register every object under its `pulumi_kubernetes` type."""
    for document in objects:
        name = f"{document.pop('component')}-{document['kind']}-{document['metadata']['name']}"
        resource_type(document["apiVersion"], document["kind"])(name, **_arguments(document))


def _arguments(document: dict[str, Any]) -> dict[str, Any]:
    """The top-level fields, named as Pulumi's constructors expect."""
    spelling = {"apiVersion": "api_version", "automountServiceAccountToken": "automount_service_account_token"}
    return {spelling.get(key, key): value for key, value in document.items()}


def main() -> None:
    """Register all objects, and wait until Pulumi has registered them."""
    objects = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    pulumi.runtime.set_mocks(Echo())
    pulumi.runtime.test(lambda: register(objects))()  # type: ignore[no-untyped-call]  # Pulumi's function has no types
    loop.close()


if __name__ == "__main__":
    main()

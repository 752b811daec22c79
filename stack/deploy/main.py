"""The Pulumi program of a tenant: configuration → platform → registered resources → outputs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import pulumi
from voice_policies import InvalidInputError

from stack.deploy.configuration import read_configuration
from stack.deploy.preconditions import refuse_unfit
from stack.deploy.program import outputs, register
from stack.model.environments import environment
from stack.model.platform import Platform, beside_catalogue
from stack.model.tenant import Tenant

__all__ = ["deploy"]

FRAMES = 10
"""Number of frames of a stored call stack: six of Pulumi and four of the program."""


def deploy(tenant: Tenant) -> None:
    """Deploy the environment with the same name as the stack.

    A refusal raises `pulumi.RunError` with all reasons.
    """
    try:
        configuration = beside_catalogue(tenant, partial(read_configuration, tenant))
        platform = Platform(tenant, environment(configuration.settings, tenant))
        refuse_unfit(platform, configuration, on=datetime.now(UTC).date())
    except InvalidInputError as error:
        raise pulumi.RunError(str(error)) from None
    with short_stacks():
        trees = register(platform, configuration)
    for name, value in outputs(platform, trees).items():
        pulumi.export(name, value)


@contextmanager
def short_stacks() -> Iterator[None]:
    """Limit the call stack that Pulumi stores with each resource.

    Without this limit, call stacks would fill two fifths of the state of a small Pulumi stack.
    """
    sys.tracebacklimit = FRAMES
    try:
        yield
    finally:
        del sys.tracebacklimit

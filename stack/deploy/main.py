"""The Pulumi program of a tenant: configuration → platform → registered resources → outputs."""

from __future__ import annotations

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


def deploy(tenant: Tenant) -> None:
    """Deploy the environment of the stack's name. Raises `pulumi.RunError` with every reason against it."""
    try:
        configuration = beside_catalogue(tenant, partial(read_configuration, tenant))
        platform = Platform(tenant, environment(configuration.settings, tenant))
        refuse_unfit(platform, configuration, on=datetime.now(UTC).date())
    except InvalidInputError as error:
        raise pulumi.RunError(str(error)) from None
    trees = register(platform, configuration)
    for name, value in outputs(platform, trees).items():
        pulumi.export(name, value)

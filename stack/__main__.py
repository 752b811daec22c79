"""The Pulumi program of every stack: configuration → platform → registered resources → outputs."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pulumi
from voice_policies import InvalidInputError

from stack.deploy.configuration import read_configuration
from stack.deploy.preconditions import refuse_unfit
from stack.deploy.program import outputs, register
from stack.model.environments import environment
from stack.model.platform import Platform, beside_catalogue
from stack.model.python_errors import refused_with_line

try:
    with refused_with_line(Path(__file__).with_name("voiceassistant")):
        from stack.voiceassistant import TENANT
    configuration = beside_catalogue(TENANT, partial(read_configuration, TENANT))
    platform = Platform(TENANT, environment(configuration.settings, TENANT))
    refuse_unfit(platform, configuration, on=datetime.now(UTC).date())
except InvalidInputError as error:
    raise pulumi.RunError(str(error)) from None

trees = register(platform, configuration)
for name, value in outputs(platform, trees).items():
    pulumi.export(name, value)

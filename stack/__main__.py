"""The Pulumi program of every stack: configuration → platform → registered resources → outputs."""

import pulumi
from voice_policies import InvalidInputError

from stack.deploy.configuration import read_configuration
from stack.deploy.preconditions import refuse_unfit
from stack.deploy.program import outputs, register
from stack.model.environments import environment
from stack.model.platform import Platform
from stack.voiceassistant import TENANT

try:
    configuration = read_configuration(TENANT)
    platform = Platform(TENANT, environment(configuration.settings, TENANT))
    refuse_unfit(platform, configuration)
except InvalidInputError as error:
    raise pulumi.RunError(str(error)) from None

trees = register(platform, configuration)
for name, value in outputs(platform, trees).items():
    pulumi.export(name, value)

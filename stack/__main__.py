"""The Pulumi program of every stack: configuration → platform → registered resources → outputs."""

import pulumi
from voice_policies import InvalidInputError

from stack.configuration import read_configuration
from stack.environments import environment
from stack.preconditions import refuse_unfit
from stack.program import outputs, register
from stack.topology import Platform, call_graph

try:
    configuration = read_configuration()
    platform = Platform(call_graph(), environment(configuration.settings))
    refuse_unfit(platform, configuration)
except InvalidInputError as error:
    raise pulumi.RunError(str(error)) from None

trees = register(platform, configuration)
for name, value in outputs(platform, trees).items():
    pulumi.export(name, value)

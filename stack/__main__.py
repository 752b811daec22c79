"""The Pulumi program of every stack of VoiceAssistant."""

import pulumi
from voice_policies import InvalidInputError

from stack.deploy.main import deploy
from stack.model.python_errors import load_tenant

try:
    tenant = load_tenant("stack.voiceassistant")
except InvalidInputError as error:
    raise pulumi.RunError(str(error)) from None

deploy(tenant)

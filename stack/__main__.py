"""The Pulumi program of every stack of VoiceAssistant."""

from pathlib import Path

import pulumi
from voice_policies import InvalidInputError

from stack.deploy.main import deploy
from stack.model.python_errors import refused_with_line

try:
    with refused_with_line(Path(__file__).with_name("voiceassistant")):
        from stack.voiceassistant import TENANT
except InvalidInputError as error:
    raise pulumi.RunError(str(error)) from None

deploy(TENANT)

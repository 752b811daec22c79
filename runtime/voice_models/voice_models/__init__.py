"""Routes a service's model calls to providers. `ModelTransport` is an httpx transport for the providers' own SDKs.

runtime = ModelRuntime(Runtime.load("/etc/voice/policy"))
client = AsyncOpenAI(http_client=httpx.AsyncClient(transport=ModelTransport(runtime, "llm.generate")))
"""

from voice_models.classification import ErrorClass
from voice_models.errors import ModelAttemptError, ModelError, ModelRefusedError, ModelStreamError
from voice_models.runtime import ModelRuntime
from voice_models.transport import ModelTransport, SyncModelTransport
from voice_models.usage import ModelAttempted, Usage, UsageSink

__all__ = [
    "ErrorClass",
    "ModelAttemptError",
    "ModelAttempted",
    "ModelError",
    "ModelRefusedError",
    "ModelRuntime",
    "ModelStreamError",
    "ModelTransport",
    "SyncModelTransport",
    "Usage",
    "UsageSink",
]

"""Enforces a policy bundle inside the process of a service.

runtime = Runtime.load("/etc/voice/policy")
answer = await runtime.call("rag-engine.context", fetch_context, question)
"""

from voice_runtime.attempt import Attempt, before_sending
from voice_runtime.bulkhead import Bulkhead
from voice_runtime.caller import Caller
from voice_runtime.circuit_breaker import CircuitBreaker
from voice_runtime.clock import Clock
from voice_runtime.deadline import attempt_number, detached, remaining
from voice_runtime.degradation import Degradation
from voice_runtime.errors import (
    AttemptTimeoutError,
    BulkheadFullError,
    CalleeError,
    CallRejectedError,
    CallTimeoutError,
    CircuitOpenError,
    DeadlineExceededError,
    NoThreadError,
    RateLimitedError,
    RetriesExhaustedError,
    SoftCallError,
    UnknownCallError,
    UnknownNameError,
    VoiceRuntimeError,
)
from voice_runtime.events import Event, Events, Listener, PromptListener
from voice_runtime.inbound import Request, current_request
from voice_runtime.outbound import Outbound
from voice_runtime.outcome import (
    Classify,
    ClassifyResult,
    DependencyFailure,
    FailedResultError,
    Failure,
    classify,
    dependency_failure,
)
from voice_runtime.retry import Retry, RetryBudget
from voice_runtime.runtime import Runtime
from voice_runtime.shared_store import SharedStore
from voice_runtime.timeout import Timeout

__all__ = [
    "Attempt",
    "AttemptTimeoutError",
    "Bulkhead",
    "BulkheadFullError",
    "CallRejectedError",
    "CallTimeoutError",
    "CalleeError",
    "Caller",
    "CircuitBreaker",
    "CircuitOpenError",
    "Classify",
    "ClassifyResult",
    "Clock",
    "DeadlineExceededError",
    "Degradation",
    "DependencyFailure",
    "Event",
    "Events",
    "FailedResultError",
    "Failure",
    "Listener",
    "NoThreadError",
    "Outbound",
    "PromptListener",
    "RateLimitedError",
    "Request",
    "RetriesExhaustedError",
    "Retry",
    "RetryBudget",
    "Runtime",
    "SharedStore",
    "SoftCallError",
    "Timeout",
    "UnknownCallError",
    "UnknownNameError",
    "VoiceRuntimeError",
    "attempt_number",
    "before_sending",
    "classify",
    "current_request",
    "dependency_failure",
    "detached",
    "remaining",
]

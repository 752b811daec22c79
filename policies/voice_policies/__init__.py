"""The typed resilience policies of VoiceAssistant, and the bundle that carries them to a process."""

from voice_policies.address import Address
from voice_policies.bulkhead import Bulkhead
from voice_policies.bundle import (
    API_VERSION,
    FILE_NAME,
    KIND,
    BundleMetadata,
    EnforcedBy,
    Enforcer,
    Idempotency,
    InboundOperation,
    OutboundCall,
    PolicyBundle,
    Protocol,
)
from voice_policies.circuit_breaker import CircuitBreaker
from voice_policies.closed_model import ClosedModel, Conflict
from voice_policies.connections import IDLE_TIMEOUT, KEEP_ALIVE, PING_INTERVAL, STREAM_IDLE_TIMEOUT
from voice_policies.cooldown import Cooldown
from voice_policies.degradation import Degradation, DegradationLevel, DegradationTrigger, DegradedFeature
from voice_policies.fault_injection import FaultInjection
from voice_policies.faults import Fault, InvalidInputError, conflict_fault, errors_of, faults_of, one_of
from voice_policies.grpc_method import grpc_method, grpc_service
from voice_policies.health import Health, HealthCheck
from voice_policies.measure import Bytes, Cpu, Duration, PositiveDuration, Rate, Ratio
from voice_policies.model import Capability, Model, ModelPrice, PricedUnit
from voice_policies.model_deployment import ModelDeployment
from voice_policies.model_fallback import ModelFallback
from voice_policies.model_hedge import ModelHedge
from voice_policies.model_provider import ModelProvider
from voice_policies.model_route import ModelRoute
from voice_policies.models import Models
from voice_policies.names import CallName, EventType, RouteName, TextPattern
from voice_policies.output_limit import OutputLimit
from voice_policies.policy import Policy
from voice_policies.prompt_privacy import PromptPrivacy
from voice_policies.rate_limit import INTERVAL_JITTER, Adaptive, RateLimit, SlidingWindow, TokenBucket
from voice_policies.response_cache import ResponseCache
from voice_policies.retry import Retry, RetryBudget, RetryCondition
from voice_policies.saga import Saga, SagaStep
from voice_policies.service_level import ServiceLevel
from voice_policies.service_settings import SETTINGS_FILE_NAME, Connection, ServiceSettings
from voice_policies.stream_latency import StreamLatency
from voice_policies.stream_timeout import StreamTimeout
from voice_policies.timeout import Timeout
from voice_policies.token_budget import TokenBudget
from voice_policies.tracing import Tracing

__all__ = [
    "API_VERSION",
    "FILE_NAME",
    "IDLE_TIMEOUT",
    "INTERVAL_JITTER",
    "KEEP_ALIVE",
    "KIND",
    "PING_INTERVAL",
    "SETTINGS_FILE_NAME",
    "STREAM_IDLE_TIMEOUT",
    "Adaptive",
    "Address",
    "Bulkhead",
    "BundleMetadata",
    "Bytes",
    "CallName",
    "Capability",
    "CircuitBreaker",
    "ClosedModel",
    "Conflict",
    "Connection",
    "Cooldown",
    "Cpu",
    "Degradation",
    "DegradationLevel",
    "DegradationTrigger",
    "DegradedFeature",
    "Duration",
    "EnforcedBy",
    "Enforcer",
    "EventType",
    "Fault",
    "FaultInjection",
    "Health",
    "HealthCheck",
    "Idempotency",
    "InboundOperation",
    "InvalidInputError",
    "Model",
    "ModelDeployment",
    "ModelFallback",
    "ModelHedge",
    "ModelPrice",
    "ModelProvider",
    "ModelRoute",
    "Models",
    "OutboundCall",
    "OutputLimit",
    "Policy",
    "PolicyBundle",
    "PositiveDuration",
    "PricedUnit",
    "PromptPrivacy",
    "Protocol",
    "Rate",
    "RateLimit",
    "Ratio",
    "ResponseCache",
    "Retry",
    "RetryBudget",
    "RetryCondition",
    "RouteName",
    "Saga",
    "SagaStep",
    "ServiceLevel",
    "ServiceSettings",
    "SlidingWindow",
    "StreamLatency",
    "StreamTimeout",
    "TextPattern",
    "Timeout",
    "TokenBucket",
    "TokenBudget",
    "Tracing",
    "conflict_fault",
    "errors_of",
    "faults_of",
    "grpc_method",
    "grpc_service",
    "one_of",
]

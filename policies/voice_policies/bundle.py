"""The policy bundle: every policy of one service, in one versioned document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_core import from_json
from typing_extensions import override

from voice_policies.address import Address
from voice_policies.bulkhead import Bulkhead
from voice_policies.circuit_breaker import CircuitBreaker
from voice_policies.degradation import Degradation
from voice_policies.fault_injection import FaultInjection
from voice_policies.faults import Fault, InvalidInputError, faults_of
from voice_policies.health import Health
from voice_policies.measure import PositiveDuration
from voice_policies.models import Models
from voice_policies.names import CallName, DnsLabel, OperationName, RouteName, TextPattern
from voice_policies.policy import Policy
from voice_policies.rate_limit import RateLimit
from voice_policies.retry import Retry
from voice_policies.saga import Saga, SagaStep, StepName
from voice_policies.service_level import ServiceLevel
from voice_policies.timeout import Timeout
from voice_policies.tracing import Tracing

API_VERSION: Literal["voiceassistant.dev/v1"] = "voiceassistant.dev/v1"
"""The version of the bundle's schema that this package reads."""
KIND: Literal["PolicyBundle"] = "PolicyBundle"
"""The `kind` of a bundle's document."""
FILE_NAME = "policy.json"
"""Name of the bundle's file in the directory that a service mounts."""

Protocol = Literal["grpc", "http", "websocket", "https", "postgresql", "redis", "smtp"]
"""The protocol that a call speaks on the wire."""
Idempotency = Literal["idempotent", "with_key", "never"]
"""How a call may be repeated: as it is, with an idempotency key, or never."""
Enforcer = Literal["runtime", "grpc", "gateway", "mesh", "driver"]
"""The layer that enforces a policy on an edge. `driver`: a store's client library, through its connection settings."""


class EnforcedBy(Policy):
    """The layer that enforces each policy of a call. `None` for a retry, breaker or bulkhead that the call lacks."""

    timeout: Enforcer
    """The layer that bounds the whole call. It also bounds each attempt, unless gRPC retries the call."""
    attempt_timeout: Enforcer | None = None
    """The layer that bounds each attempt if gRPC retries the call. It is the mesh: gRPC cannot bound one attempt.
    `None` for every other call. Also `None` without a mesh: then the callee's own deadline ends an attempt."""
    retry: Enforcer | None = None
    circuit_breaker: Enforcer | None = None
    bulkhead: Enforcer | None = None


class OutboundCall(Policy):
    """The policy of one declared call."""

    name: CallName
    """The name that the service's code passes to `runtime.call(name, …)`. Unique in the bundle."""
    callee: DnsLabel
    operation: OperationName
    protocol: Protocol
    addresses: Annotated[tuple[Address, ...], Field(strict=False)] = ()
    """The callee's addresses, in order of preference. Any one of them suffices. Empty for a call to a model."""
    route: RouteName | None = None
    """The route of a call to a model, in `models.routes` of the bundle. It replaces addresses and retries."""
    idempotency: Idempotency
    necessity: Literal["hard", "soft"]
    """`hard`: the operation fails without this call. `soft`: the operation continues with the fallback."""
    fallback: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The behaviour of the operation when a soft call fails, in words. The service registers the
    fallback's handler under the call's name."""
    streamed: Literal[True] | None = None
    """True if the callee answers with a stream of messages. `timeout.attempt` then limits the time until the first
    message."""
    timeout: Timeout
    first_message: PositiveDuration | None = None
    """P95 objective of a stream's first message, from the start of the call; `None`: no objective."""
    retry: Retry | None = None
    """`None`: one attempt."""
    circuit_breaker: CircuitBreaker | None = None
    bulkhead: Bulkhead | None = None
    enforced_by: EnforcedBy

    @property
    def max_attempts(self) -> int:
        """Maximum number of attempts, retries included."""
        return self.retry.max_attempts if self.retry else 1

    @override
    def conflicts(self) -> Iterator[str]:
        if (self.route is None) != bool(self.addresses):
            yield "addresses and route exclude each other: set addresses, or the route of a call to a model"
        if self.route and (self.retry or self.enforced_by.timeout != "runtime"):
            yield (
                "only the runtime enforces a route, and the route's fallback replaces retries: leave out retry, and "
                "set enforced_by.timeout to runtime"
            )
        if (self.necessity == "soft") != (self.fallback is not None):
            yield "fallback is for soft calls: set it for a soft call, and leave it out of a hard one"
        for policy in ("retry", "circuit_breaker", "bulkhead"):
            if (getattr(self, policy) is None) != (getattr(self.enforced_by, policy) is None):
                yield f"enforced_by.{policy} and {policy} go together: set both or neither"
        if self.retry and self.idempotency == "never" and set(self.retry.conditions) != {"connection_failed"}:
            yield "a call whose idempotency is 'never' may retry on connection_failed only"
        yield from self._time_conflicts()

    def _time_conflicts(self) -> Iterator[str]:
        needed = self.timeout.attempt * self.max_attempts
        if self.retry:
            needed += self.retry.longest_wait()
        if self.timeout.overall < needed:
            yield (
                f"timeout.overall {self.timeout.overall} cannot hold {self.max_attempts} attempts and waits: "
                f"expected at least {needed}"
            )
        breaker, attempts = self.circuit_breaker, self.max_attempts
        if breaker and breaker.consecutive_failures is not None and breaker.consecutive_failures <= attempts:
            yield (
                f"circuit_breaker.consecutive_failures {breaker.consecutive_failures} is not above the "
                f"{attempts} attempts of one request, so one request could open the breaker: raise it, or "
                "lower retry.max_retries"
            )


class InboundOperation(Policy):
    """The policy of one operation that the service offers."""

    operation: OperationName
    deadline: PositiveDuration
    """Longest time that the operation may take. A shorter deadline of the caller wins."""
    service_level: ServiceLevel
    streamed: Literal[True] | None = None
    """True if the operation answers with a stream of messages."""
    calls: Annotated[tuple[CallName, ...], Field(strict=False)] = ()
    """Outbound calls that belong to this operation."""
    rate_limits: Annotated[tuple[RateLimit, ...], Field(strict=False)] = ()
    """A request passes when every limit admits it."""
    bulkhead: Bulkhead | None = None
    saga: StepName | None = None
    """The saga that carries out the operation; `None` if no saga does."""


class BundleMetadata(Policy):
    """The identity of a bundle: its service, environment and digest."""

    service: DnsLabel
    environment: DnsLabel
    language: Literal["python", "go"]
    digest: Annotated[str, TextPattern(r"^sha256:[0-9a-f]{64}$", "sha256: and 64 hex digits")] | None = None
    """SHA-256 of the bundle's canonical form without this field. `None` only until `sealed` computes it."""


class PolicyBundle(Policy):
    """The policies of one service, for each inbound operation and each outbound call.

    The canonical form is JSON: keys sorted, no blanks between tokens, measures in their canonical text. The digest
    covers this form without `metadata.digest`. If a declared, a mounted and an enforced bundle have the same
    digest, their policies are equal.
    """

    api_version: Annotated[Literal["voiceassistant.dev/v1"], Field(alias="apiVersion")] = API_VERSION
    kind: Literal["PolicyBundle"] = KIND
    metadata: BundleMetadata
    inbound: Annotated[tuple[InboundOperation, ...], Field(strict=False)] = ()
    outbound: Annotated[tuple[OutboundCall, ...], Field(strict=False)] = ()
    degradation: Degradation | None = None
    health: Health
    tracing: Tracing
    sagas: Annotated[tuple[Saga, ...], Field(strict=False)] = ()
    """A saga may have several versions. A new run uses the newest version, and a running saga keeps its version."""
    models: Models | None = None
    """The routes of the service's model calls. `None` if it calls no model."""
    fault_injection: FaultInjection | None = None

    @override
    def conflicts(self) -> Iterator[str]:
        names = [call.name for call in self.outbound]
        operations = [inbound.operation for inbound in self.inbound]
        sagas = [f"{saga.name} version {saga.version}" for saga in self.sagas]
        for what, found in (("outbound call", names), ("inbound operation", operations), ("saga", sagas)):
            yield from (f"{what} {name} is declared twice" for name in sorted({n for n in found if found.count(n) > 1}))
        for inbound in self.inbound:
            yield from (
                f"inbound operation {inbound.operation} names outbound call {call}, which does not exist"
                for call in inbound.calls
                if call not in names
            )
        yield from self._store_conflicts()
        yield from self._saga_conflicts()
        yield from self._model_conflicts()
        digest = self.metadata.digest
        if digest is not None and digest != (expected := digest_of(self)):
            yield f"metadata.digest {digest} does not match the content, which has {expected}"

    def _store_conflicts(self) -> Iterator[str]:
        calls = {call.name: call for call in self.outbound}
        for inbound in self.inbound:
            for name in {limit.store for limit in inbound.rate_limits if limit.store}:
                call, where = (
                    calls.get(name),
                    f"inbound operation {inbound.operation} counts its rate limit by call {name}",
                )
                if call is None or call.protocol != "redis":
                    yield f"{where}, which is not a call to Redis"
                elif call.enforced_by.timeout != "runtime":
                    yield (
                        f"{where}, and could wait forever, because the runtime does not enforce the call's timeout: "
                        f"set enforced_by.timeout of {name} to runtime"
                    )

    def _saga_conflicts(self) -> Iterator[str]:
        calls = {call.name: call for call in self.outbound}
        sagas = {saga.name for saga in self.sagas}
        for inbound in self.inbound:
            if inbound.saga is not None and inbound.saga not in sagas:
                yield f"inbound operation {inbound.operation} names saga {inbound.saga}, which does not exist"
        for saga in self.sagas:
            for step in saga.steps:
                path = f"saga {saga.name} version {saga.version}: step {step.name}"
                yield from (f"{path}{fault}" for fault in _step_conflicts(step, calls))

    def _model_conflicts(self) -> Iterator[str]:
        calls = {call.name: call for call in self.outbound}
        routes = self.models.routes if self.models else {}
        for call in self.outbound:
            if call.route is not None and call.route not in routes:
                yield f"outbound call {call.name} names route {call.route}, which does not exist"
            elif call.route is not None and call.timeout.overall != (total := routes[call.route].timeout.total):
                yield (
                    f"outbound call {call.name} has timeout.overall {call.timeout.overall}, but its route has "
                    f"timeout.total {total}: set both to the same time"
                )
            elif call.route is not None and routes[call.route].hedge is not None and call.idempotency != "idempotent":
                yield (
                    f"outbound call {call.name} has idempotency {call.idempotency}, but route {call.route} has a hedge "
                    "and may send a request twice: make the call idempotent or leave out hedge"
                )
        for where, name in _stores_of(self.models) if self.models else ():
            if name not in calls or calls[name].protocol != "redis":
                yield f"{where} names outbound call {name}, which is not a call to Redis"

    def addresses_of(self, call: OutboundCall) -> tuple[Address, ...]:
        """The addresses of a call: its own, or the addresses of its route's providers."""
        if call.route is None or self.models is None:
            return call.addresses
        providers = dict.fromkeys(candidate.provider for candidate in self.models.candidates(call.route))
        return tuple(self.models.providers[name].address for name in providers)

    def sealed(self) -> PolicyBundle:
        """The same bundle with its digest filled in."""
        metadata = self.metadata.model_copy(update={"digest": digest_of(self)})
        return self.model_copy(update={"metadata": metadata})

    def to_document(self) -> dict[str, Any]:
        """The bundle as plain JSON values, defaults written out, absent policies left out."""
        document: dict[str, Any] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return document

    @classmethod
    def from_json(cls, text: bytes | str, source: str) -> PolicyBundle:
        """Read and validate a bundle; raises `InvalidInputError` naming `source` and every fault.

        The digest is required and must match.
        """
        try:
            document = from_json(text, allow_inf_nan=False)
        except ValueError as error:
            raise InvalidInputError(source, [Fault("", "is not JSON", str(error))]) from None
        _refuse_other_versions(document, source)
        try:
            bundle = cls.model_validate_json(text)
        except ValidationError as error:
            raise InvalidInputError(source, faults_of(error, cls)) from None
        if bundle.metadata.digest is None:
            raise InvalidInputError(
                source, [Fault("metadata.digest", "is missing", "expected sha256: and 64 hex digits")]
            )
        return bundle


def _step_conflicts(step: SagaStep, calls: Mapping[str, OutboundCall]) -> Iterator[str]:
    for name in (*step.calls, *step.compensation_calls):
        if name not in calls:
            yield f" names outbound call {name}, which does not exist"
        elif step.attempt_timeout < calls[name].timeout.overall:
            longest = calls[name].timeout.overall
            yield f": attempt_timeout {step.attempt_timeout} is shorter than timeout.overall of call {name}: {longest}"


def _stores_of(models: Models) -> Iterator[tuple[str, str]]:
    """Every budget, cache and usage stream of the models, with the outbound call that reaches its store."""
    yield from ((f"budget {name}", budget.store) for name, budget in models.budgets.items())
    yield from (
        (f"the cache of route {name}", route.cache.store) for name, route in models.routes.items() if route.cache
    )
    if models.usage is not None:
        yield "models.usage", models.usage


def digest_of(bundle: PolicyBundle) -> str:
    """`sha256:` and the hex digest of the bundle's canonical form without `metadata.digest`."""
    document = bundle.to_document()
    document["metadata"].pop("digest", None)
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def _refuse_other_versions(document: object, source: str) -> None:
    """Refuse another schema version in one sentence, instead of listing its unknown fields one by one."""
    if not isinstance(document, dict):
        raise InvalidInputError(source, [Fault("", "is not an object", f"expected a {KIND}")])
    found = (document.get("apiVersion"), document.get("kind"))
    if found != (API_VERSION, KIND):
        value = f"is {json.dumps(found[0])}, {json.dumps(found[1])}"
        raise InvalidInputError(source, [Fault("apiVersion, kind", value, f"expected {API_VERSION}, {KIND}")])

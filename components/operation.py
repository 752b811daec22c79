"""Operations and calls: the vocabulary of the call graph.

A call belongs to an operation of its caller. The calls of a stage run in parallel. Stages run in sequence. The audit
computes load, latency, retries and availability from these types.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import override
from voice_policies import (
    Bulkhead,
    Bytes,
    CircuitBreaker,
    ClosedModel,
    Duration,
    EventType,
    Idempotency,
    ModelRoute,
    Rate,
    RateLimit,
    Ratio,
    Retry,
    RouteName,
    Saga,
    TextPattern,
)

from components.declaration import Declaration

__all__ = [
    "Call",
    "HttpRoute",
    "ModelUse",
    "Name",
    "Operation",
    "Sentence",
    "Stage",
    "hard",
    "loop",
    "operation",
    "soft",
    "stage",
]

Name = Annotated[str, TextPattern(r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", "rag-engine", 40)]
"""A DNS label of at most 40 characters, so that derived names fit into the 63 characters of Kubernetes."""
Sentence = Annotated[str, Field(min_length=3, max_length=200)]


class ModelUse(ClosedModel):
    """The size of one call to a model. The audit computes load, duration and cost from it."""

    input_p95: Annotated[int, Field(ge=0)] = 0
    """Input tokens at P95."""
    input_mean: Annotated[int, Field(ge=0)] = 0
    """Mean input in the units that the provider bills: tokens, characters or seconds of audio."""
    output_max: Annotated[int, Field(ge=0)] = 0
    """Maximum number of output tokens; 0 for models that generate no text."""
    output_mean: Annotated[int, Field(ge=0)] = 0
    """Mean number of output tokens."""
    seconds_mean: Annotated[float, Field(ge=0)] = 0.0
    """Mean time for which a call occupies a stream of the provider, in seconds. 0 if the provider counts tokens."""

    @override
    def conflicts(self) -> Iterator[str]:
        if self.output_mean > self.output_max:
            yield f"output_mean {self.output_mean} is above output_max {self.output_max}"


class Call(Declaration):
    """One declared call of an operation.

    The bundle adds derived values to a call. The callee determines the protocol, the address and the default attempt
    timeout. The caller's language and the environment determine the layer that enforces each policy.
    """

    callee: Name
    operation: Name
    idempotency: Idempotency
    purpose: Name | None = None
    """Tells two calls to one operation apart."""
    fallback: Sentence | None = None
    """Makes the call soft, and says how the caller's operation continues if the call fails. `None`: a hard call."""
    needed_by_flows: bool = False
    """True: if this soft call fails, the caller's operation succeeds, but the flows that contain the call fail."""
    fallback_uses: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    """Nodes that the fallback needs."""
    share: Ratio = Ratio("100%")
    """Share of the requests to the caller's operation that make the call. At 50%, half of the requests make it."""
    latency: Duration | None = None
    """P95 objective, if it differs from the objective of the callee's operation."""
    timeout: Duration | None = None
    """Attempt timeout, if it differs from the deadline of the callee's operation."""
    retry: Retry | None = None
    """`None`: one attempt, without retries."""
    circuit_breaker: CircuitBreaker | Literal["off"] | None = None
    """`None`: a breaker whose break lasts as long as a restart of the callee. `"off"`: no breaker."""
    bulkhead: Bulkhead | None = None
    model_use: ModelUse | None = None
    """Size of the model call that the callee makes to serve this call. `None`: the size that the called operation
    declares."""

    @property
    @override
    def label(self) -> str:
        """The part of a fault's path that names this call: ` → store.read` in `api.run → store.read`."""
        return f" → {self.name}"

    @property
    def target(self) -> str:
        """`callee.operation`."""
        return f"{self.callee}.{self.operation}"

    @property
    def name(self) -> str:
        """The name in the caller's code. It is unique among the caller's calls."""
        return f"{self.target}:{self.purpose}" if self.purpose else self.target

    @property
    def soft(self) -> bool:
        """True if the caller's operation continues without the answer."""
        return self.fallback is not None

    @property
    def max_attempts(self) -> int:
        """Maximum number of attempts, retries included."""
        return self.retry.max_attempts if self.retry else 1


class Stage(Declaration):
    """Calls that start together. The next stage starts when all these calls have ended. See `overlaps`."""

    calls: Annotated[tuple[Call, ...], Field(min_length=1)]
    choice: Literal["all", "one"] = "all"
    """`one`: each round makes only one of the calls."""
    max_rounds: Annotated[int, Field(ge=1, le=1000)] = 1
    """Largest number of rounds of a loop."""
    typical_rounds: Annotated[int, Field(ge=0, le=1000)] = 1
    """Rounds at P95. The audit computes latency and load from it."""
    overlaps: bool = False
    """True: the stage streams while the earlier stages stream, and does not wait for their end. Its latency counts only
    as far as it exceeds the latency of the earlier stages."""


class HttpRoute(ClosedModel):
    """The gateway's route for an operation. A path has no parameters, because the gateway's breaker counts by path."""

    path: Annotated[str, TextPattern(r"^(/[a-z0-9-]+)+$", "/v1/search", 100)]
    method: Literal["GET", "POST"]
    public: bool = False
    """True: callers need no token. The limits then count by the client's address instead of by tenant."""
    max_body: Bytes = Bytes("16Ki")
    """Largest body of a request. The gateway keeps bodies of up to 16 KiB in memory, and larger ones on its disk."""


class Operation(Declaration):
    """An action that a node offers to callers or runs in the background."""

    name: Name
    latency: Duration
    """P95 objective, measured at the callee."""
    deadline: Duration
    """Longest time that one run of the operation may take. It is also the attempt timeout of a call that
    declares no `timeout`."""
    stages: tuple[Stage, ...] = ()
    load: Rate | None = None
    """Arrivals from outside the platform. `None` if only declared calls and events arrive."""
    transport: Literal["unary", "streamed", "websocket"] = "unary"
    """`streamed` and `websocket` send several messages in one call."""
    background: bool = False
    """True: no caller waits, because an event or a schedule starts the operation."""
    publishes: tuple[EventType, ...] = ()
    consumes: tuple[EventType, ...] = ()
    appends: tuple[EventType, ...] = ()
    """Events that the operation appends to their stream without an outbox. Consumers read these events in batches. So
    the audit adds no load to a consumer for each event."""
    rate_limits: tuple[RateLimit, ...] = ()
    http: HttpRoute | None = None
    """The gateway's HTTP route. `None` if the node is not the gateway."""
    route: ModelRoute | None = None
    """The model route that the operation serves. `None` for nodes that are not models."""
    model_use: ModelUse | None = None
    """Size of one call of `route`, unless the call declares its own size."""
    default_route: RouteName | None = None
    """The route that callers use if the operation does not answer. Only for an operation that chooses a model route."""
    saga: Saga | None = None
    """The saga that carries out the operation, if it is a transaction over several services."""
    retired_sagas: tuple[Saga, ...] = ()
    """Older versions of `saga`, the oldest first. A version stays here until all of its sagas have ended."""

    @property
    @override
    def label(self) -> str:
        """The part of a fault's path that names this operation: `.run` in `api.run`."""
        return f".{self.name}"

    @property
    def sagas(self) -> tuple[Saga, ...]:
        """Every version of the operation's saga, the newest last."""
        return (*self.retired_sagas, self.saga) if self.saga else self.retired_sagas

    @override
    def conflicts(self) -> Iterator[str]:
        declared = {call.name for call in self.calls}
        for saga in self.sagas:
            title = f"saga {saga.name} version {saga.version}"
            used = {name for step in saga.steps for name in (*step.calls, *step.compensation_calls)}
            yield from (f"{title} makes call {name}, which is not declared" for name in sorted(used - declared))
            if saga.started_by is not None and saga.started_by not in self.consumes:
                yield f"{title} is started by {saga.started_by}, which the operation does not consume"
        for older, newer in zip_longest(self.retired_sagas, self.sagas[1:]):
            if newer is None or (older.name, older.version < newer.version) != (newer.name, True):
                yield (
                    f"retired saga {older.name} version {older.version} must come before a newer version of the same "
                    "saga"
                )

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call of every stage."""
        return tuple(call for stage in self.stages for call in stage.calls)


def operation(name: str, *stages: Stage, p95: str, deadline: str, **options: object) -> Operation:
    """An operation with its P95 objective and its deadline; `options` are the other fields of `Operation`."""
    values: dict[str, Any] = {**options, "name": name, "latency": p95, "deadline": deadline, "stages": stages}
    return Operation(**values)


def hard(target: str, idempotency: Idempotency, **options: object) -> Call:
    """A call to `callee.operation`. If it fails, the caller's operation fails. `options` are other fields of `Call`."""
    return _call(target, idempotency, options)


def soft(target: str, fallback: str, idempotency: Idempotency = "idempotent", **options: object) -> Call:
    """A call to `callee.operation`. If it fails, the caller's operation continues with `fallback`."""
    return _call(target, idempotency, {**options, "fallback": fallback})


def _call(target: str, idempotency: Idempotency, options: dict[str, object]) -> Call:
    callee, _, operation = target.partition(".")
    values: dict[str, Any] = {**options, "callee": callee, "operation": operation, "idempotency": idempotency}
    return Call(**values)


def stage(*calls: Call, overlaps: bool = False) -> Stage:
    """Calls that run in parallel."""
    return Stage(calls=calls, overlaps=overlaps)


def loop(*calls: Call, at_most: int, typically: int) -> Stage:
    """A loop of up to `at_most` rounds, `typically` at P95. Each round makes one of the calls."""
    return Stage(calls=calls, choice="one", max_rounds=at_most, typical_rounds=typically)

"""Every model is rendered or refused. No other error reaches a user."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from voice_policies import InvalidInputError, faults_of

from components.node import Dependency, Gateway, Node, Service
from stack.audit import audit
from stack.model.platform import Platform
from stack.output.render import Index, rendered_files
from tests.platforms import real_environment, tenant_of

NAMES = st.sampled_from(["a", "b", "store", "gateway", "events", "-", "A", "x" * 41, ""])
DURATIONS = st.sampled_from(["1ms", "50ms", "1s", "14s", "0s", "1", "s", "999999d", 5, None])
NUMBERS = st.integers(-2, 5) | st.sampled_from([70_000, 10**9, True, "3", 1.5, None])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping in which any field may be missing."""
    return st.fixed_dictionaries({}, optional=fields)


def good(values: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Values that are right, so that the fuzz gets past the first check half of the time."""
    return st.just(values)


RETRY = st.none() | some(max_retries=NUMBERS, base_delay=DURATIONS, max_delay=DURATIONS)
CALL = st.builds(
    lambda base, changes: {**base, **changes},
    good({"callee": "store", "operation": "read", "idempotency": "idempotent"}),
    some(
        callee=NAMES,
        operation=st.sampled_from(["read", "run", "x"]),
        idempotency=st.sampled_from(["idempotent", "with_key", "never", "maybe"]),
        fallback=st.sampled_from(["goes on", "", None]),
        timeout=DURATIONS,
        retry=RETRY,
        purpose=st.sampled_from(["one", "two", None]),
    ),
)
STAGE = st.builds(
    lambda calls, changes: {"calls": tuple(calls), **changes},
    st.lists(CALL, max_size=3),
    some(max_rounds=NUMBERS, typical_rounds=NUMBERS, choice=st.sampled_from(["all", "one", "two"])),
)
OPERATION = st.builds(
    lambda base, stages, changes: {**base, "stages": tuple(stages), **changes},
    good({"name": "run", "latency": "100ms", "deadline": "20s"}),
    st.lists(STAGE, max_size=3),
    some(name=st.sampled_from(["run", "read", "Run"]), latency=DURATIONS, deadline=DURATIONS),
)
SERVICE = st.builds(
    lambda base, operations, changes: {**base, "operations": tuple(operations), **changes},
    good(
        {
            "name": "a",
            "namespace": "voice-apps",
            "purpose": "a test",
            "language": "python",
            "tier": "core",
            "grpc_port": 9000,
            "http_port": 8080,
            "sizing": {"cpu_request": "1", "cpu_limit": "1", "memory_request": "1Gi", "memory_limit": "1Gi"},
            "replicas": {"min": 2, "max": 3},
            "capacity": "10/s",
        }
    ),
    st.lists(OPERATION, max_size=2),
    some(
        name=NAMES,
        language=st.sampled_from(["python", "go", "cobol"]),
        grpc_port=NUMBERS,
        replicas=some(min=NUMBERS, max=NUMBERS),
        capacity=st.sampled_from(["1/s", "0/s", "10"]),
        unknown=NUMBERS,
    ),
)
STORE = Dependency.model_validate(
    {
        "name": "store",
        "kind": "datastore",
        "purpose": "a test",
        "protocol": "redis",
        "addresses": ({"namespace": "voice-data", "service": "store", "port": 6379},),
        "availability": "99.9%",
        "operations": ({"name": "read", "latency": "10ms", "deadline": "50ms"},),
    }
)


@settings(max_examples=3000)
@given(services=st.lists(SERVICE, min_size=1, max_size=3), route=st.none() | OPERATION)
def test_any_model_is_rendered_or_refused(services: list[dict[str, Any]], route: dict[str, Any] | None) -> None:
    try:
        nodes: list[Node] = [STORE, *(Service.model_validate(values) for values in services)]
        if route:
            values = {"name": "gateway", "namespace": "voice-gateway", "availability": "99.99%", "operations": (route,)}
            nodes.append(Gateway.model_validate(values))
        looked_at = Platform(tenant_of(*nodes), real_environment("prod"))
        files = dict(rendered_files(looked_at, Index("prod")))
        verdicts = audit(looked_at)
    except ValidationError as error:
        assert faults_of(error, Service)
    except InvalidInputError as error:
        assert error.faults
    else:
        assert len(files) == 1 + len(looked_at.components) + len(services)
        assert len(looked_at.microservices) == len(services)
        assert verdicts

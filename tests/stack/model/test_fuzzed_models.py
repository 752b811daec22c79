from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st
from voice_policies import InvalidInputError, Protocol

from components.node import Dependency, Gateway, Node, Service
from stack.audit import audit
from stack.model.platform import Platform
from stack.output.render import Index, rendered_files
from tests.platforms import DAY, real_environment, with_nodes

NAMES = ("a", "b", "store", "gateway", "events", "-", "A", "x" * 41, "")
DURATIONS = ("1ms", "50ms", "1s", "14s", "0s", "1", "s", "999999d", 5, None)
NUMBERS = (-2, -1, 0, 1, 2, 3, 5, 70_000, 10**9, True, "3", 1.5, None)
CALL = {"callee": "store", "operation": "read", "idempotency": "idempotent"}
SERVICE = {
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
    "operations": ({"name": "run", "latency": "100ms", "deadline": "20s", "stages": ({"calls": (CALL,)},)},),
}
ROUTE = {
    "name": "run",
    "latency": "10ms",
    "deadline": "30s",
    "stages": ({"calls": ({**CALL, "callee": "a", "operation": "run"},)},),
}
STORE = {
    "name": "store",
    "kind": "datastore",
    "purpose": "a test",
    "protocol": "redis",
    "addresses": ({"namespace": "voice-data", "service": "store", "port": 6379},),
    "availability": "99.9%",
    "operations": ({"name": "read", "latency": "10ms", "deadline": "50ms"},),
}
MODEL = {"store": STORE, "services": (SERVICE, {**SERVICE, "name": "b"}), "routes": (ROUTE,)}
FIELDS: dict[str, tuple[object, ...]] = {
    "callee": NAMES,
    "operation": ("read", "run", "x"),
    "idempotency": ("idempotent", "with_key", "never", "maybe"),
    "fallback": ("goes on", "", None),
    "timeout": DURATIONS,
    "retry": (
        None,
        {},
        *({"max_retries": number} for number in NUMBERS),
        *({"base_delay": each} for each in DURATIONS),
    ),
    "purpose": ("one", "two", None),
    "calls": ((), (CALL, CALL), (CALL, {**CALL, "purpose": "another"}), None),
    "max_rounds": NUMBERS,
    "typical_rounds": NUMBERS,
    "choice": ("all", "one", "two"),
    "stages": ((), None, ({"calls": (CALL,)}, {"calls": ({**CALL, "callee": "b", "operation": "run"},)})),
    "name": (*NAMES, "run", "read", "Run"),
    "latency": DURATIONS,
    "deadline": DURATIONS,
    "language": ("python", "go", "cobol"),
    "grpc_port": NUMBERS,
    "min": NUMBERS,
    "max": NUMBERS,
    "capacity": ("1/s", "0/s", "10"),
    "unknown": NUMBERS,
    "operations": ((), None),
    "services": ((SERVICE,), (SERVICE, SERVICE), (SERVICE, {**SERVICE, "name": "b"}, {**SERVICE, "name": "c"})),
    "routes": ((),),
    "protocol": (*get_args(Protocol), "amqp"),
    "kind": ("provider", "infrastructure", "magic"),
    "addresses": ((), ({"host": "store.example.com", "port": 443, "egress": "egress-proxy-a"},)),
}
"""Valid and invalid values for a field."""
OF_CALL = ("fallback", "timeout", "retry", "purpose")
OPTIONAL = {"callee": OF_CALL, "calls": ("max_rounds", "typical_rounds", "choice"), "tier": ("unknown",)}
"""If an object of the model has the field on the left, `changes` also adds the fields on the right."""
Change = tuple[tuple[str | int, ...], object]


def changes(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Change]:
    """Each place of a model, with each value that `FIELDS` has for the name of the place."""
    if isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from changes(item, (*path, index))
    elif isinstance(value, dict):
        beside = (name for known, names in OPTIONAL.items() if known in value for name in names)
        for name in (*value, *beside):
            yield from (((*path, name), other) for other in FIELDS.get(name, ()))
            yield from changes(value.get(name), (*path, name))


def changed(model: Any, path: tuple[str | int, ...], value: object) -> Any:
    """The model with `value` at `path`; the unchanged model if an earlier change has removed the place."""
    match path, model:
        case (), _:
            return value
        case (int(index), *rest), tuple() if index < len(model):
            return (*model[:index], changed(model[index], tuple(rest), value), *model[index + 1 :])
        case (str(name), *rest), dict():
            return {**model, name: changed(model.get(name), tuple(rest), value)}
    return model


def rendered(model: Any) -> None:
    nodes: list[Node] = [Dependency.model_validate(model["store"]), *map(Service.model_validate, model["services"])]
    if routes := model["routes"]:
        values = {"name": "gateway", "namespace": "voice-gateway", "availability": "99.99%", "operations": routes}
        nodes.append(Gateway.model_validate(values))
    looked_at = Platform(with_nodes(*nodes), real_environment("prod"))
    files = dict(rendered_files(looked_at, Index("prod")))
    assert len(files) == 2 + len(looked_at.components) + len(model["services"])
    assert len(looked_at.microservices) == len(model["services"])
    assert audit(looked_at, on=DAY)


def test_the_unchanged_model_is_rendered() -> None:
    rendered(MODEL)


@settings(max_examples=300)  # `make fuzz` tests 10,000 changed settings and catalogues
@given(st.lists(st.sampled_from(list(changes(MODEL))), max_size=4))
def test_any_model_is_rendered_or_refused(several: list[Change]) -> None:
    model: Any = MODEL
    for path, value in several:
        model = changed(model, path, value)
    try:
        rendered(model)
    except InvalidInputError as error:
        assert error.faults

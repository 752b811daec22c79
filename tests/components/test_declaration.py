from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from voice_policies import Duration

from components.declaration import Location
from components.node import Dependency, Host, Node
from components.operation import Call, Operation, Stage, hard, operation, soft, stage
from stack.voiceassistant import catalog
from tests.small import datastore, service

FILE = "tests/components/test_declaration.py"
HERE = Path(__file__).read_text(encoding="utf-8").splitlines()


def line_of(text: str) -> int:
    """The first line that begins with `text`."""
    return next(number for number, line in enumerate(HERE, 1) if line.strip().startswith(text))


def two_reads() -> Stage:
    return stage(hard("store.read", "idempotent"), hard("store.read", "idempotent", purpose="twice"))


AGENT = service(
    "agent",
    operation(
        "run",
        stage(hard("store.write", "never")),
        two_reads(),
        p95="1s",
        deadline="2s",
    ),
)


def test_a_declaration_knows_its_file_and_line() -> None:
    (run,) = AGENT.operations
    write, *reads = run.calls
    assert AGENT.location
    assert AGENT.location.file == "tests/small.py"
    assert run.location == Location(FILE, line_of("operation("))
    assert str(write.location) == f"{FILE}:{line_of('stage(hard')}"
    assert {read.location for read in reads} == {Location(FILE, line_of("two_reads(),"))}


def test_every_declaration_in_the_catalogue_is_located_at_a_function_call() -> None:
    for node in (catalog.GATEWAY, *catalog.SERVICES, *catalog.DEPENDENCIES):
        for declared in (node, *node.operations, *(call for each in node.operations for call in each.calls)):
            location = declared.location
            assert location
            lines = Path(location.file).read_text(encoding="utf-8").splitlines()
            assert "(" in lines[location.line - 1], declared.label


def test_comparison_and_serialisation_ignore_the_location() -> None:
    one = hard("store.read", "idempotent")
    other = hard("store.read", "idempotent")
    assert one.location != other.location
    assert (one, hash(one), repr(one)) == (other, hash(other), repr(other))
    assert "location" not in str(dict(one)) + one.model_dump_json()
    assert one.model_copy().location == copy.copy(one).location == one.location
    assert other.at(one.location).location == one.location


def test_a_fault_in_a_call_names_the_line_the_service_the_operation_and_the_call() -> None:
    call = hard("model.embed", "idempotant", retrys=3)  # type: ignore[arg-type]
    node = service("rag", operation("answer", stage(call), p95="1s", deadline="2s"))
    path = "rag.answer → model.embed"
    fields = ", ".join(sorted(Call.model_fields))
    assert [str(fault).partition(": ")[2] for fault in node.faults] == [
        f"{path}: idempotency: is 'idempotant'; did you mean idempotent? expected 'idempotent', 'with_key' or 'never'",
        f"{path}: retrys: is 3; not a known key: did you mean retry? expected one of {fields}",
    ]
    assert {fault.source for fault in node.faults} == {f"{FILE}:{line_of('call = hard')}"}


def test_a_declaration_collects_the_faults_of_all_its_parts() -> None:
    bad = operation("run", stage(), stage(soft("b.run", "x" * 201)), p95="1", deadline="2s", colour="red")
    paths = [fault.path for fault in service("a", bad, http_port=80).faults]
    assert paths == [
        "a: http_port",
        "a.run: latency",
        "a.run: colour",
        "a.run: calls",
        "a.run → b.run: fallback",
    ]


def test_conflicts_are_reported_only_if_there_is_no_other_fault() -> None:
    run = operation("run", p95="1s", deadline="2s")
    assert [fault.accepted for fault in service("a", run, run).faults] == ["operation run is declared twice"]
    assert len(service("a", run, run, http_port=80).faults) == 1


WORDS = (
    st.sampled_from(["a.run", "", ".", "A.b", "a", "idempotent", "never", "1s", "x", "5m"]) | st.integers() | st.none()
)
KEYS = st.sampled_from(["timeout", "retry", "purpose", "load", "transport", "background", "nonsense"])


@given(WORDS, WORDS, st.dictionaries(KEYS, WORDS, max_size=3))
def test_a_declaration_never_raises_and_is_valid_or_has_faults(
    target: object, word: Any, options: dict[str, Any]
) -> None:
    call = hard(str(target), word, **options)
    node: Node = service("a", operation("run", stage(call), p95=word, deadline="1s", **options))
    for declared in (call, node):
        revalidated = type(declared)(**dict(declared))
        assert bool(declared.faults) == bool(revalidated.faults)
    if not node.faults:
        assert isinstance(node.operations[0].latency, Duration)
        assert isinstance(node.operations[0].calls[0], Call)
    assert all(fault.path.startswith("a") and fault.source for fault in node.faults)


def test_an_operation_without_a_service_keeps_its_faults() -> None:
    assert Operation(name="A", latency=Duration("1s"), deadline=Duration("1s")).faults[0].path == ".A: name"


def test_a_postgresql_server_behind_an_egress_proxy_is_refused() -> None:
    store = datastore("database", operation("read", p95="1s", deadline="2s"))
    host = Host(host="database.example.com", port=5432, egress="egress-proxy")
    (fault,) = Dependency(**{**dict(store), "addresses": (host,)}).faults
    assert fault.accepted == (
        "a Host cannot speak postgresql: the egress proxy needs TLS from the first byte,"
        " and PostgreSQL begins in clear text; declare the address as External"
    )

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from components.node import Dependency, Gateway, Node, Service
from stack.cli import main
from stack.model.python_errors import refused_with_line
from stack.model.tenant import Tenant
from tests.platforms import with_nodes
from tests.stack.model.test_fuzzed_models import MODEL, changed

SERVICE = ("services", 0)
OPERATION = (*SERVICE, "operations", 0)
CALLS = (*OPERATION, "stages", 0, "calls")
CALL = (*CALLS, 0)
HOSTILE: dict[str, tuple[tuple[str | int, ...], object, str]] = {
    "a name in capitals": ((*SERVICE, "name"), "A", "A: name: is 'A'; expected text such as rag-engine"),
    "a long name": ((*SERVICE, "name"), "x" * 41, "expected text such as rag-engine, at most 40 characters"),
    "a name that appears twice": (("services", 1, "name"), "a", "a: is declared 2 times; expected a unique name"),
    "no purpose": ((*SERVICE, "purpose"), "", "a: purpose: is ''; expected at least 3 characters"),
    "an unknown language": ((*SERVICE, "language"), "cobol", "a: language: is 'cobol'; expected 'go' or 'python'"),
    "an unknown tier": ((*SERVICE, "tier"), "gold", "a: tier: is 'gold'; expected 'core', 'standard' or 'batch'"),
    "a high port": ((*SERVICE, "grpc_port"), 70_000, "a: grpc_port: is 70000; expected less than or equal to 65535"),
    "a port as text": ((*SERVICE, "grpc_port"), "9000", "a: grpc_port: is '9000'; expected a whole number"),
    "one port for gRPC and HTTP": (
        (*SERVICE, "http_port"),
        9000,
        "a: is refused; grpc_port and http_port are both 9000",
    ),
    "a minimum above the maximum": (
        (*SERVICE, "replicas"),
        {"min": 3, "max": 2},
        "a: replicas: is refused; min 3 is above max 2",
    ),
    "a rate without unit": ((*SERVICE, "capacity"), "10", "a: capacity: is '10'; expected a rate of whole events per"),
    "a limit below its request": (
        (*SERVICE, "sizing", "cpu_request"),
        "2",
        "sizing: is refused; cpu_limit 1 is below cpu_request 2",
    ),
    "no operation": ((*SERVICE, "operations"), (), "a: is refused; it offers no operation: declare one, or leave the"),
    "a time without unit": (
        (*OPERATION, "deadline"),
        "1",
        "a.run: deadline: is '1'; expected a duration with its unit",
    ),
    "a misspelt field": (
        (*OPERATION, "dedline"),
        "1s",
        "a.run: dedline: is '1s'; not a known key: did you mean deadline?",
    ),
    "an empty stage": (CALLS, (), "a.run: calls: is refused; expected at least 1"),
    "an unknown callee": ((*CALL, "callee"), "nowhere", "nowhere.read: calls 'nowhere', which is no declared service"),
    "an unknown operation": ((*CALL, "operation"), "write", "calls operation 'write', which store does not offer"),
    "a call to itself": (
        ("services", 1, "operations", 0, "stages", 0, "calls", 0, "callee"),
        "b",
        "b.run → b.read: calls",
    ),
    "an unknown idempotency": (
        (*CALL, "idempotency"),
        "maybe",
        "idempotency: is 'maybe'; expected 'idempotent', 'with_key' or",
    ),
    "negative retries": (
        (*CALL, "retry"),
        {"max_retries": -1},
        "retry.max_retries: is -1; expected greater than or",
    ),
    "a timeout of zero": ((*CALL, "timeout"), "0s", "a.run → store.read.attempt: is '0s'; must be above 0s"),
    "an empty fallback": ((*CALL, "fallback"), "", "store.read: fallback: is ''; expected at least 3 characters"),
    "an unknown protocol": (("store", "protocol"), "amqp", "store: protocol: is 'amqp'; expected 'grpc', 'http'"),
    "an availability above 100 %": (
        ("store", "availability"),
        "101%",
        "store: availability: is '101%'; expected a ratio from 0% to",
    ),
    "no address": (("store", "addresses"), (), "store: addresses: is refused; expected at least 1"),
    "an unknown kind": (("store", "kind"), "magic", "store: kind: is 'magic'; expected 'datastore', 'provider' or"),
    "a mapping for a list": ((*SERVICE, "operations"), {}, "a: operations: is refused; expected a list"),
    "null for a list": ((*SERVICE, "operations"), None, "a: operations: is null; expected a list"),
    "a list for a mapping": ((*SERVICE, "sizing"), (), "a: sizing: is refused; expected a mapping"),
    "a function": ((*SERVICE, "capacity"), min, "a: capacity: is of type builtin_function_or_method; expected a rate"),
}


def catalogue(model: Any) -> Tenant:
    nodes: list[Node] = [Dependency.model_validate(model["store"]), *map(Service.model_validate, model["services"])]
    values = {"name": "gateway", "namespace": "voice-gateway", "availability": "99.99%", "operations": model["routes"]}
    return with_nodes(*nodes, Gateway.model_validate(values))


@pytest.mark.parametrize(("place", "value", "answer"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_catalogue_has_one_clear_answer(
    place: tuple[str | int, ...], value: object, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "dev"], lambda: catalogue(changed(MODEL, place, value))) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert answer in said.err
    assert re.search(r"test_hostile_catalogues\.py:\d+", said.err)
    for python in ("True", "False", "None", "tuple", "Duration(", "Traceback"):
        assert python not in said.err


PYTHON: dict[str, tuple[str, int, str]] = {
    "an exit": ("import sys\nsys.exit('bye')\n", 2, "SystemExit: bye; correct this line"),
    "an exit without a text": ("raise SystemExit\n", 1, "SystemExit; correct this line"),
    "an error without a text": ("\nraise ValueError\n", 2, "ValueError; correct this line"),
    "a division by zero": ("1 / 0\n", 1, "ZeroDivisionError: division by zero; correct this line"),
    "a failed assertion": ("assert [], 'no services'\n", 1, "AssertionError: no services; correct this line"),
    "an endless recursion": ("def f():\n    f()\nf()\n", 2, "RecursionError: maximum recursion depth exceeded"),
    "a missing key": ("{}['orders']\n", 1, "KeyError: 'orders'; correct this line"),
    "several errors": ("raise ExceptionGroup('two', [ValueError(), KeyError()])\n", 1, "ExceptionGroup: two (2 sub"),
    "tabs and spaces": ("if 1:\n\tx = 1\n        y = 2\n", 3, "TabError: inconsistent use of tabs and spaces"),
    "a bracket that stays open": ("x = (\n", 1, "SyntaxError: '(' was never closed; correct this line"),
    "text that stays open": ('x = "a\n', 1, "SyntaxError: unterminated string literal"),
    "a name before its definition": ("print(orders)\norders = 1\n", 1, "NameError: name 'orders' is not defined"),
}


@pytest.mark.parametrize(("text", "line", "answer"), PYTHON.values(), ids=PYTHON)
def test_a_python_error_in_a_catalogue_has_one_clear_answer(
    tmp_path: Path, text: str, line: int, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module = tmp_path / "catalogue.py"
    module.write_text(text)

    def build() -> Tenant:
        with refused_with_line(tmp_path):
            tenant: Tenant = runpy.run_path(str(module))["TENANT"]
        return tenant

    assert main(["check", "dev"], build) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"voice: {module}:{line}: 1 fault\n  {answer}")

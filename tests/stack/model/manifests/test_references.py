from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.stack.model.manifests.small_system import Content, resource, service, system, variable, workload

STORE = service("store", 6379)


def named(directory: Path, *variables: Content, **fields: Any) -> list[tuple[str, int | None, bool]]:
    """Host and port of each reference, and True if a Service has that name."""
    found = system(directory, workload("shop", env=list(variables), **fields), service("shop"), STORE)
    return [(each.address.host, each.address.port, each.service is not None) for each in found.references]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("store:6379", [("store", 6379, True)]),
        ("redis://user:secret@store:6379/0", [("store", 6379, True)]),
        ("http://store/path", [("store", None, True)]),
        ("store.default:6379", [("store.default", 6379, True)]),
        ("store.default.svc.cluster.local:6379", [("store.default.svc.cluster.local", 6379, True)]),
        ("store-0.store:6379,gone:1", [("store-0.store", 6379, True), ("gone", 1, False)]),
        ("example.com:443", [("example.com", 443, False)]),
        ("jdbc:postgresql://store:5432/db", [("store", 5432, True)]),
        ("localhost:80", []),
        ("http://localhost", []),
        ("127.0.0.1:80", []),
        ("shop:80", []),
        ("store", []),
        ("level=store:6379 and more", []),
        ("http://$(UNKNOWN):80", []),
        ("Store:6379", []),
    ],
)
def test_a_value_is_a_reference_only_if_it_is_the_address_of_another_host(
    value: str, found: list[tuple[str, int | None, bool]], tmp_path: Path
) -> None:
    assert named(tmp_path, variable("VALUE", value)) == found


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("STORE_HOST", "store", [("store", 6379, True)]),
        ("STORE_URL", "store", [("store", None, True)]),
        ("TOPIC", "store", []),
        ("STORE_HOST", "localhost", []),
    ],
)
def test_the_name_of_a_variable_decides_what_a_bare_host_means(
    name: str, value: str, found: list[tuple[str, int | None, bool]], tmp_path: Path
) -> None:
    assert named(tmp_path, variable(name, value), variable("STORE_PORT", "6379")) == found


def test_variables_are_expanded_as_kubelet_does(tmp_path: Path) -> None:
    variables = (variable("A", "http://$(B):80"), variable("B", "store"), variable("C", "http://$(B):80"))
    args = ["--store=$(B):81", "--text=$$(B):82"]  # `$$(B)` is the text `$(B)`
    assert named(tmp_path, *variables, args=args) == [("store", 80, True), ("store", 81, True)]


def test_variables_come_from_config_maps_too(tmp_path: Path) -> None:
    shop = workload("shop", envFrom=[{"configMapRef": {"name": "settings"}, "prefix": "X_"}])
    settings = resource("ConfigMap", "settings", data={"STORE": "store:6379"})
    (reference,) = system(tmp_path, shop, settings, STORE).references
    assert (reference.address.named_by, reference.service and reference.service.name) == ("X_STORE", "store")


def test_a_reference_has_the_line_of_its_variable(tmp_path: Path) -> None:
    shop = workload("shop", env=[variable("A", "1"), variable("B", "store:6379")])
    (reference,) = system(tmp_path, shop, STORE).references
    assert (tmp_path / "00.yaml").read_text().splitlines()[reference.address.where.line - 1].strip() == "- name: B"

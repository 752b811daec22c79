from __future__ import annotations

import pytest

from components.node import External, Replicas, Service
from components.operation import hard, operation, stage
from stack.model.profile import DatabaseLimits
from tests.small import service, small_platform
from tests.stack.audit.ledgers.rows import ledger, rows
from tests.stack.audit.rule_findings import READ, STORE


def caller(name: str, pool: int, least: int, most: int) -> Service:
    run = operation("run", stage(hard("store.read", "idempotent")), p95="1s", deadline="2s")
    return service(name, run, connection_pool=pool, replicas=Replicas(min=least, max=most))


NODES = (caller("a", 10, 2, 4), caller("b", 5, 1, 1), service("c", READ, connection_pool=9), STORE)


def test_each_service_counts_its_replicas_times_its_pool() -> None:
    """`a` has 2 replicas at least, 4 at most and 5 in a rollout.

    The expected number is 2 + 15 % × (4 − 2) = 2.3.

    `b` has 1 replica, and 2 during a rollout. `c` calls no database.
    """
    found = rows(small_platform(*NODES), "connections", "connections to store")
    assert found == {
        "a": (10, "2..4", 20, pytest.approx(23), 40, 50, 10),
        "b": (5, "1..1", 5, 5, 5, 10, 10),
        "total": (None, "", 25, pytest.approx(28), 45, 60, 200 - 13),
    }


def test_a_pooler_takes_the_clients_and_connects_to_the_server() -> None:
    limits = DatabaseLimits(poolers=2, pool_size=7, max_client_connections=300)
    (table,) = ledger(small_platform(*NODES, database=limits), "connections").tables
    assert table.rows[-1][-1] == 300
    assert (
        "2 poolers × 2 databases × 7 connections = 28 connections to the server. The server admits 200 − 13"
        in table.notes[0]
    )


def test_the_ledger_has_no_limit_for_an_external_server() -> None:
    address = External(host="db.example.com", port=5432, network="10.9.1.0/28")
    nodes = (*NODES[:-1], STORE.model_copy(update={"addresses": (address,)}))
    (table,) = ledger(small_platform(*nodes), "connections").tables
    assert [row[-1] for row in table.rows] == [None] * 3
    assert "external" in table.notes[0]


def test_without_a_database_the_ledger_is_empty() -> None:
    assert ledger(small_platform(service("c", READ)), "connections").tables == ()

"""The ledgers: tables of the platform's connections, capacity, cost and availability.

The rules D01, D02, H03, D04, A01 and A02 check the numbers in the ledgers. To add a column, for example a cost, add a
field to the record that a ledger computes, and a column to its table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stack.audit.ledgers.availability import availability_ledger
from stack.audit.ledgers.capacity import capacity_ledger
from stack.audit.ledgers.connections import connection_ledger
from stack.audit.ledgers.cost import cost_ledger
from stack.audit.ledgers.table import Ledger
from stack.model.platform import Platform

LEDGERS: Mapping[str, Callable[[Platform], Ledger]] = {
    "connections": connection_ledger,
    "capacity": capacity_ledger,
    "cost": cost_ledger,
    "availability": availability_ledger,
}

__all__ = ["LEDGERS"]

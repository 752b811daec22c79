"""The rows of a ledger's table, by their first cell."""

from __future__ import annotations

from stack.audit.ledgers import LEDGERS
from stack.audit.ledgers.table import Cell
from stack.model.platform import Platform


def rows(platform: Platform, ledger: str, title: str) -> dict[Cell, tuple[Cell, ...]]:
    (table,) = [table for table in LEDGERS[ledger](platform).tables if table.title.startswith(title)]
    return {row[0]: row[1:] for row in table.rows}

"""A ledger as text: each table with its title, aligned columns and notes."""

from __future__ import annotations

from collections.abc import Iterator

from stack.audit.ledgers.table import Ledger, Table
from stack.cli.terminal import BOLD, coloured, table, wrapped


def text(ledger: Ledger) -> str:
    """All tables of the ledger, one below the other."""
    return "\n\n".join("\n".join(_lines(each)) for each in ledger.tables) or f"the {ledger.name} ledger is empty"


def _lines(each: Table) -> Iterator[str]:
    yield coloured(each.title, BOLD)
    yield from table([column.name for column in each.columns], each.texts())
    yield from (wrapped(note, "") for note in each.notes)

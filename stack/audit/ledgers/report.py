"""A ledger as Markdown and JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from components.files import file_text
from stack.audit.ledgers.table import Cell, Ledger, Table
from stack.audit.report import markdown_row

__all__ = ["REPORTS", "markdown"]

DIGITS = 9
"""Digits after the point of a number in JSON. Floating-point errors are smaller."""


def markdown(ledger: Ledger) -> str:
    """A section for each table."""
    return (
        "\n\n".join("\n".join(_section(table)) for table in ledger.tables) or f"Nothing is in the {ledger.name} ledger."
    )


def _section(table: Table) -> Iterator[str]:
    yield f"### {table.title[0].upper()}{table.title[1:]}\n"
    yield markdown_row(*(column.name for column in table.columns))
    yield f"|{'|'.join('---:' if column.form else '---' for column in table.columns)}|"
    yield from (markdown_row(*row) for row in table.texts())
    yield from (f"\n{note}" for note in table.notes)


def json(ledger: Ledger) -> str:
    """The tables, with a mapping of column to value for each row."""
    return file_text({"ledger": ledger.name, "tables": [_document(table) for table in ledger.tables]}).rstrip()


def _document(table: Table) -> dict[str, Any]:
    names = [column.name for column in table.columns]
    rows = [dict(zip(names, map(_plain, row), strict=True)) for row in table.rows]
    return {"title": table.title, "rows": rows, "notes": list(table.notes)}


def _plain(cell: Cell) -> Cell:
    return round(cell, DIGITS) if isinstance(cell, float) else cell


REPORTS: Mapping[str, Callable[[Ledger], str]] = {"json": json, "markdown": markdown}

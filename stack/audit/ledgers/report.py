"""A ledger as Markdown and JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from components.files import file_text
from stack.audit.ledgers.table import Cell, Ledger, Table
from stack.audit.report import markdown_row

__all__ = ["REPORTS", "markdown"]

DIGITS = 9
"""Digits after the decimal point of a number in JSON. Rounding to these digits removes floating-point errors."""


def markdown(ledger: Ledger) -> str:
    """The ledger as Markdown, with a section for each table."""
    return "\n\n".join("\n".join(_section(table)) for table in ledger.tables) or f"The {ledger.name} ledger is empty."


def _section(table: Table) -> Iterator[str]:
    yield f"### {table.title[0].upper()}{table.title[1:]}\n"
    yield markdown_row(*(column.name for column in table.columns))
    yield f"|{'|'.join('---:' if column.form else '---' for column in table.columns)}|"
    yield from (markdown_row(*row) for row in table.texts())
    yield from (f"\n{note}" for note in table.notes)


def json(ledger: Ledger) -> str:
    """The ledger as JSON. Each row is a mapping of column to value."""
    return file_text({"ledger": ledger.name, "tables": [_document(table) for table in ledger.tables]}).rstrip()


def _document(table: Table) -> dict[str, Any]:
    names = [column.name for column in table.columns]
    rows = [dict(zip(names, map(_plain, row), strict=True)) for row in table.rows]
    return {"title": table.title, "rows": rows, "notes": list(table.notes)}


def _plain(cell: Cell) -> Cell:
    return round(cell, DIGITS) if isinstance(cell, float) else cell


REPORTS: Mapping[str, Callable[[Ledger], str]] = {"json": json, "markdown": markdown}

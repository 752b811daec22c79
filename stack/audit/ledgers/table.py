"""A ledger: tables of one quantity, such as connections, with totals. Reports print them as text, Markdown or JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Ledger", "Table"]

Cell: TypeAlias = str | int | float | None
"""A value of a row. `None` if the row has no value in the column."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name and the format of its values."""

    name: str
    form: str = ""
    """Format specification of its values, such as `,.2f`."""

    def text(self, value: Cell) -> str:
        """A value as text. A row without a value has `–`."""
        return "–" if value is None else format(value, self.form)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of equal length. Totals are rows, too."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    """Sentences below the table: assumptions, limits, and the arithmetic of totals."""

    def texts(self) -> list[list[str]]:
        """The rows with each value as text."""
        return [[column.text(cell) for column, cell in zip(self.columns, row, strict=True)] for row in self.rows]


@dataclass(frozen=True, slots=True)
class Ledger:
    """The tables of one quantity, such as connections."""

    name: str
    tables: tuple[Table, ...]

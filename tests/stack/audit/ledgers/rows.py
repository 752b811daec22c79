from __future__ import annotations

from stack.audit.ledgers import LEDGERS
from stack.audit.ledgers.report import markdown
from stack.audit.ledgers.table import Cell, Ledger
from stack.model.platform import Platform
from tests.stack.audit.rule_findings import SNAPSHOT_LINES


def ledger(platform: Platform, name: str) -> Ledger:
    found = LEDGERS[name](platform)
    SNAPSHOT_LINES.extend((found.name, *markdown(found).splitlines()))
    return found


def rows(platform: Platform, name: str, title: str) -> dict[Cell, tuple[Cell, ...]]:
    (table,) = [table for table in ledger(platform, name).tables if table.title.startswith(title)]
    return {row[0]: row[1:] for row in table.rows}

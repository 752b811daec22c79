from __future__ import annotations

from json import loads

from stack.audit.ledgers.report import REPORTS, markdown
from stack.audit.ledgers.table import Column, Ledger, Table

COLUMNS = (Column("service"), Column("cores", ",.2f"), Column("pods", ",d"))
TABLE = Table("requests of the workloads", COLUMNS, (("a", 0.1 + 0.2, 2), ("total", None, 1_002)), ("One.", "Two."))
LEDGER = Ledger("capacity", (TABLE, Table("limits", COLUMNS[:1], ())))


def test_markdown_has_a_section_for_each_table() -> None:
    assert markdown(LEDGER) == (
        "### Requests of the workloads\n\n| service | cores | pods |\n|---|---:|---:|\n"
        "| a | 0.30 | 2 |\n| total | – | 1,002 |\n\nOne.\n\nTwo.\n\n### Limits\n\n| service |\n|---|"
    )
    assert markdown(Ledger("cost", ())) == "The cost ledger is empty."


def test_json_rounds_floating_point_errors_away() -> None:
    text = REPORTS["json"](LEDGER)
    assert text == text.rstrip()
    rows = [{"service": "a", "cores": 0.3, "pods": 2}, {"service": "total", "cores": None, "pods": 1002}]
    assert loads(text) == {
        "ledger": "capacity",
        "tables": [
            {"title": "requests of the workloads", "rows": rows, "notes": ["One.", "Two."]},
            {"title": "limits", "rows": [], "notes": []},
        ],
    }

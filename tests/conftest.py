"""Settings of every test."""

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.go_programs"]

# A shared machine makes single examples slow without telling anything of the code.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the ledgers that tests recorded, also those of other processes."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "ledger":
                    terminalreporter.write_line(f"{report.nodeid}: {value}")

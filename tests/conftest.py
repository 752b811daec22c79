"""Settings of every test."""

import pytest
from hypothesis import HealthCheck, settings

from tests import programs

pytest_plugins = ["tests.go_programs"]

# A shared machine makes single examples slow without telling anything of the code.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


def pytest_configure(config: pytest.Config) -> None:
    """Ends the run with one sentence when something is missing that tests start. Workers inherit what was found."""
    if not hasattr(config, "workerinput"):
        try:
            programs.prepare()
        except programs.MissingError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the ledgers that tests recorded, also those of other processes."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "ledger":
                    terminalreporter.write_line(f"{report.nodeid}: {value}")

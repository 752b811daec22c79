"""Settings for every test."""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import programs

pytest_plugins = ["tests.go_programs"]

# On a shared machine single examples may be slow. That says nothing about the code.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


def pytest_xdist_auto_num_workers() -> int:
    """Number of test processes for `-n auto`. Tests spend half of their time waiting for servers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + cores // 2


class Failures:
    """Prints the name of each failure at once; details follow at the end of the run."""

    def __init__(self, config: pytest.Config) -> None:
        self._plugins = config.pluginmanager

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            reason = next((line for line in report.longreprtext.splitlines() if line.startswith("E  ")), "")
            terminal: Any = self._plugins.get_plugin("terminalreporter")
            terminal.write(f"\nFAILED {report.nodeid} ({report.when}) {reason.removeprefix('E').strip()}\n")


def pytest_configure(config: pytest.Config) -> None:
    """Ends the run with one sentence if a required program is missing. Workers inherit the found programs."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Failures(config))
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

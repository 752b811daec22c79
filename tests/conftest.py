import gc
import os
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import programs

pytest_plugins = ["tests.go_programs"]

# Single examples may be slow on a busy machine.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


def pytest_xdist_auto_num_workers() -> int:
    """Two workers for each core, because tests spend half of their time waiting for servers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 2 * cores


def pytest_collection_finish() -> None:
    """Exempt modules and tests from garbage collection, because they live until the end of the run."""
    gc.freeze()


MANY = 20
"""A run of at least this many tests prints a line after each tenth of the tests. A smaller run ends within seconds."""


QUIET_SECONDS = 30
"""If no line was printed for this many seconds, a line is printed when the next test ends."""


class Progress:
    def __init__(self, config: pytest.Config) -> None:
        self._plugins = config.pluginmanager
        self._ended = 0
        self._printed = time.monotonic()

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Print no letter for a test that passed or was skipped, because thousands of letters fill several screens."""
        if report.failed:
            return None
        ended = report.skipped or report.when == "call"
        return (report.outcome, "", report.outcome.upper()) if ended else ("", "", "")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal: Any = self._plugins.get_plugin("terminalreporter")
        if report.failed:
            reason = next((line for line in report.longreprtext.splitlines() if line.startswith("E  ")), "")
            terminal.write(f"\nFAILED {report.nodeid} ({report.when}) {reason.removeprefix('E').strip()}\n")
        if report.when == "teardown":
            self._ended += 1
            tests = terminal._session.testscollected  # noqa: SLF001 - pytest's own progress reads it there
            tenth = self._ended * 10 // tests > (self._ended - 1) * 10 // tests
            if (tests >= MANY and tenth) or time.monotonic() - self._printed > QUIET_SECONDS:
                self._printed = time.monotonic()
                terminal.write(f"{self._ended * 100 // tests:3} % of {tests} tests\n")


def pytest_configure(config: pytest.Config) -> None:
    """End the run with one sentence if a required program is missing. Worker processes do not check again."""
    # By default Python collects garbage after every 700 new objects. These collections take half
    # of the time of a test that renders.
    gc.set_threshold(20_000, 20, 20)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config))
        try:
            programs.prepare()
        except programs.MissingError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "ledger":
                    terminalreporter.write_line(f"{report.nodeid}: {value}")

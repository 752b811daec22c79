"""The pytest plugin for programs that are built from Go modules: a run that lacks them says so and has not passed."""

from __future__ import annotations

import pytest

SKIPPED = pytest.StashKey[str]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says why tests were skipped."""
    if reason := config.stash.get(SKIPPED, ""):
        terminalreporter.section("programs built from Go modules")
        terminalreporter.write_line(f"skipped: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run without the programs ends as one that ran no tests (status 5), not as one that passed."""
    if exitstatus == pytest.ExitCode.OK and SKIPPED in session.config.stash:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED

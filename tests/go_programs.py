"""The pytest plugin for programs from Go modules: a run without these programs reports the reason and does not pass."""

from __future__ import annotations

from typing import Any

import pytest

SKIPPED = pytest.StashKey[str]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if reason := config.stash.get(SKIPPED, ""):
        terminalreporter.section("programs built from Go modules")
        terminalreporter.write_line(f"skipped: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run without the programs ends with the status of a run without tests (5), not with 0."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["skipped"] = session.config.stash.get(SKIPPED, "")
    elif exitstatus == pytest.ExitCode.OK and SKIPPED in session.config.stash:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes the reason over from a worker of pytest-xdist."""
    if reason := getattr(node, "workeroutput", {}).get("skipped"):
        node.config.stash[SKIPPED] = reason

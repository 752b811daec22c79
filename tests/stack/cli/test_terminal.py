from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time

import pytest

from stack.cli.terminal import progress, table
from stack.model.settings import ROOT
from stack.voiceassistant.catalog import SERVICES

COLUMNS = 60


def seen(*arguments: str, **variables: str) -> list[str]:
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    command = [sys.executable, "-m", "stack.cli", *arguments]
    with subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, cwd=ROOT, env={**environment, "TERM": "xterm", **variables}
    ):
        os.close(its)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
    os.close(ours)
    return shown.decode().splitlines()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # on Linux, a read from a terminal fails when its other side is closed
        return b""


def test_output_on_a_terminal_is_coloured_unless_colour_is_off() -> None:
    assert re.fullmatch(r"\x1b\[32mprod: .* rules hold.*\x1b\[0m", seen("check", "prod")[-1])
    assert seen("check", "prod", NO_COLOR="1")[-1].startswith("prod: ")
    assert seen("check", "prod", TERM="dumb")[-1].startswith("prod: ")


def test_long_lines_are_wrapped_to_the_terminals_width() -> None:
    exemptions = [line for line in seen("render", "prod", "-v") if not line.startswith(("\x1b", "prod"))]
    assert len(exemptions) > 20
    assert all(len(line) <= COLUMNS or " " not in line.strip() for line in exemptions)
    assert any(line.startswith("  ") for line in exemptions)


def test_a_result_on_the_terminal_ends_with_a_summary_line() -> None:
    assert seen("graph")[-1] == f"{len(SERVICES)} services with their calls, as mermaid"


class Terminal:
    def __init__(self) -> None:
        self.written = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.written += text


def test_only_long_work_shows_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with progress("waiting for nothing"):
        pass
    assert terminal.written == ""
    monkeypatch.setattr("stack.cli.terminal.PATIENCE", 0.0)
    with progress("rendering prod"):
        while not terminal.written:
            time.sleep(0.001)
    assert terminal.written == "rendering prod …\n"


def test_a_table_has_names_flush_left_and_numbers_flush_right() -> None:
    assert table(("name", "count", "where"), [("a", "1", "here"), ("longer", "100", "there")]) == [
        "name    count  where",
        "a           1  here",
        "longer    100  there",
    ]

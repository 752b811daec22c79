"""Progress, colour and tables for people.

A terminal gets colour, progress and wrapped lines. A pipe gets plain text.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from threading import Timer
from typing import Any, TextIO

PATIENCE = 2.0
"""Seconds after which a terminal shows the current step."""
BOLD, RED, GREEN, YELLOW = "1", "31", "32", "33"


class Parser(argparse.ArgumentParser):
    """Refuses a value that is not among the choices of an argument, and suggests a similar choice if there is one."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            nearest = get_close_matches(str(value), known, n=1)
            hint = f"did you mean {nearest[0]}? " if nearest else ""
            raise argparse.ArgumentError(action, f"is '{value}'; {hint}expected one of {', '.join(known)}")


def coloured(text: str, *codes: str, stream: TextIO | None = None) -> str:
    """`text` with the colours `codes` if `stream` shows colours. The default stream is standard output."""
    shows = (stream or sys.stdout).isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if shows else text


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table. The first and the last column are aligned left, the others right."""
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "  ".join(
            cell if column == len(row) - 1 else cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return [coloured(lines[0], BOLD), *lines[1:]]


def wrapped(text: str, indent: str) -> str:
    """`text`, wrapped at the width of the terminal, with indented continuation lines. In a pipe it stays one line."""
    if not sys.stdout.isatty():
        return text
    columns = max(shutil.get_terminal_size().columns, 2 * len(indent) + 20)
    return textwrap.fill(text, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def close(text: str) -> None:
    """Print a closing line to standard error if that is a terminal. Standard output gets only the result."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{text}\n")


@contextmanager
def progress(doing: str) -> Iterator[None]:
    """Show the current step on a terminal if the step takes longer than `PATIENCE`."""
    timer = Timer(PATIENCE, lambda: sys.stderr.write(f"{doing} …\n"))
    timer.daemon = True
    if sys.stderr.isatty():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()

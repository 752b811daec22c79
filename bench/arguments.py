"""The arguments that several benches share."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError


def add_rounds(parser: ArgumentParser, default: int, meaning: str) -> None:
    """Add the option `--rounds`. Its value is at least 1."""
    parser.add_argument("--rounds", type=_from_1, default=default, help=f"{meaning}; default: {default}")


def _from_1(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f"is {text!r}; expected a whole number from 1")
    return int(text)

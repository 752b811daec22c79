"""Options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from stack.model.platform import Platform

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - argparse has no public name for it
"""The type of the object that `add_subparsers` returns."""
ENVIRONMENT = "the name of an environment, such as prod for Pulumi.prod.yaml"


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    """Add a command. `run` executes it and returns the exit code."""
    added = commands.add_parser(name, help=text, description=text)
    added.set_defaults(run=run)
    return added


def path(text: str) -> Path:
    """A path. Refuses an empty text: an unset shell variable would mean the current directory."""
    if not text:
        raise argparse.ArgumentTypeError("is ''; expected a path")
    return Path(text)


def platform_of(options: argparse.Namespace, environment: str) -> Platform:
    """The tenant's platform in an environment. Raises `InvalidInputError` with every fault of its settings."""
    from stack.model.platform import load_platform  # noqa: PLC0415

    return load_platform(options.tenant(), environment)

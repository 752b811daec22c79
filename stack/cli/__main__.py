"""Run `voice` as `python -m stack.cli`."""

from stack.cli import voice

voice()

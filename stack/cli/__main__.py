"""`python -m stack.cli`: the command without its entry point."""

from stack.cli import voice

voice()

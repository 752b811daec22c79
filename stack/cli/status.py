"""The exit codes of every command."""

import signal

CLEAN = 0
"""The command succeeded, and has nothing to report."""
FINDINGS = 1
"""The command found something, such as a breach, a difference, a call that is not permitted or a missing secret. For
`voice up`: the first request got no answer."""
BAD_INPUT = 2
"""The command line, settings, catalogue or another input is invalid, or a file cannot be read or written."""
DATA_AT_RISK = 3
"""A change would replace, remove or shrink a resource that holds data."""
TERMINATED = 128 + signal.SIGTERM
"""SIGTERM stopped the command. Shells report the same code for a program that a signal ended."""

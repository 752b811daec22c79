"""The exit codes of every command."""

CLEAN = 0
"""The command succeeded, and has nothing to report."""
FINDINGS = 1
"""The command found a breach, a difference, a missing, unread or old secret, a broken contract, or got no answer."""
BAD_INPUT = 2
"""The command line, settings, catalogue or another input is invalid, or a file cannot be read or written."""
DATA_AT_RISK = 3
"""A change would replace, remove or shrink a resource that holds data."""

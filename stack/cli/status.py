"""The exit codes of every command."""

CLEAN = 0
"""All is well."""
FINDINGS = 1
"""A rule has findings, or two sides differ."""
BAD_INPUT = 2
"""The command line, settings, catalogue or another input is invalid, or a file cannot be read or written."""
DATA_AT_RISK = 3
"""A change would replace or remove a resource that holds data."""

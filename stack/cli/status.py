"""The exit codes of every command."""

CLEAN = 0
"""All is well."""
FINDINGS = 1
"""A rule has findings, or two sides differ."""
BAD_INPUT = 2
"""The command line, a file of settings, the catalogue or something else that was read is refused; or a file cannot be
read or written."""
DATA_AT_RISK = 3
"""A change would replace or remove what bears data."""

"""`voice check`: audits an environment."""

from __future__ import annotations

import argparse

from stack.cli.options import ENVIRONMENT, Commands, add_command, platform_of
from stack.cli.status import CLEAN, FINDINGS
from stack.cli.terminal import GREEN, RED, coloured


def add_to(commands: Commands) -> None:
    """Adds the command."""
    check = add_command(commands, "check", run, "Audit an environment; exit 1 if a rule finds something.")
    check.add_argument("environment", metavar="ENV", help=ENVIRONMENT)
    check.add_argument("--format", choices=("text", "json", "markdown"), default="text")


def run(options: argparse.Namespace) -> int:
    """Prints the verdict of each rule."""
    from stack.audit import audit  # noqa: PLC0415
    from stack.audit.report import REPORTS  # noqa: PLC0415

    verdicts = audit(platform_of(options, options.environment))
    findings = sum(len(verdict.findings) for verdict in verdicts)
    print(REPORTS[options.format](verdicts))
    if options.format == "text":
        broken = sum(bool(verdict.findings) for verdict in verdicts)
        said = f"{findings} findings of {broken} rules" if findings else f"{len(verdicts)} rules hold"
        print(coloured(f"{options.environment}: {said}", RED if findings else GREEN))
    return FINDINGS if findings else CLEAN

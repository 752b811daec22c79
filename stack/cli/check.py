"""`voice check`: audits an environment."""

from __future__ import annotations

import argparse
from datetime import UTC, date, datetime

from stack.cli.options import ENVIRONMENT, Commands, add_command, platform_of
from stack.cli.status import CLEAN, FINDINGS


def add_to(commands: Commands) -> None:
    """Adds the command."""
    check = add_command(commands, "check", run, "Audit an environment; exit 1 if a finding is not accepted.")
    check.add_argument("environment", metavar="ENV", help=ENVIRONMENT)
    check.add_argument("--format", choices=("text", "json", "sarif", "markdown"), default="text")
    add_day(check)


def add_day(command: argparse.ArgumentParser) -> None:
    """Adds the day that acceptances are judged on."""
    command.add_argument(
        "--on", type=_day, default=today(), metavar="DATE", help="the day of the audit, as 2027-03-31 (default: today)"
    )


def today() -> date:
    """The day by Greenwich, so that two machines agree."""
    return datetime.now(UTC).date()


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"is {text!r}; expected a day such as 2027-03-31") from None


def run(options: argparse.Namespace) -> int:
    """Prints the findings, or all verdicts as a document."""
    from stack.audit import audit_outcome  # noqa: PLC0415
    from stack.audit.report import REPORTS  # noqa: PLC0415
    from stack.cli.findings import text  # noqa: PLC0415

    outcome = audit_outcome(platform_of(options, options.environment), on=options.on)
    if options.format == "text":
        print(text(options.environment, outcome))
    else:
        print(REPORTS[options.format](outcome))
    return FINDINGS if outcome.fails else CLEAN

"""`voice check`: audits an environment, or a directory of manifests."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from stack.cli.options import ENVIRONMENT, Commands, add_command, path, platform_of
from stack.cli.status import CLEAN, FINDINGS

if TYPE_CHECKING:
    from stack.audit.outcome import Outcome
    from stack.model.platform import Platform


def add_to(commands: Commands) -> None:
    """Adds the command."""
    check = add_command(
        commands,
        "check",
        run,
        "Audit an environment or manifests; exit 1 if a finding above info is not accepted or an acceptance is unused.",
    )
    subject = check.add_mutually_exclusive_group(required=True)
    subject.add_argument("environment", nargs="?", metavar="ENV", help=ENVIRONMENT)
    subject.add_argument(
        "--from",
        type=path,
        dest="manifests",
        metavar="PATH",
        help="audit a file or directory of manifests instead of an environment",
    )
    instead = check.add_mutually_exclusive_group()
    instead.add_argument(
        "--ledger",
        choices=("connections", "capacity", "cost", "availability"),
        help="print one ledger of ENV instead of the audit",
    )
    instead.add_argument(
        "--solve",
        action="store_true",
        help="print the attempts, objectives, timeouts and breakers with which the T, C and R rules hold",
    )
    check.add_argument("--format", choices=("text", "json", "sarif", "markdown"), default="text")
    add_day(check)


def add_day(command: argparse.ArgumentParser) -> None:
    """Add the option `--on`. If the last day of an acceptance is before this day, the acceptance has expired."""
    command.add_argument(
        "--on",
        type=_date,
        metavar="DATE",
        help="the day of the audit, such as 2027-03-31 (default: today)",
    )


def today() -> date:
    """Today in UTC, so that all machines agree."""
    return datetime.now(UTC).date()


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"is {text!r}; expected a day such as 2027-03-31") from None


def run(options: argparse.Namespace) -> int:
    """Prints the audit's outcome, a ledger, or the solver's values."""
    if options.ledger:
        return _print_ledger(options)
    if options.solve:
        return _print_solution(options)
    from stack.audit.report import REPORTS  # noqa: PLC0415
    from stack.cli.findings import text  # noqa: PLC0415

    outcome = _outcome(options)
    if options.format == "text":
        print(text(options.environment or outcome.source, outcome))
    else:
        print(REPORTS[options.format](outcome))
    return FINDINGS if outcome.fails else CLEAN


def _print_ledger(options: argparse.Namespace) -> int:
    from stack.audit.ledgers import LEDGERS  # noqa: PLC0415
    from stack.audit.ledgers.report import REPORTS  # noqa: PLC0415
    from stack.cli.ledgers import text  # noqa: PLC0415

    _refuse_other_options(options, "--ledger", ("text", *REPORTS))
    ledger = LEDGERS[options.ledger](platform_of(options, options.environment))
    print(text(ledger) if options.format == "text" else REPORTS[options.format](ledger))
    return CLEAN


def _print_solution(options: argparse.Namespace) -> int:
    from stack.audit.solver import solve  # noqa: PLC0415
    from stack.audit.solver.report import REPORTS  # noqa: PLC0415

    _refuse_other_options(options, "--solve", REPORTS)
    solution = solve(platform_of(options, options.environment), on=options.on or today())
    print(REPORTS[options.format](solution))
    return CLEAN if solution.clean else FINDINGS


def _refuse_other_options(options: argparse.Namespace, flag: str, formats: Iterable[str]) -> None:
    from voice_policies import Fault, InvalidInputError, one_of  # noqa: PLC0415

    faults = []
    if options.manifests is not None:
        faults.append(Fault(flag, "needs the typed model", "name an ENV in place of --from PATH"))
    if options.format not in formats:
        faults.append(Fault("--format", f"is {options.format!r} with {flag}", one_of(options.format, formats)))
    if options.ledger and options.on:
        faults.append(Fault("--on", "does not change a ledger", "leave out --on"))
    if faults:
        raise InvalidInputError("voice check", faults)


def _outcome(options: argparse.Namespace) -> Outcome:
    if options.manifests is None:
        from stack.audit import audit_outcome  # noqa: PLC0415

        platform = platform_of(options, options.environment)
        _refuse_unread_secrets(platform)
        return audit_outcome(platform, on=options.on or today())
    from stack.audit.manifests import audit_manifests  # noqa: PLC0415
    from stack.model.manifests.system import load_system  # noqa: PLC0415

    return audit_manifests(load_system(options.manifests), on=options.on or today())


def _refuse_unread_secrets(platform: Platform) -> None:
    """Raises `InvalidInputError` with every secret in the environment's file that no component reads."""
    from voice_policies import InvalidInputError  # noqa: PLC0415

    from stack.deploy.stack_secrets import stored, unread_faults  # noqa: PLC0415
    from stack.model.settings import file_of  # noqa: PLC0415

    environment = platform.environment.name
    if faults := list(unread_faults(platform, stored(environment))):
        raise InvalidInputError(file_of(environment), faults)

"""`voice explain`: a rule of the audit, with an example that violates it and one that just holds."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from stack.cli.options import Commands, add_command
from stack.cli.status import CLEAN
from stack.cli.terminal import BOLD, coloured, table, wrapped

if TYPE_CHECKING:
    from stack.audit.finding import Rule


def add_to(commands: Commands) -> None:
    """Adds the command."""
    explain = add_command(commands, "explain", run, "Explain a rule of the audit; without RULE, list them all.")
    explain.add_argument("rule", nargs="?", metavar="RULE", help="the identifier of a rule, such as R01")


def run(options: argparse.Namespace) -> int:
    """Prints one rule, or the list of all."""
    from voice_policies import Fault, InvalidInputError, one_of  # noqa: PLC0415

    from stack.audit import RULES  # noqa: PLC0415

    rules = {rule.id: rule for rule in RULES}
    if options.rule is None:
        print("\n".join(table(("rule", "severity", "condition"), [_row(rules[name]) for name in sorted(rules)])))
    elif (rule := rules.get(options.rule.upper())) is not None:
        print(_text(rule))
    else:
        fault = Fault("RULE", f"is {options.rule!r}", one_of(options.rule.upper(), rules))
        raise InvalidInputError("voice explain", [fault])
    return CLEAN


def _row(rule: Rule) -> tuple[str, str, str]:
    return rule.id, rule.severity, rule.title


def _text(rule: Rule) -> str:
    parts = {
        "severity": rule.severity,
        "rationale": rule.rationale,
        "source": rule.source,
        "violates": rule.violates,
        "holds": rule.holds,
    }
    width = max(map(len, parts)) + 2
    lines = (wrapped(f"{name:<{width}}{value}", " " * width) for name, value in parts.items())
    return "\n".join([coloured(f"{rule.id}: {rule.title}", BOLD), *lines])

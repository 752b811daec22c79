"""`voice explain`: explains a rule of the audit, or the reasons why one service may or may not call another."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from stack.cli.options import ENVIRONMENT, Commands, add_command, platform_of
from stack.cli.status import CLEAN, FINDINGS
from stack.cli.terminal import BOLD, coloured, table, wrapped

if TYPE_CHECKING:
    from stack.audit.finding import Rule
    from stack.model.platform import Platform

PARTS = ("severity", "rationale", "source", "violates", "holds")


def add_to(commands: Commands) -> None:
    """Adds the command."""
    explain = add_command(
        commands,
        "explain",
        run,
        "Explain a rule of the audit, or why X may or may not call Y. Without arguments: list all rules.",
    )
    explain.add_argument("subject", nargs="?", metavar="RULE|X", help="a rule, such as R01, or the calling service")
    explain.add_argument("callee", nargs="?", metavar="Y", help="the callee; both ends may be SERVICE.OPERATION")
    help_text = f"{ENVIRONMENT} (default: the first environment with a strict profile)"
    explain.add_argument("--environment", metavar="ENV", help=help_text)
    explain.add_argument("--format", choices=("text", "json"), default="text")


def run(options: argparse.Namespace) -> int:
    """Print one rule, the list of all rules, or the explanation of a pair; exit 1 if X may not call Y."""
    return _explain_rules(options) if options.callee is None else _explain_pair(options)


def _explain_pair(options: argparse.Namespace) -> int:
    from stack.output.explanation import explain  # noqa: PLC0415
    from stack.output.explanation.report import REPORTS  # noqa: PLC0415

    named = options.environment
    platform = _strict_platform(options) if named is None else platform_of(options, named)
    explanation = explain(platform, options.subject, options.callee)
    print(REPORTS[options.format](explanation))
    return CLEAN if explanation.permitted else FINDINGS


def _strict_platform(options: argparse.Namespace) -> Platform:
    """The first environment whose profile is strict. Raises `InvalidInputError` if no profile is strict."""
    from voice_policies import Fault, InvalidInputError  # noqa: PLC0415

    from stack.model.settings import environments  # noqa: PLC0415

    names = environments()
    for platform in (platform_of(options, name) for name in names):
        if platform.environment.profile.strict:
            return platform
    accepted = f"no profile is strict; expected one of {', '.join(names)}"
    raise InvalidInputError("voice explain", [Fault("--environment", "is missing", accepted)])


def _explain_rules(options: argparse.Namespace) -> int:
    from voice_policies import Fault, InvalidInputError, one_of  # noqa: PLC0415

    from components.files import file_text  # noqa: PLC0415
    from stack.audit import RULES  # noqa: PLC0415

    rules, faults = {rule.id: rule for rule in sorted(RULES, key=lambda rule: rule.id)}, []
    if options.environment is not None:
        faults.append(Fault("--environment", "does not change a rule", "leave out --environment, or name X and Y"))
    if options.subject is not None:
        name = options.subject.upper()
        if name not in rules:
            accepted = f"{one_of(name, rules)}; or two names, as in `voice explain rag-engine model-adapter`"
            faults.append(Fault("RULE", f"is {options.subject!r}", accepted))
        rules = {id_: rule for id_, rule in rules.items() if id_ == name}
    if faults:
        raise InvalidInputError("voice explain", faults)
    if options.format == "json":
        print(file_text({"rules": [_document(rule) for rule in rules.values()]}).rstrip())
    elif options.subject is None:
        print("\n".join(table(("rule", "severity", "condition"), map(_row, rules.values()))))
    else:
        print("\n".join(map(_text, rules.values())))
    return CLEAN


def _row(rule: Rule) -> tuple[str, str, str]:
    return rule.id, rule.severity, rule.title


def _document(rule: Rule) -> dict[str, str]:
    return {"rule": rule.id, "title": rule.title, **{name: getattr(rule, name) for name in PARTS}}


def _text(rule: Rule) -> str:
    width = max(map(len, PARTS)) + 2
    lines = (wrapped(f"{name:<{width}}{getattr(rule, name)}", " " * width) for name in PARTS)
    return "\n".join([coloured(f"{rule.id}: {rule.title}", BOLD), *lines])

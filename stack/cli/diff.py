"""`voice diff`: compares two platforms."""

from __future__ import annotations

import argparse
import sys

from stack.cli.options import ENVIRONMENT, Commands, add_command
from stack.cli.status import CLEAN, DATA_AT_RISK, FINDINGS
from stack.cli.terminal import progress


def add_to(commands: Commands) -> None:
    """Adds the command."""
    diff = add_command(commands, "diff", run, "Compare two platforms; exit 1 if they differ, 3 if data is at risk.")
    for side in ("A", "B"):
        diff.add_argument(side.lower(), metavar=side, help=f"{ENVIRONMENT}, a rendered directory, or REVISION:ENV")
    diff.add_argument("--format", choices=("text", "json", "markdown"), default="text")
    diff.add_argument(
        "--allow-replacement",
        action="store_true",
        help="accept that data-bearing resources are replaced, removed or shrunk",
    )


def run(options: argparse.Namespace) -> int:
    """Print the differences. If data is at risk without `--allow-replacement`, repeat the risks on stderr."""
    from stack.model.refusals import Refusals  # noqa: PLC0415
    from stack.output.difference import compare  # noqa: PLC0415
    from stack.output.difference.report import REPORTS  # noqa: PLC0415
    from stack.output.difference.sides import side_of  # noqa: PLC0415

    sides, refusals = [], Refusals("voice diff")
    for side in (options.a, options.b):
        with progress(f"rendering {side}"), refusals.collected():
            sides.append(side_of(side, options.tenant()))
    refusals.raise_collected()
    difference = compare(*sides)
    print(REPORTS[options.format](difference))
    if difference.data_at_risk and not options.allow_replacement:
        at_risk = "\n  ".join(str(risk) for risk in difference.data_at_risk)
        sys.stderr.write(f"voice: data is at risk; pass --allow-replacement to accept this\n  {at_risk}\n")
        return DATA_AT_RISK
    return FINDINGS if difference else CLEAN

"""`voice conform`: checks a running service against the contract of services."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from stack.cli.options import Commands, add_command, path
from stack.cli.status import CLEAN, FINDINGS
from stack.cli.terminal import close

if TYPE_CHECKING:
    from stack.deploy.conformance import Missing


def add_to(commands: Commands) -> None:
    """Adds the command."""
    conform = add_command(
        commands,
        "conform",
        run,
        "Check that a running service follows the contract of services (docs/go.md); exit 1 if not.",
    )
    conform.add_argument("url", metavar="URL", help="address of the HTTP port, such as http://127.0.0.1:8080")
    conform.add_argument(
        "--bundle",
        type=path,
        metavar="FILE",
        help="the service's policy.json, to check that each operation and soft call has its metric series",
    )
    conform.add_argument("--grpc", metavar="HOST:PORT", help="address of the gRPC port, to call the health service")
    conform.add_argument(
        "--logs", type=path, metavar="FILE", help="file with the service's standard output, to check the log lines"
    )
    conform.add_argument(
        "--drain",
        type=int,
        metavar="PID",
        help="the service's process id; after all other checks, send SIGTERM and check the drain",
    )


def run(options: argparse.Namespace) -> int:
    """Print each part of the contract that the service does not keep. A wrong option prevents the drain."""
    from stack.deploy.conformance import missing_on_drain  # noqa: PLC0415

    missing = _missing_without_drain(options)
    if options.drain is not None:
        missing += missing_on_drain(options.url, options.drain)
    for part in missing:
        print(part)
    if not missing:
        close(f"{options.url} keeps the checked parts of the contract")
    return FINDINGS if missing else CLEAN


def _missing_without_drain(options: argparse.Namespace) -> list[Missing]:
    """The parts of the contract that the running service lacks. Raises `InvalidInputError` with every wrong option."""
    from stack.deploy.conformance import (  # noqa: PLC0415
        missing_in_logs,
        missing_over_grpc,
        missing_over_http,
        read_bundle,
        signal_process,
    )
    from stack.model.refusals import Refusals  # noqa: PLC0415

    refusals, bundle = Refusals("voice conform"), None
    missing: list[Missing] = []
    with refusals.collected():
        bundle = None if options.bundle is None else read_bundle(options.bundle)
    with refusals.collected():
        missing += missing_over_http(options.url, bundle)
    with refusals.collected():
        missing += () if options.grpc is None else missing_over_grpc(options.grpc)
    with refusals.collected():
        missing += () if options.logs is None else missing_in_logs(options.logs)
    with refusals.collected():
        if options.drain is not None:
            signal_process(options.drain)
    refusals.raise_collected()
    return missing

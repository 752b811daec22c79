"""`voice conform`: checks a running service against the contract of services."""

from __future__ import annotations

import argparse

from stack.cli.options import Commands, add_command, path
from stack.cli.status import CLEAN, FINDINGS
from stack.cli.terminal import close


def add_to(commands: Commands) -> None:
    """Adds the command."""
    conform = add_command(
        commands,
        "conform",
        run,
        "Check that a running service keeps the contract of services (docs/go.md); exit 1 if not.",
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
    """Print each part of the contract that the service does not keep."""
    from stack.deploy.conformance import (  # noqa: PLC0415
        missing_in_logs,
        missing_of_bundle,
        missing_on_drain,
        missing_over_grpc,
        missing_over_http,
    )

    missing = list(missing_over_http(options.url))
    if options.bundle is not None:
        missing += missing_of_bundle(options.url, options.bundle)
    if options.grpc is not None:
        missing += missing_over_grpc(options.grpc)
    if options.logs is not None:
        missing += missing_in_logs(options.logs)
    if options.drain is not None:
        missing += missing_on_drain(options.url, options.drain)
    for part in missing:
        print(part)
    if not missing:
        close(f"{options.url} keeps the checked parts of the contract")
    return FINDINGS if missing else CLEAN

"""`voice`: render the platform, check it, draw it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from voice_policies import InvalidInputError, faults_of

if TYPE_CHECKING:
    from stack.audit import Verdict
    from stack.topology import Platform

CLEAN, FINDINGS, BAD_INPUT = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: 0 is clean, 1 findings or differences, 2 usage or bad input."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        code = run(options)
        sys.stdout.flush()
    except InvalidInputError as error:
        sys.stderr.write(f"voice: {error}\n")
    except ValidationError as error:
        sys.stderr.write(f"voice: {InvalidInputError(error.title, faults_of(error))}\n")
    except BrokenPipeError:
        # The reader of our pipe has seen enough; without this Python complains while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLEAN
    else:
        return code
    return BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="voice", description="VoiceAssistant's platform: one typed model, many projections."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    render = command("render", _render, "Write an environment's manifests and policy bundles.")
    render.add_argument("environment", metavar="ENV", help="dev, staging or prod")
    render.add_argument("-o", "--out", type=Path, metavar="DIR", help="where to (default: build/ENV)")
    check = command("check", _check, "Audit an environment; exit 1 if a rule finds something.")
    check.add_argument("environment", metavar="ENV", help="dev, staging or prod")
    check.add_argument("--format", choices=("text", "json", "markdown"), default="text")
    graph = command("graph", _graph, "Print the call graph.")
    graph.add_argument("--format", choices=("mermaid", "json"), default="mermaid")
    command("docs", _docs, "Write docs/architecture.md.")
    command("schema", _schema, "Write policies/policy-bundle.schema.json.")
    return parser


def _platform(name: str) -> Platform:
    from stack.environments import environment  # noqa: PLC0415 - each command loads what it needs: `--help` answers at once
    from stack.settings import load_settings  # noqa: PLC0415
    from stack.topology import Platform, call_graph  # noqa: PLC0415

    return Platform(call_graph(), environment(load_settings(name)))


def _render(options: argparse.Namespace) -> int:
    from stack.audit import audit  # noqa: PLC0415
    from stack.render import render  # noqa: PLC0415

    started = time.perf_counter()
    platform = _platform(options.environment)
    written = render(platform, options.out or Path("build", options.environment))
    findings = [finding for verdict in audit(platform) for finding in verdict.findings]
    seconds = time.perf_counter() - started
    print(
        f"{options.environment}: {written.components} components, {written.resources} resources, "
        f"{written.files} files, {len(findings)} findings, {seconds:.2f} s → {written.path}"
    )
    unpinned = [service.image for service in platform.microservices if "@" not in service.image]
    if unpinned:
        print(f"  {len(unpinned)} images are not pinned by digest, such as {unpinned[0]}")
    for component in platform.components:
        for exemption in component.exemptions:
            print(f"  {component.name}: {exemption.rule} is given up: {exemption.reason}")
    if findings:
        print(f"  see `voice check {options.environment}`")
    return CLEAN


def _check(options: argparse.Namespace) -> int:
    from stack.audit import audit  # noqa: PLC0415
    from stack.audit.report import REPORTS  # noqa: PLC0415

    verdicts: tuple[Verdict, ...] = audit(_platform(options.environment))
    print(REPORTS[options.format](verdicts))
    return FINDINGS if any(verdict.findings for verdict in verdicts) else CLEAN


def _graph(options: argparse.Namespace) -> int:
    from components.policy_config import file_text  # noqa: PLC0415
    from stack.diagrams import component_diagram, graph_document  # noqa: PLC0415
    from stack.topology import call_graph  # noqa: PLC0415

    graph = call_graph()
    print(component_diagram(graph) if options.format == "mermaid" else file_text(graph_document(graph)).rstrip())
    return CLEAN


def _docs(_options: argparse.Namespace) -> int:
    from stack.documents import ARCHITECTURE, architecture  # noqa: PLC0415
    from stack.topology import call_graph  # noqa: PLC0415

    return _write(ARCHITECTURE, architecture(call_graph()))


def _schema(_options: argparse.Namespace) -> int:
    from stack.documents import SCHEMA, bundle_schema  # noqa: PLC0415

    return _write(SCHEMA, bundle_schema())


def _write(path: Path, text: str) -> int:
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path.name}")
    return CLEAN


if __name__ == "__main__":
    sys.exit(main())

"""`voice graph`: prints the call graph."""

from __future__ import annotations

import argparse

from stack.cli.options import Commands, add_command
from stack.cli.status import CLEAN
from stack.cli.terminal import close


def add_to(commands: Commands) -> None:
    """Adds the command."""
    graph = add_command(commands, "graph", run, "Print the call graph.")
    graph.add_argument("--format", choices=("mermaid", "json"), default="mermaid")


def run(options: argparse.Namespace) -> int:
    """Prints a diagram or a document."""
    from components.files import file_text  # noqa: PLC0415
    from stack.output.diagrams import component_diagram, graph_document  # noqa: PLC0415

    graph = options.tenant().graph
    print(component_diagram(graph) if options.format == "mermaid" else file_text(graph_document(graph)).rstrip())
    close(f"{sum(1 for _ in graph.services)} services with their calls, as {options.format}")
    return CLEAN

"""`voice render`: writes manifests and policy bundles."""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack.cli.check import add_day, today
from stack.cli.options import Commands, add_command, path, platform_of
from stack.cli.status import CLEAN, FINDINGS
from stack.cli.terminal import RED, coloured, progress, table, wrapped

HEAD = ("environment", "components", "resources", "files", "findings", "time", "written to")


@dataclass(frozen=True)
class Rendered:
    """Counts of one rendered environment, for the summary."""

    environment: str
    components: int
    resources: int
    files: int
    findings: int
    """Findings above `info` that nobody accepts."""
    errors: int
    """Findings of severity error or critical that nobody accepts."""
    seconds: float
    path: str
    exemptions: tuple[tuple[str, str, str], ...]
    """Component, rule and reason of each exemption."""
    others: tuple[str, ...]
    """Files and directories in `path` that `voice render` did not write. It never deletes them."""
    unpinned: tuple[str, ...]
    """Images without a digest."""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    description = "Write manifests and policy bundles; exit 1 for an unaccepted finding of severity error or critical."
    render = add_command(commands, "render", run, description)
    render.add_argument(
        "environments", nargs="*", metavar="ENV", help="names such as prod for Pulumi.prod.yaml (default: all)"
    )
    render.add_argument("-o", "--out", type=path, metavar="DIR", help="directory, for one ENV (default: build/ENV)")
    render.add_argument("-v", "--verbose", action="store_true", help="list exemptions and images without a digest")
    render.add_argument("--format", choices=("text", "json"), default="text")
    add_day(render)


def run(options: argparse.Namespace) -> int:
    """Write each environment, then print a summary."""
    from voice_policies import Fault, InvalidInputError  # noqa: PLC0415

    from stack.model.settings import environments  # noqa: PLC0415

    names = options.environments or environments()
    if options.out and len(names) != 1:
        accepted = "expected one ENV with --out; without --out each environment goes to build/ENV"
        fault = Fault("--out", f"is one directory for {len(names)} environments", accepted)
        raise InvalidInputError("voice render", [fault])
    rendered = []
    for name in names:
        with progress(f"rendering {name}"):
            rendered.append(_render(options, name, options.out or Path("build", name)))
    print(_json(rendered) if options.format == "json" else _text(rendered, verbose=options.verbose))
    return FINDINGS if any(each.errors for each in rendered) else CLEAN


def _render(options: argparse.Namespace, name: str, out: Path) -> Rendered:
    from stack.audit import audit_outcome  # noqa: PLC0415
    from stack.output.render import render  # noqa: PLC0415

    started = time.perf_counter()
    platform = platform_of(options, name)
    index = render(platform, out)
    outcome = audit_outcome(platform, on=options.on or today())
    return Rendered(
        environment=name,
        components=len(platform.components),
        resources=len(index.entries),
        files=index.count,
        findings=len(outcome.open),
        errors=len(outcome.grave),
        seconds=time.perf_counter() - started,
        path=str(out),
        exemptions=tuple(
            (component.name, exemption.rule, exemption.reason)
            for component in platform.components
            for exemption in component.exemptions
        ),
        others=index.others,
        unpinned=tuple(index.unpinned),
    )


def _text(rendered: Sequence[Rendered], *, verbose: bool) -> str:
    head, *lines = table(HEAD, [_row(each) for each in rendered])
    body = (coloured(line, RED) if each.findings else line for line, each in zip(lines, rendered, strict=True))
    others = (
        f"{each.path} also has files that `voice render` did not write: {', '.join(each.others)}"
        for each in rendered
        if each.others
    )
    return "\n".join([head, *body, *others, *(_details(rendered) if verbose else _closing(rendered))])


def _row(each: Rendered) -> tuple[str, ...]:
    counts = (each.components, each.resources, each.files, each.findings)
    return (each.environment, *map(str, counts), f"{each.seconds:.1f} s", each.path)


def _closing(rendered: Sequence[Rendered]) -> Iterator[str]:
    for each in rendered:
        if each.findings:
            yield f"`voice check {each.environment}` explains the findings."
    exemptions = {exemption for each in rendered for exemption in each.exemptions}
    unpinned = {image for each in rendered for image in each.unpinned}
    if exemptions or unpinned:
        yield f"{len(exemptions)} exemptions, {len(unpinned)} images without a digest: `voice render -v` lists them."


def _details(rendered: Sequence[Rendered]) -> Iterator[str]:
    """Each exemption and each image without a digest, once. If some environments lack it, the others are named."""
    facts: dict[str, list[str]] = defaultdict(list)
    for each in rendered:
        for component, rule, reason in each.exemptions:
            facts[f"{component}: exempt from {rule}: {reason}"].append(each.environment)
        for image in each.unpinned:
            facts[f"{image}: without a digest"].append(each.environment)
    for fact, names in facts.items():
        yield wrapped(fact if len(names) == len(rendered) else f"{fact} ({', '.join(names)})", "  ")


def _json(rendered: Sequence[Rendered]) -> str:
    from components.files import file_text  # noqa: PLC0415

    return file_text({"environments": [_document(each) for each in rendered]}).rstrip()


def _document(each: Rendered) -> dict[str, Any]:
    exemptions = [dict(zip(("component", "rule", "reason"), found, strict=True)) for found in each.exemptions]
    return {**vars(each), "seconds": round(each.seconds, 3), "exemptions": exemptions}

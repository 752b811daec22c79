"""`voice`: render the platform, check it, draw it."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from stack.audit import Verdict
    from stack.model.platform import Platform
    from stack.model.tenant import Tenant

CLEAN, FINDINGS, BAD_INPUT = 0, 1, 2
ENVIRONMENT = "the name of an environment, such as prod for Pulumi.prod.yaml"


def _voiceassistant() -> Tenant:
    from stack.voiceassistant import TENANT  # noqa: PLC0415

    return TENANT


def voice(arguments: Sequence[str] | None = None, tenant: Callable[[], Tenant] = _voiceassistant) -> NoReturn:
    """The command: `main` in a process of its own.

    Such a process lives for a second and drops little. Looking for garbage, at last when it ends, would cost it a
    third of its time, and looking for pydantic's plugins, of which none is used, some milliseconds more.
    """
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    status = main(arguments, tenant)
    gc.freeze()
    sys.exit(status)


def main(arguments: Sequence[str] | None = None, tenant: Callable[[], Tenant] = _voiceassistant) -> int:
    """Run one command on a tenant: 0 is clean, 1 findings or differences, 2 usage or bad input."""
    options = _parser().parse_args(arguments, argparse.Namespace(tenant=tenant))
    # Each command loads what it needs, and only when its arguments are known to be right: `--help` answers at once.
    from pydantic import ValidationError  # noqa: PLC0415
    from voice_policies import InvalidInputError, faults_of  # noqa: PLC0415

    run: Callable[[argparse.Namespace], int] = options.run
    try:
        code = run(options)
        sys.stdout.flush()
    except InvalidInputError as error:
        sys.stderr.write(f"voice: {error}\n")
    except ValidationError as error:
        sys.stderr.write(f"voice: {InvalidInputError(error.title, faults_of(error))}\n")
    except KeyboardInterrupt:
        sys.stderr.write("voice: interrupted\n")
    except BrokenPipeError:
        # The reader of our pipe has seen enough; without this Python complains while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLEAN
    except OSError as error:
        sys.stderr.write(f"voice: {error.filename or 'the output'} cannot be written: {error.strerror}\n")
        # What is left in the buffer cannot be written either, and Python would complain of it again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        return code
    return BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="voice", description="VoiceAssistant's platform: one typed model, many projections."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    render = _command(commands, "render", _render, "Write an environment's manifests and policy bundles.")
    render.add_argument("environment", metavar="ENV", help=ENVIRONMENT)
    render.add_argument("-o", "--out", type=Path, metavar="DIR", help="where to (default: build/ENV)")
    check = _command(commands, "check", _check, "Audit an environment; exit 1 if a rule finds something.")
    check.add_argument("environment", metavar="ENV", help=ENVIRONMENT)
    check.add_argument("--format", choices=("text", "json", "markdown"), default="text")
    graph = _command(commands, "graph", _graph, "Print the call graph.")
    graph.add_argument("--format", choices=("mermaid", "json"), default="mermaid")
    diff = _command(commands, "diff", _diff, "Compare two platforms; exit 1 if they differ, 2 if data is at risk.")
    for side in ("A", "B"):
        diff.add_argument(side.lower(), metavar=side, help=f"{ENVIRONMENT}, a rendered directory, or REVISION:ENV")
    diff.add_argument("--format", choices=("text", "json", "markdown"), default="text")
    diff.add_argument(
        "--allow-replacement", action="store_true", help="accept that data-bearing resources are replaced or removed"
    )
    images = commands.add_parser("images", help="Pin every image by digest.").add_subparsers(
        required=True, metavar="DO"
    )
    _command(images, "lock", _lock_images, "Ask the registries for every digest and write images.lock.yaml.")
    _command(images, "check", _check_images, "Compare images.lock.yaml with the platform; exit 1 if they differ.")
    _command(commands, "docs", _docs, "Write docs/architecture.md, docs/alerts.md and docs/images.md.")
    _command(commands, "schema", _schema, "Write policies/policy-bundle.schema.json.")
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    added = commands.add_parser(name, help=text, description=text)
    added.set_defaults(run=run)
    return added


def _platform(options: argparse.Namespace) -> Platform:
    from stack.model.environments import load_environment  # noqa: PLC0415
    from stack.model.platform import Platform  # noqa: PLC0415

    tenant = options.tenant()
    return Platform(tenant, load_environment(options.environment, tenant))


def _render(options: argparse.Namespace) -> int:
    from stack.audit import audit  # noqa: PLC0415
    from stack.output.render import render  # noqa: PLC0415

    started = time.perf_counter()
    platform = _platform(options)
    out = options.out or Path("build", options.environment)
    index = render(platform, out)
    findings = [finding for verdict in audit(platform) for finding in verdict.findings]
    seconds = time.perf_counter() - started
    print(
        f"{options.environment}: {len(platform.components)} components, {len(index.entries)} resources, "
        f"{index.files} files, {len(findings)} findings, {seconds:.2f} s → {out}"
    )
    if unpinned := index.unpinned:
        print(f"  {len(unpinned)} images are not pinned by digest, such as {unpinned[0]}")
    for component in platform.components:
        for exemption in component.exemptions:
            print(f"  {component.name}: exempt from {exemption.rule}: {exemption.reason}")
    if findings:
        print(f"  see `voice check {options.environment}`")
    return CLEAN


def _check(options: argparse.Namespace) -> int:
    from stack.audit import audit  # noqa: PLC0415
    from stack.audit.report import REPORTS  # noqa: PLC0415

    verdicts: tuple[Verdict, ...] = audit(_platform(options))
    print(REPORTS[options.format](verdicts))
    return FINDINGS if any(verdict.findings for verdict in verdicts) else CLEAN


def _graph(options: argparse.Namespace) -> int:
    from components.files import file_text  # noqa: PLC0415
    from stack.output.diagrams import component_diagram, graph_document  # noqa: PLC0415

    graph = options.tenant().graph
    print(component_diagram(graph) if options.format == "mermaid" else file_text(graph_document(graph)).rstrip())
    return CLEAN


def _diff(options: argparse.Namespace) -> int:
    from stack.output.difference import compare  # noqa: PLC0415
    from stack.output.difference.report import REPORTS  # noqa: PLC0415
    from stack.output.difference.sides import resources_of  # noqa: PLC0415

    difference = compare(*(resources_of(side, options.tenant()) for side in (options.a, options.b)))
    print(REPORTS[options.format](difference))
    if difference.data_at_risk and not options.allow_replacement:
        at_risk = "\n  ".join(str(risk) for risk in difference.data_at_risk)
        sys.stderr.write(f"voice: data is at risk; --allow-replacement goes on\n  {at_risk}\n")
        return BAD_INPUT
    return FINDINGS if difference else CLEAN


def _images(options: argparse.Namespace) -> set[str]:
    """The images of every environment, by tag."""
    from stack.model.environments import environment  # noqa: PLC0415
    from stack.model.image_lock import UNLOCKED, images  # noqa: PLC0415
    from stack.model.platform import Platform  # noqa: PLC0415
    from stack.model.settings import environments, load_settings  # noqa: PLC0415

    tenant = options.tenant()
    # A stand-in for the services' own images is nobody's to lock.
    update = {"reference_image": None}
    settings = [load_settings(name, tenant).model_copy(update=update) for name in environments()]
    platforms = [Platform(tenant, environment(each, tenant, UNLOCKED)) for each in settings]
    return {
        image for platform in platforms for component in platform.components for image in images(component.resources())
    }


def _lock_images(options: argparse.Namespace) -> int:
    from stack.deploy.registry import Registry  # noqa: PLC0415
    from stack.model.image_lock import LOCK, ImageLock  # noqa: PLC0415

    digests = Registry().digests(_images(options), lambda line: sys.stderr.write(f"{line}\n"))
    ImageLock(digests=digests).write(LOCK)
    print(f"wrote {LOCK.name}: {len(digests)} images")
    return CLEAN


def _check_images(options: argparse.Namespace) -> int:
    from stack.model.image_lock import load_lock  # noqa: PLC0415

    references = _images(options)
    differences = list(load_lock().differences(references))
    print("\n".join(differences) or f"{len(references)} images are pinned by digest")
    return FINDINGS if differences else CLEAN


def _docs(options: argparse.Namespace) -> int:
    from stack.output.documents import (  # noqa: PLC0415
        ALERTS,
        ARCHITECTURE,
        IMAGES,
        alert_list,
        architecture,
        third_party_images,
    )

    tenant = options.tenant()
    _write(ARCHITECTURE, architecture(tenant))
    _write(ALERTS, alert_list(tenant.alerting))
    return _write(IMAGES, third_party_images())


def _schema(_options: argparse.Namespace) -> int:
    from stack.output.documents import SCHEMA, bundle_schema  # noqa: PLC0415

    return _write(SCHEMA, bundle_schema())


def _write(path: Path, text: str) -> int:
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path.name}")
    return CLEAN

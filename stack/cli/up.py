"""`voice up` and `voice down`: deploy an environment from this machine and send it one request, or remove it again."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from stack.cli import secrets
from stack.cli.options import ENVIRONMENT, Commands, add_command, platform_of
from stack.cli.status import CLEAN, FINDINGS

if TYPE_CHECKING:
    from stack.deploy.first_answer import Request
    from stack.deploy.workstation import Workstation
    from stack.model.platform import Platform

CONTEXT = "a context of the kubeconfig (default: the kind cluster that `voice up` creates)"


def add_to(commands: Commands) -> None:
    """Adds the commands."""
    up = add_command(commands, "up", _up, "Deploy an environment from this machine, and send it one request.")
    up.add_argument("environment", metavar="ENV", help=ENVIRONMENT)
    up.add_argument("--context", type=_context, help=CONTEXT)
    up.add_argument(
        "--image", type=_image, help="an image for all services (default: the reference service, built here)"
    )
    down = add_command(commands, "down", _down, "Remove what `voice up` deployed, and the cluster that it created.")
    down.add_argument("environment", metavar="ENV", help=ENVIRONMENT)
    down.add_argument("--context", type=_context, help=CONTEXT)


def _context(text: str) -> str:
    """A context. Refuses an empty text, such as an unset shell variable, because `""` would mean the kind cluster."""
    if not text:
        raise argparse.ArgumentTypeError("is ''; expected the name of a context")
    return text


def _image(text: str) -> str:
    """An image that the setting `reference_image` accepts. Refuses other images before the command creates anything."""
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415
    from voice_policies import faults_of  # noqa: PLC0415

    from stack.model.settings import ReferenceImage  # noqa: PLC0415

    try:
        return TypeAdapter[str](ReferenceImage).validate_python(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError("; ".join(map(str, faults_of(error)))) from None


def _up(options: argparse.Namespace) -> int:
    environment = options.environment
    workstation = _workstation("voice up", options, platform_of(options, environment))
    workstation.require(builds_image=options.image is None)
    workstation.create_cluster()
    image = options.image or workstation.build_image()
    workstation.create_stack(image)
    asked = argparse.Namespace(environment=environment, tenant=options.tenant, check=False, rotate=[], older_than=None)
    if (status := secrets.run(asked)) != CLEAN:
        return status
    workstation.run("pulumi", "up", "--yes", "--skip-preview", "--stack", environment)
    shown = json.loads(workstation.run("pulumi", "stack", "output", "--json", "--stack", environment, shows=False))
    for name, gateway in shown["gateway_addresses"].items():
        print(f"{name}: {gateway['url']}")
    return _first_answer(platform_of(options, environment), workstation)


def _down(options: argparse.Namespace) -> int:
    workstation = _workstation("voice down", options, platform_of(options, options.environment))
    workstation.require(builds_image=False)
    workstation.remove()
    print(f"{options.environment}: removed")
    return CLEAN


def _workstation(command: str, options: argparse.Namespace, platform: Platform) -> Workstation:
    """The deployment from this machine. Raises `InvalidInputError` if the environment needs real secrets."""
    from voice_policies import Fault, InvalidInputError  # noqa: PLC0415

    from stack.deploy.workstation import Workstation  # noqa: PLC0415

    profile = platform.environment.profile
    if not profile.stand_in_secrets:
        accepted = "expected an environment whose secrets may be stand-ins, such as dev; for others see docs/deploy.md"
        raise InvalidInputError(command, [Fault("ENV", f"has the profile {profile.name}", accepted)])
    return Workstation(command, options.environment, options.context)


def _first_answer(platform: Platform, workstation: Workstation) -> int:
    from stack.deploy.first_answer import AnswerError, ask, first_request  # noqa: PLC0415

    request: Request | None = first_request(platform)
    if request is None:
        return CLEAN
    try:
        status = ask(request, workstation.context)
    except AnswerError as error:
        sys.stderr.write(f"voice: no answer to {request}: {error}\n")
        return FINDINGS
    print(f"{request}: {status}")
    print(f"to repeat: {request.by_hand(workstation.context)}")
    return CLEAN

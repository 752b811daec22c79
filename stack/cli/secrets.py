"""`voice secrets`: generates, asks for and rotates the secrets of an environment."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from stack.cli.options import ENVIRONMENT, Commands, add_command, platform_of
from stack.cli.status import CLEAN, FINDINGS
from stack.cli.terminal import wrapped

if TYPE_CHECKING:
    from components.secret_keys import SecretKeys
    from stack.deploy.stack_secrets import SecretKey
    from stack.model.platform import Platform


def add_to(commands: Commands) -> None:
    """Adds the command."""
    text = "Generate an environment's missing secrets, ask for values that only their owner knows, and encrypt all."
    secrets = add_command(commands, "secrets", run, text)
    secrets.add_argument("environment", metavar="ENV", help=ENVIRONMENT)
    either = secrets.add_mutually_exclusive_group()
    either.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit 1 if a secret is missing, too old (`--older-than`), or read by no component",
    )
    either.add_argument(
        "--rotate", action="append", default=[], metavar="SECRET", help="also replace every value of this secret"
    )
    secrets.add_argument(
        "--older-than",
        metavar="AGE",
        help="also replace secrets that have no recorded write in the last AGE, such as 90d; `--check` only lists them",
    )


def run(options: argparse.Namespace) -> int:
    """Write missing and rotated secrets, or check the stored secrets. Prints names, never values."""
    from stack.deploy.stack_secrets import missing_faults, stored, unread_faults  # noqa: PLC0415

    environment = options.environment
    platform = platform_of(options, environment)
    rotated = _rotated(platform, options)
    present = stored(environment)
    if options.check:
        faults = [str(fault) for each in (missing_faults, unread_faults) for fault in each(platform, present)]
        faults += [f"{name}: no write in the last {options.older_than} is recorded" for name in rotated]
        checked = f"missing, unused or older than {options.older_than}" if options.older_than else "missing or unused"
        print("\n".join(faults) or f"{environment}: no secret is {checked}")
        return FINDINGS if faults else CLEAN
    wanted = list(_secrets_to_write(platform.secrets, present, rotated))
    return _write(platform, wanted)


def _rotated(platform: Platform, options: argparse.Namespace) -> list[str]:
    """The secrets to replace completely. Raises `InvalidInputError` for an unknown secret or a malformed age."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from voice_policies import Duration, Fault, InvalidInputError, one_of  # noqa: PLC0415

    from stack.deploy.stack_secrets import overdue  # noqa: PLC0415

    known = [secret.name for secret in platform.secrets]
    faults = [Fault("--rotate", f"is {name!r}", one_of(name, known)) for name in options.rotate if name not in known]
    found = list(options.rotate)
    if options.older_than is not None:
        try:
            found += overdue(platform, Duration(options.older_than), datetime.now(UTC).date())
        except ValueError as error:
            faults.append(Fault("--older-than", f"is {options.older_than!r}", str(error)))
    if faults:
        raise InvalidInputError("voice secrets", faults)
    return list(dict.fromkeys(found))


def _secrets_to_write(
    secrets: Iterable[SecretKeys], present: Collection[SecretKey], rotated: Collection[str]
) -> Iterator[SecretKeys]:
    """The secrets that need values, each with only the keys to write.

    A certificate, its private key and its CA certificate are replaced together.
    """
    from stack.deploy.secret_values import ISSUED  # noqa: PLC0415

    for secret in secrets:
        kept = {each.key for each in present if each.secret == secret.name and secret.name not in rotated}
        missing = {key for key in secret.keys if key not in kept}
        if any(secret.form(key).kind in ISSUED for key in missing):
            missing |= {key for key in secret.keys if secret.form(key).kind in ISSUED}
        if missing:
            yield secret.model_copy(update={"keys": tuple(key for key in secret.keys if key in missing)})


def _write(platform: Platform, wanted: Collection[SecretKeys]) -> int:
    from datetime import UTC, datetime  # noqa: PLC0415

    from stack.deploy.secret_values import generated  # noqa: PLC0415
    from stack.deploy.stack_secrets import SecretKey, missing_faults, pulumi_program, stored, write  # noqa: PLC0415

    environment = platform.environment.name
    made, asked = _by_origin(wanted, stand_ins=platform.environment.profile.stand_in_secrets)
    _refuse_without_terminal(asked, environment)
    if wanted:
        pulumi_program()  # a missing Pulumi is reported before the first question; otherwise the answers would be lost
    given = _prompted_values(asked)
    values = {SecretKey(each.name, key): value for each in made for key, value in generated(each).items()}
    print(wrapped(f"generated: {', '.join(map(str, values)) or 'none'}", "  "))
    if asked:
        print(wrapped(f"entered: {', '.join(map(str, given)) or 'none'}", "  "))
    if values or given:
        write(environment, {**values, **given}, datetime.now(UTC).date())
    missing = len(list(missing_faults(platform, stored(environment))))
    total = sum(len(secret.keys) for secret in platform.secrets)
    if missing:
        print(
            f"{environment}: {missing} of {total} values are missing; `voice secrets {environment} --check` lists them"
        )
        return FINDINGS
    print(f"{environment}: all {total} values are stored; `pulumi up --stack {environment}` deploys them")
    return CLEAN


def _by_origin(wanted: Iterable[SecretKeys], *, stand_ins: bool) -> tuple[list[SecretKeys], list[SecretKeys]]:
    """The secrets by origin: keys that the command generates, and keys that it asks for.

    With `stand_ins` the command asks for no key. It generates a substitute for each value that only its owner knows.
    """
    parts: tuple[list[SecretKeys], list[SecretKeys]] = ([], [])
    for secret in wanted:
        for is_asked in (False, True):
            keys = tuple(key for key in secret.keys if (secret.form(key).external and not stand_ins) == is_asked)
            if keys:
                parts[is_asked].append(secret.model_copy(update={"keys": keys}))
    return parts


def _refuse_without_terminal(secrets: Collection[SecretKeys], environment: str) -> None:
    """Raise `InvalidInputError` with every question if no user is at a terminal."""
    from voice_policies import Fault, InvalidInputError  # noqa: PLC0415

    from stack.model.settings import secret_line  # noqa: PLC0415

    if secrets and not sys.stdin.isatty():
        raise InvalidInputError(
            f"voice secrets {environment}",
            [
                Fault(
                    f"{secret.name}.{key}",
                    "cannot be asked for without a terminal",
                    f"expected {secret.form(key).meaning}: run `{secret_line(environment, secret.name, key)}`",
                )
                for secret in secrets
                for key in secret.keys
            ],
        )


def _prompted_values(secrets: Iterable[SecretKeys]) -> dict[SecretKey, str]:
    """The user's answers. Ctrl-D at a question interrupts the command, as Ctrl-C does."""
    from stack.deploy.stack_secrets import SecretKey  # noqa: PLC0415

    try:
        return {SecretKey(each.name, key): value for each in secrets for key, value in _answers(each).items()}
    except EOFError:
        raise KeyboardInterrupt from None


def _answers(secret: SecretKeys) -> dict[str, str]:
    """The values of one secret. An empty answer skips a value.

    If a value is refused, the command asks for all values of this secret again.
    """
    from stack.deploy.secret_values import refusals  # noqa: PLC0415

    while True:
        answers = {key: _answer(secret, key) for key in secret.keys}
        given = {key: answer for key, answer in answers.items() if answer}
        faults = list(refusals(secret, given))
        if not faults:
            return given
        for fault in faults:
            sys.stderr.write(f"  {secret.name}.{fault}\n")


def _answer(secret: SecretKeys, key: str) -> str:
    from getpass import getpass  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    form = secret.form(key)
    sys.stderr.write(f"{secret.name}.{key}: {form.meaning}\n")
    if not form.is_file:
        return getpass("  value, which is not shown (Enter skips it): ")
    while path := input("  path of the file (Enter skips it): "):
        try:
            # `Path.expanduser` raises RuntimeError for an unknown user.
            return Path(os.path.expanduser(path)).read_text()  # noqa: PTH111 - see above
        except (OSError, ValueError) as error:
            sys.stderr.write(
                f"  {path} cannot be read: {getattr(error, 'strerror', None) or 'it is not a text file'}\n"
            )
    return ""

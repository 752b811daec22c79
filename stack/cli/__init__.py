"""`voice`: render the platform, check it, draw it."""

from __future__ import annotations

import argparse
import codecs
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from stack.cli import check, diff, documents, explain, graph, images, render, secrets
from stack.cli.status import BAD_INPUT, CLEAN
from stack.cli.terminal import Parser

TERMINATED = 128 + signal.SIGTERM
"""Exit code of a run that SIGTERM stopped, as shells have it."""

if TYPE_CHECKING:
    from stack.model.tenant import Tenant


def _voiceassistant() -> Tenant:
    from stack.model.python_errors import refused_with_line  # noqa: PLC0415

    with refused_with_line(Path(__file__).parents[1] / "voiceassistant"):
        from stack.voiceassistant import TENANT  # noqa: PLC0415
    return TENANT


def voice(arguments: Sequence[str] | None = None, tenant: Callable[[], Tenant] = _voiceassistant) -> NoReturn:
    """The command: `main` in a process of its own.

    Such a process lives for a second and drops little. Looking for garbage, at last when it ends, would cost it a
    third of its time, and looking for pydantic's plugins, of which none is used, some milliseconds more.
    """
    gc.disable()
    # A stopped run cleans up behind itself, as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    codecs.register_error("escape", _escaped)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="escape")
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    status = main(arguments, tenant)
    gc.freeze()
    sys.exit(status)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """A character that the terminal's encoding lacks, as JSON escapes it: output for programs stays valid."""
    import json  # noqa: PLC0415

    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def main(arguments: Sequence[str] | None = None, tenant: Callable[[], Tenant] = _voiceassistant) -> int:
    """Run one command on a tenant. The exit code is one of `stack.cli.status`."""
    parser = _parser()
    options = parser.parse_args(arguments, argparse.Namespace(tenant=tenant, run=None))
    if options.run is None:
        parser.print_help()
        return CLEAN
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
    parser = Parser(prog="voice", description="VoiceAssistant's platform: one typed model, many projections.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in (render, check, explain, graph, diff, images, secrets, documents):
        command.add_to(commands)
    return parser


class _Version(argparse.Action):
    """Reads the version only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"voice {version('voiceassistant-platform')}")
        parser.exit(CLEAN)

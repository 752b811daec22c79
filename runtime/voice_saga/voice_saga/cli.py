"""`voice-saga`: show sagas and intervene, on every engine.

    voice-saga list [--state parked] [--name order]
    voice-saga show ID
    voice-saga resume ID | compensate ID | abandon ID --reason WHY

The engine comes from --engine or VOICE_SAGA_ENGINE: sqlite:///PATH, postgresql://HOST/DATABASE or
temporal://HOST:PORT/NAMESPACE. Set PostgreSQL's password in PGPASSWORD, because a process list shows the arguments.
Exit code 0: done. 1: the saga does not exist, its state does not allow the command, or the engine is unreachable.
2: bad input, or interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn, get_args
from urllib.parse import SplitResult, urlsplit

from voice_saga.engine import JournalEngine
from voice_saga.errors import SagaError
from voice_saga.journal import Journal
from voice_saga.progress import State
from voice_saga.record import Engine, SagaRecord, SagaSummary
from voice_saga.sqlite import SqliteJournal

VARIABLE = "VOICE_SAGA_ENGINE"
ACCEPTED = "sqlite:///PATH, postgresql://HOST/DATABASE or temporal://HOST:PORT/NAMESPACE"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _print(asyncio.run(_carry_out(options)))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _print_error("interrupted", 2)
    except BrokenPipeError:
        return 0  # the reader of the output, such as `head`, has ended
    except ValueError as error:
        return _print_error(str(error), 2)
    except (SagaError, OSError) as error:
        return _print_error(str(error), 1)
    return 0


def _print(text: str) -> None:
    """Print the text, with an escape for each character that the output cannot encode, such as a lone surrogate."""
    encoding = sys.stdout.encoding
    print(text.encode(encoding, "backslashreplace").decode(encoding))  # noqa: T201  # the command prints its result


def _print_error(message: str, code: int) -> int:
    sys.stderr.write(f"voice-saga: {message}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("voice-saga", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--engine",
        default=os.environ.get(VARIABLE, ""),
        help=f"{ACCEPTED}\n(default: the environment variable {VARIABLE})",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="list sagas, the newest first")
    listing.add_argument("--state", choices=get_args(State), help="only sagas in this state")
    listing.add_argument("--name", help="only sagas with this name")
    listing.add_argument("--limit", type=_count, default=100, help="maximum number of sagas (default: 100)")
    show = commands.add_parser("show", help="show one saga with its journal")
    for name, does in (
        ("resume", "continue a parked saga"),
        ("compensate", "undo a saga"),
        ("abandon", "end a saga without doing or undoing anything more"),
    ):
        command = commands.add_parser(name, help=does)
        command.add_argument(
            "--reason", default="by hand", required=name == "abandon", help="the reason, which the journal records"
        )
        command.add_argument("id")
    show.add_argument("id")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"is {text!r}; expected a whole number from 1")
    return int(text)


async def _carry_out(options: argparse.Namespace) -> str:
    async with _engine(options.engine) as engine:
        match options.command:
            case "list":
                found = await engine.list(state=options.state, name=options.name, limit=options.limit)
                return "\n".join(_row(saga) for saga in found) or "no sagas"
            case "show":
                return _journal(await engine.show(options.id))
            case command:
                await getattr(engine, command)(options.id, options.reason)
                return _row(await engine.show(options.id))


@asynccontextmanager
async def _engine(text: str) -> AsyncIterator[Engine]:
    try:
        engine = await _opened(text)
    except ValueError as error:
        raise ValueError(f"--engine {error}; expected {ACCEPTED}") from None
    except asyncio.CancelledError:
        # Otherwise the loop logs the error of asyncpg's broken connection below the message "interrupted".
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        raise
    try:
        yield engine
    finally:
        if isinstance(engine, JournalEngine):
            await engine.close()


async def _opened(text: str) -> Engine:
    """Open the engine. Raises `ValueError` with the end of a sentence that begins with `--engine`."""
    try:
        url = urlsplit(text)
        match url.scheme:
            case "sqlite":
                journal = _sqlite(url)
            case "postgresql" | "postgres":
                journal = _postgresql(text)
            case "temporal":
                return await _temporal(url)
            case _:
                raise ValueError(f"has the scheme {url.scheme!r}")  # the address may contain a password
    except ImportError as error:
        extra = "temporal" if url.scheme == "temporal" else "postgresql"
        raise ValueError(f"is {url.scheme}://, which needs voice-saga[{extra}]: {error}") from None
    engine = JournalEngine(journal)
    try:
        await engine.open()
    except ValueError as error:
        reason = "" if "@" in text else f": {error}"  # the driver's text may quote a part of the password
        raise ValueError(f"is not a valid address{reason}") from None
    return engine


def _sqlite(url: SplitResult) -> Journal:
    """The journal in an existing file.

    Other files are refused, because opening a journal would create tables in them.
    """
    path = Path(url.path)
    if not path.is_file():
        raise ValueError(f"names {path}, which is not a file")
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("SELECT 1 FROM sagas LIMIT 0")
    except sqlite3.DatabaseError as error:
        raise ValueError(f"names {path}, which is not a saga journal: {error}") from None
    return SqliteJournal(path)


def _postgresql(dsn: str) -> Journal:
    from voice_saga.postgresql import PostgresqlJournal  # noqa: PLC0415  # an extra

    return PostgresqlJournal(dsn, connections=1)


async def _temporal(url: SplitResult) -> Engine:
    from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest  # noqa: PLC0415  # an extra
    from temporalio.client import Client  # noqa: PLC0415  # as above
    from temporalio.service import RPCError, RPCStatusCode  # noqa: PLC0415  # as above

    from voice_saga.temporal import TemporalEngine  # noqa: PLC0415  # as above

    namespace = url.path.strip("/") or "default"
    try:
        client = await Client.connect(url.netloc, namespace=namespace)
        await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=namespace))
    except ValueError as error:
        raise ValueError(f"is not a valid address: {error}") from None
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            raise ValueError(f"names namespace {namespace!r}, which does not exist") from None
        raise ConnectionError(f"Temporal: {error.message}") from None
    except RuntimeError as error:
        raise ConnectionError(f"Temporal: {error}") from None
    return TemporalEngine(client)


def _row(saga: SagaSummary) -> str:
    columns = (saga.id, f"{saga.name} v{saga.version}", saga.state, _time(saga.updated_at), saga.reason)
    return "  ".join(columns).rstrip()


def _journal(saga: SagaRecord) -> str:
    lines = [_row(saga), f"input {json.dumps(saga.input)}"]
    for entry in saga.entries:
        data = "" if entry.data is None else json.dumps(entry.data, ensure_ascii=False)
        lines.append(f"{_time(entry.at)}  {entry.step or '·':24} {entry.kind:12} {data}".rstrip())
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def command() -> NoReturn:
    """Run the console script. It exits without the interpreter's shutdown, in which Temporal's client may crash."""
    code = main()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    command()

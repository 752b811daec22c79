from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from voice_saga import JournalEngine, Reply, SqliteJournal, StepContext

from tests.postgresql_servers import Postgresql
from tests.saga.backends import Backend
from tests.saga.definitions import Log, eventually, saga, step

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")


EXPECTED = "expected sqlite:///PATH, postgresql://HOST/DATABASE or temporal://HOST:PORT/NAMESPACE"


async def voice_saga(engine: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "voice_saga.cli", *arguments]
    environment = {**os.environ, "VOICE_SAGA_ENGINE": engine}
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=180, env=environment
    )


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    engine = request.node.callspec.params["backend"]
    if engine == "temporal":
        return f"temporal://{request.getfixturevalue('temporal')}/default"
    return str(request.getfixturevalue("database")) if engine == "postgresql" else f"sqlite://{tmp_path}/sagas.db"


async def test_sagas_are_listed_shown_resumed_compensated_and_abandoned(backend: Backend, address: str) -> None:
    log = Log()

    async def later(_: StepContext) -> Any:
        return Reply.LATER

    log.does("pay", later)
    log.fails("undo-reserve", lambda: ConnectionError("gone"), times=2)
    async with backend([log.definition(saga(step("reserve"), step("pay")))]) as engine:
        one, two = await engine.start("order", {"item": 7}), await engine.start("order")
        await eventually(lambda: _is(engine, one, "waiting"))
        await eventually(lambda: _is(engine, two, "waiting"))

        compensated = await voice_saga(address, "compensate", one, "--reason", "the customer called")
        assert compensated.stderr == ""
        assert one in compensated.stdout
        assert (await engine.wait(one, 180)).state == "parked"
        shown = (await voice_saga(address, "show", one)).stdout
        assert 'input {"item": 7}' in shown
        assert "compensation_failed: reserve: ConnectionError: gone" in shown
        assert [line.split()[1:3] for line in shown.splitlines()[2:4]] == [["·", "started"], ["reserve", "began"]]
        assert (await voice_saga(address, "resume", one)).returncode == 0
        assert (await engine.wait(one, 180)).state == "compensated"

        assert (await voice_saga(address, "abandon", two, "--reason", "settled")).returncode == 0
        await eventually(lambda: _is(engine, two, "abandoned"))
        await eventually(lambda: _lists(address, two))
        refused = await voice_saga(address, "resume", two)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith(
            f"voice-saga: saga {two} is abandoned: it cannot be resumed now; expected parked"
        )
        unknown = await voice_saga(address, "show", "nobody")
        assert (unknown.returncode, unknown.stderr) == (1, "voice-saga: no saga nobody\n")


async def _is(engine: Any, saga_id: str, state: str) -> bool:
    return bool((await engine.show(saga_id)).state == state)


async def _lists(address: str, saga_id: str) -> bool:
    done = await voice_saga(address, "list", "--state", "abandoned", "--name", "order")
    return saga_id in done.stdout and "order v1  abandoned" in done.stdout and "settled" in done.stdout


async def test_the_error_for_a_database_without_tables_names_the_migration_scripts(
    postgresql: Postgresql,
) -> None:
    done = await voice_saga(postgresql.dsn("template1"), "list")
    assert done.returncode == 1
    assert (
        done.stderr == 'voice-saga: PostgreSQL: relation "saga.sagas" does not exist; '
        "run the scripts of voice_saga/migrations/postgresql, "
        "and grant the user access to the tables of the schema saga\n"
    )


@pytest.mark.parametrize(
    ("engine", "code", "message"),
    [
        ("", 2, "--engine has the scheme ''; expected sqlite:///PATH, postgresql://"),
        ("mysql://x", 2, "--engine has the scheme 'mysql'; expected"),
        ("sqlite:///nowhere/sagas.db", 2, "--engine names /nowhere/sagas.db, which is not a file"),
        ("postgresql://nobody@127.0.0.1:1/x", 1, "PostgreSQL: "),
        (
            "postgresql://h:notaport/x",
            2,
            f"--engine is not a valid address: invalid literal for int() with base 10: 'notaport'; {EXPECTED}",
        ),
        (
            "temporal://h:notaport/x",
            2,
            f"--engine is not a valid address: invalid target URL: invalid port number; {EXPECTED}",
        ),
        ("temporal://127.0.0.1:1/default", 1, "Temporal: "),
    ],
)
async def test_an_invalid_address_or_unreachable_engine_gives_one_line_on_standard_error(
    engine: str, code: int, message: str
) -> None:
    done = await voice_saga(engine, "list")
    assert done.returncode == code
    assert done.stderr.startswith(f"voice-saga: {message}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "engine",
    ["postgre://u:swordfish@h/x", "host=h password=swordfish", "postgresql://u:swordfish/@h/x", "swordfish@h"],
    ids=["scheme", "no address", "port", "no scheme"],
)
async def test_the_error_for_a_refused_address_does_not_contain_the_password(engine: str) -> None:
    done = await voice_saga(engine, "list")
    assert done.returncode == 2
    assert "swordfish" not in done.stderr


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_lone_surrogate_in_a_result_is_shown_escaped(backend: Backend, address: str) -> None:
    async def half(_: StepContext) -> Any:
        return "é \ud800"

    log = Log()
    log.does("reserve", half)
    async with backend([log.definition(saga(step("reserve")))]) as engine:
        one = await engine.start("order")
        await engine.wait(one, 180)
    shown = await voice_saga(address, "show", one)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert '"é \\ud800"' in shown.stdout


@pytest.mark.parametrize(("content", "said"), [("no database", "file is not a database"), ("", "no such table: sagas")])
def test_a_file_that_is_not_a_journal_is_refused_and_not_changed(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "other"
    path.write_text(content)
    done = asyncio.run(voice_saga(f"sqlite://{path}", "list"))
    assert done.stderr == f"voice-saga: --engine names {path}, which is not a saga journal: {said}; {EXPECTED}\n"
    assert (done.returncode, path.read_text(), [*tmp_path.iterdir()]) == (2, content, [path])


@pytest.mark.parametrize("arguments", [("list",), ("show", "saga-1")], ids=["list", "show"])
async def test_the_error_for_an_unknown_namespace_names_the_namespace(
    temporal: str, arguments: tuple[str, ...]
) -> None:
    done = await voice_saga(f"temporal://{temporal}/nosuch", *arguments)
    assert done.stderr == f"voice-saga: --engine names namespace 'nosuch', which does not exist; {EXPECTED}\n"
    assert done.returncode == 2


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from voice_saga.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("scheme", "module", "extra"),
    [
        ("postgresql", "asyncpg", "postgresql"),
        ("postgres", "asyncpg", "postgresql"),
        ("temporal", "temporalio", "temporal"),
    ],
)
def test_the_error_for_an_extra_that_is_not_installed_names_the_extra(scheme: str, module: str, extra: str) -> None:
    command = [sys.executable, "-c", WITHOUT, module, "--engine", f"{scheme}://h/x", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 2
    assert done.stderr.startswith(f"voice-saga: --engine is {scheme}://, which needs voice-saga[{extra}]: ")


WITH_INTERRUPTS = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("voice_saga.cli", run_name="__main__")
"""
"""The command with Python's handler for SIGINT. The children of a shell's background job ignore SIGINT."""


def test_ctrl_c_ends_the_command_with_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/sagas"
        command = [sys.executable, "-c", WITH_INTERRUPTS, "--engine", engine, "list"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=180)
    assert (said, process.returncode) == ("voice-saga: interrupted\n", 2)


def test_a_reader_that_stops_reading_ends_the_command_silently(tmp_path: Path) -> None:
    asyncio.run(_create(tmp_path / "sagas.db"))
    command = [sys.executable, "-m", "voice_saga.cli", "--engine", f"sqlite://{tmp_path}/sagas.db", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 0


async def _create(file: Path) -> None:
    engine = JournalEngine(SqliteJournal(file))
    await engine.open()
    await engine.close()


@pytest.mark.parametrize("limit", ["-1", "0", "some"])
async def test_a_limit_that_is_not_a_whole_number_from_1_is_refused(limit: str, tmp_path: Path) -> None:
    done = await voice_saga(f"sqlite://{tmp_path}/sagas.db", "list", "--limit", limit)
    assert done.returncode == 2
    assert f"argument --limit: is '{limit}'; expected a whole number from 1" in done.stderr


@pytest.mark.parametrize("package", ["voice_saga", "voice_saga.cli"])
def test_importing_the_package_imports_no_extra(package: str) -> None:
    extras = {"prometheus_client", "opentelemetry", "redis", "asyncpg", "temporalio"}
    code = f"import sys, {package}; print([m for m in sys.modules if m.split('.')[0] in {extras}])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

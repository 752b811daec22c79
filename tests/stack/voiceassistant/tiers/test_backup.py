from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.backup_document import NOT_RUN, carry_out, commands
from tests.platforms import platform
from tests.programs import postgresql
from tests.stack.voiceassistant.tiers.real_servers import Postgresql, files, running_postgresql

SERVICES = [service.name for service in platform("dev").graph.services if service.connection_pool]
ITERATIONS = "-iter 600000"
"""With these iterations each of about sixty calls of openssl takes 0.2 s. So the tests use one iteration."""
DUMPS = "/var/backups/postgresql"
COUNT = "SELECT count(*), coalesce(sum(id), 0) FROM kept"


@pytest.fixture
def server() -> Iterator[Postgresql]:
    with running_postgresql() as running:
        running.place.paths += (DUMPS,)
        running.place.inside(DUMPS).mkdir(parents=True)
        for name, text in files("dev", "postgresql-backup").items():
            assert ITERATIONS in text
            running.place.write(f"/scripts/{name}", text.replace(ITERATIONS, "-iter 1"))
        running.place.write("/etc/voice/secrets/postgresql-backup-key/password", "the key")
        yield running


def run(server: Postgresql, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{postgresql()}:{os.environ['PATH']}"
    environment = {"PATH": path, "PGHOST": "127.0.0.1", "PGPORT": str(server.port), **variables}
    command = ["/bin/bash", str(server.place.inside(f"/scripts/{script}.sh"))]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def fill(server: Postgresql) -> dict[str, str]:
    for number, service in enumerate(SERVICES, start=1):
        rows = f"CREATE TABLE kept (id int PRIMARY KEY); INSERT INTO kept SELECT generate_series(1, {number * 100})"
        server.sql(rows, role=service)
    return {service: server.sql(COUNT, role=service) for service in SERVICES}


def test_a_dump_is_restored_after_a_wipe(server: Postgresql) -> None:
    before = fill(server)
    assert len(set(before.values())) == len(SERVICES)
    dumped = run(server, "backup")
    assert dumped.returncode == 0, dumped.stderr
    for service in SERVICES:
        server.sql("DROP TABLE kept", role=service)
        assert "does not exist" in server.sql(COUNT, role=service)
    restored = run(server, "restore")
    assert restored.returncode == 0, restored.stderr
    assert restored.stdout == dumped.stdout
    assert {service: server.sql(COUNT, role=service) for service in SERVICES} == before


def test_the_commands_of_the_backup_document_restore_lost_rows(server: Postgresql) -> None:
    before = fill(server)

    def lose() -> None:
        for service in SERVICES:
            server.sql("DROP TABLE kept", role=service)

    finished = carry_out("### dev: restore", lambda job: run(server, job.removeprefix("postgresql-")), lose)
    assert finished["backup-now"] == finished["restore-now"]
    assert {service: server.sql(COUNT, role=service) for service in SERVICES} == before


def test_every_command_of_the_backup_document_runs_in_a_test_or_has_a_reason() -> None:
    there = commands()
    carried_out = {*commands("### dev: restore"), *commands("## Consul")}
    assert {*there} - carried_out <= NOT_RUN.keys()
    assert NOT_RUN.keys() <= {*there}, "a reason without a command"


def test_a_dump_cannot_be_read_without_the_key(server: Postgresql) -> None:
    before = fill(server)
    run(server, "backup")
    (dumped,) = server.place.inside(DUMPS).iterdir()
    assert all(b"PGDMP" not in file.read_bytes() for file in dumped.iterdir())
    server.place.write("/etc/voice/secrets/postgresql-backup-key/password", "another key")
    assert run(server, "restore").returncode != 0
    assert {service: server.sql(COUNT, role=service) for service in SERVICES} == before


def test_an_incomplete_dump_is_never_restored(server: Postgresql) -> None:
    fill(server)
    whole = run(server, "backup").stdout
    server.place.write(f"/etc/voice/secrets/{SERVICES[-1]}-postgresql/password", "wrong")
    assert run(server, "backup").returncode != 0
    assert not list(server.place.inside(DUMPS).glob("*.partial")), "failed attempts would fill the volume"
    (server.place.inside(DUMPS) / "99991231T000000Z.partial").mkdir()  # left by a job that was killed
    server.place.mount_secrets("postgresql", "dev")
    server.place.write("/etc/voice/secrets/postgresql-backup-key/password", "the key")
    restored = run(server, "restore")
    assert (restored.returncode, restored.stdout) == (0, whole), restored.stderr


def test_other_folders_of_the_volume_are_neither_restored_nor_deleted(server: Postgresql) -> None:
    fill(server)
    other = server.place.inside(DUMPS) / "lost+found"
    other.mkdir()
    os.utime(other, (0, 0))
    dumped = run(server, "backup")
    assert (dumped.returncode, other.exists()) == (0, True), dumped.stderr
    assert run(server, "restore").stdout == dumped.stdout


@pytest.mark.parametrize(("hours", "stays"), [(7 * 24 + 6, True), (8 * 24 - 6, False)])
def test_a_dump_is_kept_for_seven_and_a_half_days(server: Postgresql, hours: int, stays: bool) -> None:
    old = server.place.inside(DUMPS) / "20200101T000000Z"
    old.mkdir()
    written = time.time() - hours * 3600
    os.utime(old, (written, written))
    assert run(server, "backup").returncode == 0
    assert old.exists() is stays


def test_a_restore_without_a_dump_names_what_it_expects(server: Postgresql) -> None:
    for variables in ({}, {"BACKUP": "20200101T000000Z"}):
        refused = run(server, "restore", **variables)
        assert refused.returncode == 1
        assert "is no dump; expected BACKUP to name a folder in" in refused.stderr

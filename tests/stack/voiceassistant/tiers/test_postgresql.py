from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from stack.voiceassistant.profiles import PROFILES
from tests.platforms import platform
from tests.programs import directory, give_away, postgresql, unprivileged
from tests.stack.voiceassistant.tiers.real_servers import Postgresql, files, password_of, running_postgresql

SERVICES = [service.name for service in platform("dev").graph.services if service.connection_pool]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgresql]:
    with running_postgresql() as running:
        yield running


CONFIGURED = files("dev", "postgresql-config")["postgresql.conf"].splitlines()


@pytest.mark.parametrize("line", CONFIGURED)
def test_postgresql_refuses_every_misspelt_key(line: str) -> None:
    with directory() as root:
        file = root / "postgresql.conf"
        command = [str(postgresql() / "postgres"), "-C", "data_directory", "-c", f"config_file={file}", "-D", str(root)]
        file.write_text("\n".join(CONFIGURED))
        give_away(root)
        assert subprocess.run(command, check=False, capture_output=True, **unprivileged()).returncode == 0
        file.write_text("\n".join(CONFIGURED).replace(line, f"x{line}"))
        done = subprocess.run(command, check=False, capture_output=True, text=True, **unprivileged())
        assert f'unrecognized configuration parameter "x{line.partition(" ")[0]}"' in done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_creates_tables_in_its_own_database(server: Postgresql, service: str) -> None:
    assert server.sql("CREATE TABLE owned (id int); DROP TABLE owned; SELECT current_database()", role=service) == (
        f"CREATE TABLE\nDROP TABLE\n{service}"
    )


def test_the_job_replaces_the_old_password_with_the_new_one() -> None:
    service, old = SERVICES[0], password_of(f"{SERVICES[0]}-postgresql")
    with running_postgresql() as server:
        server.place.write(f"/etc/voice/secrets/{service}-postgresql/password", "it's rotated")
        assert server.sql("SELECT 1", role=service, password=old) == "1"
        server.apply_roles()
        assert server.sql("SELECT 1", role=service, password="it's rotated") == "1"  # noqa: S106 - a password of this test
        assert "password authentication failed" in server.sql("SELECT 1", role=service, password=old)


@pytest.mark.parametrize("statement", ["CREATE ROLE intruder SUPERUSER", "ALTER ROLE postgres PASSWORD 'known'"])
def test_the_provisioner_cannot_create_a_superuser(server: Postgresql, statement: str) -> None:
    assert "permission denied" in server.sql(statement, role="provisioner", database="postgres")


def test_the_provisioner_cannot_connect_to_the_database_of_a_service(server: Postgresql) -> None:
    said = server.sql("SELECT 1", role="provisioner", database=SERVICES[0])
    assert "pg_hba.conf rejects connection" in said


def test_a_service_connects_only_to_its_own_database(server: Postgresql) -> None:
    for database in (SERVICES[1], "postgres", "template1"):
        assert "pg_hba.conf rejects connection" in server.sql("SELECT 1", role=SERVICES[0], database=database)


def test_a_service_has_no_connect_privilege_on_other_databases(server: Postgresql) -> None:
    granted = server.sql(
        f"SELECT has_database_privilege('{SERVICES[0]}', '{SERVICES[1]}', 'CONNECT'), "
        f"has_database_privilege('{SERVICES[0]}', 'postgres', 'CONNECT')",
        role="postgres",
        database="postgres",
    )
    assert granted == "f|f"


def test_a_wrong_password_and_the_superuser_over_the_network_are_refused(server: Postgresql) -> None:
    assert "password authentication failed" in server.sql("SELECT 1", role=SERVICES[0], password="wrong")  # noqa: S106 - a password of this test
    remote = server.run(
        "psql", "-X", "-h", "127.0.0.1", "-c", "SELECT 1", user="postgres", password=password_of("postgresql-superuser")
    )
    assert "pg_hba.conf rejects connection" in remote.stderr


@pytest.mark.parametrize(
    "statement", ["CREATE ROLE intruder", "CREATE DATABASE more", "ALTER SYSTEM SET work_mem = '1GB'"]
)
def test_a_service_has_no_right_beyond_its_database(server: Postgresql, statement: str) -> None:
    assert "permission denied" in server.sql(statement, role=SERVICES[0])


def test_passwords_are_stored_as_scram_verifiers(server: Postgresql) -> None:
    weak = "SELECT count(*) FROM pg_authid WHERE rolcanlogin AND rolpassword NOT LIKE 'SCRAM-SHA-256$%'"
    assert server.sql(weak, role="postgres", database="postgres") == "0"


def test_roles_and_server_have_the_declared_connection_limits(server: Postgresql) -> None:
    limits = PROFILES["dev"].database
    total = server.sql(
        "SELECT sum(rolconnlimit) FROM pg_roles WHERE rolconnlimit > 0", role="postgres", database="postgres"
    )
    assert int(total) == limits.role_limit * len(SERVICES) <= limits.max_connections - limits.reserved
    names = "ARRAY['max_connections', 'superuser_reserved_connections', 'reserved_connections']"
    shown = f"SELECT current_setting(name)::int FROM unnest({names}) name"  # noqa: S608 - the names are constants
    most, superusers, reserved = map(int, server.sql(shown, role="postgres", database="postgres").splitlines())
    assert (most, superusers + reserved) == (limits.max_connections, limits.reserved)

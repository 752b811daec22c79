"""Starts real servers on loopback with rendered configuration, whose paths point below a temporary directory."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError as NotListening

from components.scrape import Scrape
from tests.loopback import START_SECONDS, free_port, wait_until
from tests.platforms import of_kind, platform
from tests.programs import directory, give_away, postgresql, unprivileged, valkey
from tests.redis_servers import NO_RETRY


def files(environment: str, config_map: str) -> dict[str, str]:
    (found,) = (each for each in of_kind(environment, "ConfigMap") if each["metadata"]["name"] == config_map)
    data: dict[str, str] = found["data"]
    return data


def password_of(secret: str) -> str:
    return f"value of {secret}"


class Place:
    """A directory that replaces the root of a container."""

    def __init__(self, root: Path, paths: tuple[str, ...]) -> None:
        self.root = root
        self.paths = paths
        for path in paths:
            self.inside(path).mkdir(parents=True, exist_ok=True)

    def inside(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def moved(self, text: str) -> str:
        for path in self.paths:
            text = text.replace(path, str(self.inside(path)))
        return text

    def write(self, path: str, text: str) -> Path:
        file = self.inside(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.moved(text))
        return file

    def mount_secrets(self, component: str, environment: str, rotated: Mapping[str, str] | None = None) -> None:
        (found,) = (each for each in platform(environment).components if each.name == component)
        for secret in found.secrets:
            for key in secret.keys:
                self.write(f"{secret.path}/{key}", (rotated or {}).get(secret.name, password_of(secret.name)))


VALKEY_PATHS = ("/etc/valkey", "/run/valkey", "/etc/voice/secrets", "/data")


@contextmanager
def running_valkey(
    environment: str, name: str, root: Path, port: int, *changes: str, rotated: Mapping[str, str] | None = None
) -> Iterator[None]:
    place = Place(root, VALKEY_PATHS)
    for file, text in files(environment, f"{name}-config").items():
        # Valkey uses the last line of a repeated key.
        moved = "\n".join((f"port {port}", "bind 127.0.0.1", *changes)) if file == "valkey.conf" else ""
        place.write(f"/etc/valkey/{file}", f"{text}{moved}\n" if moved else text)
    place.mount_secrets(name, environment, rotated)
    subprocess.run(["/bin/sh", str(place.inside("/etc/valkey/write-acl.sh"))], check=True)
    command = [str(valkey()), str(place.inside("/etc/valkey/valkey.conf"))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        client = Redis(port=port, username="health", password="", retry=NO_RETRY)
        wait_until(client.ping, NotListening, process=process)
        yield
    finally:
        process.kill()
        process.wait()


def refused_by_valkey(file: Path, lines: list[str], key: str, *arguments: str) -> bool:
    """True if the server refuses to start with a configuration in which `key` is misspelt."""
    file.write_text(
        "\n".join(f"{key}x{line.removeprefix(key)}" if line.startswith(f"{key} ") else line for line in lines)
    )
    command = [str(valkey()), str(file), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=START_SECONDS)
    return done.returncode == 1 and f">>> '{key}x " in done.stderr


def answers_probe(scrape: Scrape, port: int) -> bool:
    """True if the server answers the probe.

    The steps follow blackbox_exporter's prober/tcp.go, which waits for `expect` and then sends `send`.
    """
    with socket.create_connection(("127.0.0.1", port), 5) as connection, connection.makefile("rw") as lines:
        for step in scrape.module.settings["query_response"] if scrape.module else ():
            if expected := step.get("expect"):
                while not re.search(expected, line := lines.readline()):
                    if not line or line.startswith("-"):
                        return False
            if send := step.get("send"):
                lines.write(f"{send}\n")
                lines.flush()
    return True


POSTGRESQL_PATHS = (
    "/etc/postgresql",
    "/etc/roles",
    "/docker-entrypoint-initdb.d",
    "/var/run/postgresql",
    "/var/lib/postgresql",
    "/etc/voice/secrets",
)


class Postgresql:
    def __init__(self, place: Place, port: int) -> None:
        self.place = place
        self.port = port

    def run(
        self, program: str, *arguments: str, user: str, password: str, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a client program. The superuser connects over the socket, every other role over the network."""
        host = str(self.place.inside("/var/run/postgresql")) if user == "postgres" else "127.0.0.1"
        environment = {
            "PGHOST": host,
            "PGPORT": str(self.port),
            "PGUSER": user,
            "PGPASSWORD": password,
            "PATH": os.environ["PATH"],
        }
        command = [str(postgresql() / program), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, timeout=60, **options
        )

    def apply_roles(self) -> None:
        script = str(self.place.inside("/etc/roles/apply.sh"))
        variables = {"PATH": f"{postgresql()}:{os.environ['PATH']}"}
        done = subprocess.run(["/bin/sh", script], check=False, capture_output=True, text=True, env=variables)
        assert done.returncode == 0, done.stderr

    def sql(self, statement: str, *, role: str, database: str | None = None, password: str | None = None) -> str:
        """The answer or the error of a statement that a role executes."""
        own = {"postgres": "postgresql-superuser", "provisioner": "postgresql-provisioner"}
        known = password_of(own.get(role, f"{role}-postgresql"))
        arguments = ("-XAt", "-v", "ON_ERROR_STOP=1", "-d", database or role, "-c", statement)
        done = self.run("psql", *arguments, user=role, password=password or known)
        return (done.stdout + done.stderr).strip()


@contextmanager
def running_postgresql() -> Iterator[Postgresql]:
    """PostgreSQL 18 on dev's rendered files."""
    with directory() as root:
        place = Place(root, POSTGRESQL_PATHS)
        port = free_port()
        for file, text in files("dev", "postgresql-config").items():
            place.write(f"/etc/postgresql/{file}", text)
        init = files("dev", "postgresql-init")["provisioner.sql"]
        script = place.write("/docker-entrypoint-initdb.d/provisioner.sql", init)
        for file, text in files("dev", "postgresql-roles").items():
            place.write(
                f"/etc/roles/{file}", text.replace("--host postgresql-pooler", f"--host 127.0.0.1 --port {port}")
            )
        place.mount_secrets("postgresql", "dev")
        data = place.inside("/var/lib/postgresql") / "18"
        give_away(root)
        superuser = place.inside("/etc/voice/secrets/postgresql-superuser/password")
        prepare = [
            str(postgresql() / "initdb"),
            "-U",
            "postgres",
            "--auth=scram-sha-256",
            "--no-sync",
            f"--pwfile={superuser}",
            "-D",
            str(data),
        ]
        subprocess.run(prepare, check=True, capture_output=True, cwd=root, **unprivileged())
        command = [
            str(postgresql() / "postgres"), "-D", str(data), "-p", str(port),
            "-c", f"config_file={place.inside('/etc/postgresql/postgresql.conf')}", "-c", "listen_addresses=127.0.0.1",
            "-c", "fsync=off",
        ]  # fmt: skip
        process = subprocess.Popen(command, cwd=root, stderr=(root / "log").open("w"), **unprivileged())
        server = Postgresql(place, port)
        try:
            wait_until(
                lambda: server.run("pg_isready", user="postgres", password="").check_returncode(),
                subprocess.CalledProcessError,
                process=process,
                log=root / "log",
            )
            made = server.run(
                "psql", "-X", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f", str(script),
                user="postgres", password=password_of("postgresql-superuser"),
            )  # fmt: skip
            assert made.returncode == 0, made.stderr
            server.apply_roles()
            yield server
        finally:
            process.send_signal(signal.SIGQUIT)  # an immediate shutdown: nobody reads the data again
            process.wait()

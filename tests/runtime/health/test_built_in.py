from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1.health import aio
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from voice_policies import Address, Bytes, Connection, Duration, HealthCheck, InvalidInputError, ServiceSettings
from voice_policies import Health as HealthPolicy
from voice_runtime import Runtime
from voice_runtime.health import Health, Result
from voice_runtime.health.server import serving
from voice_runtime.settings import load_settings

from tests.bundles import bundle, call, mount
from tests.loopback import free_port
from tests.postgresql_servers import Postgresql, running_postgresql
from tests.redis_servers import Server
from tests.runtime.certificates import Authority

SERVICE = "agent-engine"
PASSWORD = "its own"  # noqa: S105  # password of a server that exists only during a test
LOOPBACK = "127.0.0.1"
OUTSIDE = "milvus.example"


def monitor(root: Path, kind: str, port: int = 0, password: str = "", **overrides: Any) -> Health:
    host, via, tls = overrides.pop("host", LOOPBACK), overrides.pop("via", None), overrides.pop("tls", None)
    target = overrides.pop("target", "store.read")
    policy = HealthCheck.model_validate(
        {"name": "store", "kind": kind, "target": target, "critical": True, "timeout": Duration("20s"), **overrides}
    )
    store = call("store.read", addresses=(Address(host=host, port=port or 1, via=via, tls=tls),))
    mounted = mount(root, bundle(store, health=HealthPolicy(checks=(policy,), cache_duration=Duration("0s"))))
    return Health(Runtime.load(mounted), settings=settings(root, password))


def settings(root: Path, password: str) -> ServiceSettings:
    credentials = root / "secret"
    credentials.mkdir(parents=True, exist_ok=True)
    (credentials / "password").write_text(f"{password}\n")
    connection = Connection(
        name="store",
        protocol="postgresql",
        hosts=("unused:1",),
        timeout=Duration("1s"),
        database=SERVICE,
        credentials=str(credentials) if password else None,
    )
    return ServiceSettings(
        service=SERVICE, environment="test", log_level="info", grpc_port=1, http_port=1, connections=(connection,)
    )


async def result(health: Health) -> Result:
    report = await health.readiness()
    (found,) = (found for _, found in report.checks.values())
    assert found is not None
    return found


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Postgresql]:
    with running_postgresql() as running:
        running.psql(f"CREATE ROLE \"{SERVICE}\" LOGIN PASSWORD '{PASSWORD}'")
        running.psql(f'CREATE DATABASE "{SERVICE}" OWNER "{SERVICE}"')
        access = running.root / "data" / "pg_hba.conf"
        access.write_text(f"host {SERVICE} {SERVICE} {LOOPBACK}/32 scram-sha-256\n{access.read_text()}")
        running.psql("SELECT pg_reload_conf()")
        yield running


async def test_the_postgresql_check_logs_in_with_the_services_password(tmp_path: Path, postgresql: Postgresql) -> None:
    right = monitor(tmp_path, "postgresql", postgresql.port, PASSWORD)
    assert (await result(right)).status == "healthy"
    (tmp_path / "secret" / "password").write_text("rotated")
    wrong = await result(right)
    assert (wrong.status, wrong.error) == ("unhealthy", "InvalidPasswordError")


async def test_the_postgresql_check_is_unhealthy_without_a_server(tmp_path: Path) -> None:
    assert (await result(monitor(tmp_path, "postgresql", free_port(), "secret"))).error == "ConnectionRefusedError"


async def test_a_check_slower_than_max_latency_is_degraded(tmp_path: Path, postgresql: Postgresql) -> None:
    slow = monitor(tmp_path, "postgresql", postgresql.port, PASSWORD, max_latency=Duration("1us"))
    assert (await result(slow)).status == "degraded"
    assert (await slow.readiness()).ready


async def test_the_redis_check_logs_in_with_the_services_password(tmp_path: Path) -> None:
    server = Server(tmp_path, "--user", SERVICE, "on", f">{PASSWORD}", "+ping", "+@connection")
    health = monitor(tmp_path, "redis", server.port, PASSWORD)
    assert (await result(health)).status == "healthy"
    (tmp_path / "secret" / "password").write_text("rotated")
    assert (await result(health)).error == "AuthenticationError"
    (tmp_path / "secret" / "password").write_text(PASSWORD)
    server.kill()
    assert (await result(health)).error == "ConnectionError"


async def test_the_grpc_check_asks_the_standard_health_service(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    servicer = aio.HealthServicer()
    server = grpc.aio.server()
    add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    health = monitor(tmp_path, "grpc", port)
    await servicer.set("", HealthCheckResponse.SERVING)
    assert (await result(health)).status == "healthy"
    for status in ("NOT_SERVING", "UNKNOWN"):
        await servicer.set("", HealthCheckResponse.ServingStatus.Value(status))
        assert (await result(health)).error == "NotServingError"
        assert caplog.messages[-1].endswith(f"{LOOPBACK}:{port} answers {status}")
    await server.stop(None)
    assert (await result(health)).error == "AioRpcError"


async def test_a_server_that_does_not_answer_is_unhealthy_after_the_timeout(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        for kind in ("grpc", "http", "postgresql", "redis"):
            silent = monitor(tmp_path / kind, kind, port, timeout=Duration("200ms"))
            assert (await result(silent)).error == "TimeoutError", kind


async def test_the_http_check_accepts_status_401_and_refuses_status_503(tmp_path: Path) -> None:
    status = 401

    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with serving(app, 0, LOOPBACK) as port:
        health = monitor(tmp_path, "http", port)
        assert (await result(health)).status == "healthy"
        status = 503
        assert (await result(health)).error == "ServerFailedError"
    assert (await result(health)).error == "ConnectError"


async def test_the_tcp_check_needs_a_listening_port(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        health = monitor(tmp_path, "tcp", listener.getsockname()[1])
        assert (await result(health)).status == "healthy"
    assert (await result(health)).error == "ConnectionRefusedError"


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """A certificate authority that this process trusts."""
    made = Authority()
    (tmp_path / "authority.pem").write_bytes(made.certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    trusting = grpc.ssl_channel_credentials(made.certificate)
    monkeypatch.setattr(grpc, "ssl_channel_credentials", lambda: trusting)
    return made


@asynccontextmanager
async def passing_on(authority: Authority, directory: Path, host: str) -> AsyncIterator[str]:
    """An HTTPS server in place of the egress proxy, with a certificate for `host`."""
    key, certificate = authority.issue(host)
    (directory / "host.pem").write_bytes(key + certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "host.pem")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, LOOPBACK, 0, ssl=context) as server:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def over_tls(authority: Authority, directory: Path, port: int, *, negotiated: bool) -> AsyncIterator[int]:
    """A port that terminates TLS with a certificate for `localhost`, in front of a server.

    If `negotiated`, the client first sends PostgreSQL's request for TLS: eight bytes.
    """
    key, certificate = authority.issue("localhost")
    (directory / "store.pem").write_bytes(key + certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "store.pem")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if negotiated:
            await reader.readexactly(8)
            writer.write(b"S")
            await writer.start_tls(context)
        server_reader, server_writer = await asyncio.open_connection(LOOPBACK, port)
        await asyncio.gather(copy(reader, server_writer), copy(server_reader, writer), return_exceptions=True)

    async with await asyncio.start_server(serve, LOOPBACK, 0, ssl=None if negotiated else context) as server:
        yield server.sockets[0].getsockname()[1]


async def test_an_external_store_needs_a_certificate_for_its_name(
    tmp_path: Path, authority: Authority, postgresql: Postgresql
) -> None:
    valkey = Server(tmp_path, "--user", SERVICE, "on", f">{PASSWORD}", "+ping", "+@connection")
    for kind, port in (("postgresql", postgresql.port), ("redis", valkey.port), ("tcp", valkey.port)):
        async with over_tls(authority, tmp_path, port, negotiated=kind == "postgresql") as outside:
            found = await result(monitor(tmp_path / kind, kind, outside, PASSWORD, host="localhost", tls=True))
            assert (found.status, found.error) == ("healthy", ""), kind
            stranger = await result(monitor(tmp_path / kind, kind, outside, PASSWORD, host=LOOPBACK, tls=True))
            assert stranger.error in {"SSLCertVerificationError", "ConnectionError"}, kind
    valkey.kill()


async def test_an_external_store_over_https_needs_a_certificate_for_its_name(
    tmp_path: Path, authority: Authority
) -> None:
    async with passing_on(authority, tmp_path, "localhost") as address:
        port = int(address.rpartition(":")[2])
        assert (await result(monitor(tmp_path, "http", port, host="localhost", tls=True))).status == "healthy"
        assert (await result(monitor(tmp_path, "http", port, host="localhost"))).status == "unhealthy"


@pytest.mark.parametrize("kind", ["tcp", "http"])
async def test_a_host_behind_the_egress_proxy_needs_a_certificate_for_its_name(
    tmp_path: Path, authority: Authority, kind: str
) -> None:
    async with passing_on(authority, tmp_path, OUTSIDE) as via:
        assert (await result(monitor(tmp_path, kind, 443, host=OUTSIDE, via=via))).status == "healthy"
        stranger = await result(monitor(tmp_path / "other", kind, 443, host="other.example", via=via))
        assert stranger.error in {"SSLCertVerificationError", "ConnectError"}


@pytest.mark.parametrize("is_proxied", [True, False])
async def test_a_grpc_host_outside_the_platform_needs_a_certificate_for_its_name(
    tmp_path: Path, authority: Authority, *, is_proxied: bool
) -> None:
    name, other = (OUTSIDE, "other.example") if is_proxied else ("localhost", LOOPBACK)
    servicer = aio.HealthServicer()
    server = grpc.aio.server()
    add_HealthServicer_to_server(servicer, server)
    port = server.add_secure_port(f"{LOOPBACK}:0", grpc.ssl_server_credentials([authority.issue(name)]))
    await server.start()
    reached: dict[str, Any] = {"via": f"localhost:{port}"} if is_proxied else {"tls": True}
    assert (await result(monitor(tmp_path, "grpc", port, host=name, **reached))).status == "healthy"
    stranger = await result(monitor(tmp_path / "other", "grpc", port, host=other, **reached))
    assert stranger.error == "AioRpcError"
    await server.stop(None)


async def test_the_disk_check_fails_below_min_free_or_without_its_directory(tmp_path: Path) -> None:
    enough = monitor(tmp_path, "disk", target=str(tmp_path), min_free=Bytes("1Ki"))
    assert (await result(enough)).status == "healthy"
    full = monitor(tmp_path, "disk", target=str(tmp_path), min_free=Bytes("1024Pi"))
    assert (await result(full)).error == "LowDiskError"
    missing = monitor(tmp_path, "disk", target=str(tmp_path / "missing"), min_free=Bytes("1Ki"))
    assert (await result(missing)).error == "FileNotFoundError"
    impossible = monitor(tmp_path, "disk", target="/a\0b", min_free=Bytes("1Ki"))
    assert (await result(impossible)).error == "ValueError"


def test_one_error_names_all_checks_and_checkers_without_a_counterpart(tmp_path: Path) -> None:
    checks = tuple(
        HealthCheck(name=name, kind="grpc", target=f"{name}.call", critical=False) for name in ("first", "second")
    )
    store = HealthCheck(name="store", kind="postgresql", target="store.read", critical=True)
    policy = HealthPolicy(checks=(*checks, store))
    runtime = Runtime.load(mount(tmp_path, bundle(call("store.read", protocol="postgresql"), health=policy)))
    with pytest.raises(InvalidInputError, match="the settings have no connection 'store'") as refused:
        Health(runtime, checkers={"third": lambda: asyncio.sleep(0)})
    assert [fault.path for fault in refused.value.faults] == [
        "checkers['third']",
        *(f"health.checks[{number}]" for number in range(3)),
    ]
    assert "expected one of first, second, store" in str(refused.value)


async def test_checks_follow_a_reload_of_the_bundle(tmp_path: Path) -> None:
    def policy(*names: str) -> HealthPolicy:
        checks = (HealthCheck(name=name, kind="tcp", target="rag-engine.context", critical=True) for name in names)
        return HealthPolicy(checks=tuple(checks))

    runtime = Runtime.load(mount(tmp_path, bundle(call(), health=policy("one"))))
    health = Health(runtime)
    (kept,) = health.checks()
    mount(tmp_path, bundle(call(), health=policy("one", "two")))
    assert runtime.reload()
    assert [check.policy.name for check in health.checks()] == ["one", "two"]
    assert health.checks()[0] is kept


def test_faulty_or_missing_settings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"service": 1, "http_prot": 2}')
    with pytest.raises(InvalidInputError, match="did you mean http_port"):
        load_settings(tmp_path)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        load_settings(tmp_path / "nowhere")

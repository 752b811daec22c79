from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from voice_policies import Duration, Health
from voice_runtime import Runtime
from voice_runtime.grpc import Grpc

from tests.bundles import bundle, call, mount, operation
from tests.runtime.certificates import Authority
from tests.runtime.grpc.rag_engine import RagEngine, RagEngineStub, add_to_server, ended, runtime

AUTHORITY = Authority()


@asynccontextmanager
async def serving(directory: Path, name: str, *, mutual: bool = False) -> AsyncIterator[int]:
    content = bundle(
        inbound=(operation("context"),), service="rag-engine", health=Health(drain_duration=Duration("0s"))
    )
    server = Grpc(Runtime.load(mount(directory / "server", content))).server()
    add_to_server(RagEngine(), server)
    credentials = grpc.ssl_server_credentials([AUTHORITY.issue(name)], AUTHORITY.certificate, mutual)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def ask(client: Runtime, credentials: grpc.ChannelCredentials | None, target: str | None = None) -> object:
    wire = Grpc(client)
    async with wire.channel("rag-engine", target=target, credentials=credentials) as channel:
        answer = await ended(RagEngineStub(channel).Context(b"x"))
    await wire.close()
    return answer


async def test_mutual_tls_admits_only_a_client_with_a_certificate(tmp_path: Path) -> None:
    client = runtime(tmp_path)
    key, chain = AUTHORITY.issue("agent-engine")
    async with serving(tmp_path, "localhost", mutual=True) as port:
        target = f"dns:///localhost:{port}"
        mutual = grpc.ssl_channel_credentials(AUTHORITY.certificate, key, chain)
        assert await ask(client, mutual, target) == b"x"
        for credentials in (grpc.ssl_channel_credentials(AUTHORITY.certificate), None):
            refused = await ask(client, credentials, target)
            assert isinstance(refused, grpc.aio.AioRpcError)
            assert refused.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_with_a_certificate_of_an_unknown_authority_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, "localhost") as port:
        stranger = grpc.ssl_channel_credentials(Authority().certificate)
        refused = await ask(runtime(tmp_path), stranger, f"dns:///localhost:{port}")
    assert isinstance(refused, grpc.aio.AioRpcError)


async def test_a_callee_behind_the_egress_proxy_must_have_a_certificate_for_its_own_name(tmp_path: Path) -> None:
    async with serving(tmp_path, "milvus.example") as port:
        answers = []
        for host in ("milvus.example", "other.example"):
            address = {"host": host, "port": 19530, "via": f"localhost:{port}"}
            client = runtime(tmp_path / host, call("rag-engine.context", addresses=(address,)))
            answers.append(await ask(client, grpc.ssl_channel_credentials(AUTHORITY.certificate)))
    assert answers[0] == b"x"
    assert isinstance(answers[1], grpc.aio.AioRpcError)


@asynccontextmanager
async def recording() -> AsyncIterator[tuple[int, asyncio.Future[bytes]]]:
    first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        content = await reader.read(4096)
        if not first.done():
            first.set_result(content)
        writer.close()

    async with await asyncio.start_server(record, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], first


@pytest.mark.parametrize("kind", ["channel", "sync_channel"])
async def test_a_channel_to_an_address_with_tls_begins_a_handshake_for_its_host(tmp_path: Path, kind: str) -> None:
    async with recording() as (port, first):
        address = {"host": "localhost", "port": port, "tls": True}
        client = runtime(tmp_path, call("rag-engine.context", addresses=(address,)))
        if kind == "channel":
            refused = await ask(client, None)
        else:
            stub = RagEngineStub(Grpc(client).sync_channel("rag-engine"))
            refused = await ended(asyncio.to_thread(stub.Context, b"x"))
        client_hello = await first
    assert isinstance(refused, grpc.RpcError)
    assert client_hello.startswith(b"\x16\x03")
    assert b"localhost" in client_hello


async def test_given_credentials_replace_the_default_credentials_for_an_address_with_tls(tmp_path: Path) -> None:
    async with serving(tmp_path, "localhost") as port:
        address = {"host": "localhost", "port": port, "tls": True}
        client = runtime(tmp_path, call("rag-engine.context", addresses=(address,)))
        assert await ask(client, grpc.ssl_channel_credentials(AUTHORITY.certificate)) == b"x"
        assert isinstance(await ask(client, None), grpc.aio.AioRpcError)

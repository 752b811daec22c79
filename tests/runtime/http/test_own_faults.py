from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Any

import h11
import pytest
from voice_policies import CircuitBreaker, Retry
from voice_runtime import Runtime
from voice_runtime.http import Http

from tests.bundles import bundle, call, mount
from tests.runtime.http.servers import Elasticsearch, serving

NAME = "elasticsearch.index"
TIMES = 5


class UnreadableError(Exception):
    pass


def unreadable() -> Iterator[bytes]:
    yield b"the first part"
    raise UnreadableError


def four_bytes() -> Iterator[bytes]:
    yield b"four"


FAULTS: dict[str, tuple[Any, dict[str, str], type[Exception]]] = {
    "the source raises": (unreadable, {}, UnreadableError),
    "shorter than declared": (four_bytes, {"content-length": "5"}, h11.LocalProtocolError),
    "longer than declared": (four_bytes, {"content-length": "3"}, h11.LocalProtocolError),
}


async def asynchronous(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("synchronous", [False, True], ids=["client", "sync_client"])
async def test_a_body_that_cannot_be_sent_does_not_count_against_the_callee(
    tmp_path: Path, fault: str, *, synchronous: bool
) -> None:
    parts, headers, expected = FAULTS[fault]
    policies = {"protocol": "http", "circuit_breaker": CircuitBreaker(consecutive_failures=TIMES), "retry": Retry()}
    runtime = Runtime.load(mount(tmp_path, bundle(call(NAME, **policies))))
    http = Http(runtime)
    posted: Awaitable[object]
    async with serving(Elasticsearch()) as url, http.client(NAME) as client:
        for _ in range(TIMES):
            if synchronous:
                posted = asyncio.to_thread(_post, http, url, content=parts(), headers=headers)
            else:
                posted = client.post(url, content=asynchronous(parts()), headers=headers)
            with pytest.raises(expected) as refused:
                await posted
            assert f"{NAME}: a fault of this process, not of the callee" in refused.value.__notes__
        assert (await client.get(url)).status_code == 200
    statistics = runtime.outbound(NAME).statistics
    assert (statistics.failed, statistics.retries, statistics.ignored) == (0, 0, TIMES)


def _post(http: Http, url: str, **request: Any) -> None:
    with http.sync_client(NAME) as client:
        client.post(url, **request)

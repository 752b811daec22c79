from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import propagate
from voice_policies import Bulkhead as BulkheadPolicy
from voice_policies import Degradation as DegradationPolicy
from voice_policies import Duration, Rate, RateLimit, SlidingWindow, TokenBucket
from voice_policies import Timeout as TimeoutPolicy
from voice_runtime import (
    Bulkhead,
    CalleeError,
    Caller,
    DeadlineExceededError,
    Degradation,
    Outbound,
    RateLimitedError,
    Runtime,
    Timeout,
)
from voice_runtime.caller import KEYS
from voice_runtime.grpc import status as grpc_status
from voice_runtime.http import Http
from voice_runtime.http import status as http_status
from voice_runtime.rate_limit.shared_count import TOKEN_BUCKET
from voice_runtime.shared_store import Script
from voice_runtime.tracing import attributed
from voice_runtime.tracing.baggage import AllowedBaggage

from tests.bundles import bundle, call, mount, operation

ANY_TEXT = st.text(st.characters(), max_size=5)
"""Any text, including lone surrogates."""
SURROGATE = json.loads('"\\ud800"')
NAN, NEVER = math.nan, math.inf

TWO_AN_HOUR = TokenBucket(rate=Rate("1/h"), burst=2), SlidingWindow(limit=2, window=Duration("1h"))


def limited(directory: Path, *limits: RateLimit, **settings: Any) -> Runtime:
    redis = call("redis.access", protocol="redis")
    return Runtime.load(mount(directory, bundle(redis, inbound=(operation("run", rate_limits=limits),))), **settings)


# --- costs


@pytest.mark.parametrize("algorithm", TWO_AN_HOUR, ids=["token bucket", "sliding window"])
@pytest.mark.parametrize(
    "cost",
    [0, -1, -(10**400), 0.5, NAN, "1"],
    ids=["zero", "minus one", "huge negative number", "fraction", "NaN", "text"],
)
async def test_a_cost_that_is_not_a_positive_whole_number_is_refused(tmp_path: Path, algorithm: Any, cost: Any) -> None:
    runtime = limited(tmp_path, RateLimit(limit=algorithm))
    for _ in range(3):
        with pytest.raises((ValueError, TypeError)):
            runtime.request("run", cost=cost)
    for _ in range(2):
        async with runtime.request("run"):
            pass
    with pytest.raises(RateLimitedError):
        async with runtime.request("run"):
            pass


@pytest.mark.parametrize("algorithm", TWO_AN_HOUR, ids=["token bucket", "sliding window"])
async def test_a_cost_above_every_limit_is_refused_immediately_without_retry_after(
    tmp_path: Path, algorithm: Any
) -> None:
    runtime = limited(tmp_path, RateLimit(limit=algorithm, max_wait=Duration("1h")))
    with pytest.raises(RateLimitedError) as refused:
        async with runtime.request("run", cost=10**400):
            pass
    assert refused.value.retry_after is None
    async with runtime.request("run", cost=2):
        pass


# --- times


async def test_a_remaining_time_of_nan_is_refused(tmp_path: Path) -> None:
    runtime = limited(tmp_path)
    with pytest.raises(ValueError, match="run: the remaining time must be a number of seconds, not nan"):
        runtime.request("run", remaining=NAN)
    with pytest.raises(DeadlineExceededError):
        async with runtime.request("run", remaining=-1e308):
            pass
    async with runtime.request("run", remaining=1e308):
        pass


@pytest.mark.parametrize("seconds", [0.0, -1.0, NAN, -NEVER], ids=["zero", "minus one", "NaN", "minus infinity"])
def test_a_timeout_that_is_not_above_zero_is_refused(seconds: float) -> None:
    for make in (
        lambda: Timeout("callee", seconds),
        lambda: Outbound("callee", attempt_timeout=seconds),
        lambda: Outbound("callee", overall_timeout=seconds),
    ):
        with pytest.raises(ValueError, match="timeout must be above 0 s"):
            make()
    degradation = Degradation("agent-engine", DegradationPolicy())
    with pytest.raises(ValueError, match="the duration of an override must be above 0 s"):
        degradation.override("full", seconds)
    assert degradation.level == "normal"


@pytest.mark.parametrize("text", ["36500d", "200000d", "9999999999d"])
def test_a_duration_of_centuries_sets_no_limit(tmp_path: Path, text: str) -> None:
    timeout = TimeoutPolicy(attempt=Duration(text), overall=Duration(text))
    runtime = Runtime.load(mount(tmp_path, bundle(call(timeout=timeout))))
    assert runtime.call_sync("rag-engine.context", lambda: 1) == 1
    bulkhead = Bulkhead("callee", BulkheadPolicy(max_concurrent=1, max_queue=1, queue_timeout=Duration(text)))
    bulkhead.enter_sync(1e300)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_a_date_in_retry_after_is_utc_in_every_local_zone(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        moment = time.time() + 3600
        for date in (time.asctime(time.gmtime(moment)), formatdate(moment, usegmt=True), formatdate(moment)):
            failure = http_status.failure_of(503, {"retry-after": date})
            assert failure is not None
            assert failure.retry_after == pytest.approx(3600, abs=60)
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.one_of(ANY_TEXT, st.text("0123456789-+._ :,", max_size=400), st.dates().map(str)))
def test_any_retry_after_gives_a_finite_wait_or_forbids_a_retry(text: str) -> None:
    failure = http_status.failure_of(503, {"retry-after": text})
    assert failure is not None
    assert failure.retry_after is not None
    assert failure.retry_after == http_status.NO_RETRY or 0 <= failure.retry_after < NEVER


@given(st.one_of(ANY_TEXT, st.text("0123456789-+._ ", max_size=400)))
def test_any_pushback_gives_a_finite_wait_or_forbids_a_retry(text: str) -> None:
    failure = grpc_status.failure_of(grpc.StatusCode.UNAVAILABLE, ((grpc_status.PUSHBACK, text),))
    assert failure is not None
    assert failure.retry_after is not None
    assert math.isfinite(failure.retry_after)
    assert failure.retry_after == grpc_status.NO_RETRY or str(round(failure.retry_after * 1000)) == str(int(text))


@pytest.mark.parametrize(
    "pushback",
    ["1_000", " 5", "5 ", "+5", "1e3", "٣", "", "9" * 400],
    ids=["underscore", "space before", "space after", "plus", "exponent", "Arabic digit", "empty", "400 digits"],
)
def test_an_unreadable_pushback_forbids_a_retry(pushback: str) -> None:
    failure = grpc_status.failure_of(grpc.StatusCode.UNAVAILABLE, ((grpc_status.PUSHBACK, pushback),))
    assert failure is not None
    assert failure.retry_after == grpc_status.NO_RETRY


@pytest.mark.parametrize(
    ("wait", "milliseconds", "seconds"),
    [(1.5, "1500", "2"), (NEVER, "2147483647", "2147483647"), (1e300, "2147483647", "2147483647"), (NAN, "-1", None)],
    ids=["short", "infinite", "too long", "NaN"],
)
def test_a_server_sends_every_wait_in_a_readable_form(wait: float, milliseconds: str, seconds: str | None) -> None:
    error = CalleeError("callee", wait)
    assert grpc_status.answer_to(error)[1] == ((grpc_status.PUSHBACK, milliseconds),)
    refused = RateLimitedError("run", wait)
    assert http_status.answer_to(refused)[2].get(http_status.RETRY_AFTER) == seconds


# --- keys


@given(first=st.tuples(ANY_TEXT, ANY_TEXT), second=st.tuples(ANY_TEXT, ANY_TEXT))
def test_two_users_never_share_a_key(first: tuple[str, str], second: tuple[str, str]) -> None:
    keys = [KEYS["user"](Caller(tenant=tenant, user=user)) for tenant, user in (first, second)]
    assert (keys[0] == keys[1]) == (first == second)


@pytest.mark.parametrize(
    ("one", "other"),
    [(("acme/eu", "ann"), ("acme", "eu/ann")), (("1:a", "b"), ("1", ":ab"))],
    ids=["slash", "colon"],
)
async def test_each_user_has_a_separate_limit(tmp_path: Path, one: tuple[str, str], other: tuple[str, str]) -> None:
    limit = RateLimit(limit=TokenBucket(rate=Rate("1/h"), burst=1), key="user")
    runtime = limited(tmp_path, limit)
    for tenant, user in (one, other):
        async with runtime.request("run", Caller(tenant=tenant, user=user)):
            pass


class Store:
    def __init__(self) -> None:
        self.keys: list[str] = []

    async def run(self, script: Script, keys: Sequence[str], *_: str | bytes | float) -> int:
        assert script is TOKEN_BUCKET
        self.keys += keys
        return 1


async def test_a_distributed_limit_accepts_any_text_as_a_key(tmp_path: Path) -> None:
    store = Store()
    limit = RateLimit(
        limit=TokenBucket(rate=Rate("10/s"), burst=10), key="tenant", scope="distributed", store="redis.access"
    )
    runtime = limited(tmp_path, limit, store=store)
    tenants = [SURROGATE, "?", "\\ud800", "\ufffd", "\0", "x" * 100_000]
    for tenant in tenants:
        async with runtime.request("run", Caller(tenant=tenant)):
            pass
    assert len(set(store.keys)) == len(tenants)
    assert all(key.isascii() and len(key) < 100 for key in store.keys)


# --- headers


async def app(_: Any, __: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


async def statuses(runtime: Runtime, *headers: list[tuple[str, str]]) -> list[int]:
    transport = httpx.ASGITransport(Http(runtime).middleware(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        return [(await client.post("/run", headers=each)).status_code for each in headers]


@pytest.mark.parametrize("first", [True, False], ids=["tenant first", "tenant last"])
async def test_baggage_in_several_headers_is_joined(tmp_path: Path, *, first: bool) -> None:
    runtime = limited(tmp_path, RateLimit(limit=TokenBucket(rate=Rate("1/h"), burst=1), key="tenant"))

    def sent(tenant: str) -> list[tuple[str, str]]:
        headers = [("baggage", f"tenant.id={tenant}"), ("baggage", "session=1")]
        return headers if first else headers[::-1]

    assert await statuses(runtime, sent("acme"), sent("umbrella"), sent("acme")) == [200, 200, 429]


@pytest.mark.parametrize(
    ("timeouts", "status"),
    [
        (["-5"], 200),
        (["0"], 504),
        (["60000", "0"], 504),
        (["60000, 0"], 504),
        (["60000"], 200),
        (["9" * 400], 200),
        (["soon"], 200),
        ([""], 200),
        (["1e3"], 200),
    ],
    ids=[
        "negative",
        "zero",
        "zero in the second header",
        "zero after a comma",
        "a minute",
        "400 digits",
        "word",
        "empty",
        "exponent",
    ],
)
async def test_the_shortest_readable_timeout_of_all_headers_applies(
    tmp_path: Path, timeouts: list[str], status: int
) -> None:
    headers = [("x-envoy-expected-rq-timeout-ms", timeout) for timeout in timeouts]
    assert await statuses(limited(tmp_path), headers) == [status]


def test_a_lone_surrogate_in_baggage_is_escaped(tmp_path: Path) -> None:
    runtime = limited(tmp_path)
    allowed = AllowedBaggage(runtime)
    carrier: dict[str, str] = {}
    with attributed({"tenant.id": SURROGATE}):
        allowed.inject(carrier)
    assert carrier["baggage"].isascii()
    assert propagate.extract(carrier) is not None
    assert "%5Cud800" in carrier["baggage"]

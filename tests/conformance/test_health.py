from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from voice_policies import Duration, HealthCheck
from voice_policies import Health as HealthPolicy
from voice_runtime import Runtime
from voice_runtime.health import Health, HealthApp
from voice_runtime.health.server import serving, serving_in_thread, terminated
from voice_runtime.testing import FakeClock

from tests.bundles import bundle, call, mount
from tests.driver import settle

Checkers = dict[str, Callable[[], Awaitable[object]]]


def check(name: str, *, critical: bool = False, **overrides: Any) -> HealthCheck:
    return HealthCheck(name=name, kind="grpc", target="rag-engine.context", critical=critical, **overrides)


def health(directory: Path, checkers: Checkers, *checks: HealthCheck, clock: FakeClock, **policy: Any) -> Health:
    mounted = mount(directory, bundle(call("rag-engine.context"), health=HealthPolicy(checks=checks, **policy)))
    return Health(Runtime.load(mounted, clock=clock), checkers=checkers, clock=clock)


async def fine() -> None:
    await asyncio.sleep(0)


async def broken() -> None:
    raise ConnectionRefusedError("the secret address of the database")


async def hanging() -> None:
    await asyncio.sleep(3600)


def statuses(document: dict[str, Any]) -> dict[str, str | None]:
    return {name: entry.get("status") for name, entry in document["checks"].items()}


async def test_h1_hanging_checks_run_in_parallel_and_end_at_their_timeout(tmp_path: Path, clock: FakeClock) -> None:
    checks = [check(f"store-{n}", critical=True, timeout=Duration("800ms")) for n in range(50)]
    checkers: Checkers = {c.name: hanging for c in checks}
    state = health(tmp_path, checkers, *checks, clock=clock)
    began = clock.monotonic()
    report = await state.readiness()
    assert clock.monotonic() - began == pytest.approx(0.8)
    assert report.status == "unhealthy"
    assert not report.ready
    assert {result.error for _, result in report.checks.values() if result} == {"TimeoutError"}


async def test_h1_a_hanging_check_that_is_not_critical_does_not_delay_the_answer(
    tmp_path: Path, clock: FakeClock
) -> None:
    checks = (check("database", critical=True), check("callee", timeout=Duration("900ms")))
    state = health(tmp_path, {"database": fine, "callee": hanging}, *checks, clock=clock)
    began = clock.monotonic()
    report = await state.readiness()
    assert clock.monotonic() == began
    assert report.status == "healthy"
    assert statuses(report.to_document()) == {"database": "healthy", "callee": None}
    await asyncio.sleep(1)
    assert (await state.readiness()).status == "degraded"


async def test_h1_a_check_that_ignores_its_cancellation_is_not_started_twice(tmp_path: Path, clock: FakeClock) -> None:
    started, release = 0, asyncio.Event()

    async def stubborn() -> None:
        nonlocal started
        started += 1
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    state = health(tmp_path, {"database": stubborn}, check("database", critical=True), clock=clock)
    for _ in range(5):
        assert (await state.readiness()).status == "unhealthy"
        await asyncio.sleep(3)
    assert started == 1
    release.set()
    await asyncio.sleep(3)
    assert (await state.readiness()).status == "healthy"


async def test_h1_a_check_with_a_slow_cleanup_does_not_fail_in_its_next_run(tmp_path: Path, clock: FakeClock) -> None:
    hangs = True

    async def tidy() -> None:
        try:
            await asyncio.sleep(3600 if hangs else 0)
        finally:
            await asyncio.sleep(0.5)

    state = health(tmp_path, {"database": tidy}, check("database", critical=True), clock=clock)
    assert (await state.readiness()).status == "unhealthy"
    hangs = False
    await asyncio.sleep(3)
    assert (await state.readiness()).status == "healthy"


async def test_h1_results_are_cached_and_a_thousand_probes_share_one_run(tmp_path: Path, clock: FakeClock) -> None:
    looks = 0

    async def counted() -> None:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.1)

    state = health(tmp_path, {"db": counted}, check("db", critical=True), clock=clock, cache_duration=Duration("2s"))
    (one,) = state.checks()
    assert one.look() is one.look()
    reports = await asyncio.gather(*(state.readiness() for _ in range(1000)))
    assert looks == 1
    assert all(report.ready for report in reports)
    await asyncio.sleep(1.9)
    await state.readiness()
    assert looks == 1
    await asyncio.sleep(0.2)
    await state.readiness()
    assert looks == 2


async def test_h1_a_cancelled_probe_does_not_cancel_the_run_for_other_probes(tmp_path: Path, clock: FakeClock) -> None:
    release = asyncio.Event()
    state = health(tmp_path, {"db": release.wait}, check("db", critical=True), clock=clock)
    impatient, patient = (asyncio.create_task(state.readiness()) for _ in range(2))
    await settle()
    impatient.cancel()
    await settle()
    release.set()
    assert (await patient).status == "healthy"
    assert impatient.cancelled()


async def test_h2_liveness_runs_no_check(tmp_path: Path, clock: FakeClock) -> None:
    looks = 0

    async def counted() -> None:
        nonlocal looks
        looks += 1
        raise OSError

    state = health(tmp_path, {"db": counted}, check("db", critical=True), clock=clock)
    async with client_of(HealthApp(state)) as client:
        for _ in range(10):
            assert (await client.get("/health")).status_code == 200
        assert looks == 0
        assert (await client.get("/ready")).status_code == 503
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/else")).status_code == 404


def client_of(app: HealthApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")


async def test_h2_only_a_critical_check_makes_a_process_unready(tmp_path: Path, clock: FakeClock) -> None:
    async def slow() -> None:
        await asyncio.sleep(0.3)

    checks = (
        check("database", critical=True),
        check("callee"),
        check("index", critical=True, max_latency=Duration("200ms")),
    )
    checkers: Checkers = {"database": fine, "callee": broken, "index": slow}
    state = health(tmp_path, checkers, *checks, clock=clock)
    await state.readiness()
    async with client_of(HealthApp(state)) as client:
        answer = await client.get("/ready")
        assert answer.status_code == 200
        assert answer.json()["status"] == "degraded"
        assert statuses(answer.json()) == {"database": "healthy", "callee": "unhealthy", "index": "degraded"}
        assert answer.json()["checks"]["callee"]["error"] == "ConnectionRefusedError"
        assert "secret" not in answer.text
    checkers = {"database": broken, "callee": fine, "index": fine}
    assert (await health(tmp_path / "other", checkers, *checks, clock=clock).readiness()).status == "unhealthy"


async def test_h2_on_sigterm_readiness_fails_first_and_work_is_still_accepted(tmp_path: Path) -> None:
    policy = HealthPolicy(drain_duration=Duration("300ms"))
    state = Health(Runtime.load(mount(tmp_path, bundle(health=policy))))
    accepted, all_accepted, release = 0, asyncio.Event(), asyncio.Event()

    async def work(_: Any, __: Any, send: Any) -> None:
        nonlocal accepted
        accepted += 1
        if accepted == 20:
            all_accepted.set()
        await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async def end() -> None:
        await terminated()
        await state.drain()

    ending = asyncio.create_task(end())
    await settle()
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.TaskGroup() as group:
        async with serving(HealthApp(state, work), 0, "127.0.0.1") as port:
            at = f"http://127.0.0.1:{port}"
            assert (await client.get(f"{at}/ready")).status_code == 200
            os.kill(os.getpid(), signal.SIGTERM)
            await settle(lambda: state.draining, turns=10_000)
            answer = await client.get(f"{at}/ready")
            assert (answer.status_code, answer.json()["status"]) == (503, "draining")
            assert (await client.get(f"{at}/health")).status_code == 200
            assert not ending.done()
            answers = [group.create_task(client.get(f"{at}/run")) for _ in range(20)]
            await ending
            await all_accepted.wait()
            asyncio.get_running_loop().call_later(0.2, release.set)
        # The server has stopped, and has answered all requests that it had accepted.
        assert release.is_set()
        assert {answer.text for answer in await asyncio.gather(*answers)} == {"done"}
        with pytest.raises(httpx.ConnectError):
            await client.get(at)


def test_a_thread_serves_the_probes_of_a_process_without_an_event_loop(tmp_path: Path) -> None:
    state = Health(Runtime.load(mount(tmp_path, bundle())))
    with serving_in_thread(HealthApp(state), 0, "127.0.0.1") as port:
        at = f"http://127.0.0.1:{port}"
        assert json.loads(httpx.get(f"{at}/ready", trust_env=False).text) == {"status": "healthy", "checks": {}}
    with pytest.raises(httpx.ConnectError):
        httpx.get(at, trust_env=False)


def test_the_thread_of_the_probes_refuses_an_unusable_port(tmp_path: Path) -> None:
    app = HealthApp(Health(Runtime.load(mount(tmp_path, bundle()))))
    with pytest.raises(OverflowError), serving_in_thread(app, 70_000, "127.0.0.1"):
        pass
    with (
        serving_in_thread(app, 0, "127.0.0.1") as port,
        pytest.raises(OSError, match="in use"),
        serving_in_thread(app, port, "127.0.0.1"),
    ):
        pass

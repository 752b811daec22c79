"""Measures a model call on loopback through the bare SDK, voice_models and litellm.Router, and prints two tables.

`python -m bench.models` runs this module in a virtual environment with the compared libraries.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.goals import at_most
from bench.models.peers import TimedStore, bare, ours, router
from bench.models.provider import CHUNKS, serve
from tests import redis_servers

QUESTION: Any = [{"role": "user", "content": "When is high tide?"}]
BARE, OURS, STORED, ROUTER = "bare SDK", "voice_models", "voice_models, budgets in Valkey", "litellm.Router"
WARM_UP = 3
"""Number of rounds at the start whose values are discarded."""
FIRST_TOKENS, STREAMS, UNARY_ROUNDS, CALLS = 200, 40, 60, 20
Measures = dict[str, Callable[[], Awaitable[float]]]


async def measure(rows: Measures, rounds: int) -> dict[str, list[float]]:
    """The values of each row, in ascending order.

    Each round runs the rows in random order, so the load of other programs affects all rows equally.
    """
    taken: dict[str, list[float]] = {name: [] for name in rows}
    gc.collect()
    gc.freeze()
    for number in range(WARM_UP + rounds):
        for name in random.sample(list(rows), len(rows)):
            value = await rows[name]()
            if number >= WARM_UP:
                taken[name].append(value)
    return {name: sorted(values) for name, values in taken.items()}


async def first_token(client: Any) -> float:
    """Seconds until the first content of a stream."""
    begun = time.perf_counter()
    async with await client.chat.completions.create(model="m", messages=QUESTION, stream=True) as stream:
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                return time.perf_counter() - begun
    raise RuntimeError("the stream ended without content")


async def processor_per_chunk(client: Any) -> float:
    """Seconds of CPU of this process for each chunk of a long stream."""
    begun, chunks = time.process_time(), 0
    stream = await client.chat.completions.create(model="m", messages=QUESTION, stream=True, user="long")
    async for chunk in stream:
        chunks += bool(chunk.choices and chunk.choices[0].delta.content)
    if chunks != CHUNKS:
        raise RuntimeError(f"the stream had {chunks} chunks instead of {CHUNKS}")
    return (time.process_time() - begun) / chunks


async def processor_per_call(call: Callable[[], Awaitable[object]]) -> float:
    """Seconds of CPU of this process for one unary call."""
    begun = time.process_time()
    for _ in range(CALLS):
        await call()
    return (time.process_time() - begun) / CALLS


async def main(port: int, directory: Path, store: TimedStore) -> None:
    """Measure every row, and print the tables, the goals and the times of the round trips to Valkey."""
    sdk, policed = bare(port), ours(port, directory)
    print("| model call | bare SDK | voice_models | ratio | goal |\n|---|---|---|---|---|")
    firsts = await measure({BARE: lambda: first_token(sdk), OURS: lambda: first_token(policed)}, FIRST_TOKENS)
    for label, place, limit in (("p50", 0.5, 1.05), ("p99", 0.99, 1.10)):
        report(
            f"time to first token, {label}, ms",
            quantile(firsts[BARE], place) * 1e3,
            quantile(firsts[OURS], place) * 1e3,
            limit,
        )
    chunks = await measure(
        {BARE: lambda: processor_per_chunk(sdk), OURS: lambda: processor_per_chunk(policed)}, STREAMS
    )
    report(
        "CPU per streamed chunk, p50, µs", quantile(chunks[BARE], 0.5) * 1e6, quantile(chunks[OURS], 0.5) * 1e6, 1.15
    )
    await unary(sdk, policed, ours(port, directory, store), router(port))
    round_trips(store)


async def unary(sdk: Any, policed: Any, stored: Any, routed: Any) -> None:
    """Measure and print the CPU time that a unary call takes in this process.

    The CPU time of the server does not count, because the server is another process.
    """

    def through(client: Any) -> Callable[[], Awaitable[float]]:
        return lambda: processor_per_call(lambda: client.chat.completions.create(model="m", messages=QUESTION))

    async def through_router() -> float:
        return await processor_per_call(lambda: routed.acompletion(model="m", messages=QUESTION))

    rows: Measures = {BARE: through(sdk), OURS: through(policed), STORED: through(stored), ROUTER: through_router}
    taken = {name: quantile(values, 0.5) * 1e6 for name, values in (await measure(rows, UNARY_ROUNDS)).items()}
    print("\n| unary call, CPU, p50 | µs | added to the bare SDK, µs |\n|---|---|---|")
    for name, microseconds in taken.items():
        print(f"| {name} | {microseconds:.0f} | {microseconds - taken[BARE]:.0f} |")
    share = (taken[OURS] - taken[BARE]) / (taken[ROUTER] - taken[BARE])
    print(
        f"\nvoice_models adds {share:.2f} × the CPU time that litellm.Router adds; goal ≤ 0.10: {at_most(0.10, share)}"
    )


def round_trips(store: TimedStore) -> None:
    """Print the times of the two scripts that each call of the row `STORED` runs in Valkey.

    Raises `RuntimeError` if Valkey did not answer both scripts of every such call.
    """
    calls = (WARM_UP + UNARY_ROUNDS) * CALLS
    if len(store.seconds) != 2 * calls:
        raise RuntimeError(f"Valkey answered {len(store.seconds)} scripts instead of {2 * calls}")
    reserve, settle = store.seconds[::2], store.seconds[1::2]
    both = sorted(map(sum, zip(reserve, settle, strict=True)))
    p50, p99 = quantile(both, 0.5) * 1e6, quantile(both, 0.99) * 1e6
    print(f"\nValkey's two round trips of a call: p50 {p50:.0f} µs, p99 {p99:.0f} µs. Each round trip alone:")
    for name, values in (("reserve", reserve), ("settle", settle)):
        ordered = sorted(values)
        print(f"- {name}: p50 {quantile(ordered, 0.5) * 1e6:.0f} µs, p99 {quantile(ordered, 0.99) * 1e6:.0f} µs")


def quantile(ordered: list[float], place: float) -> float:
    """The quantile `place`, between 0 and 1, of an ordered list."""
    return ordered[min(int(len(ordered) * place), len(ordered) - 1)]


def report(what: str, alone: float, policed: float, limit: float) -> None:
    """Print one line of the table, with its goal."""
    ratio = policed / alone
    print(
        f"| {what} | {alone:.1f} | {policed:.1f} | {ratio:.2f} | ≤ {limit:.2f}: {at_most(limit, ratio)} |", flush=True
    )


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    provider = context.Process(target=serve, args=(ports,), daemon=True)
    provider.start()
    try:
        with tempfile.TemporaryDirectory() as folder, redis_servers.single(Path(folder)) as server:
            asyncio.run(main(ports.get(timeout=60), Path(folder), TimedStore(server.url)))
    finally:
        provider.terminate()

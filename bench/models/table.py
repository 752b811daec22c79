"""Measure and print the table. Run by `python -m bench.models` inside the environment that holds the peers."""

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

from bench.models.peers import bare, ours, router
from bench.models.provider import CHUNKS, serve

QUESTION: Any = [{"role": "user", "content": "When is high tide?"}]
BARE, OURS, ROUTER = "bare SDK", "voice_models", "litellm.Router"
WARM_UP = 3
"""Rounds that do not count."""
FIRST_TOKENS, STREAMS, UNARY_ROUNDS, CALLS = 200, 40, 60, 20
Measures = dict[str, Callable[[], Awaitable[float]]]


async def measure(rows: Measures, rounds: int) -> dict[str, list[float]]:
    """The values of each row, in ascending order. Each round runs the rows in random order, to share load."""
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
    raise RuntimeError("a stream without content")


async def processor_per_chunk(client: Any) -> float:
    """Seconds of CPU of this process for each chunk of a long stream."""
    begun, chunks = time.process_time(), 0
    stream = await client.chat.completions.create(model="m", messages=QUESTION, stream=True, user="long")
    async for chunk in stream:
        chunks += bool(chunk.choices and chunk.choices[0].delta.content)
    if chunks != CHUNKS:
        raise RuntimeError(f"{chunks} chunks instead of {CHUNKS}")
    return (time.process_time() - begun) / chunks


async def processor_per_call(call: Callable[[], Awaitable[object]]) -> float:
    """Seconds of CPU of this process for one unary call."""
    begun = time.process_time()
    for _ in range(CALLS):
        await call()
    return (time.process_time() - begun) / CALLS


async def main(port: int, directory: Path) -> None:
    """Measure and print everything, with the goals."""
    sdk, policed, routed = bare(port), ours(port, directory), router(port)
    print("| model call | bare SDK | voice_models | ratio | goal |\n|---|---|---|---|---|")
    firsts = await measure({BARE: lambda: first_token(sdk), OURS: lambda: first_token(policed)}, FIRST_TOKENS)
    for label, place, limit in (("p50", 0.5, 1.05), ("p99", 0.99, 1.10)):
        report(f"time to first token, {label}, ms", at(firsts[BARE], place) * 1e3, at(firsts[OURS], place) * 1e3, limit)
    chunks = await measure(
        {BARE: lambda: processor_per_chunk(sdk), OURS: lambda: processor_per_chunk(policed)}, STREAMS
    )
    report("CPU per streamed chunk, p50, µs", at(chunks[BARE], 0.5) * 1e6, at(chunks[OURS], 0.5) * 1e6, 1.15)

    def through(client: Any) -> Callable[[], Awaitable[float]]:
        return lambda: processor_per_call(lambda: client.chat.completions.create(model="m", messages=QUESTION))

    async def through_router() -> float:
        return await processor_per_call(lambda: routed.acompletion(model="m", messages=QUESTION))

    calls = await measure({BARE: through(sdk), OURS: through(policed), ROUTER: through_router}, UNARY_ROUNDS)
    alone, added, others = (at(calls[name], 0.5) * 1e6 for name in (BARE, OURS, ROUTER))
    print("\n| unary call, CPU, p50 | µs | added to the bare SDK, µs |\n|---|---|---|")
    for name, taken in ((BARE, alone), (OURS, added), (ROUTER, others)):
        print(f"| {name} | {taken:.0f} | {taken - alone:.0f} |")
    share = (added - alone) / (others - alone)
    print(f"\nvoice_models adds {share:.2f} × of what litellm.Router adds; goal ≤ 0.10: {said(share, 0.10)}")


def at(ordered: list[float], place: float) -> float:
    """The quantile `place`, between 0 and 1, of an ordered list."""
    return ordered[min(int(len(ordered) * place), len(ordered) - 1)]


def report(what: str, alone: float, policed: float, limit: float) -> None:
    """One line with its goal."""
    ratio = policed / alone
    print(f"| {what} | {alone:.1f} | {policed:.1f} | {ratio:.2f} | ≤ {limit:.2f}: {said(ratio, limit)} |", flush=True)


def said(taken: float, limit: float) -> str:
    """The verdict on a goal."""
    return "met" if taken <= limit else "missed"


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    provider = context.Process(target=serve, args=(ports,), daemon=True)
    provider.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(main(ports.get(timeout=60), Path(folder)))
    finally:
        provider.terminate()

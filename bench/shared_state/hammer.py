"""Sends requests to one limit as fast as it can. The bench runs several such processes at the same time.

The measurement begins when the process reads a line from stdin. At the end the process prints three numbers: the
admitted requests, the requests that were decided without the store, and the admissions that were left in the store.
It also prints four times: when it read the line, got its first answer, sent its last request and got its last answer.

The store runs on the same machine and has the same clock. So each decision of the store lies between the first and
the last printed time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time

from redis.asyncio import Redis
from voice_policies import Rate, TokenBucket
from voice_runtime import Caller, RateLimitedError
from voice_runtime.rate_limit.shared_count import TOKEN_BUCKET

from bench.shared_state.ours import CALLER, gate, name

TASKS = 4
LONGEST_PAUSE = 0.02
"""Longest pause in seconds before a refused task sends its next request."""


async def main(url: str, rate: str, burst: int, lease: int, seconds: float) -> dict[str, float]:
    """Wait for a line on stdin, then send requests for at least `seconds`. The last request of each task is refused."""
    limited = gate(url, TokenBucket(rate=Rate(rate), burst=burst), lease)
    await limited.admit(Caller(tenant="another"), 1, float("inf"))  # connects before the measurement
    print("ready", flush=True)
    sys.stdin.readline()
    limited.admitted = 0
    begun = time.time()
    asked: list[float] = []
    answered: list[float] = []
    end = begun + seconds

    async def ask() -> None:
        refused = False
        while time.time() < end or not refused:  # until a refusal, so that all tokens are taken
            asked.append(time.time())
            refused, pause = False, 0.0
            try:
                await limited.admit(CALLER, 1, float("inf"))
            except RateLimitedError as error:
                refused, pause = True, min(error.retry_after or 0.0, LONGEST_PAUSE)
            answered.append(time.time())
            if refused:
                await asyncio.sleep(pause)

    await asyncio.gather(*(ask() for _ in range(TASKS)))
    remaining, last = await take_rest(url, rate, burst, lease)
    asked.append(last)
    answered.append(time.time())
    return {
        "remaining": remaining,
        "admitted": limited.admitted,
        "without_store": limited.without_store,
        "begun": begun,
        "first_answer": min(answered),
        "asked": max(asked),
        "answered": max(answered),
    }


async def take_rest(url: str, rate: str, burst: int, lease: int) -> tuple[int, float]:
    """Take all admissions that the store still has. Some are left if the processes were too slow to request them.

    Returns the number of admissions taken, and the time at which this function asked the store.
    """
    hashed = hashlib.blake2b(CALLER.tenant.encode(), digest_size=16).hexdigest()
    key = f"{name(lease)}:token_bucket:tenant:{hashed}"
    async with Redis.from_url(url) as client:
        await client.ping()  # connects before the time is read
        asked = time.time()
        given = await client.evalsha(TOKEN_BUCKET.sha, 1, key, 1e6 / Rate(rate).per_second, burst, 1, burst)
    return max(int(given), 0), asked


if __name__ == "__main__":
    server, refill, capacity, leased, duration = sys.argv[1:]
    print(json.dumps(asyncio.run(main(server, refill, int(capacity), int(leased), float(duration)))))

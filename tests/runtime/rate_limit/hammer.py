"""One of several processes that ask one limit as fast as it lets them, once a line on standard input says so.

Prints what it was given, and when it first and last asked, by the clock that the server here goes by as well.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from voice_runtime import RateLimitedError
from voice_runtime.caller import NOBODY
from voice_runtime.redis import RedisStore, single

from tests.runtime.rate_limit.gates import FOREVER, bucket, gate, shared


async def main(url: str, rate: str, burst: int, lease: int, seconds: float) -> dict[str, float]:
    store = RedisStore(lambda: single(url))
    limited = gate(store, shared(bucket(rate, burst), lease=lease, when_store_unavailable="closed"), timeout=30)
    asked = begun = time.time()
    end = begun + seconds

    async def ask() -> None:
        nonlocal asked
        while (now := time.time()) < end:
            asked = max(asked, now)
            try:
                await limited.admit(NOBODY, 1, FOREVER)
            except RateLimitedError as error:
                await asyncio.sleep(min(error.retry_after or 0.0, 0.02))

    await asyncio.gather(*(ask() for _ in range(4)))
    await store.close()
    return {"admitted": limited.admitted, "without_store": limited.without_store, "begun": begun, "asked": asked}


if __name__ == "__main__":
    url, rate, burst, lease, seconds = sys.argv[1:]
    print("ready", flush=True)  # noqa: T201  # likewise
    sys.stdin.readline()
    print(json.dumps(asyncio.run(main(url, rate, int(burst), int(lease), float(seconds)))))  # noqa: T201  # what its parent reads

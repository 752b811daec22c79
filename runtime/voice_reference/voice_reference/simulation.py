"""Simulated work of a store, a provider or the service's own code."""

from __future__ import annotations

import asyncio
import math
from random import Random

from voice_runtime import CalleeError

from voice_reference.configuration import Behaviour

Z95 = 1.6449
"""The 95th percentile of the standard normal distribution."""


def latency(behaviour: Behaviour, random: Random) -> float:
    """A latency in seconds, drawn from the log-normal distribution with the median and P95 of `behaviour`."""
    median = behaviour.median.seconds
    if not median:
        return 0.0
    return random.lognormvariate(math.log(median), math.log(behaviour.p95.seconds / median) / Z95)


async def work(name: str, behaviour: Behaviour, random: Random) -> None:
    """Take some time. Raises `CalleeError` with the configured probability."""
    await asyncio.sleep(latency(behaviour, random))
    if random.random() < behaviour.error_ratio:
        raise CalleeError(name)

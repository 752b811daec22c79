"""Ports and patience for the real servers that the tests start on this machine."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable
from itertools import cycle

START_SECONDS = 60.0
"""What a server may take to answer on a machine that others keep busy."""
WORKERS = 20
"""Test processes that share `PORTS` without meeting."""
PORTS = range(12_000, 22_000)
"""Below the ports that a system gives to connections and to port 0 (Linux from 32768 on, others from 49152): what is
free here is not taken by one of them a moment later. A Redis cluster's bus, 10,000 above, is below them too."""

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
_OWN = PORTS[_WORKER::WORKERS]
_CANDIDATES = cycle(random.SystemRandom().sample(_OWN, len(_OWN)))


def free_port() -> int:
    """A port of this test process to listen on; each is given once before the first is given again."""
    while True:
        port = next(_CANDIDATES)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have ended do not count
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def wait_until(answers: Callable[[], object], *not_yet: type[Exception]) -> None:
    """Until it raises none of these; raises the last of them when the time is over."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            answers()
        except not_yet:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return

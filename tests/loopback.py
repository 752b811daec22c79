"""Ports and patience for the real servers that the tests start on this machine."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import cycle
from pathlib import Path

START_SECONDS = 180.0
"""Seconds that a living server may take to answer on a machine that others keep busy."""
PORTS = range(12_000, 22_000)
"""Below the ports that a system gives to connections and to port 0 (Linux from 32768 on, others from 49152): what is
free here is not taken by one of them a moment later. A Valkey cluster's bus, 10,000 above, is below them too."""
BLOCK = 250
"""Ports of one test process."""


@cache
def _own() -> tuple[socket.socket, Iterator[int]]:
    """A block that no other test process of this machine uses: its first port stays bound as long as this one lives."""
    for first in range(PORTS.start, PORTS.stop, BLOCK):
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", first))
        except OSError:
            claim.close()
            continue
        own = range(first + 1, first + BLOCK)
        return claim, cycle(random.SystemRandom().sample(own, len(own)))
    raise AssertionError(f"{len(PORTS) // BLOCK} other test processes use all ports of {PORTS}")


def free_port() -> int:
    """A port of this test process to listen on; each is given once before the first is given again."""
    _, candidates = _own()
    while True:
        port = next(candidates)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have ended do not count
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def wait_until(
    answers: Callable[[], object],
    *not_yet: type[Exception],
    process: subprocess.Popen[bytes] | None = None,
    log: Path | None = None,
) -> None:
    """Wait until `answers` raises none of `not_yet`.

    Raises:
        The last of these, with the log as a note, when the process has ended or the time is over.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            answers()
        except not_yet as error:
            if time.monotonic() > deadline or (process and process.poll() is not None):
                if log:
                    error.add_note(log.read_text(errors="replace"))
                raise
            time.sleep(0.05)
        else:
            return

from __future__ import annotations

import random
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import cycle
from pathlib import Path

START_SECONDS = 180.0
"""Seconds that a server may take to start or to answer on a busy machine."""
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For httpx on plain HTTP. Otherwise each client would read all certificate authorities, which takes 15 ms."""
PORTS = range(12_000, 22_000)
"""Ports below the ephemeral ports, which begin at 32768 on Linux and at 49152 elsewhere. The system gives ephemeral
ports to other programs, so a test could lose such a port before it uses it. A node of a Valkey cluster also uses the
port that is 10,000 higher, which is still below the ephemeral ports."""
BLOCK = 250
"""Number of ports of one test process."""


@cache
def _own() -> tuple[socket.socket, Iterator[int]]:
    """Claim a block of ports. This process binds the first port until it ends, so no other process takes the block."""
    for first in range(PORTS.start, PORTS.stop, BLOCK):
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", first))
        except OSError:
            claim.close()
            continue
        own = range(first + 1, first + BLOCK)
        return claim, cycle(random.SystemRandom().sample(own, len(own)))
    raise AssertionError(f"other test processes use all ports from {PORTS.start} to {PORTS.stop - 1}: end some of them")


def free_port() -> int:
    """The next free port of this process's block. A port comes again only after all other ports of the block."""
    _, candidates = _own()
    while True:
        port = next(candidates)
        with socket.socket() as listener:
            listener.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # a port whose only connections are in TIME_WAIT is free
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
    """Call `answers` until it no longer raises an error of a type in `not_yet`.

    Raises:
        The last of these errors, with the log as a note, if the process has ended or `START_SECONDS` have passed.
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

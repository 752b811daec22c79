import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

STOP_SECONDS = 10.0
LOG_LINES = 20


class StartError(RuntimeError):
    """A server ended, or was not ready in time. The message contains the end of its log."""


class Processes:
    """Starts servers in separate process groups, logs to `folder`, and stops the servers in reverse order.

    Within the context SIGTERM raises `KeyboardInterrupt`, so that a cancelled run also stops its servers.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self._previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._running.values()):
            _stop(process)
        signal.signal(signal.SIGTERM, self._previous)

    def start(self, program: Path, *arguments: str) -> None:
        with self._log(program.name).open("wb") as log:
            self._running[program.name] = subprocess.Popen(
                [program, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def wait_until(self, condition: Callable[[], bool], waiting_for: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            ended = [name for name, process in self._running.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                name = ended[0] if ended else next(reversed(self._running))
                log = self._log(name).read_text(errors="replace").splitlines()[-LOG_LINES:]
                what = "ended" if ended else f"was not ready in {seconds:.0f} s"
                raise StartError("\n".join([f"waiting for {waiting_for}: {name} {what}; the end of its log:", *log]))
            time.sleep(0.1)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


def _stop(process: subprocess.Popen[bytes]) -> None:
    for request in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, request)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return

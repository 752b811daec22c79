"""Reads the bundle's file, and watches it for changes.

Kubelet updates a mounted ConfigMap by swapping a symbolic link above the file. The watcher compares the content, so it
notices every kind of update.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from threading import Event, RLock, Thread
from weakref import WeakSet

from voice_policies import FILE_NAME, Fault, InvalidInputError

__all__ = ["BundleSource"]

POLL_INTERVAL = 1.0
"""Seconds between two reads of the file. Kubelet itself takes up to a minute to mount a changed ConfigMap."""


class BundleSource:
    """The bundle in a mounted directory."""

    def __init__(self, directory: str | Path) -> None:
        self.path = Path(directory) / FILE_NAME

    def read(self) -> bytes:
        """The bundle's text. Raises `InvalidInputError` if the file is missing or cannot be read."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            accepted = f"expected the bundle that the platform mounts as {FILE_NAME}"
            value = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            raise InvalidInputError(str(self.path), [Fault("", value, accepted)]) from None


_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def content_hash(text: bytes) -> str:
    """The hash that identifies the content of the file."""
    return hashlib.sha256(text).hexdigest()


def declared_digest(text: bytes) -> str:
    """The digest that the bundle's text contains. Empty if the text is not JSON or contains no digest.

    A value that does not have the form of a digest does not count, because the result becomes a metric's label.
    """
    try:
        digest = json.loads(text)["metadata"]["digest"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else ""


_WATCHING: WeakSet[Watcher] = WeakSet()
"""Active watchers of this process."""


class Watcher:
    """Calls `look` every `interval` seconds on a separate thread, until `stop`."""

    def __init__(self, interval: float, look: Callable[[], object]) -> None:
        self._interval = interval
        self._look = look
        self._thread: Thread | None = None
        self._set()

    def _set(self) -> None:
        self._stopped = Event()
        self.looking = RLock()
        """The lock that the thread holds during `look`. A fork waits for this lock. So the child process inherits no
        lock that `look` has locked."""

    def start(self) -> None:
        """Start watching. After a fork this watcher also runs in the child process, on a new thread."""
        self._begin()
        _WATCHING.add(self)

    def stop(self) -> None:
        """Stop the thread, and wait for its end."""
        _WATCHING.discard(self)
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def restart(self) -> None:
        """Start a new thread in a forked process, with new locks, because the copied locks may stay locked."""
        self._set()
        self._begin()

    def _begin(self) -> None:
        self._thread = Thread(target=self._watch, name="voice-runtime-watch", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(self._interval):
            with self.looking:
                self._look()


_PAUSED: list[Watcher] = []
"""Watchers that wait for the end of a fork."""


def _pause() -> None:
    for watcher in list(_WATCHING):
        watcher.looking.acquire()
        _PAUSED.append(watcher)


def _resume() -> None:
    while _PAUSED:
        _PAUSED.pop().looking.release()


def _watch_after_fork() -> None:
    while _PAUSED:
        _PAUSED.pop().restart()


os.register_at_fork(before=_pause, after_in_parent=_resume, after_in_child=_watch_after_fork)

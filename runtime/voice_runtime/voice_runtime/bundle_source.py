"""The bundle's file: read, and watched for the moment Kubernetes swaps it.

A mounted ConfigMap changes by a swapped symbolic link, with times that say nothing; so its content is compared. The
file is polled, and looked at sooner where the kernel reports a change in the directory (inotify).
"""

from __future__ import annotations

import hashlib
import os
import select
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

from voice_policies import FILE_NAME, Fault, InvalidInputError

POLL_INTERVAL = 10.0
"""Seconds between two looks at the file; the kubelet itself takes up to a minute to swap it."""
CREATED_OR_MOVED_OR_WRITTEN = 0x100 | 0x80 | 0x8
"""IN_CREATE, IN_MOVED_TO and IN_CLOSE_WRITE of inotify(7)."""
NONBLOCK = os.O_NONBLOCK | os.O_CLOEXEC


class BundleSource:
    """The bundle in a mounted directory."""

    def __init__(self, directory: str | Path) -> None:
        self.path = Path(directory) / FILE_NAME

    def read(self) -> bytes:
        """The bundle's text. Raises `InvalidInputError` if the file is not there or cannot be read."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            accepted = f"expected the bundle that the platform mounts as {FILE_NAME}"
            value = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            raise InvalidInputError(str(self.path), [Fault("", value, accepted)]) from None


def content_hash(text: bytes) -> str:
    """What tells one content of the file from another."""
    return hashlib.sha256(text).hexdigest()


class Watcher:
    """Calls `look` every `interval` seconds, and at once when the directory changes, on a thread of its own."""

    def __init__(self, directory: Path, interval: float, look: Callable[[], object]) -> None:
        self._interval = interval
        self._look = look
        self._stopped = Event()
        self._changes = _changes_in(directory)
        self._wake_read, self._wake_write = os.pipe()
        self._thread = Thread(target=self._watch, name="voice-runtime-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._stopped.set()
        os.write(self._wake_write, b"x")
        self._thread.join()
        for descriptor in (self._wake_read, self._wake_write, self._changes):
            if descriptor is not None:
                os.close(descriptor)

    def _watch(self) -> None:
        watched = [self._wake_read] if self._changes is None else [self._wake_read, self._changes]
        while not self._stopped.is_set():
            changed, _, _ = select.select(watched, [], [], self._interval)
            if self._changes in changed and self._changes is not None:
                os.read(self._changes, 65_536)
            if not self._stopped.is_set():
                self._look()


def _changes_in(directory: Path) -> int | None:
    """A descriptor that becomes readable when the directory changes; `None` where the kernel has no inotify."""
    import ctypes  # noqa: PLC0415  # few processes watch: the others do not pay for it

    try:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor: int = libc.inotify_init1(NONBLOCK)
    except (OSError, AttributeError):
        return None
    if descriptor >= 0 and libc.inotify_add_watch(descriptor, os.fsencode(directory), CREATED_OR_MOVED_OR_WRITTEN) >= 0:
        return descriptor
    if descriptor >= 0:
        os.close(descriptor)
    return None

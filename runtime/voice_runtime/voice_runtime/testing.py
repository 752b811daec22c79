"""Tools for tests of services: an edited bundle, a clock that tests control, and states that tests set.

`sealed_bundle` seals an edited bundle and replaces its addresses, so that a service starts on a developer's computer.
With a `FakeClock` a test never waits. `runtime.outbound(name).breaker.open()` opens a breaker,
`runtime.degradation.override(level)` sets a level, and `Runtime.load(..., random=Random(seed))` makes random numbers
repeatable.
"""

from __future__ import annotations

import asyncio
import json
import selectors
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from voice_policies import FILE_NAME, Address, Fault, InvalidInputError, OutboundCall, PolicyBundle, faults_of

__all__ = ["FakeClock", "run", "sealed_bundle"]

T = TypeVar("T")


class FakeClock:
    """A clock that stands still until a test moves it. `sleep` moves the clock and returns immediately."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now

    def monotonic(self) -> float:
        """The current time of the fake clock."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock by `seconds`: forwards, or backwards for a test of a clock that runs backwards."""
        self._now += seconds

    def sleep(self, seconds: float, /) -> None:
        """Move the clock forwards by `seconds`."""
        self.advance(seconds)


class _JumpingSelector(selectors.DefaultSelector):
    """Moves the clock to the next timer instead of waiting for it."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self._clock.advance(timeout)
        return ready


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on a fake clock: `asyncio.sleep` and timeouts take no real time."""

    def __init__(self, clock: FakeClock) -> None:
        self._fake_clock = clock
        super().__init__(_JumpingSelector(clock))

    def time(self) -> float:
        """The fake clock's time."""
        return self._fake_clock.monotonic()


def run(main: Coroutine[Any, Any, T], clock: FakeClock) -> T:
    """`asyncio.run` on a fake clock. Threads and sockets still take real time."""
    with asyncio.Runner(loop_factory=lambda: FakeTimeLoop(clock)) as runner:
        return runner.run(main)


def sealed_bundle(source: str | Path, directory: str | Path, *, addresses: Mapping[str, str] | None = None) -> Path:
    """Read a bundle from the file `source`, edited or not, and write it into `directory` with a new digest.

    `Runtime.load(directory)` accepts the written bundle, and a process that watches `directory` reloads it. `addresses`
    maps callees to `host:port`: the written bundle names these addresses, without TLS or egress proxy. Returns the
    written file. Raises `voice_policies.InvalidInputError` with every fault of the bundle. If the bundle has
    none, the error contains every fault of the addresses.
    """
    document = _document(Path(source))
    try:
        bundle = PolicyBundle.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise InvalidInputError(str(source), faults_of(error, PolicyBundle)) from None
    local = _addresses(addresses or {}, bundle)
    outbound = tuple(_moved(call, local.get(call.callee)) for call in bundle.outbound)
    sealed = bundle.model_copy(update={"outbound": outbound}).sealed()
    target = Path(directory) / FILE_NAME
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(".new")
    fresh.write_text(json.dumps(sealed.to_document(), indent=2))
    return fresh.replace(target)


def _document(source: Path) -> dict[str, Any]:
    """The bundle's document without its digest."""
    try:
        document = json.loads(source.read_text())
    except OSError as error:
        raise InvalidInputError(
            str(source), [Fault("", f"cannot be read ({error.strerror})", "expected a bundle")]
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(str(source), [Fault("", "is not JSON", str(error))]) from None
    if not isinstance(document, dict):
        raise InvalidInputError(str(source), [Fault("", "is not an object", "expected a bundle")])
    if isinstance(metadata := document.get("metadata"), dict):
        metadata.pop("digest", None)
    return document


def _addresses(given: Mapping[str, str], bundle: PolicyBundle) -> dict[str, Address]:
    callees = sorted({call.callee for call in bundle.outbound})
    faults, found = [], {}
    for callee, text in given.items():
        host, _, port = text.rpartition(":")
        if callee not in callees:
            faults.append(
                Fault(f"addresses.{callee}", "is no callee of the bundle", f"expected one of {', '.join(callees)}")
            )
        try:
            found[callee] = Address(host=host, port=int(port))
        except ValueError:
            faults.append(Fault(f"addresses.{callee}", f"is {text!r}", "expected host:port, such as 127.0.0.1:9000"))
    if faults:
        raise InvalidInputError("sealed_bundle", faults)
    return found


def _moved(call: OutboundCall, address: Address | None) -> OutboundCall:
    if address is None:
        return call
    protocol = "http" if call.protocol == "https" else call.protocol
    return call.model_copy(update={"addresses": (address,), "protocol": protocol})

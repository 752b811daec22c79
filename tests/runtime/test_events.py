"""Events reach their listeners in order, and in the context where they happened."""

from __future__ import annotations

from contextvars import ContextVar
from threading import Event as Signal
from threading import Thread

from voice_runtime.events import Event, Events

request: ContextVar[str] = ContextVar("request")


class Slow:
    """A listener that is still busy with the first event when the second one happens."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.busy, self.go_on = Signal(), Signal()

    def on_event(self, event: Event) -> None:
        self.busy.set()
        assert self.go_on.wait(10)
        self.heard.append((event.target, request.get()))


def test_an_event_that_another_thread_delivers_keeps_its_context() -> None:
    listener = Slow()
    events = Events([listener])

    def publish(name: str) -> None:
        request.set(f"request of {name}")
        events.publish(Event("retry", "retry", name))

    first = Thread(target=publish, args=("first",))
    first.start()
    assert listener.busy.wait(10)
    publish("second")  # leaves it to the first thread
    assert listener.heard == []
    listener.go_on.set()
    first.join(10)
    assert listener.heard == [("first", "request of first"), ("second", "request of second")]

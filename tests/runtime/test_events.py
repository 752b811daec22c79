"""Events reach their listeners in order, and in the context where they happened."""

from __future__ import annotations

from contextvars import ContextVar
from threading import Event as Signal
from threading import Thread

from voice_runtime.events import Event, Events

request: ContextVar[str] = ContextVar("request", default="")


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


class AtOnce:
    """A listener that belongs to the thread in which the event happens."""

    at_once = True

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_event(self, event: Event) -> None:
        self.heard.append(event.target)


def test_an_event_is_told_at_once_whoever_delivers_to_the_others() -> None:
    slow, at_once = Slow(), AtOnce()
    events = Events([slow, at_once])
    first = Thread(target=events.publish, args=(Event("retry", "retry", "first"),))
    first.start()
    assert slow.busy.wait(10)
    events.publish(Event("retry", "retry", "second"))
    assert at_once.heard == ["first", "second"]
    slow.go_on.set()
    first.join(10)
    assert [target for target, _ in slow.heard] == ["first", "second"]

from __future__ import annotations

from contextvars import ContextVar, copy_context
from threading import Event as Signal
from threading import Thread, get_ident

from voice_runtime.events import Event, Events, PromptListener

request: ContextVar[str] = ContextVar("request")


class Slow:
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
    publish("second")  # the first thread delivers this event, too
    assert listener.heard == []
    listener.go_on.set()
    first.join(10)
    assert listener.heard == [("first", "request of first"), ("second", "request of second")]


class Prompt(PromptListener):
    def __init__(self) -> None:
        self.heard: list[tuple[str, int, str]] = []

    def on_event(self, event: Event) -> None:
        self.heard.append((event.target, get_ident(), request.get()))


def test_a_prompt_listener_is_called_in_the_thread_of_the_event() -> None:
    slow, prompt = Slow(), Prompt()
    events = Events([slow, prompt])
    request.set("request")
    first = Thread(target=copy_context().run, args=(events.publish, Event("retry", "retry", "first")))
    first.start()
    assert slow.busy.wait(10)
    events.publish(Event("retry", "retry", "second"))
    assert prompt.heard[-1] == ("second", get_ident(), "request")
    assert slow.heard == []
    slow.go_on.set()
    first.join(10)
    assert [target for target, _ in slow.heard] == ["first", "second"]

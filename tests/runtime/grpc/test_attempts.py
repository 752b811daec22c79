from __future__ import annotations

import asyncio
from typing import Any

import pytest
from voice_runtime import Outbound
from voice_runtime.grpc.attempts import Attempts
from voice_runtime.grpc.call_state import Ended, Made, Sent, State, Stopped, Waiting
from voice_runtime.grpc.methods import Resolved


class Rpc:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def attempts() -> Attempts:
    return Attempts(
        Resolved(
            path="/voice.rag.v1.RagEngine/Context",
            outbound=(outbound := Outbound("rag-engine.context")),
            enter=outbound.entry(),
            is_internal=False,
            is_recorded=False,
            channel=None,
            serialize=bytes,
            invoke=lambda *_, **__: Rpc(),
            attributes={},
        ),
        None,
        None,
        {},
    )


def in_state(call: Attempts, state: type[State]) -> bool:
    return type(call.state) is state


def test_a_call_begins_once_and_each_attempt_sends_one_rpc() -> None:
    call = attempts()
    assert in_state(call, Made)
    assert call.begin()
    assert not call.begin()
    assert in_state(call, Waiting)
    first, second = (call.send(b"x", None, 1.0) for _ in range(2))
    assert first is not second
    assert in_state(call, Sent)
    call.end(None)
    assert in_state(call, Ended)
    assert (call.state.rpc, call.error, call.state.cancelled) == (second, None, False)


@pytest.mark.parametrize(
    ("before", "after"), [(Made, Ended), (Waiting, Stopped), (Sent, Stopped)], ids=["made", "waiting", "sent"]
)
def test_a_stopped_call_sends_no_further_rpc(before: type[State], after: type[State]) -> None:
    call = attempts()
    if before is not Made:
        call.begin()
    rpc: Any = call.send(b"x", None, 1.0) if before is Sent else None
    assert call.stop()
    assert not call.stop()
    assert isinstance(call.state, after)
    assert call.state.cancelled
    assert rpc is None or rpc.cancelled
    with pytest.raises(asyncio.CancelledError):
        call.send(b"x", None, 1.0)
    call.end(asyncio.CancelledError())
    assert isinstance(call.state, Ended)
    assert (call.state.rpc, call.state.cancelled) == (rpc, True)


def test_a_stop_during_the_sending_cancels_the_attempt() -> None:
    call = attempts()
    call.begin()
    rpc = call.invoke(b"x", None, 1.0)
    call.stop()
    call.has_sent(rpc)
    assert rpc.cancelled
    assert call.state.rpc is rpc


async def test_a_caller_that_waits_for_a_state_is_notified() -> None:
    call = attempts()
    sent, ended = call.sent, call.ended
    assert not sent.done()
    call.begin()
    call.send(b"x", None, 1.0)
    assert sent.done()
    assert not ended.done()
    call.end(ValueError("x"))
    assert ended.done()
    assert isinstance(call.error, ValueError)
    assert attempts().ended is not ended

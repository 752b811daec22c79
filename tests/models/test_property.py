from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from voice_models import ModelError, ModelStreamError
from voice_models import fake_answers as fake
from voice_models.fake_provider import Answer, Pause, Step, cut
from voice_runtime import CircuitOpenError
from voice_runtime.testing import FakeClock, run

from tests.models.routes import Service, budget, service, texts

pauses = st.sampled_from([0.0, 0.01, 0.3, 0.65, 0.95, 1.2]).map(Pause)


def steps(letter: str) -> st.SearchStrategy[Step]:
    return st.one_of(
        st.just(fake.delta(letter)),
        st.just(fake.delta("")),
        st.just(fake.role()),
        st.just(b": ping\n\n"),
        st.just(fake.tool_call("{}")),
        st.just(fake.finish()),
        st.just(fake.finish("length")),
        st.just(fake.usage(20, 30)),
        st.just(b"data: [DONE]\n\n"),
        st.just(fake.error_frame()),
        st.just(b"data: {not json}\n\n"),
        st.just(b"data: incomplete"),
        st.just(cut),
        pauses,
    )


def answers(letter: str) -> st.SearchStrategy[Answer]:
    streams = st.lists(steps(letter), max_size=10).map(fake.streamed)
    refusals = st.builds(
        fake.error,
        st.sampled_from([400, 401, 404, 429, 500, 503, 529]),
        st.sampled_from([None, "insufficient_quota", "context_length_exceeded"]),
        headers=st.sampled_from([{}, {"retry-after": "0.2"}]),
    )
    healthy = st.builds(fake.chat_stream, *[st.just(letter)] * 3, gap=st.sampled_from([0.0, 0.05]))
    return st.one_of(streams, refusals, healthy)


@dataclass
class Asked:
    a: Answer
    b: Answer
    leaves_after: float


calls = st.lists(
    st.builds(Asked, answers("A"), answers("B"), st.sampled_from([0.001, 0.005, 0.2, 0.71, 1.0, 10.0])),
    min_size=1,
    max_size=4,
)


async def outcome(made: Service, leaves_after: float) -> tuple[str, BaseException | None]:
    contents: list[str] = []

    async def receive() -> None:
        async for text in texts(made.sdk()):
            contents.append(text)  # noqa: PERF401  # a cancellation must not lose earlier contents

    try:
        async with asyncio.timeout(leaves_after):
            await receive()
    except (ModelError, TimeoutError, CircuitOpenError) as error:
        return "".join(contents), error
    return "".join(contents), None


@given(asked=calls)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_frames_faults_and_cancellations_gives_at_most_one_answer(
    tmp_path_factory: pytest.TempPathFactory, asked: list[Asked]
) -> None:
    directory = tmp_path_factory.mktemp("case")
    clock = FakeClock()
    limit = 400
    made = service(
        directory,
        clock,
        models={"budgets": {"minute": budget(limit)}},
        route={"budgets": ("minute",)},
    )
    scripts_a, scripts_b = [each.a for each in asked], [each.b for each in asked]
    made.a.script = lambda _: scripts_a[min(len(made.a.exchanges), len(scripts_a)) - 1]
    made.b.script = lambda _: scripts_b[min(len(made.b.exchanges), len(scripts_b)) - 1]

    async def scenario() -> list[tuple[str, BaseException | None]]:
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, made.held)
                await asyncio.sleep(0.001)

        watching = asyncio.ensure_future(watch())
        try:
            return list(await asyncio.gather(*(outcome(made, each.leaves_after) for each in asked)))
        finally:
            watching.cancel()
            await made.runtime.drain()
            assert most <= limit

    for contents, error in run(scenario(), clock):
        assert not ("A" in contents and "B" in contents), contents
        assert not (contents and error is not None) or isinstance(error, (ModelStreamError, TimeoutError))
    assert made.is_settled()
    exchanges = made.a.exchanges + made.b.exchanges
    assert all(exchange.ending != "open" for exchange in exchanges)
    assert len(made.ledger.events) == len(exchanges)
    spent = sum(event.input_units + event.output_tokens for event in made.ledger.events)
    assert made.held == spent
    assert sum(made.runtime.statistics.calls.values()) == len(asked)

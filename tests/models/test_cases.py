"""Numbered cases of model calls, on fake time: MC1 to MC12, MC14 to MC17 and MC22 to MC24."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from voice_models import ModelAttemptError, ModelRefusedError, ModelStreamError
from voice_models import fake_answers as fake
from voice_models.fake_provider import Answer, cut, stall
from voice_policies import CircuitBreaker, Duration, ModelDeployment, ModelFallback, Ratio, StreamLatency, StreamTimeout
from voice_runtime.testing import FakeClock

from tests.models.routes import ANSWER, MARKER, Driver, Service, deployments, model, service

FROM_A, FROM_B = f"{ANSWER}A", f"{ANSWER}B"


@pytest.fixture
def tested(tmp_path: Path, clock: FakeClock) -> Service:
    return service(tmp_path, clock)


def answers(made: Service, *script: Answer) -> None:
    """Let A give these answers, and healthy answers afterwards."""
    left = list(script)
    made.a.script = lambda _: left.pop(0) if left else fake.chat_stream(ANSWER, "A")


def breaker(made: Service, name: str = "a") -> Any:
    return made.runtime.runtime.outbound("llm.generate", name).breaker


# --- the next candidate


@pytest.mark.parametrize("status", [503, 529, 500, 502], ids=["mc1: 503", "mc11: 529", "status 500", "status 502"])
def test_mc1_mc11_after_a_server_error_the_next_candidate_answers(driver: Driver, tested: Service, status: int) -> None:
    answers(tested, fake.error(status))
    assert driver.ask(tested) == FROM_B
    assert tested.calls == (1, 1)
    assert breaker(tested).failed == 1


def test_a_refused_connection_uses_no_tokens_and_the_next_candidate_answers(driver: Driver, tested: Service) -> None:
    tested.a.accepts = False
    assert driver.ask(tested) == FROM_B
    failed, finished = tested.ledger.events
    assert (failed.error_class, failed.input_units, failed.micro_usd) == ("connection_failed", 0, 0)
    assert finished.ending == "finished"


def test_a_slow_connection_ends_at_the_connect_timeout(driver: Driver, tested: Service, clock: FakeClock) -> None:
    tested.a.connect_delay = 10
    began = clock.monotonic()
    assert driver.ask(tested) == FROM_B
    assert 0.25 <= clock.monotonic() - began < 0.31


# --- cooldowns


def test_mc2_after_a_rate_limit_the_cooldown_lasts_as_long_as_the_provider_says(
    driver: Driver, tested: Service, clock: FakeClock
) -> None:
    answers(tested, fake.error(429, headers={"retry-after-ms": "1500"}))
    assert driver.ask(tested) == FROM_B
    clock.advance(1.4)
    assert driver.ask(tested) == FROM_B
    clock.advance(0.2)
    assert driver.ask(tested) == FROM_A
    assert breaker(tested).failed == 0


def test_mc3_a_cooldown_lasts_five_seconds_if_the_provider_gives_no_time(
    driver: Driver, tested: Service, clock: FakeClock
) -> None:
    answers(tested, fake.error(429))
    assert driver.ask(tested) == FROM_B
    clock.advance(4.9)
    assert driver.ask(tested) == FROM_B
    clock.advance(0.2)
    assert driver.ask(tested) == FROM_A


@pytest.mark.parametrize(("word", "seconds"), [("0.5", 0.5), ("6m0s", 60.0)], ids=["decimals", "capped"])
def test_mc4_a_cooldown_lasts_as_long_as_retry_after_says_up_to_the_maximum(
    driver: Driver, tested: Service, clock: FakeClock, word: str, seconds: float
) -> None:
    answers(tested, fake.error(429, headers={"retry-after": word}))
    assert driver.ask(tested) == FROM_B
    clock.advance(seconds - 0.1)
    assert driver.ask(tested) == FROM_B
    clock.advance(0.2)
    assert driver.ask(tested) == FROM_A


def test_mc4_retry_after_may_be_an_http_date_at_which_the_cooldown_ends(
    driver: Driver, tested: Service, clock: FakeClock
) -> None:
    headers = {"date": "Mon, 30 Nov 2026 08:00:00 GMT", "retry-after": "Mon, 30 Nov 2026 08:00:09 GMT"}
    answers(tested, fake.error(429, headers=headers))
    assert driver.ask(tested) == FROM_B
    clock.advance(8.9)
    assert driver.ask(tested) == FROM_B
    clock.advance(0.2)
    assert driver.ask(tested) == FROM_A


@pytest.mark.parametrize("order", [("1", "10"), ("10", "1")], ids=["longer later", "shorter later"])
def test_mc5_the_longer_of_two_cooldowns_applies(
    driver: Driver, tested: Service, clock: FakeClock, order: tuple[str, str]
) -> None:
    (candidate, *_) = tested.runtime.candidates(tested.runtime.declared("llm.generate")[1], "llm.generate")
    policy = tested.runtime.declared("llm.generate")[1].routes["llm.generate"].cooldown
    for word in order:
        tested.runtime.cooldowns.record(candidate, "rate_limited", float(word), policy)
    clock.advance(9.9)
    assert driver.ask(tested) == FROM_B
    clock.advance(0.2)
    assert driver.ask(tested) == FROM_A


def test_mc6_an_exhausted_quota_starts_one_cooldown_of_15_minutes_and_is_logged_once(
    driver: Driver, tested: Service, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    answers(tested, *[fake.error(429, "insufficient_quota")] * 9)
    for _ in range(5):
        assert driver.ask(tested) == FROM_B
    assert tested.calls == (1, 5)
    clock.advance(15 * 60 - 1)
    assert driver.ask(tested) == FROM_B
    cooldowns = [event for event in tested.events.of("transition") if event.policy == "cooldown"]
    assert [(event.target, event.reason, event.delay) for event in cooldowns] == [("a", "quota_exhausted", 900.0)]
    assert caplog.text.count("model deployment a is in cooldown for 900 s: quota_exhausted") == 1
    (line,) = (each for each in caplog.records if "cooldown" in each.getMessage())
    assert (vars(line)["callee"], vars(line).get("operation")) == ("a", None)
    clock.advance(2)
    driver.ask(tested)
    assert tested.calls == (2, 7)
    assert breaker(tested).failed == 0


def test_mc7_the_error_of_an_invalid_request_is_returned_and_no_breaker_counts_it(
    driver: Driver, tested: Service
) -> None:
    tested.a.script = lambda _: fake.error(400, "invalid_value", message=MARKER, headers={"retry-after": "9"})
    for _ in range(100):
        contents, error = driver.received(tested)
        assert contents == []
        assert isinstance(error, ModelAttemptError)
        assert (error.error_class, error.route, error.candidate, error.attempts) == (
            "invalid_request",
            "llm.generate",
            "a",
            1,
        )
    assert tested.calls == (100, 0)
    assert breaker(tested).current() == "closed"
    assert breaker(tested).failed == 0


@pytest.mark.parametrize(("window", "calls"), [(8192, 0), (32_768, 1)], ids=["the same window", "a larger window"])
def test_mc8_after_context_exceeded_only_a_model_with_a_larger_window_is_called(
    driver: Driver, tmp_path: Path, clock: FakeClock, window: int, calls: int
) -> None:
    found = deployments(tmp_path)
    models = {
        "models": {"m": model(), "large": model("large", context_window=window)},
        "deployments": {**found, "b": found["b"].model_copy(update={"model": "large"})},
    }
    made = service(tmp_path, clock, models=models)
    answers(made, fake.error(400, "context_length_exceeded"))
    contents, error = driver.received(made)
    assert made.calls == (1, calls)
    assert contents == ([ANSWER, "B"] if calls else [])
    assert calls or (isinstance(error, ModelAttemptError) and error.error_class == "context_exceeded")
    assert driver.ask(made) == FROM_A


def two_keys(tmp_path: Path, **second: Any) -> dict[str, Any]:
    """Overrides that give provider A a second deployment, `a2`."""
    found = deployments(tmp_path)
    key = tmp_path / "key-a2"
    key.write_text("sk-second")
    latency = StreamLatency(first_token=Duration("250ms"))
    fields: dict[str, Any] = {"provider": "a", "model": "m", "credential": str(key), "latency": latency} | second
    return {
        "models": {
            "models": {"m": model(), "other": model("other")},
            "deployments": {**found, "a2": ModelDeployment(**fields)},
        },
        "route": {"candidates": ("a", "b", "a2")},
    }


def test_mc9_after_a_refused_key_another_key_of_the_provider_is_used(
    driver: Driver, tmp_path: Path, clock: FakeClock
) -> None:
    made = service(tmp_path, clock, **two_keys(tmp_path))
    answers(made, fake.error(401, "invalid_api_key"))
    assert driver.ask(made) == FROM_B
    made.b.accepts = False
    assert driver.ask(made) == FROM_A
    assert [event.deployment for event in made.ledger.events] == ["a", "b", "b", "a2"]
    assert made.a.exchanges[-1].request.headers["authorization"] == "Bearer sk-second"


def test_deployments_with_the_same_credential_are_in_cooldown_together(
    driver: Driver, tmp_path: Path, clock: FakeClock
) -> None:
    made = service(tmp_path, clock, **two_keys(tmp_path, credential=str(tmp_path / "key-a")))
    answers(made, fake.error(401))
    assert driver.ask(made) == FROM_B
    made.b.accepts = False
    _, error = driver.received(made)
    assert isinstance(error, ModelAttemptError)
    assert [event.deployment for event in made.ledger.events] == ["a", "b", "b"]


@pytest.mark.parametrize("status", [404, 410], ids="status {}".format)
def test_mc10_after_model_not_found_only_the_called_deployment_is_in_cooldown(
    driver: Driver, tmp_path: Path, clock: FakeClock, status: int
) -> None:
    made = service(tmp_path, clock, **two_keys(tmp_path, model="other", credential=str(tmp_path / "key-a")))
    answers(made, fake.error(status))
    assert driver.ask(made) == FROM_B
    made.b.accepts = False
    assert driver.ask(made) == FROM_A
    assert [event.deployment for event in made.ledger.events] == ["a", "b", "b", "a2"]
    assert made.a.exchanges[-1].request.json()["model"] == "other"


# --- errors inside an answer with status 200


def test_mc12_after_an_error_frame_before_any_content_the_next_candidate_answers(
    driver: Driver, tested: Service
) -> None:
    answers(tested, fake.streamed([fake.role(), fake.error_frame()]))
    assert driver.received(tested) == ([ANSWER, "B"], None)
    assert tested.ledger.events[0].error_class == "server_error"
    assert breaker(tested).failed == 1


def test_mc12_after_an_error_as_json_the_next_candidate_answers(driver: Driver, tested: Service) -> None:
    answers(tested, Answer((b'{"error": {"code": "server_error"}}',), headers={"content-type": "application/json"}))
    assert driver.received(tested) == ([ANSWER, "B"], None)


def test_after_an_html_page_instead_of_an_answer_the_next_candidate_answers(driver: Driver, tested: Service) -> None:
    answers(tested, Answer((b"<html>gateway</html>",), headers={"content-type": "text/html"}))
    assert driver.received(tested) == ([ANSWER, "B"], None)
    assert tested.ledger.events[0].error_class == "server_error"


def test_mc14_pings_do_not_extend_the_first_token_timeout(driver: Driver, tested: Service, clock: FakeClock) -> None:
    answers(tested, fake.streamed([b": ping\n\n"] * 1000, gap=0.1))
    began = clock.monotonic()
    assert driver.ask(tested) == FROM_B
    assert 0.7 <= clock.monotonic() - began <= 0.76
    assert tested.endings == ["closed_by_client"]
    assert tested.ledger.events[0].error_class == "first_token_timeout"


OBJECT = {"object": "error", "message": "x", "type": "server_error", "code": 500}


@pytest.mark.parametrize(
    "frame",
    [fake.error_frame(), fake.event(OBJECT), b"data: [1]\n\n", b"data: {\n\n", b"data: 1\n\n", b"data: cut off"],
    ids=["an error", "an error object", "a list", "not JSON", "a number", "cut off"],
)
def test_an_invalid_frame_after_content_ends_the_answer_with_an_error(
    driver: Driver, tested: Service, frame: bytes
) -> None:
    answers(tested, fake.streamed([fake.delta("x"), fake.delta("y"), frame, fake.delta("z")]))
    contents, error = driver.received(tested)
    assert contents == ["x", "y"]
    assert isinstance(error, ModelStreamError)
    assert error.error_class == "server_error"


def test_after_64_kib_without_content_the_next_candidate_answers(driver: Driver, tested: Service) -> None:
    answers(tested, fake.streamed([b": %b\n\n" % (b"x" * 1024)] * 100))
    assert driver.ask(tested) == FROM_B
    assert tested.ledger.events[0].error_class == "server_error"


def test_mc15_a_stream_that_is_cut_is_never_continued_by_another_candidate(driver: Driver, tested: Service) -> None:
    answers(tested, fake.streamed([fake.role(), *[fake.delta("x")] * 20, cut], gap=0.01))
    contents, error = driver.received(tested)
    assert contents == ["x"] * 20
    assert isinstance(error, ModelStreamError)
    assert (error.error_class, error.candidate) == ("truncated", "a")
    assert error.usage.output == 10
    assert error.usage.estimated
    assert tested.calls == (1, 0)
    assert breaker(tested).failed == 1


def test_mc15_after_content_an_error_frame_ends_the_answer_with_the_error_class_of_the_frame(
    driver: Driver, tested: Service
) -> None:
    answers(tested, fake.streamed([fake.delta("x"), fake.error_frame("server_is_overloaded")]))
    contents, error = driver.received(tested)
    assert contents == ["x"]
    assert isinstance(error, ModelStreamError)
    assert error.error_class == "overloaded"
    assert tested.calls == (1, 0)


@pytest.mark.parametrize("end", [[b"data: [DONE]\n\n"], []], ids=["done", "nothing"])
@pytest.mark.parametrize("content", [0, 3], ids=["without content", "after content"])
def test_mc16_an_end_without_a_finish_reason_is_never_a_success(
    driver: Driver, tested: Service, content: int, end: list[bytes]
) -> None:
    answers(tested, fake.streamed([fake.role(), *[fake.delta("x")] * content, *end]))
    contents, error = driver.received(tested)
    if content:
        assert contents == ["x"] * 3
        assert isinstance(error, ModelStreamError)
    else:
        assert contents == [ANSWER, "B"]
    assert tested.ledger.events[0].error_class == "truncated"
    assert breaker(tested).failed == 1


def test_mc17_a_stall_after_content_ends_the_stream_at_the_idle_limit(
    driver: Driver, tested: Service, clock: FakeClock
) -> None:
    answers(tested, fake.streamed([*[fake.delta("x")] * 5, stall]))
    began = clock.monotonic()
    contents, error = driver.received(tested)
    assert contents == ["x"] * 5
    assert isinstance(error, ModelStreamError)
    assert error.error_class == "idle_timeout"
    assert clock.monotonic() - began == pytest.approx(1.0, abs=0.01)
    assert tested.endings == ["closed_by_client"]
    assert breaker(tested).failed == 1


def test_a_call_ends_at_the_total_timeout_of_its_route(driver: Driver, tested: Service, clock: FakeClock) -> None:
    answers(tested, fake.chat_stream(*["x"] * 100, gap=0.5))
    began = clock.monotonic()
    contents, error = driver.received(tested)
    assert isinstance(error, ModelStreamError)
    assert error.error_class == "deadline_exceeded"
    assert len(contents) == 5
    assert clock.monotonic() - began == pytest.approx(3.0, abs=0.01)
    assert breaker(tested).failed == 0


# --- tool calls and finish reasons


def test_an_incomplete_tool_call_never_reaches_the_caller(driver: Driver, tested: Service) -> None:
    answers(tested, fake.streamed([fake.role(), fake.tool_call('{"query": "ti'), fake.delta("x"), cut]))
    contents, error = driver.received(tested)
    assert contents == []
    assert isinstance(error, ModelStreamError)
    assert tested.calls == (1, 0)


def test_a_complete_tool_call_reaches_the_caller(driver: Driver, tested: Service) -> None:
    answers(tested, fake.streamed([fake.tool_call("{}"), fake.delta("after"), fake.finish("tool_calls")]))
    assert driver.received(tested) == (["after"], None)


def test_if_the_output_limit_cuts_an_answer_its_usage_event_has_finish_reason_length(
    driver: Driver, tested: Service
) -> None:
    answers(tested, fake.streamed([fake.delta("x"), fake.finish("length")]))
    assert driver.ask(tested) == "x"
    assert tested.ledger.events[0].finish_reason == "length"
    assert tested.runtime.statistics.calls["llm.generate", "truncated_by_length"] == 1


# --- usage


def test_mc22_usage_is_always_requested_and_is_estimated_if_the_provider_reports_none(
    driver: Driver, tested: Service
) -> None:
    answers(tested, fake.chat_stream("four", "five5", tokens=None))
    assert driver.ask(tested) == "fourfive5"
    assert tested.a.exchanges[0].request.json()["stream_options"] == {"include_usage": True}
    (event,) = tested.ledger.events
    assert (event.output_tokens, event.estimated) == (5, True)
    assert event.input_units > 0
    assert event.micro_usd > 0


def test_the_routes_output_limit_is_sent_to_the_provider(driver: Driver, tested: Service) -> None:
    driver.ask(tested)
    assert tested.a.exchanges[0].request.json()["max_completion_tokens"] == 100


# --- waiting


@pytest.mark.parametrize(("total", "waits"), [("2s", True), ("300ms", False)], ids=["waits", "is refused"])
def test_mc23_a_call_waits_for_a_cooldown_only_if_the_cooldown_ends_before_the_deadline(
    driver: Driver, tmp_path: Path, clock: FakeClock, total: str, waits: bool
) -> None:
    limits = {"total": Duration(total)} | ({} if waits else {"first_token": Duration("140ms")})
    timeout = StreamTimeout(**limits)
    fallback = ModelFallback(backoff=Duration("0s"))
    made = service(tmp_path, clock, route={"timeout": timeout, "fallback": fallback})
    made.a.script = lambda _: fake.error(429, headers={"retry-after-ms": "400"})
    made.b.script = lambda _: fake.error(429, headers={"retry-after": "10"})
    _, error = driver.received(made)
    assert isinstance(error, ModelAttemptError)
    assert made.calls == (1, 1)
    answers(made)
    began = clock.monotonic()
    contents, error = driver.received(made)
    if waits:
        assert contents == [ANSWER, "A"]
        assert clock.monotonic() - began == pytest.approx(0.4, abs=0.01)
    else:
        assert isinstance(error, ModelRefusedError)
        assert error.retry_after == pytest.approx(0.4, abs=0.01)
        assert clock.monotonic() == began
        assert made.calls == (1, 1)


# --- the breaker


def test_mc24_only_probes_call_a_candidate_after_its_breaker_has_opened(
    driver: Driver, tmp_path: Path, clock: FakeClock
) -> None:
    policy = CircuitBreaker(
        break_duration=Duration("1s"), break_duration_multiplier=1, break_duration_jitter=Ratio("0%")
    )
    made = service(tmp_path, clock, breaker=policy, route={"fallback": ModelFallback(backoff=Duration("0s"))})
    made.a.script = lambda _: fake.error(503)
    for _ in range(1000):
        assert driver.ask(made) == FROM_B
        clock.advance(0.01)
    called_a, called_b = made.calls
    probes = [
        event for event in made.events.of("transition") if event.after == "half_open" and event.target.endswith("@a")
    ]
    assert called_b == 1000
    assert called_a == 5 + len(probes)
    assert 8 <= len(probes) <= 10


def test_an_unreported_output_is_estimated_as_one_token_for_two_bytes(driver: Driver, tested: Service) -> None:
    words = ["a", "four", "it's", "", "“x”", 'finish_reason":"stop"', "x" * 100]
    answers(tested, fake.chat_stream(*words, tokens=None))
    assert driver.ask(tested) == "".join(words)
    assert tested.ledger.events[0].output_tokens == math.ceil(len("".join(words).encode()) / 2)

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voice_policies import (
    Address,
    CircuitBreaker,
    Duration,
    Health,
    HealthCheck,
    InvalidInputError,
    PolicyBundle,
    Rate,
    RateLimit,
    Ratio,
    Timeout,
    TokenBucket,
)
from voice_policies.bundle import digest_of

from tests.bundles import bundle, call, operation

SHARED = RateLimit(
    limit=TokenBucket(rate=Rate("10/s"), burst=20),
    key="tenant",
    scope="distributed",
    store="redis.access",
    local_share=Ratio("50%"),
)
AGENT = bundle(
    call(
        "model-adapter.generate:plan",
        idempotency="with_key",
        timeout=Timeout(attempt=Duration("1500ms"), overall=Duration("1500ms")),
        circuit_breaker=CircuitBreaker(),
    ),
    call("redis.access", protocol="redis", necessity="soft", fallback="no long-term memory"),
    call("postgresql.write", protocol="postgresql"),
    inbound=(operation("run", deadline=Duration("14s"), calls=("redis.access",), rate_limits=(SHARED,)),),
    health=Health(checks=(HealthCheck(name="redis", kind="redis", target="redis.access", critical=False),)),
)


def document() -> dict[str, Any]:
    return AGENT.to_document()


def refused(changed: object) -> str:
    with pytest.raises(InvalidInputError) as caught:
        PolicyBundle.from_json(json.dumps(changed), "policy.json")
    return str(caught.value)


def test_a_bundle_is_read_back_unchanged() -> None:
    assert PolicyBundle.from_json(json.dumps(document()), "policy.json") == AGENT


def test_a_circuit_breaker_with_only_a_failure_ratio_is_read_back_unchanged() -> None:
    by_ratio = CircuitBreaker(consecutive_failures=None, failure_ratio=Ratio("50%"))
    written = bundle(call("model-adapter.generate", circuit_breaker=by_ratio))
    read = PolicyBundle.from_json(json.dumps(written.to_document()), "policy.json")
    assert read == written
    assert read.outbound[0].circuit_breaker == by_ratio


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    shuffled = dict(reversed(document().items()))
    assert (
        PolicyBundle.from_json(json.dumps(shuffled, indent=4), "policy.json").metadata.digest == AGENT.metadata.digest
    )


@given(milliseconds=st.integers(min_value=1, max_value=10**6))
def test_the_digest_changes_if_and_only_if_the_content_changes(milliseconds: int) -> None:
    changed = document()
    changed["metadata"].pop("digest")
    changed["inbound"][0]["deadline"] = f"{milliseconds}ms"
    read = PolicyBundle.model_validate_json(json.dumps(changed))
    assert (digest_of(read) == AGENT.metadata.digest) == (milliseconds == 14_000)


def test_a_bundle_whose_content_does_not_match_its_digest_is_refused() -> None:
    changed = document()
    changed["outbound"][0]["timeout"]["attempt"] = "1ms"
    assert "metadata.digest" in refused(changed)
    assert "does not match the content" in refused(changed)


def test_a_bundle_without_digest_is_refused() -> None:
    changed = document()
    del changed["metadata"]["digest"]
    assert "metadata.digest: is missing" in refused(changed)


def test_the_refusal_of_a_newer_api_version_names_no_other_fault() -> None:
    said = refused({**document(), "apiVersion": "voiceassistant.dev/v2", "new_field": 1})
    assert "expected voiceassistant.dev/v1" in said
    assert "new_field" not in said


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "NaN", '{"a": NaN}', "\x00"])
def test_an_invalid_bundle_is_refused_in_one_message(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"policy\.json: 1 fault"):
        PolicyBundle.from_json(text, "policy.json")


def test_the_error_names_the_path_and_the_accepted_values_of_every_fault() -> None:
    changed = document()
    changed["outbound"][1]["timeout"]["attempt"] = 5
    changed["outbound"][0]["circuit_braker"] = {}
    changed["health"]["cache_duration"] = "2 seconds"
    said = refused(changed)
    assert "3 faults" in said
    assert "outbound[1].timeout.attempt: is 5; expected a duration" in said
    assert "outbound[0].circuit_braker" in said
    assert "did you mean circuit_breaker?" in said
    assert "health.cache_duration: is '2 seconds'; expected a duration" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda call: call.update(necessity="soft"), "fallback is for soft calls"),
        (lambda call: call["enforced_by"].update(retry="runtime"), "enforced_by.retry and retry go together"),
        (
            lambda call: (
                call["timeout"].update(overall="2900s", attempt="1s")
                or call.update(
                    retry={"max_retries": 9},
                    enforced_by={"timeout": "runtime", "retry": "runtime", "circuit_breaker": "runtime"},
                )
            ),
            "one request could open the breaker",
        ),
        (
            lambda call: call.update(
                retry={"max_retries": 1},
                enforced_by={"timeout": "runtime", "retry": "runtime", "circuit_breaker": "runtime"},
            ),
            "cannot hold 2 attempts",
        ),
        (lambda call: call.update(name="redis.access"), "outbound call redis.access is declared twice"),
    ],
)
def test_a_call_that_contradicts_itself_or_has_the_name_of_another_call_is_refused(change: Any, said: str) -> None:
    changed = document()
    change(next(call for call in changed["outbound"] if call["name"] == "model-adapter.generate:plan"))
    assert said in refused(changed)


def test_an_operation_that_names_an_undeclared_call_is_refused() -> None:
    changed = document()
    changed["inbound"][0]["calls"].append("nobody.nothing")
    assert "names outbound call nobody.nothing, which does not exist" in refused(changed)


def test_one_message_names_every_contradiction_of_sagas_and_their_calls() -> None:
    changed = document()
    (run,) = (call for call in changed["outbound"] if call["name"] == "model-adapter.generate:plan")
    run["timeout"]["overall"] = "4s"
    step = {"name": "store", "compensation": "remove", "calls": [run["name"]], "compensation_calls": ["nobody.nothing"]}
    changed["sagas"] = [{"name": "keeping", "timeout": "1m", "steps": [step]}] * 2
    changed["inbound"][0]["saga"] = "losing"
    said = refused(changed)
    assert f"is shorter than timeout.overall of call {run['name']}: 4s" in said
    assert "step store names outbound call nobody.nothing, which does not exist" in said
    assert "saga keeping version 1 is declared twice" in said
    assert "names saga losing, which does not exist" in said


def test_a_bundle_may_contain_several_versions_of_a_saga() -> None:
    changed = document()
    steps = [{"name": "store", "compensation": "remove"}]
    changed["sagas"] = [{"name": "keeping", "version": version, "timeout": "1m", "steps": steps} for version in (1, 2)]
    del changed["metadata"]["digest"]
    assert [saga.version for saga in PolicyBundle.model_validate(changed).sagas] == [1, 2]


def test_the_store_of_a_distributed_limit_must_be_a_call_to_redis() -> None:
    changed = document()
    changed["inbound"][0]["rate_limits"][0]["store"] = "postgresql.write"
    assert (
        "inbound operation run counts its rate limit by call postgresql.write, which is not a call to Redis"
        in refused(changed)
    )


@pytest.mark.parametrize(
    ("settings", "uses_tls"), [({}, False), ({"tls": True}, True), ({"via": "egress-proxy:8443"}, True)]
)
def test_the_tls_setting_or_an_egress_proxy_makes_an_address_use_tls(settings: dict[str, Any], uses_tls: bool) -> None:
    assert Address(host="api.example.com", port=443, **settings).uses_tls is uses_tls

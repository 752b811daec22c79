from __future__ import annotations

import pytest
from voice_policies import CircuitBreaker, Duration, Retry

from components.node import Client
from components.operation import hard, operation, stage
from stack.audit import RULES, audit, audit_outcome
from tests.platforms import DAY, ENVIRONMENTS, platform
from tests.small import gateway, service, small_platform
from tests.stack.audit.rule_findings import STORE, flow


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_rule_holds_on_the_platform_and_checks_something(environment: str) -> None:
    outcome = audit_outcome(platform(environment), on=DAY)
    assert (outcome.open, outcome.unused) == ((), ())
    # C02 and C03 have nothing to check, because the catalogue's breakers have no ratios. In dev more rules have
    # nothing to check, because dev has no autoscaler and no mesh, and its stores have one member each.
    unused = {"dev": {"C02", "C03", "D03", "H01", "H02", "P02", "S03"}}.get(environment, {"C02", "C03"})
    assert {verdict.rule.id for verdict in outcome.verdicts if not verdict.checked} == unused


def test_every_acceptance_of_a_profile_has_its_finding() -> None:
    for environment in map(platform, ENVIRONMENTS):
        judged = audit_outcome(environment, on=DAY).judged
        used = {(each.acceptance.rule, each.acceptance.path) for each in judged if each.acceptance}
        accepted = environment.environment.profile.accepted_findings
        assert {(entry.rule, entry.path) for entry in accepted} == used


def test_a_rule_that_checks_nothing_does_not_apply() -> None:
    alone = small_platform(service("a", operation("run", p95="1s", deadline="2s")))
    assert {found.text for found in audit(alone, on=DAY) if found.rule.id in {"R01", "R06", "A01", "D01"}} == {
        "does not apply"
    }


def test_rule_ids_are_unique_and_every_rule_names_a_source() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    assert all(rule.source for rule in RULES)


def test_title_rationale_and_both_examples_of_a_rule_are_different_texts() -> None:
    for rule in RULES:
        assert len({rule.title, rule.rationale, rule.violates, rule.holds}) == 4, rule.id


def test_one_run_finds_all_thirteen_faults_of_a_model() -> None:
    eager = Retry(max_retries=5, base_delay=Duration("0s"), max_delay=Duration("0s"))
    nervous = CircuitBreaker(consecutive_failures=7, break_duration=Duration("1s"))
    write = hard("store.read", "idempotent", retry=eager, circuit_breaker=nervous, timeout=Duration("101ms"))
    entrance = operation("a-run", stage(hard("a.run", "idempotent", timeout=Duration("1ms"))), p95="1s", deadline="9s")
    broken = small_platform(
        service("a", operation("run", stage(write), p95="5ms", deadline="100ms"), connection_pool=0),
        service("alone", operation("run", p95="1s", deadline="2s")),
        STORE.model_copy(update={"clients": (Client(library="openai-python"),)}),
        gateway(entrance),
        flows=(flow("a-run", availability="100%"),),
    )
    found = {verdict.rule.id for verdict in audit(broken, on=DAY) if verdict.findings}
    assert found >= {"R01", "R02", "R03", "R08", "R09", "T01", "T02", "T03", "C01", "C04", "A01", "D01", "E02"}

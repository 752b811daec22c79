from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from voice_policies import InvalidInputError
from voice_policies.faults import LISTED

from stack.deploy.configuration import read_configuration
from stack.model.image_lock import images
from stack.model.settings import PROJECT, ROOT, SECRETS, Choices, Settings, load_settings
from stack.voiceassistant import TENANT
from tests.platforms import ENVIRONMENTS
from tests.stack.deploy.program_run import CONTEXT, admitted, configured, offline, pin_images, run_program

SMALL_POOL = {"nodes": 3, "zones": 3, "cpu": "2", "memory": "8Gi"}
ACCEPTED = {
    "rule": "D02",
    "path": "platform → node_pool",
    "reason": "the pool grows with the load",
    "expires": "2999-12-31",
}


def refusal(
    stack: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, encrypted: Sequence[str] = (SECRETS,)
) -> str:
    with pytest.raises(pulumi.RunError) as refused:
        run_program(stack, config, monkeypatch, encrypted=encrypted)
    assert refused.value.__suppress_context__
    return str(refused.value)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_settings_are_the_same_from_pulumi_and_from_the_file(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def reading(choices: Choices) -> Any:
        read.append(read_configuration(choices))
        return read[0]

    pin_images(monkeypatch)
    monkeypatch.setattr("stack.deploy.main.read_configuration", reading)
    admitted(environment, configured(environment), monkeypatch)
    assert read[0].settings == load_settings(environment, TENANT)
    assert "value of" not in repr(read[0])


def test_all_missing_secrets_are_refused_together_each_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {key: value for key, value in configured("dev").items() if key != SECRETS}
    first, *faults = refusal("dev", config, monkeypatch).splitlines()
    declared = [(secret, key) for secret in offline("dev").secrets for key in secret.keys]
    assert first == f"Pulumi.dev.yaml: {len(declared)} faults"
    lines = [
        f"  config.voiceassistant:secrets.{secret.name}.{key}: is missing; "
        f"expected {secret.form(key).meaning}: run `voice secrets dev`"
        for secret, key in declared
    ]
    assert faults == [*lines[:LISTED], f"  and {len(lines) - LISTED} more"]


def test_an_empty_secret_counts_as_missing_and_a_secret_that_no_component_reads_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = configured("staging")
    config[SECRETS]["rag-engine-redis"] = {"password": "", "pasword": "hidden"}
    text = refusal("staging", config, monkeypatch)
    assert (
        "secrets.rag-engine-redis.password: is missing; expected a random password: run `voice secrets staging`" in text
    )
    removal = "run `pulumi config rm --stack staging --path secrets.rag-engine-redis.pasword`"
    assert f"secrets.rag-engine-redis.pasword: is read by no component; {removal}" in text
    assert "hidden" not in text


def test_a_secret_without_keys_is_not_refused_as_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {**configured("dev"), SECRETS: {"rag-engine-redis": {}}}
    assert "is refused" not in refusal("dev", config, monkeypatch, encrypted=())


@pytest.mark.parametrize(
    "values",
    ["hidden", ["hidden"], {"rag-engine-redis": "hidden"}, {"rag-engine-redis": {"password": {"a": "hidden"}}}],
    ids=["text", "list", "text in place of keys", "mapping in place of a value"],
)
def test_the_error_for_secrets_of_a_wrong_shape_does_not_contain_their_values(
    values: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = refusal("dev", {**configured("dev"), SECRETS: values}, monkeypatch)
    assert "config.voiceassistant:secrets: is refused; expected encrypted values" in text
    assert "hidden" not in text


def test_secrets_in_plain_text_are_refused_by_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    text = refusal("dev", configured("dev"), monkeypatch, encrypted=())
    assert "config.voiceassistant:secrets: is refused; expected encrypted values" in text


def test_the_error_for_a_secret_under_a_wrong_key_does_not_contain_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    text = refusal("dev", configured("dev", redis="hidden"), monkeypatch, encrypted=(SECRETS, f"{PROJECT}:redis"))
    assert "config.voiceassistant:redis: is '[secret]'; not a known key" in text
    assert "hidden" not in text


def test_secrets_in_plain_text_are_refused_offline_and_encrypted_ones_are_accepted(tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "Pulumi.dev.yaml").read_text())
    file = tmp_path / "Pulumi.dev.yaml"
    document["config"][SECRETS] = {"rag-engine-redis": {"password": {"secure": "v1:abc"}}}
    file.write_text(json.dumps(document))
    assert load_settings("dev", TENANT, tmp_path) == load_settings("dev", TENANT)
    document["config"][SECRETS]["rag-engine-events"] = {"password": "hidden"}
    file.write_text(json.dumps(document))
    with pytest.raises(InvalidInputError) as refused:
        load_settings("dev", TENANT, tmp_path)
    assert str(refused.value) == (
        "Pulumi.dev.yaml: 1 fault\n"
        "  config.voiceassistant:secrets.rag-engine-events.password: is not encrypted; "
        "set it with `pulumi config set --secret --path`"
    )


def test_prod_refuses_every_service_image_that_has_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    text = refusal("prod", configured("prod", image_tag="2.0.0-unreleased"), monkeypatch)
    for service in offline("prod").microservices:
        image = f"ghcr.io/voicehelper/{service.name}:2.0.0-unreleased"
        assert f"{service.name}.image: is '{image}'; expected a digest: run `voice images lock`" in text


def test_staging_accepts_images_without_a_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert admitted("staging", configured("staging"), monkeypatch).environment.name == "staging"


def test_prod_refuses_errors_of_the_audit_and_staging_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    pin_images(monkeypatch)
    text = refusal("prod", configured("prod", node_pool=SMALL_POOL), monkeypatch)
    assert text.startswith("Pulumi.prod.yaml: 2 faults\n")
    assert "platform → node_pool: D02 (error): " in text
    change = "change config.voiceassistant:node_pool.nodes or config.voiceassistant:node_pool.cpu"
    assert f"{change}, or accept the finding in accepted_findings with a reason and an expiry day" in text
    admitted("staging", configured("staging", node_pool=SMALL_POOL), monkeypatch)


def test_prod_is_deployed_if_its_findings_are_accepted_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    pin_images(monkeypatch)
    config = configured("prod", node_pool=SMALL_POOL, accepted_findings=[ACCEPTED])
    admitted("prod", config, monkeypatch)


def test_an_acceptance_that_expired_is_refused_with_its_day(monkeypatch: pytest.MonkeyPatch) -> None:
    pin_images(monkeypatch)
    expired = {**ACCEPTED, "expires": "2026-01-31"}
    text = refusal("prod", configured("prod", node_pool=SMALL_POOL, accepted_findings=[expired]), monkeypatch)
    assert "(the acceptance expired on 2026-01-31); change config.voiceassistant:node_pool.nodes" in text


def test_an_accepted_finding_that_no_longer_exists_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pin_images(monkeypatch)
    assert refusal("prod", configured("prod", accepted_findings=[ACCEPTED]), monkeypatch) == (
        "Pulumi.prod.yaml: 1 fault\n"
        "  config.voiceassistant:accepted_findings: accepts D02 at 'platform → node_pool'; no such finding:"
        " remove the acceptance"
    )


def test_one_error_lists_everything_that_prod_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured("prod", node_pool=SMALL_POOL, image_tag="2.0.0-unreleased")
    del config[SECRETS]["rag-engine-redis"]
    del config[CONTEXT]
    text = refusal("prod", config, monkeypatch)
    unpinned = sum(len(set(images(component.resources()))) for component in offline("prod").components)
    # Besides the images, four things are missing or wrong: the context, one secret, and two findings of the small pool.
    assert text.startswith(f"Pulumi.prod.yaml: {unpinned + 4} faults\n")


@pytest.mark.parametrize(
    ("stack", "changes", "sentence"),
    [
        ("dev", {"log_levle": "debug"}, "did you mean log_level?"),
        ("dev", {"mesh": "yes"}, "config.voiceassistant:mesh: is 'yes'"),
        ("dev", {"node_pool": "{broken"}, "config.voiceassistant:node_pool: is '{broken'"),
        ("dev", {"reference_image": "no tag"}, "config.voiceassistant:reference_image: is 'no tag'"),
        (
            "staging",
            {"reference_image": "voice-reference:1"},
            "profile staging refuses it: each service runs",
        ),
        ("prod", {"reference_image": "voice-reference:1"}, "profile prod refuses it: each service runs"),
        ("prod", {"accepted_findings": [{**ACCEPTED, "reason": ""}]}, "accepted_findings[0].reason: is ''"),
        ("prod", {"accepted_findings": [{**ACCEPTED, "expires": "soon"}]}, "accepted_findings[0].expires: is 'soon'"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(
    stack: str, changes: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = refusal(stack, configured(stack, **changes), monkeypatch)
    assert text.startswith(f"Pulumi.{stack}.yaml: 1 fault\n")
    assert sentence in text


def test_the_configuration_decides_the_profile_of_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    pin_images(monkeypatch)
    config = configured("prod")
    assert admitted("prod-eu", config, monkeypatch).environment.name == "prod-eu"
    del config[f"{PROJECT}:profile"]
    text = refusal("prod-eu", config, monkeypatch)
    assert text.startswith("Pulumi.prod-eu.yaml: ")
    assert "config.voiceassistant:profile: is missing" in text


def test_a_refused_run_registers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal("prod", configured("prod"), monkeypatch)
    monitor: Any = pulumi.runtime.settings.get_monitor()
    assert [found.type for found in monitor.registrations] == ["pulumi:pulumi:Stack"]


def test_the_program_and_pulumi_yaml_name_the_same_project() -> None:
    assert yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["name"] == PROJECT


def test_the_deployment_document_quotes_messages_and_settings_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    document = (ROOT / "docs" / "deploy.md").read_text()
    config = configured("dev")
    del config[SECRETS]["rag-engine-redis"]
    assert refusal("dev", config, monkeypatch).splitlines()[1].strip() in document
    (example,) = re.findall(r"^  ```yaml\n(.*?)^  ```", document, re.DOTALL | re.MULTILINE)
    accepted = yaml.safe_load(example)[f"{PROJECT}:accepted_findings"]
    pin_images(monkeypatch)
    admitted("prod", configured("prod", node_pool=SMALL_POOL, accepted_findings=accepted), monkeypatch)
    for key in re.findall(r"config set --stack \w+ ([a-z_]+) ", document):
        assert key in Settings.model_fields

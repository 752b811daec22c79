from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from voice_policies import InvalidInputError, Ratio

from stack.model.environments import environment
from stack.model.platform import Platform
from stack.model.profile import Defaults, Profile
from stack.model.settings import PROJECT, ROOT, Settings, load_settings, parse_settings
from stack.voiceassistant import TENANT
from stack.voiceassistant.profiles import PROFILES
from tests.documents import blocks
from tests.platforms import ENVIRONMENTS

GOOD: dict[str, Any] = {
    f"{PROJECT}:profile": "prod",
    f"{PROJECT}:gateway_host": "api.voicehelper.com",
    f"{PROJECT}:mesh": True,
    f"{PROJECT}:trace_sample_ratio": "10%",
    f"{PROJECT}:node_pool": {"nodes": 3, "zones": 3, "cpu": "8", "memory": "32Gi"},
    f"{PROJECT}:api_server": {"cidr": "10.0.2.0/28"},
    f"{PROJECT}:nodes": "10.0.16.0/20",
    f"{PROJECT}:backups": {"bucket": "voice-backups", "network": "10.0.0.0/24"},
    f"{PROJECT}:trace_bucket": "voice-traces",
    f"{PROJECT}:notifications": {"network": "10.0.1.0/24"},
}


def refused(changes: dict[str, Any]) -> str:
    with pytest.raises(InvalidInputError) as caught:
        parse_settings({**GOOD, **{f"{PROJECT}:{key}": value for key, value in changes.items()}}, "prod", TENANT)
    return str(caught.value)


@pytest.mark.parametrize("block", ["10.64.1.5/24", "10.64.0.0/240", "999.1.2.3/8", "10.0.0.0", "10.0.0.0/255.0.0.0", 7])
def test_an_invalid_address_block_is_refused_in_every_setting(block: object) -> None:
    said = refused(
        {
            "backups": {"bucket": "voice-backups", "network": block},
            "notifications": {"network": block},
            "api_server": {"cidr": block},
            "nodes": block,
        }
    )
    for path in ("backups.network", "notifications.network", "api_server.cidr", "nodes"):
        assert f"{path}: is {block!r}; expected" in said


def test_values_that_pulumi_writes_as_text_get_their_types(tmp_path: Path) -> None:
    pool = '{"nodes": 3, "zones": 3, "cpu": "8", "memory": "32Gi"}'
    values = {"mesh": "true", "restart_on_policy_change": "false", "trace_sample_ratio": "10%", "node_pool": pool}
    values |= {"profile": "dev", "gateway_host": "api.voicehelper.localhost"}
    values |= {"api_server": '{"cidr": "172.16.0.0/12"}', "nodes": "172.16.0.0/12"}
    document = {"config": {f"{PROJECT}:{key}": value for key, value in values.items()}}
    (tmp_path / "Pulumi.dev.yaml").write_text(yaml.safe_dump(document))
    read = load_settings("dev", TENANT, tmp_path)
    assert (read.mesh, read.restart_on_policy_change, read.node_pool.nodes) == (True, False, 3)


def test_the_prices_in_the_review_document_are_accepted() -> None:
    (block,) = [block for block in blocks(ROOT / "docs" / "review.md") if block.language == "yaml"]
    config = {**GOOD, **yaml.safe_load(block.text)["config"]}
    prices = parse_settings(config, "prod", TENANT).prices
    assert prices is not None
    assert (prices.cpu_hour, str(prices.read_on)) == (0.031, "2026-11-30")
    assert "prices.cpu_hour: is 0; expected" in refused({"prices": {**dict(prices), "cpu_hour": 0}})


def test_the_profile_supplies_missing_settings() -> None:
    config = {**GOOD, f"{PROJECT}:metrics": {"retention": "7d"}}
    read = parse_settings(config, "prod-eu", TENANT)
    assert (read.environment, read.log_level, read.mesh) == ("prod-eu", "info", True)
    assert (str(read.metrics.retention), read.metrics.storage) == ("7d", PROFILES["prod"].defaults.metrics.storage)


def test_settings_that_the_profile_requires_or_refuses_are_reported_with_all_other_faults() -> None:
    said = refused({"backups": None, "notifications": None, "reference_image": "voice-reference:1", "nodes": "here"})
    assert said.startswith("Pulumi.prod.yaml: 4 faults\n")
    assert "config.voiceassistant:backups: is missing; profile prod requires it: PostgreSQL and Consul write" in said
    assert "config.voiceassistant:notifications: is missing; profile prod requires it: Alertmanager needs" in said
    assert "config.voiceassistant:reference_image: is 'voice-reference:1'; profile prod refuses it: each" in said
    assert "config.voiceassistant:nodes: is 'here'; expected" in said


@pytest.mark.parametrize("profile", [None, "production", 7, ["prod"]], ids=["null", "unknown name", "number", "list"])
def test_an_unknown_profile_is_refused(profile: object) -> None:
    assert "config.voiceassistant:profile: is " in refused({"profile": profile})


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_a_profile_requires_and_refuses_only_known_settings(profile: Profile) -> None:
    assert set(profile.required) | set(profile.refused) <= set(Settings.model_fields)
    assert not set(profile.required) & set(profile.refused)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_each_environment_has_settings(environment: str) -> None:
    assert load_settings(environment, TENANT).environment == environment


def test_other_namespaces_and_secrets_are_ignored() -> None:
    config = {
        **GOOD,
        "kubernetes:context": "kind",
        f"{PROJECT}:secrets": {"identity-service-redis": {"password": {"secure": "v1:abc"}}},
    }
    assert parse_settings(config, "prod", TENANT).trace_sample_ratio == Ratio("10%")


def test_all_faults_are_named_in_one_message() -> None:
    said = refused(
        {
            "msh": True,
            "trace_sample_ratio": "110%",
            "node_pool": {"nodes": 0, "zones": 3, "cpu": "8 cores", "memory": "32GB"},
            "replicas": {"agent-engine": {"min": 5, "max": 3}},
            "log_level": "loud",
            "backups": {"network": "10.0.0.0/24"},
        }
    )
    assert "Pulumi.prod.yaml: 8 faults" in said
    assert "backups.bucket: is missing" in said
    assert "did you mean mesh?" in said
    assert "trace_sample_ratio: is '110%'; expected a ratio from 0% to 100%" in said
    assert "node_pool.cpu: is '8 cores'; expected a CPU quantity" in said
    assert "node_pool.memory: is '32GB'; expected a size in bytes" in said
    assert "replicas.agent-engine: is refused; min 5 is above max 3" in said
    assert "log_level: is 'loud'; expected 'debug', 'info'" in said


def test_the_faults_of_a_file_and_of_its_settings_are_in_one_message(tmp_path: Path) -> None:
    lines = [
        "config:",
        "  voiceassistant:profile: prod",
        "  voiceassistant:mesh: true",
        "  voiceassistant:mesh: 1",
        "  voiceassistant:secrets: {rag-engine-redis: {password: hidden}}",
        "  voiceassistant:replicas: {agent-engin: {min: 5, max: 3}}",
        "  voiceassistant:reference_image: example/any:1",
        "  voiceassistant:node_pool: {nodes: 3, zones: 3, cpu: 8 cores, memory: 32Gi}",
        *(f"  {key}: {json.dumps(GOOD[key])}" for key in GOOD if key.endswith(("server", "nodes", "host", "network"))),
    ]
    (tmp_path / "Pulumi.prod.yaml").write_text("\n".join(lines))
    with pytest.raises(InvalidInputError) as caught:
        load_settings("prod", TENANT, tmp_path)
    said = [line.partition(";")[0] for line in str(caught.value).splitlines()]
    assert said == [
        "Pulumi.prod.yaml: 10 faults",
        "  Pulumi.prod.yaml:4: key 'voiceassistant:mesh' appears twice",
        "  config.voiceassistant:secrets.rag-engine-redis.password: is not encrypted",
        "  config.voiceassistant:replicas.agent-engin: is no service",
        *(f"  config.voiceassistant:{name}: is missing" for name in ("backups", "trace_bucket", "notifications")),
        "  config.voiceassistant:reference_image: is 'example/any:1'",
        "  config.voiceassistant:mesh: is 1",
        "  config.voiceassistant:node_pool.cpu: is '8 cores'",
        "  config.voiceassistant:replicas.agent-engin: is refused",
    ]
    assert "is no service; did you mean agent-engine? expected one of agent-engine, " in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_names_that_the_catalogue_lacks_are_reported_with_all_other_faults() -> None:
    somewhere = {"host": "a.b", "port": 1, "network": "10.200.8.0/28"}
    names = ("elasticsearch", "postgres", "llm", "identity-service")
    said = refused(
        {"mesh": "maybe", "without": ["elasticsearch", "voice-engin"], "external": dict.fromkeys(names, somewhere)}
    )
    expected = "is no store that the platform deploys; expected one of events, postgresql, redis"
    for line in (
        "mesh: is 'maybe'",
        "without[1]: is 'voice-engin'; did you mean voice-engine?",
        f"external.elasticsearch: {expected}",
        f"external.identity-service: {expected}",
        f"external.llm: {expected}",
        f"external.postgres: {expected.replace('; ', '; did you mean postgresql? ')}",
    ):
        assert f"config.{PROJECT}:{line}" in said


def test_a_manual_degradation_level_is_in_the_services_policy_bundle() -> None:
    given = {**GOOD, f"{PROJECT}:degraded": {"rag-engine": "partial"}}
    given[f"{PROJECT}:backups"] = {"bucket": "voice-backups", "network": "10.200.0.0/24"}
    found = Platform(TENANT, environment(parse_settings(given, "prod", TENANT), TENANT))
    levels = {each.name: each.bundle.degradation for each in found.microservices}
    assert {name: each.override for name, each in levels.items() if each and each.override} == {"rag-engine": "partial"}


def test_degrading_a_service_without_features_or_to_an_unknown_level_is_refused() -> None:
    said = refused({"degraded": {"ai-orchestrator": "partial", "rag-engine": "half"}})
    assert "degraded.ai-orchestrator: is no service with features to leave out; expected one of agent-engine" in said
    assert "degraded.rag-engine: is 'half'; expected" in said


def test_replicas_of_a_service_that_is_left_out_are_refused() -> None:
    replicas = {"voice-engine": {"min": 1, "max": 1}, "agent-engine": {"min": 1, "max": 1}}
    said = refused({"replicas": replicas, "without": ["voice-engine"]})
    assert "1 fault\n" in said
    assert "replicas.voice-engine: is no service; did you mean agent-engine? expected one of agent-engine, " in said


def test_an_unknown_profile_is_the_only_fault_reported() -> None:
    config = {key: value for key, value in GOOD.items() if key.rpartition(":")[2] not in Defaults.model_fields}
    with pytest.raises(InvalidInputError) as caught:
        parse_settings({**config, f"{PROJECT}:profile": "pord"}, "prod", TENANT)
    assert [fault.path for fault in caught.value.faults] == ["config.voiceassistant:profile"]
    assert "did you mean prod?" in str(caught.value)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_api_server_and_nodes_are_required(environment: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_settings({key: GOOD[key] for key in GOOD if "nodes" not in key and "api" not in key}, environment, TENANT)
    assert "config.voiceassistant:nodes: is missing" in str(caught.value)
    assert "config.voiceassistant:api_server: is missing" in str(caught.value)


def test_an_unknown_environment_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="expected one of dev, prod, staging"):
        load_settings("production", TENANT)


def test_a_file_of_another_environment_is_refused() -> None:
    assert "expected 'prod'" in refused({"environment": "staging"})


def test_backups_outside_the_network_of_the_object_store_are_refused() -> None:
    settings = load_settings("prod", TENANT)
    assert settings.backups
    elsewhere = settings.backups.model_copy(update={"network": "10.64.0.0/24"})
    with pytest.raises(InvalidInputError) as caught:
        assert Platform(TENANT, environment(settings.model_copy(update={"backups": elsewhere}), TENANT)).components
    (outside,) = caught.value.faults
    assert str(outside) == (
        "config.voiceassistant:backups.network: is '10.64.0.0/24'; "
        "expected a block within 10.200.0.0/16, the network of the object store"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("config: [", "is not YAML"),
        ("config:\n  a: 1\n  a: 2\n", "key 'a' appears twice"),
        ("[]", "config: is not a mapping"),
        ("config: 5", "config: is not a mapping"),
        ("config: {1: 2}", "config: is not a mapping"),
        ("!!python/object:os.system {}", "has the tag !!python/object:os.system"),
        ("\x00", "is not YAML"),
        ("config: {? [a] : b}", "is not"),
        ("a: &a [*a]", "has the anchor or alias 'a'; write the value out"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "Pulumi.dev.yaml").write_text(text)
    with pytest.raises(InvalidInputError, match=r"Pulumi\.dev\.yaml") as caught:
        load_settings("dev", TENANT, tmp_path)
    assert said in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"or a file Pulumi\.dev\.yaml"):
        load_settings("dev", TENANT, tmp_path)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from(["10%", "1Gi", "dev"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from([f"{PROJECT}:{name}" for name in Settings.model_fields]) | st.text(max_size=12)
ODD: tuple[object, ...] = (
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        3,
        10**20,
        1.5,
        float("nan"),
        float("inf"),
        "",
        " ",
        "dev",
        "10%",
        "1Gi",
        "1h",
        "true",
    ),
    *(
        "10.0.0.0/24",
        "0.0.0.0/0",
        "a.b",
        "a" * 300,
        "\x00",
        "\ud800",
        "{",
        [],
        {},
        [None],
        [{}],
        {"": ""},
        {"a": {"b": 1}},
    ),
)
WITHIN = [(key, name) for key, value in GOOD.items() if isinstance(value, dict) for name in (*value, "unknown")]


def read_or_refused(config: dict[str, Any]) -> None:
    try:
        parse_settings({**GOOD, **config}, "prod", TENANT)
    except InvalidInputError as error:
        assert str(error).startswith("Pulumi.prod.yaml: ")
        assert error.faults


@settings(max_examples=500)
@given(st.dictionaries(KEYS, PLAIN, max_size=6))
def test_any_configuration_is_read_or_refused(config: dict[str, Any]) -> None:
    read_or_refused(config)


@settings(max_examples=1000)
@given(
    whole=st.lists(st.tuples(KEYS, st.sampled_from(ODD)), max_size=2),
    within=st.lists(st.tuples(st.sampled_from(WITHIN), st.sampled_from(ODD)), max_size=2),
)
def test_a_configuration_with_odd_values_is_read_or_refused(
    whole: list[tuple[str, object]], within: list[tuple[tuple[str, str], object]]
) -> None:
    config: dict[str, Any] = {}
    for (key, name), value in within:
        config[key] = {**config.get(key, GOOD[key]), name: value}
    read_or_refused({**config, **dict(whole)})


@settings(max_examples=1000)
@given(text=st.text(max_size=200) | st.builds("config:\n{}".format, st.text(max_size=100)))
def test_a_file_with_random_text_is_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "any-file"
    folder.mkdir(exist_ok=True)
    (folder / "Pulumi.dev.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(InvalidInputError, match=r"Pulumi\.dev\.yaml"):
        load_settings("dev", TENANT, folder)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_pulumi_would_rewrite_the_committed_values_without_a_change(environment: str) -> None:
    """Every `pulumi config set` rewrites the whole file. Values other than text, lists and mappings become text."""
    config = yaml.safe_load((ROOT / f"Pulumi.{environment}.yaml").read_text())["config"]
    assert [key for key, value in config.items() if not isinstance(value, str | list | dict)] == []

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError
from voice_policies import InvalidInputError

from components.images import POSTGRESQL_OPERAND
from components.network_policy import AddressBlock
from components.node import External
from components.postgresql.schemas import DatabaseSchemas
from stack.audit import audit_outcome
from stack.model.links import external_stores
from stack.model.platform import Platform
from stack.model.profile import ProfileName
from stack.voiceassistant import TENANT
from stack.voiceassistant.profiles import PROFILES
from tests.platforms import DAY, of_kind, platform, real_environment, resources

OUTSIDE = "prod-external"
DATABASE, CACHE = "database.voicehelper.internal", "cache.voicehelper.internal"
PORTS = {"postgresql": 5432, "redis": 6379, "events": 6379, "elasticsearch": 9200}


def outside(environment: str, *names: str, **changes: Any) -> Platform:
    addresses = {
        name: External(
            host=f"{name}.voicehelper.internal", port=PORTS[name], network=f"10.200.8.{16 * index}/28", **changes
        )
        for index, name in enumerate(names)
    }
    real = real_environment(environment)
    settings = real.settings.model_copy(update={"external": addresses})
    return Platform(TENANT, real.model_copy(update={"settings": settings}))


def file(kind: str, name: str, key: str, environment: str = OUTSIDE) -> Any:
    (found,) = [each["data"][key] for each in of_kind(environment, kind) if each["metadata"]["name"] == name]
    return json.loads(found)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("names", [("postgresql",), ("redis",), ("events",), ("elasticsearch",), tuple(PORTS)])
def test_each_store_may_be_external_in_every_profile_and_the_audit_holds(
    profile: ProfileName, names: tuple[str, ...]
) -> None:
    found = outside(profile, *names, tls="events" not in names)
    outcome = audit_outcome(found, on=DAY)
    assert (outcome.open, outcome.unused) == ((), ())
    deployed = {component.name for component in found.components if component.folder == "20-data"}
    assert deployed == {*PORTS, "consul"} - {*names}
    targets = {link.target.name for link in found.links if isinstance(link.target, AddressBlock)}
    assert {f"external-{name}" for name in names} <= targets


def test_nothing_of_an_external_store_is_deployed() -> None:
    kinds = {resource["kind"] for resource in resources(OUTSIDE)}
    assert not kinds & {"Cluster", "Pooler", "Database", "ScheduledBackup", "ObjectStore"}
    names = {each["metadata"]["name"] for each in resources(OUTSIDE) if each["kind"] != "ServiceEntry"}
    assert not {name for name in names if name.startswith(("redis", "postgresql"))}
    assert "postgresql-pooler" not in json.dumps(resources(OUTSIDE))
    assert "redis.voice-data" not in json.dumps(resources(OUTSIDE))


def test_callers_keep_their_secrets_and_the_secrets_of_removed_servers_are_gone() -> None:
    def secrets(environment: str) -> set[str]:
        return {
            secret.name
            for component in platform(environment).components
            for secret in component.secrets
            if secret.name.endswith(("-postgresql", "-redis"))
        }

    assert secrets(OUTSIDE) == secrets("prod")
    removed = {secret.name for component in platform("prod").components for secret in component.secrets} - {
        secret.name for component in platform(OUTSIDE).components for secret in component.secrets
    }
    assert removed == {"postgresql-backup", "redis-replication"}


def test_callers_connect_to_the_external_stores_over_tls_and_keep_their_health_checks() -> None:
    (service,) = (each for each in platform(OUTSIDE).microservices if each.name == "identity-service")
    addresses = {call.callee: call.addresses[0] for call in service.bundle.outbound}
    assert {name: (found.host, found.port, found.tls, found.via) for name, found in addresses.items()} == {
        "postgresql": (DATABASE, 5432, True, None),
        "redis": (CACHE, 6380, True, None),
    }
    assert {check.name: (check.kind, check.critical) for check in service.bundle.health.checks} == {
        "postgresql": ("postgresql", True),
        "redis": ("redis", False),
    }
    connections = {found.name: found for found in service.settings.connections}
    assert (connections["postgresql"].hosts, connections["postgresql"].tls) == ((f"{DATABASE}:5432",), True)
    plain = outside("dev", "redis", tls=False)
    (service,) = (each for each in plain.microservices if each.name == "identity-service")
    assert {call.addresses[0].tls for call in service.bundle.outbound} == {None}


@pytest.mark.parametrize(
    ("namespace", "name", "opened"),
    [
        ("voice-apps", "identity-service", {("10.200.8.0/28", 5432), ("10.200.8.16/28", 6380)}),
        ("voice-apps", "rag-engine", {("10.200.8.16/28", 6380)}),
        ("voice-apps", "multimodal-engine", set()),
        ("voice-gateway", "gateway", {("10.200.8.16/28", 6380)}),
        ("voice-data", "schemas", {("10.200.8.0/28", 5432)}),
        ("voice-observability", "blackbox-exporter", {("10.200.8.0/28", 5432), ("10.200.8.16/28", 6380)}),
    ],
)
def test_callers_and_schema_jobs_and_the_prober_may_connect_to_exactly_their_stores(
    namespace: str, name: str, opened: set[tuple[str, int]]
) -> None:
    (policy,) = [
        each
        for each in of_kind(OUTSIDE, "NetworkPolicy")
        if each["metadata"]["namespace"] == namespace and each["metadata"]["name"] == name
    ]
    found = {
        (block, port["port"])
        for rule in policy["spec"]["egress"]
        for peer in rule["to"]
        if (block := peer.get("ipBlock", {}).get("cidr", "")).startswith("10.200.8.")
        for port in rule["ports"]
    }
    assert found == opened


def test_the_prober_connects_to_the_stores_and_each_store_counts_as_a_declared_target() -> None:
    config = file("ConfigMap", "prometheus-config", "prometheus.json")
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    modules = file("ConfigMap", "blackbox-exporter-config", "blackbox.json")["modules"]
    for name, host, module in (("postgresql", f"{DATABASE}:5432", "tcp"), ("redis", f"{CACHE}:6380", "tcp-tls")):
        assert jobs[name]["static_configs"] == [{"targets": [host]}]
        assert jobs[name]["params"] == {"module": [module]}
        assert modules[module]["prober"] == "tcp"
    assert modules["tcp-tls"]["tcp"]["tls"] is True
    groups = file("ConfigMap", "prometheus-config", "rules.json")["groups"]
    declared = {
        rule["labels"]["job"]: rule["labels"]["severity"]
        for group in groups
        for rule in group["rules"]
        if rule.get("record") == "target:declared"
    }
    assert (declared["postgresql"], declared["redis"]) == ("critical", "critical")
    assert "redis-sentinel" not in declared


def test_the_prober_and_the_collector_reach_an_external_elasticsearch_over_https() -> None:
    found = outside("prod", "elasticsearch")
    text = json.dumps([list(component.resources()) for component in found.components])
    assert "elasticsearch.voice-data" not in text
    for url in ("https://elasticsearch.voicehelper.internal:9200/_otlp", "https://elasticsearch.voicehelper.internal"):
        assert url in text


def test_the_gateway_keeps_its_counters_in_the_external_cache_over_tls() -> None:
    (gateway,) = (each for each in platform(OUTSIDE).components if each.name == "gateway" and "60" in each.folder)
    routes = json.loads(gateway.files["apisix.yaml"].removesuffix("#END\n"))["routes"]  # type: ignore[attr-defined]
    found = {
        (limit["redis_host"], limit["redis_port"], limit["redis_ssl"], limit["redis_ssl_verify"])
        for route in routes
        if (limit := route["plugins"].get("limit-count"))
    }
    assert found == {(CACHE, 6380, True, True)}


def test_the_mesh_knows_the_external_hosts_that_each_service_may_call() -> None:
    entries = {each["spec"]["hosts"][0]: each["spec"] for each in of_kind(OUTSIDE, "ServiceEntry")}
    assert {host: (spec["addresses"], spec["ports"][0]["number"]) for host, spec in entries.items()} == {
        DATABASE: (["10.200.8.0/28"], 5432),
        CACHE: (["10.200.8.16/28"], 6380),
    }
    sidecars = {each["metadata"]["name"]: each["spec"]["egress"][0]["hosts"] for each in of_kind(OUTSIDE, "Sidecar")}
    assert {f"*/{DATABASE}", f"*/{CACHE}"} <= set(sidecars["identity-service"])
    assert f"*/{DATABASE}" not in sidecars["rag-engine"]
    rules = {each["spec"]["host"] for each in of_kind(OUTSIDE, "DestinationRule")}
    assert {DATABASE, CACHE} <= rules, "the mesh enforces the breakers of Go services"


def test_external_stores_with_mesh_policies_need_different_host_names() -> None:
    real = real_environment("prod")
    stores = {
        name: External(host="store.example.com", port=PORTS[name], network="10.200.8.0/28")
        for name in ("postgresql", "redis")
    }
    changed = real.model_copy(update={"settings": real.settings.model_copy(update={"external": stores})})
    with pytest.raises(InvalidInputError, match=r"policy of store\.example\.com; .* give the callees different host"):
        assert Platform(TENANT, changed).components


def test_hosts_with_equal_first_labels_have_separate_mesh_policies() -> None:
    real = real_environment("prod")
    stores = {
        "postgresql": External(host="prod.abc.rds.example.com", port=5432, network="10.200.8.0/28"),
        "redis": External(host="prod.xyz.cache.example.com", port=6380, network="10.200.8.16/28"),
    }
    found = Platform(
        TENANT, real.model_copy(update={"settings": real.settings.model_copy(update={"external": stores})})
    )
    rules = {
        each["metadata"]["name"]: each["spec"]["host"]
        for _, made in found.resources
        for each in made
        if each["kind"] == "DestinationRule"
    }
    assert rules["identity-service-postgresql"] == stores["postgresql"].host
    assert rules["identity-service-redis"] == stores["redis"].host


def test_the_schema_jobs_verify_the_external_database_with_the_certificate_authorities_of_their_image() -> None:
    jobs = [each for each in of_kind(OUTSIDE, "Job") if each["metadata"]["name"].startswith("schemas")]
    assert jobs
    for job in jobs:
        (container,) = job["spec"]["template"]["spec"]["containers"]
        variables = {each["name"]: each.get("value") for each in container["env"]}
        assert (variables["PGHOST"], variables["PGSSLMODE"]) == (DATABASE, "verify-full")
        assert (variables["PGSSLROOTCERT"], "PGPORT" in variables) == ("system", False)
        assert container["image"].startswith(POSTGRESQL_OPERAND.reference), "the image has certificate authorities"


AUTHORITY = f"-----BEGIN CERTIFICATE-----\n{64 * 'A'}\n-----END CERTIFICATE-----\n"


def test_the_schema_jobs_verify_the_external_database_with_the_certificate_authorities_of_the_settings() -> None:
    found = outside("prod", "postgresql", certificate_authorities=AUTHORITY)
    (schemas,) = (each for component, each in found.resources if isinstance(component, DatabaseSchemas))
    pods = [each["spec"]["template"]["spec"] for each in schemas if each["kind"] == "Job"]
    assert pods
    for pod in pods:
        (container,) = pod["containers"]
        assert {"name": "PGSSLROOTCERT", "value": "/etc/schemas/authorities.pem"} in container["env"]
        assert {"name": "files", "mountPath": "/etc/schemas", "readOnly": True} in container["volumeMounts"]
    (files,) = (each["data"] for each in schemas if each["kind"] == "ConfigMap")
    assert files["authorities.pem"] == AUTHORITY


def test_authorities_that_no_program_reads_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"external\.redis\.certificate_authorities: is not read; leave it out"):
        assert outside("prod", "redis", certificate_authorities=AUTHORITY).components
    with pytest.raises(ValidationError, match="certificate_authorities without tls has no effect"):
        outside("prod", "postgresql", certificate_authorities=AUTHORITY, tls=False)
    key = AUTHORITY.replace("CERTIFICATE", "PRIVATE KEY")
    with pytest.raises(ValidationError, match="expected text such as -----BEGIN CERTIFICATE-----"):
        outside("prod", "postgresql", certificate_authorities=AUTHORITY + key)


def test_external_stores_are_read_from_the_settings_file() -> None:
    found = {dependency.name: address for dependency, address in external_stores(platform(OUTSIDE).graph)}
    assert found == real_environment(OUTSIDE).settings.external
    assert found["postgresql"] == External(host=DATABASE, port=5432, tls=True, network="10.200.8.0/28")

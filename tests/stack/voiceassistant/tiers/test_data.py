from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError
from voice_policies import InvalidInputError

from components.postgresql.cluster import PostgresqlCluster
from stack.audit.capacity import connections
from stack.model.settings import PROJECT, parse_settings
from stack.voiceassistant import TENANT
from tests.platforms import of_kind, platform, resources
from tests.stack.deploy.program_run import configured
from tests.stack.voiceassistant.tiers.cloudnative_pg_schema import SPECS

REPLICATED = ("staging", "prod")


def faults(resource: dict[str, Any]) -> list[str]:
    found = Draft202012Validator(SPECS[resource["kind"]]).iter_errors(resource["spec"])
    return [f"{resource['kind']} {resource['metadata']['name']}: {error.json_path}: {error.message}" for error in found]


@pytest.mark.parametrize("environment", REPLICATED)
def test_custom_resources_match_the_schema_of_the_fields_that_we_set(environment: str) -> None:
    custom = [found for found in resources(environment) if "cnpg.io" in found["apiVersion"]]
    assert {resource["kind"] for resource in custom} == set(SPECS)
    assert [fault for resource in custom for fault in faults(resource)] == []


@pytest.mark.parametrize("kind", SPECS)
def test_the_schema_refuses_a_misspelt_key(kind: str) -> None:
    resource = of_kind("prod", kind)[0]
    for key in resource["spec"]:
        misspelt = {f"{name}x" if name == key else name: value for name, value in resource["spec"].items()}
        assert faults({**resource, "spec": misspelt})


def cluster() -> PostgresqlCluster:
    (found,) = (each for each in platform("prod").components if isinstance(each, PostgresqlCluster))
    return found


@pytest.mark.parametrize("environment", REPLICATED)
def test_every_service_with_a_pool_has_a_role_a_database_and_a_password(environment: str) -> None:
    services = {service.name for service in platform(environment).graph.services if service.connection_pool}
    (found,) = of_kind(environment, "Cluster")
    roles = {role["name"]: role for role in found["spec"]["managed"]["roles"]}
    databases = {each["spec"]["name"]: each["spec"]["owner"] for each in of_kind(environment, "Database")}
    assert roles.keys() == databases.keys() == services
    assert all(name == owner for name, owner in databases.items())
    assert {role["passwordSecret"]["name"] for role in roles.values()} == {f"{name}-postgresql" for name in services}
    assert not any(role[right] for role in roles.values() for right in ("superuser", "createdb", "createrole"))


@pytest.mark.parametrize("environment", REPLICATED)
def test_the_pooler_has_the_limits_that_rule_d01_adds_up(environment: str) -> None:
    limits = platform(environment).environment.profile.database
    (pooler,) = of_kind(environment, "Pooler")
    parameters = pooler["spec"]["pgbouncer"]["parameters"]
    assert pooler["spec"]["instances"] == limits.poolers
    assert int(parameters["max_db_connections"]) == int(parameters["default_pool_size"]) == limits.pool_size
    assert int(parameters["max_client_conn"]) == limits.max_client_connections
    (found,) = of_kind(environment, "Cluster")
    assert int(found["spec"]["postgresql"]["parameters"]["max_connections"]) == limits.max_connections
    assert list(connections(platform(environment))) == [None, None]


def test_role_limits_below_the_limit_of_the_pooler_are_refused_in_one_error() -> None:
    small = tuple(database.model_copy(update={"connection_limit": 19}) for database in cluster().databases)
    with pytest.raises(ValidationError) as caught:
        PostgresqlCluster.model_validate({**dict(cluster()), "databases": small})
    assert str(caught.value).count("connection_limit 19 is below the 20 connections") == len(small)


def test_the_setting_recover_from_names_the_backup_that_a_cluster_restores() -> None:
    backups = cluster().backups.model_copy(update={"recover_from": "postgresql"})
    recovering = cluster().model_copy(update={"backups": backups, "name": "postgresql-2"})
    rendered: list[Any] = list(recovering.resources())
    (found,) = (each for each in rendered if each["kind"] == "Cluster")
    assert found["spec"]["bootstrap"] == {"recovery": {"source": "postgresql"}}
    (source,) = found["spec"]["externalClusters"]
    assert source["plugin"]["parameters"] == {"barmanObjectName": "postgresql-2", "serverName": "postgresql"}
    assert faults(found) == []


@pytest.mark.parametrize(
    ("backups", "sentences"),
    [
        (None, ["backups: is missing; profile prod requires it"]),
        ({"network": "10.0.0.0/24"}, ["backups.bucket: is missing"]),
        (
            {"bucket": "Bad_Bucket", "retention": "forever"},
            ["bucket: is 'Bad_Bucket'", "retention: is 'forever'", "network: is missing"],
        ),
    ],
    ids=["no backups", "only a network", "three faults"],
)
def test_invalid_backups_are_refused_with_every_fault(backups: Any, sentences: list[str]) -> None:
    config = {key: value for key, value in configured("prod").items() if key.startswith(f"{PROJECT}:")}
    with pytest.raises(InvalidInputError) as caught:
        parse_settings({**config, f"{PROJECT}:backups": backups}, "prod", TENANT)
    assert all(sentence in str(caught.value) for sentence in sentences)


@pytest.mark.parametrize("environment", ["dev", *REPLICATED])
def test_both_ends_of_a_connection_read_the_same_secret(environment: str) -> None:
    looked_at = platform(environment)
    stored = {secret.name for each in looked_at.components if each.namespace == "voice-data" for secret in each.secrets}
    stores = ("-postgresql", "-redis", "-events")
    read = {secret.name for each in looked_at.microservices for secret in each.secrets if secret.name.endswith(stores)}
    assert read <= stored


@pytest.mark.parametrize("environment", ["dev", *REPLICATED])
def test_every_stateful_pod_is_restricted_and_keeps_its_volume(environment: str) -> None:
    for found in of_kind(environment, "StatefulSet"):
        pod = found["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["runAsUser"] >= 10001
        assert all(volume.get("emptyDir", {"sizeLimit": True}).get("sizeLimit") for volume in pod["volumes"])
        if "volumeClaimTemplates" in found["spec"]:
            assert found["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"


@pytest.mark.parametrize("environment", ["dev", *REPLICATED])
def test_every_claim_of_a_stateful_set_is_declared(environment: str) -> None:
    claims = {found["metadata"]["name"]: found["spec"] for found in of_kind(environment, "PersistentVolumeClaim")}
    looked_for = {
        f"{template['metadata']['name']}-{found['metadata']['name']}-{ordinal}"
        for found in of_kind(environment, "StatefulSet")
        for template in found["spec"].get("volumeClaimTemplates", [])
        for ordinal in range(found["spec"]["replicas"])
    }
    assert looked_for
    assert looked_for <= claims.keys()

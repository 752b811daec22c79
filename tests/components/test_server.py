from __future__ import annotations

from typing import Any

import pytest
from voice_policies import Bytes, Duration

from components.access import pod_reader
from components.component import ANNOTATION_PREFIX
from components.container import ROOT, Container
from components.links import Link, Links, peer
from components.network_policy import Peer
from components.secret_keys import SecretKeys
from components.services import tcp
from components.volumes import ConfigFiles, Scratch
from components.workloads import ONE, Deployment
from tests.components.small_server import pod_of, rendered, server, store

DIGEST = f"{ANNOTATION_PREFIX}/config-digest"
FILES = {"store.conf": "size 1\n"}
PASSWORD = SecretKeys(name="store-users", keys=("password",))


def digest(**files: bool) -> str | None:
    volumes = {name: ConfigFiles(name, {name: "text"}, reloaded=reloaded) for name, reloaded in files.items()}
    (found,) = rendered(store(volumes=volumes))["StatefulSet"]
    annotations: dict[str, str] = found["spec"]["template"]["metadata"].get("annotations", {})
    return annotations.get(DIGEST)


def test_a_server_yields_its_workload_after_the_objects_that_the_pods_need() -> None:
    workload = store(volumes={"config": ConfigFiles("store-config", FILES)}, services={"store": tcp(6379)}, replicas=2)
    kinds = [resource["kind"] for resource in server(workload).resources()]
    assert kinds == ["ServiceAccount", "ConfigMap", "NetworkPolicy", "Service", "StatefulSet", "PodDisruptionBudget"]


def test_a_service_picks_the_pods_of_its_workload() -> None:
    (found,) = rendered(store(services={"other-name": tcp(6379)}))["Service"]
    assert found["metadata"]["name"] == "other-name"
    assert found["spec"]["selector"] == {"app.kubernetes.io/name": "store"}


@pytest.mark.parametrize("user", [10001, ROOT], ids=["own-user", "root"])
def test_every_container_is_hardened(user: int) -> None:
    pod = pod_of(store(init=Container(name="prepare"), user=user))
    assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is (user != ROOT)
    for container in (*pod["containers"], *pod["initContainers"]):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert (security["runAsUser"], security["runAsNonRoot"]) == (user, user != ROOT)
        assert container["resources"]["limits"].keys() == {"cpu", "memory", "ephemeral-storage"}
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]  # noqa: S108 - a path in the container


def test_the_network_policy_of_a_server_has_only_the_links_of_its_pods() -> None:
    reader, namesake = peer("shop", "orders"), Peer(namespace="elsewhere", name="store", ports=(1,))
    links = Links([Link(reader, Peer(namespace="stores", name="store", ports=(6379,))), Link(reader, namesake)])
    (policy,) = rendered(store(), links=links)["NetworkPolicy"]
    assert policy["spec"] == {
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "store"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [reader.selectors()], "ports": [{"port": 6379, "protocol": "TCP"}]}],
    }


def test_the_address_label_replaces_the_name_only_in_service_and_network_policy() -> None:
    found = rendered(store(address={"example.com/store": "pooler"}, services={"pooler": tcp(5432)}))
    own, address = {"app.kubernetes.io/name": "store"}, {"example.com/store": "pooler"}
    (workload,), (policy,), (service,) = found["StatefulSet"], found["NetworkPolicy"], found["Service"]
    assert workload["spec"]["selector"]["matchLabels"] == own
    assert (own | address).items() <= workload["spec"]["template"]["metadata"]["labels"].items()
    assert policy["spec"]["podSelector"]["matchLabels"] == service["spec"]["selector"] == address


def test_a_changed_file_restarts_the_pods_unless_the_program_reloads_it() -> None:
    assert digest(a=True) is None
    assert digest(a=True, b=False) == digest(b=False)
    assert digest(b=False) != digest(c=False)


def test_a_container_mounts_the_secrets_that_it_names_and_no_others() -> None:
    pod = pod_of(store(init=Container(name="prepare", secrets=(PASSWORD,))))
    (main,), (init,) = pod["containers"], pod["initContainers"]
    assert [mount["name"] for mount in main["volumeMounts"]] == ["tmp"]
    assert init["volumeMounts"][-1] == {"name": "store-users", "mountPath": PASSWORD.path, "readOnly": True}
    (volume,) = (volume for volume in pod["volumes"] if "secret" in volume)
    assert volume["secret"] == {
        "secretName": "store-users",
        "defaultMode": 0o440,
        "items": [{"key": "password", "path": "password"}],
    }


def test_a_server_has_each_secret_once_with_every_key_that_one_of_its_containers_reads() -> None:
    key = SecretKeys(name="store-users", keys=("key", "password"))
    workloads = [store(container=Container(secrets=(secret,))) for secret in (PASSWORD, key)]
    assert server(*workloads).secrets == (SecretKeys(name="store-users", keys=("password", "key")),)


def test_configuration_is_mounted_read_only_and_a_scratch_volume_is_writable() -> None:
    mounts = {"config": "/etc/store", "run": "/run/store"}
    volumes = {"config": ConfigFiles("store-config", FILES), "run": Scratch()}
    (container,) = pod_of(store(container=Container(mounts=mounts), volumes=volumes))["containers"]
    assert container["volumeMounts"][1:] == [
        {"name": "config", "mountPath": "/etc/store", "readOnly": True},
        {"name": "run", "mountPath": "/run/store"},
    ]


def test_a_workload_with_rights_gets_a_short_lived_token() -> None:
    rights = tuple(pod_reader(server().metadata(), "shop"))
    found = rendered(store(rights=rights))
    assert [role["metadata"]["namespace"] for role in found["Role"]] == ["shop"]
    pod = found["StatefulSet"][0]["spec"]["template"]["spec"]
    (token,) = (volume for volume in pod["volumes"] if volume["name"] == "api-token")
    assert token["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] == 3600
    (mount,) = (mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "api-token")
    assert mount["readOnly"]


def test_a_workload_without_rights_gets_no_token() -> None:
    assert "Role" not in rendered(store())
    assert [volume["name"] for volume in pod_of(store())["volumes"]] == ["tmp"]


def test_the_grace_period_is_the_sleep_the_shutdown_and_a_margin() -> None:
    pod = pod_of(store(pre_stop=Duration("7s"), shutdown=Duration("14s")))
    assert pod["terminationGracePeriodSeconds"] == 7 + 14 + 5
    assert pod["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 7}}}


@pytest.mark.parametrize(("quorum", "rule"), [(True, "required"), (False, "preferred")], ids=["quorum", "no-quorum"])
def test_only_members_of_a_quorum_must_run_on_different_hosts(quorum: bool, rule: str) -> None:
    affinity = pod_of(store(quorum=quorum))["affinity"]["podAntiAffinity"]
    assert affinity.keys() == {f"{rule}DuringSchedulingIgnoredDuringExecution"}


def test_workloads_may_share_an_account_and_files_and_each_has_a_network_policy() -> None:
    shared: dict[str, Any] = {"volumes": {"config": ConfigFiles("store-config", FILES)}, "shutdown": Duration("1s")}
    proxy = Deployment(name="store", container=Container(), replicas=ONE, **shared)
    found = rendered(proxy, store(name="store-node", account="store", **shared))
    names = {kind: [resource["metadata"]["name"] for resource in resources] for kind, resources in found.items()}
    assert names["ServiceAccount"] == ["store"]
    assert names["ConfigMap"] == ["store-config"]
    assert names["NetworkPolicy"] == ["store", "store-node"]
    assert found["StatefulSet"][0]["spec"]["template"]["spec"]["serviceAccountName"] == "store"


def test_two_config_maps_of_one_name_with_different_content_are_refused() -> None:
    workloads = [store(volumes={"config": ConfigFiles("store-config", {"store.conf": text})}) for text in ("a", "b")]
    with pytest.raises(ValueError, match="store: workloads declare different ConfigMaps with the name store-config"):
        rendered(*workloads)


def test_a_server_selects_the_pods_of_each_workload_once() -> None:
    twice = server(store(), store(name="store-node"), store(name="store-node"))
    assert twice.pods == ({"app.kubernetes.io/name": "store"}, {"app.kubernetes.io/name": "store-node"})


def test_a_copy_of_a_server_with_a_changed_field_computes_its_workloads_again() -> None:
    original = server(store())
    assert original.pods == ({"app.kubernetes.io/name": "store"},)
    copied = original.model_copy(update={"declared": (store(name="store-node"),)})
    assert copied.pods == ({"app.kubernetes.io/name": "store-node"},)


def test_rendering_a_server_again_yields_the_same_resources() -> None:
    database = server(store(volumes={"data": Scratch(Bytes("1Gi"))}, services={"store": tcp(6379)}))
    assert list(database.resources()) == list(database.resources())

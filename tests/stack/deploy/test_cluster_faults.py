from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pulumi
import pytest

from stack.deploy import cluster as cluster_module
from stack.deploy.cluster import Cluster, ClusterError
from stack.deploy.cluster_faults import cluster_faults
from stack.deploy.configuration import Configuration
from stack.deploy.operators import OPERATORS
from tests.stack.deploy.program_run import (
    CLUSTER,
    CONTEXT,
    IDENTIFIER,
    admitted,
    configured,
    offline,
    pin_images,
    run_program,
)

UID = CLUSTER["/api/v1/namespaces/kube-system"]["metadata"]["uid"]
CLAIMS = "/api/v1/namespaces/voice-data/persistentvolumeclaims"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"


def faults(
    stack: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, cluster: dict[str, Any] | None = None
) -> list[str]:
    pin_images(monkeypatch)
    with pytest.raises(pulumi.RunError) as refused:
        run_program(stack, config, monkeypatch, cluster={**CLUSTER, **(cluster or {})})
    return str(refused.value).splitlines()[1:]


def claim(name: str, size: str, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "voice-data", "labels": labels}
    return {"metadata": metadata, "spec": {"resources": {"requests": {"storage": size}}, "storageClassName": "fast"}}


def classes(*, expandable: bool) -> dict[str, Any]:
    return {CLASSES: {"items": [{"metadata": {"name": "fast"}, "allowVolumeExpansion": expandable}]}}


def test_a_missing_context_is_refused_with_the_command_that_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {key: value for key, value in configured("dev").items() if key != CONTEXT}
    (line,) = faults("dev", config, monkeypatch)
    assert (
        line == "  config.kubernetes:context: is missing; run `pulumi config set --stack dev kubernetes:context NAME`"
    )


def test_an_unknown_context_is_refused_once_with_the_list_of_known_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults("prod", {**configured("prod"), CONTEXT: "absent"}, monkeypatch) == [
        "  config.kubernetes:context: is 'absent'; expected a context of the kubeconfig: test, other"
    ]


def test_the_error_for_a_missing_cluster_identifier_says_how_to_set_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = {key: value for key, value in configured("dev").items() if key != IDENTIFIER}
    (line,) = faults("dev", config, monkeypatch)
    assert line == (
        "  config.kubernetes:clusterIdentifier: is missing; if the context 'test' leads to this stack's cluster, "
        f"run `pulumi config set --stack dev kubernetes:clusterIdentifier {UID}`"
    )


def test_another_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = faults("dev", {**configured("dev"), IDENTIFIER: "another"}, monkeypatch)
    assert line == (
        f"  config.kubernetes:clusterIdentifier: is 'another', but the context 'test' leads to the cluster '{UID}'; "
        "choose the context of the stack's cluster, or create a new stack for another cluster"
    )


def test_each_missing_operator_is_named_once_with_its_version_and_its_prerequisite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served: dict[str, Any] = {path: {"resources": []} for path, answer in CLUSTER.items() if "resources" in answer}
    found = [line for line in faults("staging", configured("staging"), monkeypatch, served) if "is not in" in line]
    assert len(found) == len(OPERATORS)
    assert found[0] == (
        "  CloudNativePG's Barman Cloud plugin: is not in the cluster, which has no objectstores.barmancloud.cnpg.io; "
        f"install CloudNativePG's Barman Cloud plugin 0.15, after cert-manager: `{OPERATORS[1].install}`"
    )


def test_an_operator_whose_api_version_is_not_served_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = {path: answer for path, answer in CLUSTER.items() if "barmancloud" not in path}
    with pytest.raises(pulumi.RunError, match=r"has no objectstores\.barmancloud\.cnpg\.io"):
        run_program("staging", configured("staging"), monkeypatch, cluster=cluster)


def test_a_volume_that_would_shrink_or_cannot_grow_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = {CLAIMS: {"items": [claim("data-consul-0", "1Mi"), claim("data-postgresql-0", "1Ti")]}}
    grown, shrunk = faults("dev", configured("dev"), monkeypatch, {**live, **classes(expandable=False)})
    if "shrinks" in grown:
        grown, shrunk = shrunk, grown
    assert "PersistentVolumeClaim voice-data/data-consul-0.spec.resources.requests.storage: grows from 1Mi to" in grown
    assert "the storage class 'fast' forbids growth; set allowVolumeExpansion in the class if its driver can" in grown
    assert "data-postgresql-0.spec.resources.requests.storage: shrinks from 1Ti to 5Gi; volumes only grow" in shrunk


def test_a_volume_grows_if_its_storage_class_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    live = {CLAIMS: {"items": [claim("data-consul-0", "1Mi")]}}
    cluster = {**CLUSTER, **live, **classes(expandable=True)}
    admitted("dev", configured("dev"), monkeypatch, cluster=cluster)


def test_the_volumes_that_an_operator_created_for_a_database_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {"cnpg.io/cluster": "postgresql", "cnpg.io/pvcRole": "PG_WAL"}
    live = {CLAIMS: {"items": [claim("postgresql-1-wal", "1Mi", **labels)]}}
    (line,) = faults("staging", configured("staging"), monkeypatch, {**live, **classes(expandable=False)})
    assert "Cluster voice-data/postgresql.spec.walStorage.size: grows from 1Mi to" in line


@pytest.mark.parametrize("role", [{}, {"cnpg.io/pvcRole": "PG_TABLESPACE"}], ids=["no role", "tablespace"])
def test_an_undeclared_volume_of_a_declared_database_is_ignored(
    role: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = {CLAIMS: {"items": [claim("postgresql-1-tbs", "1Mi", **{"cnpg.io/cluster": "postgresql"}, **role)]}}
    cluster = {**CLUSTER, **live, **classes(expandable=False)}
    admitted("dev", configured("dev"), monkeypatch, cluster=cluster)


@pytest.mark.parametrize(
    "text", ["apiVersion: v1\nkind: Config\n", '{"kind": "Config"}', None], ids=["YAML", "JSON", "no kubeconfig"]
)
def test_kubectl_gets_the_kubeconfig_in_a_temporary_private_file(
    text: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        seen.extend(argument for argument in command if argument.startswith("--kubeconfig="))
        if seen:
            file = Path(seen[0].partition("=")[2])
            assert (file.read_text(), file.stat().st_mode & 0o077) == (text, 0)
        return subprocess.CompletedProcess(command, 0, "a\n", "")

    monkeypatch.setattr("stack.deploy.cluster.subprocess.run", run)
    with Cluster.connected("a", text) as cluster:
        assert cluster.contexts == ["a"]
    assert len(seen) == (1 if text else 0)
    assert not any(Path(argument.partition("=")[2]).exists() for argument in seen)


def test_a_cluster_that_does_not_answer_is_refused_with_the_message_of_kubectl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", sysconfig.get_path("scripts"))
    file = tmp_path / "kubeconfig"
    clusters = [{"name": "stopped", "cluster": {"server": "https://127.0.0.1:1"}}]
    contexts = [{"name": "stopped", "context": {"cluster": "stopped", "user": "somebody"}}]
    users = [{"name": "somebody", "user": {"token": "a"}}]
    config = {"apiVersion": "v1", "kind": "Config", "clusters": clusters, "contexts": contexts, "users": users}
    file.write_text(json.dumps(config))
    with Cluster.connected("stopped", str(file)) as cluster:
        assert cluster.contexts == ["stopped"]
        with pytest.raises(ClusterError, match=r"127\.0\.0\.1:1 was refused"):
            _ = cluster.identifier


FORBIDDEN = """#!/bin/sh
[ "$1" = config ] && echo test && exit
echo "Error from server (Forbidden): no access" >&2
exit 1
"""


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (FORBIDDEN, "Error from server (Forbidden): no access"),
        (None, "kubectl is not on PATH: install it; the program queries the cluster with it"),
    ],
    ids=["forbidden", "no kubectl"],
)
def test_a_failed_query_of_the_cluster_is_reported_with_its_reason(
    script: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script:
        (tmp_path / "kubectl").write_text(script)
        (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    platform = offline("dev")
    configuration = Configuration(
        source="Pulumi.dev.yaml",
        settings=platform.environment.settings,
        secrets={},
        kubeconfig=None,
        context="test",
        cluster_identifier=UID,
    )
    (fault,) = cluster_faults(platform, configuration)
    assert str(fault) == f"config.kubernetes:context: is 'test', and kubectl cannot query its cluster; {said}"


def test_a_missing_kubectl_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ClusterError, match="kubectl is not on PATH: install it"):
        cluster_module.kubectl(None, "version")


def named(*names: str) -> dict[str, Any]:
    return {"items": [{"metadata": {"name": name}} for name in names]}


DNS_SERVICE = "/api/v1/namespaces/kube-system/services/kube-dns"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"/apis/metrics.k8s.io/v1beta1": {"resources": []}}, "metrics-server: is missing"),
        ({DNS_SERVICE: {"spec": {"clusterIPs": ["172.20.0.10"]}}}, "cluster_dns: lacks 172.20.0.10, the address"),
        (
            {DNS_SERVICE: {"spec": {"clusterIPs": ["10.96.0.10", "fd00::a"]}}},
            "cluster_dns: lacks fd00::a, the address of the Service kube-system/kube-dns; add fd00::a/128",
        ),
        (
            {"/apis/apps/v1/namespaces/kube-flannel/daemonsets": named("kube-flannel-ds")},
            "the cluster's network: is kube-flannel, which enforces no NetworkPolicy",
        ),
        (
            {
                "/apis/scheduling.k8s.io/v1/priorityclasses": {
                    "items": [{"metadata": {"name": "usual"}, "value": 1_000, "globalDefault": True}]
                }
            },
            "PriorityClass usual: is the default of all pods, with the value 1000",
        ),
    ],
)
def test_a_cluster_that_lacks_a_prerequisite_is_refused(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any], said: str
) -> None:
    (line,) = faults("prod", configured("prod"), monkeypatch, answers)
    assert said in line


def test_a_cluster_with_its_prerequisites_under_other_names_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        DNS_SERVICE: {"spec": {"clusterIP": "10.96.0.10"}},
        "/apis/apps/v1/namespaces/kube-flannel/daemonsets": named("kube-flannel-ds", "kube-router"),
        "/apis/scheduling.k8s.io/v1/priorityclasses": {
            "items": [
                {"metadata": {"name": "low"}, "value": 10, "globalDefault": True},
                {"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000},
            ]
        },
    }
    pin_images(monkeypatch)
    admitted("prod", configured("prod"), monkeypatch, cluster={**CLUSTER, **answers})


@pytest.mark.parametrize(
    "spec",
    [
        {"clusterIP": "None", "clusterIPs": ["None"]},
        {"clusterIP": "None"},
        {"type": "ExternalName", "externalName": "dns.example.com"},
    ],
    ids=["headless", "headless without a list", "external name"],
)
def test_a_dns_service_without_an_address_of_its_own_is_accepted(
    monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any]
) -> None:
    pin_images(monkeypatch)
    admitted("prod", configured("prod"), monkeypatch, cluster={**CLUSTER, DNS_SERVICE: {"spec": spec}})

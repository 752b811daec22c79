"""The tests run the init script and the readiness probe of Elasticsearch, but no node."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from voice_policies import Bytes, Duration, faults_of

from components.container import TEMPORARY_PATH
from components.observability.elasticsearch import CONFIG_PATH, DATA_PATH, HOME, RUN_PATH, Elasticsearch
from components.retention import Stream
from components.secret_keys import SECRETS_PATH
from tests.components.observability.servers import VARIANTS, rendered, the


def prepare(variant: str, folder: Path) -> dict[str, Any]:
    """Runs the init container's script with local paths. Returns the settings that the node would read."""
    index = the(Elasticsearch, variant)
    image, data, run = folder / "image", folder / "image" / "data", folder / "run"
    for made in (image / "config" / "jvm.options.d", data, run, folder / "config", folder / "bin"):
        made.mkdir(parents=True, exist_ok=True)
    (image / "config" / "jvm.options").write_text("-XX:+UseG1GC\n")
    for secret in index.node_secrets:
        for key in secret.keys:
            file = folder / "secrets" / secret.name / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"the {key}\n")
    tool = folder / "bin" / "elasticsearch-keystore"
    tool.write_text(
        '#!/bin/sh\n[ "$1" = create ] && : > "$ES_PATH_CONF/elasticsearch.keystore"\n'
        'if [ "$1" = add ]; then echo "$3=$(cat)" >> "$ES_PATH_CONF/elasticsearch.keystore"; fi\n'
    )
    tool.chmod(0o755)
    for name, text in index.files.items():
        moved = {
            DATA_PATH: data,
            HOME: image,
            CONFIG_PATH: folder / "config",
            RUN_PATH: run,
            SECRETS_PATH: folder / "secrets",
        }
        for old, new in moved.items():
            text = text.replace(old, str(new))  # noqa: PLW2901 - each round replaces one path
        (folder / "config" / name).write_text(text)
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    subprocess.run(["sh", folder / "config" / "prepare.sh"], check=True, env={**os.environ, "PATH": path})
    loaded: dict[str, Any] = yaml.safe_load((run / "elasticsearch.yml").read_text())
    return loaded


def test_the_initial_master_nodes_are_set_only_on_an_empty_disk(tmp_path: Path) -> None:
    founders = ["elasticsearch-0", "elasticsearch-1", "elasticsearch-2"]
    assert prepare("replicated", tmp_path)["cluster.initial_master_nodes"] == founders
    (tmp_path / "image" / "data" / "_state").mkdir()
    assert "cluster.initial_master_nodes" not in prepare("replicated", tmp_path)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_init_script_copies_jvm_options_and_certificates_and_creates_a_keystore(
    variant: str, tmp_path: Path
) -> None:
    prepare(variant, tmp_path)
    assert (tmp_path / "run" / "jvm.options").exists()
    assert (tmp_path / "run" / "elasticsearch.keystore").read_text() == "bootstrap.password=the password\n"
    certificates = {found.name for found in (tmp_path / "run").glob("transport/*")}
    assert certificates == ({"authority", "certificate", "private-key"} if variant == "replicated" else set())


def test_a_single_node_has_no_initial_master_nodes(tmp_path: Path) -> None:
    settings = prepare("single", tmp_path)
    assert settings["discovery.type"] == "single-node"
    assert "cluster.initial_master_nodes" not in settings


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_jvm_gets_half_of_the_memory_as_heap(variant: str) -> None:
    (nodes,) = rendered(the(Elasticsearch, variant), "StatefulSet")
    (container,) = nodes["spec"]["template"]["spec"]["containers"]
    (options,) = (each["value"] for each in container["env"] if each["name"] == "ES_JAVA_OPTS")
    half = Bytes(container["resources"]["limits"]["memory"]).units // 2 // 1024**2
    assert options.startswith(f"-Xms{half}m -Xmx{half}m -Xlog:disable ")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_settings_enable_security_and_disable_mmap(variant: str) -> None:
    settings = yaml.safe_load(the(Elasticsearch, variant).files["elasticsearch.yml"])
    assert settings["node.store.allow_mmap"] is False
    assert settings["xpack.security.enabled"] is True


@pytest.mark.parametrize("variant", VARIANTS)
def test_pods_of_elasticsearch_are_not_privileged_and_use_no_host_path(variant: str) -> None:
    index = the(Elasticsearch, variant)
    assert [found.rule for found in index.exemptions] == ["tls"]
    for kind in ("StatefulSet", "Job"):
        (found,) = rendered(index, kind)
        pod = found["spec"]["template"]["spec"]
        assert not any("hostPath" in volume for volume in pod["volumes"])
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert container["securityContext"]["runAsNonRoot"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_three_nodes_on_three_hosts_find_each_other_before_a_node_is_ready() -> None:
    index = the(Elasticsearch)
    (nodes,) = rendered(index, "StatefulSet")
    assert nodes["spec"]["replicas"] == 3
    assert nodes["spec"]["podManagementPolicy"] == "Parallel"
    affinity = nodes["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]
    assert "requiredDuringSchedulingIgnoredDuringExecution" in affinity
    (headless,) = (found for found in rendered(index, "Service") if found["spec"].get("clusterIP") == "None")
    assert headless["spec"]["publishNotReadyAddresses"] is True
    assert headless["metadata"]["name"] == nodes["spec"]["serviceName"]
    settings = yaml.safe_load(index.files["elasticsearch.yml"])
    assert settings["discovery.seed_hosts"] == [f"{headless['metadata']['name']}:9300"]
    assert len(rendered(index, "PodDisruptionBudget")) == 1


def test_one_validation_error_lists_all_wrong_settings_of_elasticsearch() -> None:
    streams = (
        Stream(name="logs", daily=Bytes("100Gi"), retention=Duration("30d"), copies=3),
        Stream(name="traces", daily=Bytes("200Gi"), retention=Duration("14d")),
    )
    with pytest.raises(ValidationError) as caught:
        Elasticsearch.model_validate({**dict(the(Elasticsearch)), "nodes": 2, "streams": streams})
    found = [(fault.path, fault.accepted) for fault in faults_of(caught.value, Elasticsearch)]
    assert [(path, sentence.partition(":")[0]) for path, sentence in found[:2]] == [("", "nodes is 2"), ("", "logs")]
    assert [path for path, _ in found[2:]] == ["streams.logs", "streams.traces"]
    assert "30d and the current day, at 100.0 GiB a day × 3 copies, need 9300.0 GiB" in found[2][1]
    assert "14d and the current day, at 200.0 GiB a day, need 3000.0 GiB" in found[3][1]


def test_two_nodes_are_refused() -> None:
    with pytest.raises(
        ValidationError, match="nodes is 2: two nodes survive no more losses than one node; use 1, or at least 3"
    ):
        Elasticsearch.model_validate({**dict(the(Elasticsearch)), "nodes": 2})


def test_a_node_is_ready_from_the_first_green_status_until_it_leaves(tmp_path: Path) -> None:
    (nodes,) = rendered(the(Elasticsearch), "StatefulSet")
    (container,) = nodes["spec"]["template"]["spec"]["containers"]
    *shell, script = container["readinessProbe"]["exec"]["command"]
    (tmp_path / "health.curl").write_text('user = "elastic:secret"\n')
    (tmp_path / "curl").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexit $(cat {tmp_path}/status)\n')
    (tmp_path / "curl").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        moved = script.replace("9399", str(server.getsockname()[1])).replace(TEMPORARY_PATH, str(tmp_path))

        def ready(status: int) -> bool:
            (tmp_path / "status").write_text(str(status))
            return subprocess.run([*shell, moved], check=False, env=environment).returncode == 0

        assert not ready(22), "the cluster is yellow, so curl fails and the node is not ready"
        assert ready(0)
        assert ready(22), "the node was ready once, so the later loss of another node does not make it unready"
    assert not ready(0), "the readiness port is closed, because the node has left the cluster"
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == 2
    assert "/_cluster/health?wait_for_status=green&timeout=1s" in asked[0]
    assert f"--config {HOME}/config/health.curl" in asked[0]


def test_a_single_node_is_ready_when_its_readiness_port_opens() -> None:
    (nodes,) = rendered(the(Elasticsearch, "single"), "StatefulSet")
    (container,) = nodes["spec"]["template"]["spec"]["containers"]
    command = container["readinessProbe"]["exec"]["command"]
    settings = yaml.safe_load(the(Elasticsearch).files["elasticsearch.yml"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        moved = [part.replace(str(settings["readiness.port"]), port) for part in command]
        assert subprocess.run(moved, check=False).returncode == 0
    assert subprocess.run(moved, check=False, stderr=subprocess.DEVNULL).returncode != 0

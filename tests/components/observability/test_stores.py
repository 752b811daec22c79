from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from voice_policies import Bytes, Duration

from components.observability.collector_config import HTTP_PORT
from components.observability.elasticsearch import Elasticsearch
from components.observability.elasticsearch_setup import requests
from components.observability.fluent_bit import FluentBit
from components.observability.jaeger import InMemory, Jaeger
from components.observability.tempo import Tempo
from components.retention import Stream
from tests.components.observability.servers import documents, rendered, the
from tests.fluent_bit import ECS_LINE, GO_LINE, filtered, json_line, shipped

SMALLEST_RECORD = 60
"""In bytes. Every record is larger, because its attribute `kubernetes` contains the container's id of 64 digits."""


def pod_of(workload: dict[str, Any]) -> dict[str, Any]:
    spec = workload["spec"].get("jobTemplate", workload)["spec"]
    found: dict[str, Any] = spec["template"]["spec"]
    return found


def test_a_single_jaeger_stores_traces_in_memory_and_a_replicated_jaeger_in_the_index() -> None:
    assert the(Jaeger, "single").storage == InMemory(max_traces=2_000)
    store = documents("replicated")["jaeger"]["extensions"]["jaeger_storage"]["backends"]["traces"]["elasticsearch"]
    (stream,) = (each for each in the(Elasticsearch).streams if each.name == "voice-traces")
    assert store["max_span_age"] == f"{stream.retention.whole_seconds()}s"
    assert store["auth"]["basic"]["password_file"].startswith("/etc/voice/secrets/jaeger-elasticsearch/")
    assert {index["replicas"] for index in store["indices"].values()} == {stream.copies - 1}


def test_jaegers_daily_indices_are_deleted_and_never_rolled_over() -> None:
    index = the(Elasticsearch)
    bodies = {each.path: each.body for each in requests(index.streams, index.users)}
    phases = {name: bodies[f"/_ilm/policy/{name}"]["policy"]["phases"] for name in ("voice-traces", "voice-logs")}
    assert phases["voice-traces"].keys() == {"delete"}
    assert phases["voice-logs"].keys() == {"hot", "delete"}
    # A daily index never rolls over, so its age counts from its first span. The last span can be a day younger.
    # So the index stays one day longer than the retention.
    ages = {name: found["delete"]["min_age"] for name, found in phases.items()}
    kept = {stream.name: stream.retention for stream in index.streams}
    assert ages == {"voice-traces": str(kept["voice-traces"] + Duration("1d")), "voice-logs": str(kept["voice-logs"])}
    settings = bodies["/_component_template/logs@custom"]["template"]["settings"]
    assert settings["index.lifecycle.name"] == "voice-logs"


def test_one_error_names_too_many_traces_in_memory_and_too_many_replicas() -> None:
    storage = InMemory(max_traces=20_000)
    with pytest.raises(ValidationError) as caught:
        Jaeger.model_validate({**dict(the(Jaeger, "single")), "storage": storage, "replicas": 2})
    assert "replicas is 2: expected 1, because replicas do not share traces in memory" in str(caught.value)
    assert "max_traces is 20000: expected at most 2048 in 512Mi of memory" in str(caught.value)


def test_tempo_stores_blocks_on_its_disk_unless_it_has_a_bucket() -> None:
    assert documents("single")["tempo"]["storage"]["trace"]["backend"] == "local"
    storage = documents("replicated")["tempo"]["storage"]["trace"]
    assert storage["s3"] == {"bucket": "traces", "endpoint": "objects.example.com:443"}
    (found,) = rendered(the(Tempo), "StatefulSet")
    (container,) = pod_of(found)["containers"]
    (file,) = (each["value"] for each in container["env"] if each["name"] == "AWS_SHARED_CREDENTIALS_FILE")
    assert any(file == f"{mount['mountPath']}/credentials" for mount in container["volumeMounts"])


def test_tempo_waits_for_its_bucket_and_logs_the_wait(tmp_path: Path) -> None:
    (found,) = rendered(the(Tempo), "StatefulSet")
    (waiting,) = found["spec"]["template"]["spec"]["initContainers"]
    *shell, script = waiting["command"]
    for name, text in (("curl", f"echo >> {tmp_path}/asked; test $(wc -l < {tmp_path}/asked) -ge 3"), ("sleep", ":")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run([*shell, script], check=True, capture_output=True, text=True, env={"PATH": path})
    assert done.stdout.splitlines() == ["waiting for https://objects.example.com:443/"] * 2
    (single,) = rendered(the(Tempo, "single"), "StatefulSet")
    assert "initContainers" not in single["spec"]["template"]["spec"]


def test_a_retention_that_does_not_fit_the_disk_of_tempo_is_refused() -> None:
    stream = Stream(name="voice-traces", daily=Bytes("1Gi"), retention=Duration("30d"))
    with pytest.raises(
        ValidationError,
        match=r"30d and the current day, at 1\.0 GiB a day, need 31\.0 GiB, and 85% of the disk \(5\.0 GiB\)",
    ):
        Tempo.model_validate({**dict(the(Tempo, "single")), "stream": stream})
    Tempo.model_validate({**dict(the(Tempo)), "stream": stream})


def test_the_log_shipper_may_only_read_the_nodes_logs_and_write_its_own_state() -> None:
    (found,) = rendered(the(FluentBit), "DaemonSet")
    pod = pod_of(found)
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    (container,) = pod["containers"]
    writable = {each["name"] for each in container["volumeMounts"] if not each.get("readOnly")}
    assert paths == {"logs": "/var/log", "state": "/var/lib/fluent-bit"}
    assert writable & paths.keys() == {"state"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["automountServiceAccountToken"] is False
    assert not any(key in pod for key in ("hostNetwork", "hostPID", "hostIPC"))


def test_the_log_shipper_buffers_lines_within_limits_and_sends_them_only_to_the_collector() -> None:
    pipeline = documents("replicated")["fluent-bit"]["pipeline"]
    (source,), (target,) = pipeline["inputs"], pipeline["outputs"]
    assert source["storage.type"] == "filesystem"
    assert target["storage.total_limit_size"] == "1024M"
    assert 0 < target["retry_limit"] < 1000
    assert target["host"] == "collector.watch.svc.cluster.local"
    assert target["port"] == HTTP_PORT
    assert the(FluentBit).secrets == ()
    (policy,) = rendered(the(FluentBit), "NetworkPolicy")
    targets = [peer["podSelector"]["matchLabels"] for rule in policy["spec"]["egress"] for peer in rule["to"]]
    assert targets == [{"app.kubernetes.io/name": "collector"}]
    assert source["path"] == "/var/log/containers/*_shop-*_*.log"
    (names,) = (each for each in pipeline["filters"] if each["name"] == "kubernetes")
    assert names["kube_tag_prefix"] == "kube.var.log.containers."


@pytest.mark.parametrize("line", [json_line("served", tenant="t-1"), ECS_LINE, GO_LINE, "no JSON at all"])
def test_no_key_appears_twice_in_a_shipped_record(line: str) -> None:
    pipeline = documents("replicated")["fluent-bit"]["pipeline"]
    keys = [key for key, _ in filtered(pipeline["filters"], line)]
    assert sorted(keys) == sorted(set(keys))
    record = shipped(pipeline, line)
    assert record["body"] in ({"stringValue": "served"}, {"stringValue": "no JSON at all"})
    assert "kubernetes" in {each["key"] for each in record["attributes"]}
    assert not {"message", "msg"} & {each["key"] for each in record["attributes"]}


def test_one_request_holds_every_record_of_the_largest_chunk() -> None:
    # A chunk of Fluent Bit holds at most about 2 MB.
    (output,) = documents("replicated")["fluent-bit"]["pipeline"]["outputs"]
    assert output["batch_size"] > 2_048_000 / SMALLEST_RECORD

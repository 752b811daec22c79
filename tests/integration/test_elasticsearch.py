"""These tests do not cover roles, users and lifecycle policies, because no registry has their plugins."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest

from components.observability.elasticsearch import Elasticsearch
from components.observability.jaeger import Jaeger
from tests.integration.elasticsearch_core import ElasticsearchMissingError, running_elasticsearch
from tests.platforms import platform

pytestmark = pytest.mark.integration
HEALTH = "/_cluster/health?wait_for_status=green&timeout=1s"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        with running_elasticsearch(tmp_path_factory.mktemp("elasticsearch")) as found:
            yield found
    except ElasticsearchMissingError as error:
        pytest.skip(str(error))


def send(url: str, method: str, path: str, body: object = None) -> tuple[bool, int]:
    """Send a request with `curl --fail`, as the scripts do. Returns true if curl succeeds, and the answer's status."""
    command = [
        "curl",
        "--silent",
        "--fail",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        "--request",
        method,
    ]
    if body is not None:
        command += ["--header", "Content-Type: application/json", "--data", json.dumps(body)]
    done = subprocess.run([*command, f"{url}{path}"], check=False, capture_output=True, text=True)
    return done.returncode == 0, int(done.stdout)


def test_the_retention_job_succeeds_before_the_first_trace_and_a_yellow_cluster_fails_the_probe(url: str) -> None:
    one_copy = {"index.number_of_replicas": 0}
    assert send(url, "PUT", "/jaeger-*/_settings", one_copy) == (False, 404)
    assert send(url, "PUT", settings_path(), one_copy) == (True, 200)
    assert send(url, "GET", HEALTH) == (True, 200)
    assert send(url, "PUT", "/jaeger-spans-2026-11-30", {"settings": {"number_of_replicas": 1}}) == (True, 200)
    assert send(url, "GET", HEALTH) == (False, 408), "yellow: no other node holds the second copy"
    assert send(url, "PUT", settings_path(), one_copy) == (True, 200)
    assert send(url, "GET", HEALTH) == (True, 200)


def settings_path() -> str:
    """The path that the retention job of prod requests."""
    (jaeger,) = (each for each in platform("prod").components if isinstance(each, Jaeger))
    (script,) = (
        resource["data"]["send.sh"]
        for resource in jaeger.resources()
        if resource["kind"] == "ConfigMap" and "send.sh" in resource["data"]
    )
    (path,) = re.findall(r"^send PUT '([^']+)'", script, re.MULTILINE)
    return str(path)


def test_elasticsearch_accepts_the_settings_of_log_lines_and_refuses_a_misspelt_one(url: str) -> None:
    (index,) = (each for each in platform("prod").components if isinstance(each, Elasticsearch))
    body = json.loads(index.setup["settings-logs.json"])
    del body["template"]["settings"]["index.lifecycle.name"]  # a setting of the plugin for lifecycles
    assert send(url, "PUT", "/_component_template/logs@custom", body) == (True, 200)
    body["template"]["settings"]["index.number_of_shardsx"] = 1
    assert send(url, "PUT", "/_component_template/logs@custom", body) == (False, 400)

"""No test here covers roles, users or lifecycle policies, because no registry has Elasticsearch's plugins for these."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.observability.elasticsearch import Elasticsearch
from components.observability.jaeger import Jaeger
from tests.integration.elasticsearch_core import ElasticsearchMissingError, home, running_elasticsearch
from tests.platforms import platform

pytestmark = pytest.mark.integration
HEALTH = "/_cluster/health?wait_for_status=green&timeout=1s"
ONE_COPY = {"index.number_of_replicas": 0}


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


def test_the_retention_job_succeeds_before_the_first_trace(url: str) -> None:
    assert send(url, "PUT", "/jaeger-*/_settings", ONE_COPY) == (False, 404)
    assert send(url, "PUT", settings_path(), ONE_COPY) == (True, 200)


def test_a_yellow_cluster_fails_the_probe(url: str) -> None:
    assert send(url, "GET", HEALTH) == (True, 200)
    assert send(url, "PUT", "/jaeger-spans-2026-11-30", {"settings": {"number_of_replicas": 1}}) == (True, 200)
    assert send(url, "GET", HEALTH) == (False, 408), "yellow: no other node holds the second copy"
    assert send(url, "PUT", settings_path(), ONE_COPY) == (True, 200)
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


def test_elasticsearch_accepts_the_index_settings_for_logs_and_refuses_a_misspelt_setting(url: str) -> None:
    (index,) = (each for each in platform("prod").components if isinstance(each, Elasticsearch))
    body = json.loads(index.setup["settings-logs.json"])
    del body["template"]["settings"]["index.lifecycle.name"]  # a setting of the plugin for lifecycles
    assert send(url, "PUT", "/_component_template/logs@custom", body) == (True, 200)
    body["template"]["settings"]["index.number_of_shardsx"] = 1
    assert send(url, "PUT", "/_component_template/logs@custom", body) == (False, 400)


@pytest.fixture
def bin_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first directory of PATH, for a fake `mvn`. The cache is in `tmp_path`, too."""
    found = tmp_path / "bin"
    found.mkdir()
    monkeypatch.setenv("PATH", f"{found}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return found


def write_maven(bin_directory: Path, *commands: str) -> None:
    """Write a fake `mvn`. It runs `commands` with the output directory as `$1`."""
    lines = ("#!/bin/sh", "set -eu", "shift 5", 'set -- "${1#-DoutputDirectory=}"', 'mkdir -p "$1"', *commands)
    script = bin_directory / "mvn"
    script.write_text("\n".join(lines) + "\n")
    script.chmod(0o755)


def test_a_failed_fetch_leaves_nothing_in_the_cache(bin_directory: Path, tmp_path: Path) -> None:
    write_maven(bin_directory, "echo no route to host", "exit 1")
    with pytest.raises(ElasticsearchMissingError, match="no route to host"):
        home()
    assert list((tmp_path / "cache").glob("*/*")) == []


def test_a_fetch_keeps_the_jars_that_another_process_fetched_first(bin_directory: Path, tmp_path: Path) -> None:
    jar = tmp_path / "transport-netty4-9.5.0.jar"
    zipfile.ZipFile(jar, "w").close()
    write_maven(bin_directory, f"cp '{jar}' \"$1\"")
    fetched = home()
    assert list(fetched.parent.iterdir()) == [fetched]
    shutil.rmtree(fetched)
    write_maven(bin_directory, f"cp '{jar}' \"$1\"", f"mkdir -p '{fetched}/of-another-process'")
    assert home() == fetched
    assert list(fetched.parent.iterdir()) == [fetched]
    assert [each.name for each in fetched.iterdir()] == ["of-another-process"]

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.observability.elasticsearch import Elasticsearch
from components.observability.elasticsearch_setup import LOGS, requests
from components.observability.jaeger import ACCOUNT, Jaeger
from components.observability.kibana import RUN_PATH, SETUP_USER, WRITE_SECRETS, Kibana
from components.observability.setup_job import BODY, LOGIN, REQUESTS_PATH, SCRIPT
from components.secret_keys import SECRETS_PATH, SecretKeys
from tests.closed_schema import faults, misspellings
from tests.components.observability.http_server import Recorder, Sent, recording
from tests.components.observability.log_schemas import KIBANA_SECRETS, REQUESTS
from tests.components.observability.servers import INDEX_URL, VARIANTS, rendered, the

AWKWARD = 'p"a\\s$s: wörd %s'
"""A password with characters that are special for a shell, curl or JSON."""


def mounted(folder: Path, secrets: Iterable[SecretKeys], value: str = AWKWARD) -> None:
    for secret in secrets:
        for key in secret.keys:
            file = folder / "secrets" / secret.name / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{value} of {secret.name}/{key}\n")


def run(files: dict[str, str], server: str, recorder: Recorder, folder: Path) -> None:
    (folder / "requests").mkdir()
    moved = {
        REQUESTS_PATH: f"{folder}/requests",
        SECRETS_PATH: f"{folder}/secrets",
        LOGIN: f"{folder}/login",
        BODY: f"{folder}/body.json",
        server: recorder.url,
        "--retry-delay 10": "--retry-delay 0",
    }
    for name, text in files.items():
        for old, new in moved.items():
            text = text.replace(old, new)  # noqa: PLW2901 - each round replaces one path
        (folder / "requests" / name).write_text(text)
    subprocess.run(["sh", folder / "requests" / SCRIPT], check=True, timeout=300, stdout=subprocess.DEVNULL)


def schema_of(path: str) -> dict[str, Any]:
    return next(schema for beginning, schema in REQUESTS.items() if path.startswith(beginning))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_job_waits_for_the_server_and_sends_every_request_and_password(variant: str, tmp_path: Path) -> None:
    index = the(Elasticsearch, variant)
    mounted(tmp_path, index.secrets)
    with recording(unavailable=2) as recorder:
        run(index.setup, "http://elasticsearch:9200", recorder, tmp_path)
    login = f"elastic:{AWKWARD} of elasticsearch-superuser/password"
    expected = [
        Sent(each.method, each.path, login, "application/json", {**each.body, **password_of(each.account)})
        for each in requests(index.streams, index.users)
    ]
    assert recorder.sent == expected


def password_of(account: Any) -> dict[str, str]:
    return {"password": f"{AWKWARD} of {account.secret.name}/password"} if account else {}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_schema_accepts_each_body_and_refuses_a_misspelt_key(variant: str) -> None:
    index = the(Elasticsearch, variant)
    for each in requests(index.streams, index.users):
        body = {**each.body, **password_of(each.account)}
        assert faults(schema_of(each.path), body) == []
        assert [path for path, misspelt in misspellings(body) if not faults(schema_of(each.path), misspelt)] == []


def test_no_request_file_of_a_user_and_no_argument_of_curl_contains_a_password() -> None:
    script = the(Elasticsearch).setup[SCRIPT]
    assert "--user" not in script
    assert all("password" not in file for name, file in the(Elasticsearch).setup.items() if name.startswith("user-"))


def test_the_user_that_creates_the_data_view_may_only_read_indices(tmp_path: Path) -> None:
    kibana = the(Kibana)
    mounted(tmp_path, kibana.secrets)
    with recording() as recorder:
        run(kibana.setup, "http://kibana:5601", recorder, tmp_path)
    (sent,) = recorder.sent
    assert sent.login.startswith("kibana-setup:")
    assert faults(schema_of(sent.path), sent.body) == []
    assert sent.body["data_view"]["title"] == "logs-*"
    assert SETUP_USER in the(Elasticsearch).users
    assert SETUP_USER.privileges == ("read", "view_index_metadata")


def test_an_hourly_job_gives_jaegers_indices_the_lifecycle_that_deletes_them(tmp_path: Path) -> None:
    jaeger = the(Jaeger)
    (files,) = (
        found["data"] for found in rendered(jaeger, "ConfigMap") if found["metadata"]["name"].endswith("retention")
    )
    mounted(tmp_path, jaeger.secrets)
    with recording() as recorder:
        run(files, INDEX_URL, recorder, tmp_path)
    (sent,) = recorder.sent
    assert (sent.method, sent.path) == ("PUT", "/jaeger-*/_settings?allow_no_indices=true")
    policies = {each.name: each.retention for each in the(Elasticsearch).streams}
    assert sent.body["index.lifecycle.name"] in policies
    assert sent.body["index.lifecycle.name"] != LOGS
    (job,) = rendered(jaeger, "CronJob")
    assert job["spec"]["schedule"].endswith("* * * *")
    (user,) = (each for each in the(Elasticsearch).users if each.account == ACCOUNT)
    assert user.indices == ("jaeger-*",)
    assert "manage" in user.privileges


def test_kibanas_settings_get_secrets_with_special_characters(tmp_path: Path) -> None:
    mounted(tmp_path, the(Kibana).secrets)
    moved = WRITE_SECRETS.replace(SECRETS_PATH, f"{tmp_path}/secrets").replace(RUN_PATH, str(tmp_path))
    subprocess.run(["sh", "-c", moved], check=True)
    settings = yaml.safe_load((tmp_path / "secrets.yml").read_text())
    assert faults(KIBANA_SECRETS, settings) == []
    assert settings["elasticsearch.password"] == f"{AWKWARD} of kibana-elasticsearch/password"
    assert [path for path, misspelt in misspellings(settings) if not faults(KIBANA_SECRETS, misspelt)] == []


def test_a_job_with_other_requests_or_another_image_has_another_name() -> None:
    index = the(Elasticsearch)
    newer = index.model_copy(update={"image": index.image.model_copy(update={"reference": "elasticsearch:10.0.0"})})
    fewer = index.model_copy(update={"users": index.users[1:]})
    names = [rendered(each, "Job")[0]["metadata"]["name"] for each in (index, index, fewer, newer)]
    assert names[0] == names[1]
    assert len(set(names)) == 3

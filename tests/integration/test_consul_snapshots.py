from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.consul.access import SECRET
from components.consul.snapshots import CREDENTIALS, SCRIPTS_PATH, WORK_PATH
from tests.backup_document import carry_out
from tests.integration.consul_servers import Keys, Server, running_servers, wait_until
from tests.integration.object_store import Bucket, running_bucket
from tests.platforms import of_kind
from tests.programs import directory
from tests.stack.voiceassistant.tiers.real_servers import Place, files

pytestmark = pytest.mark.integration
BUCKET = "https://objects.voicehelper.internal/voicehelper-prod-postgresql"


@dataclass
class Jobs:
    place: Place
    server: Server
    keys: Keys
    bucket: Bucket
    program: Path

    def run(self, job: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command of a rendered job, with the paths and addresses of the test."""
        (found,) = (each for each in of_kind("prod", "CronJob") if each["metadata"]["name"] == job)
        (container,) = found["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        rendered = {each["name"]: self.place.moved(each["value"]) for each in container["env"]}
        environment = {"PATH": f"{self.program.parent}:{os.environ['PATH']}", **rendered, **variables}
        environment["CONSUL_HTTP_ADDR"] = self.server.url
        command = [self.place.moved(word) for word in container["command"]]
        return subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=120)


@pytest.fixture
def jobs(consul: Path) -> Iterator[Jobs]:
    keys = Keys()
    with (
        directory() as root,
        running_bucket("key id", "secret/key+") as bucket,
        running_servers(consul, "prod", 1, keys, bootstrap_expect=1) as (server,),
    ):
        place = Place(root, (SCRIPTS_PATH, WORK_PATH, SECRET.path, CREDENTIALS.path))
        for name, text in files("prod", "consul-snapshot").items():
            place.write(f"{SCRIPTS_PATH}/{name}", text.replace(BUCKET, bucket.url))
        place.write(f"{SECRET.path}/management-token", keys.token)
        for key, value in zip(CREDENTIALS.keys, (bucket.key_id, bucket.secret), strict=True):
            place.write(f"{CREDENTIALS.path}/{key}", value)
        yield Jobs(place, server, keys, bucket, consul)


def status_of_key(jobs: Jobs) -> int:
    """The HTTP status of a read of the key `kept`: 200, or 404 after a wipe."""
    return jobs.server.ask("kv/kept", jobs.keys.token)[0]


def test_a_snapshot_is_restored_after_a_wipe(jobs: Jobs) -> None:
    assert jobs.server.ask("kv/kept", jobs.keys.token, "value") == (200, True)
    saved = jobs.run("consul-snapshot")
    assert saved.returncode == 0, saved.stderr
    paths = {f"/consul/{name}.snap" for name in (saved.stdout.splitlines()[-1], "newest")}
    assert jobs.bucket.objects.keys() == paths
    assert {jobs.bucket.encryption[path] for path in paths} == {"AES256"}
    assert jobs.server.ask("kv/?recurse", jobs.keys.token, method="DELETE") == (200, True)
    assert status_of_key(jobs) == 404
    restored = jobs.run("consul-restore")
    assert restored.returncode == 0, restored.stderr
    wait_until(lambda: status_of_key(jobs) == 200, jobs.server)


def test_the_commands_of_the_backup_document_restore_a_lost_key(jobs: Jobs) -> None:
    assert jobs.server.ask("kv/kept", jobs.keys.token, "value") == (200, True)

    def lose() -> None:
        assert jobs.server.ask("kv/?recurse", jobs.keys.token, method="DELETE") == (200, True)
        assert status_of_key(jobs) == 404

    finished = carry_out("## Consul", jobs.run, lose)
    assert finished["consul-restore-now"].splitlines()[-1] == "newest"
    wait_until(lambda: status_of_key(jobs) == 200, jobs.server)


def test_the_snapshot_of_an_older_day_is_restored_by_its_name(jobs: Jobs) -> None:
    assert jobs.server.ask("kv/kept", jobs.keys.token, "value") == (200, True)
    assert jobs.run("consul-snapshot").returncode == 0
    jobs.bucket.objects = {"/consul/00.snap": jobs.bucket.objects["/consul/newest.snap"]}
    assert jobs.run("consul-restore").returncode != 0
    assert jobs.run("consul-restore", SNAPSHOT="00").returncode == 0


def test_a_restore_without_a_name_uses_the_newest_snapshot_and_no_snapshot_of_last_month(jobs: Jobs) -> None:
    assert jobs.server.ask("kv/kept", jobs.keys.token, "value") == (200, True)
    assert jobs.run("consul-snapshot").returncode == 0
    kept = jobs.bucket.objects["/consul/newest.snap"]
    last_month = {f"/consul/{day:02}.snap": b"last month" for day in range(1, 32)}
    jobs.bucket.objects = {**last_month, "/consul/newest.snap": kept}
    restored = jobs.run("consul-restore")
    assert restored.returncode == 0, restored.stderr


def test_a_damaged_snapshot_restores_nothing(jobs: Jobs) -> None:
    assert jobs.server.ask("kv/kept", jobs.keys.token, "value") == (200, True)
    assert jobs.run("consul-snapshot").returncode == 0
    jobs.bucket.objects["/consul/newest.snap"] = jobs.bucket.objects["/consul/newest.snap"][:-20]
    assert jobs.run("consul-restore").returncode != 0
    assert status_of_key(jobs) == 200


def test_a_job_with_a_wrong_token_or_key_fails_and_prints_no_secret(jobs: Jobs) -> None:
    jobs.place.write(f"{CREDENTIALS.path}/secret-access-key", "another")
    refused = jobs.run("consul-snapshot")
    assert refused.returncode != 0
    assert "403" in refused.stderr
    jobs.place.write(f"{SECRET.path}/management-token", "00000000-0000-0000-0000-000000000000")
    denied = jobs.run("consul-snapshot")
    assert denied.returncode != 0
    assert jobs.bucket.objects == {}
    assert not any(secret in refused.stderr + denied.stderr for secret in (jobs.keys.token, "another"))

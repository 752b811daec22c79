from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from voice_saga.migrations import scripts

from components.postgresql.schemas import DatabaseSchemas
from tests.platforms import ENVIRONMENTS, of_kind, platform
from tests.programs import postgresql
from tests.stack.voiceassistant.tiers.real_servers import Postgresql, files, running_postgresql

USERS = [
    "conversation-service",
    "knowledge-service",
    "indexing-service",
    "notification-service",
    "analytics-service",
]
PATH = "/etc/schemas"
TABLES = (
    "SELECT string_agg(tablename || ' of ' || tableowner, ', ' ORDER BY tablename) "
    "FROM pg_tables WHERE schemaname = 'saga'"
)
INDEXING = "indexing-service"


def jobs(environment: str) -> list[dict[str, Any]]:
    return [job for job in of_kind(environment, "Job") if job["metadata"]["name"].startswith("schemas-")]


def pod_of_the_nightly_job() -> dict[str, Any]:
    (job,) = (job for job in of_kind("dev", "CronJob") if job["metadata"]["name"] == "schemas-nightly")
    pod: dict[str, Any] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return pod


@pytest.fixture(scope="module")
def server() -> Iterator[Postgresql]:
    with running_postgresql() as running:
        running.place.paths += (PATH,)
        for name, text in files("dev", "schemas").items():
            running.place.write(f"{PATH}/{name}", text)
        yield running


def pod_of(user: str) -> dict[str, Any]:
    (job,) = (job for job in jobs("dev") if f"-{user}-" in job["metadata"]["name"])
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


def starting(server: Postgresql, pod: dict[str, Any]) -> subprocess.Popen[str]:
    (container,) = pod["containers"]
    variables = {each["name"]: server.place.moved(each["value"]) for each in container["env"]}
    assert variables["PGHOST"] == "postgresql-pooler"
    reached = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PATH": f"{postgresql()}:{os.environ['PATH']}"}
    command = [server.place.moved(part) for part in container["command"]]
    return subprocess.Popen(
        command, env=variables | reached, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def applied(server: Postgresql, user: str) -> tuple[int, str]:
    return finished(starting(server, pod_of(user)))


def finished(started: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = started.communicate(timeout=300)
    return started.returncode, said


@pytest.mark.parametrize("user", USERS)
def test_each_role_creates_its_own_tables_and_a_second_run_changes_nothing(server: Postgresql, user: str) -> None:
    assert applied(server, user)[0] == 0
    found = server.sql(TABLES, role=user)
    assert f"outbox of {user}" in found
    assert f"sagas of {user}" in found
    server.sql("INSERT INTO saga.outbox (id, type, payload) VALUES ('1', 'document.uploaded', '{}')", role=user)
    assert applied(server, user)[0] == 0
    assert server.sql(TABLES, role=user) == found
    assert server.sql("SELECT count(*) FROM saga.outbox", role=user) == "1"


def test_jobs_that_run_at_the_same_time_all_succeed(server: Postgresql) -> None:
    server.sql("DROP SCHEMA IF EXISTS saga CASCADE", role=INDEXING)
    started = [starting(server, pod_of(INDEXING)) for _ in range(6)]
    said = [(job.communicate(timeout=300)[0], job.returncode) for job in started]
    assert [code for _, code in said] == [0] * 6, said


def test_a_script_that_fails_leaves_no_table_behind_and_fails_the_job(server: Postgresql) -> None:
    server.sql("DROP SCHEMA IF EXISTS saga CASCADE", role=INDEXING)
    last = max(name for name in files("dev", "schemas") if name[0].isdigit())
    whole = files("dev", "schemas")[last]
    server.place.write(f"{PATH}/{last}", whole + "CREATE TABLE nowhere.nothing ();\n")
    code, said = applied(server, INDEXING)
    server.place.write(f"{PATH}/{last}", whole)
    assert code != 0
    assert 'schema "nowhere" does not exist' in said
    assert server.sql(TABLES, role=INDEXING) == ""


OLD = """
INSERT INTO saga.sagas (id, name, version, fingerprint, input, state, due, updated_at)
SELECT id, 'order', 1, '', 'null', state, 'infinity', at FROM {};
INSERT INTO saga.entries SELECT id, 1, 'started', '', 'null', 1, at FROM {};
INSERT INTO saga.outcomes SELECT id, 'pay', 'null', NULL, '', at FROM {};
INSERT INTO saga.barriers SELECT id, 'pay', 'action', 'action', 'null', at FROM {};
INSERT INTO saga.inbox SELECT 'us', id, at FROM {};
""".replace(
    "{}",
    "(SELECT state || '-' || age AS id, state, now() - age * interval '1 day' AS at"
    " FROM unnest(ARRAY['completed', 'parked']) AS state, unnest(ARRAY[29, 31]) AS age) AS old",
)
"""Insert completed and parked sagas that are 29 and 31 days old, with their rows in the other tables."""
KEPT = """
SELECT string_agg(id, ' ' ORDER BY id) FROM (
    SELECT 'sagas ' || id FROM saga.sagas UNION ALL SELECT 'entries ' || saga_id FROM saga.entries
    UNION ALL SELECT 'outcomes ' || saga_id FROM saga.outcomes
    UNION ALL SELECT 'barriers ' || saga_id FROM saga.barriers
    UNION ALL SELECT 'inbox ' || message_id FROM saga.inbox) AS kept (id)"""


def test_the_nightly_job_deletes_month_old_inbox_rows_and_completed_sagas(server: Postgresql) -> None:
    for user in USERS:
        server.sql("DROP SCHEMA IF EXISTS saga CASCADE", role=user)
    assert applied(server, INDEXING)[0] == 0
    server.sql(OLD, role=INDEXING)
    code, said = finished(starting(server, pod_of_the_nightly_job()))
    assert code != 0, (
        "the job must fail, because other services have no tables. It still deletes the old rows of indexing-service"
    )
    assert said.count('relation "saga.sagas" does not exist') == len(USERS) - 1
    kept = [
        f"{table} {saga}" for table in ("barriers", "entries") for saga in ("completed-29", "parked-29", "parked-31")
    ]
    kept += [f"inbox {saga}" for saga in ("completed-29", "parked-29")]
    kept += [
        f"{table} {saga}" for table in ("outcomes", "sagas") for saga in ("completed-29", "parked-29", "parked-31")
    ]
    assert server.sql(KEPT, role=INDEXING) == " ".join(kept)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_each_service_with_events_or_sagas_has_a_job_that_knows_no_other_password(
    environment: str,
) -> None:
    found = {job["metadata"]["name"].removeprefix("schemas-").rpartition("-")[0]: job for job in jobs(environment)}
    assert set(found) == set(USERS)
    for user, job in found.items():
        pod = job["spec"]["template"]["spec"]
        secrets = [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
        assert secrets == [f"{user}-postgresql"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False


def test_changed_files_or_a_changed_image_give_the_job_a_new_name() -> None:
    (made,) = (each for each in platform("prod").components if isinstance(each, DatabaseSchemas))

    def names(component: DatabaseSchemas) -> set[str]:
        return {each["metadata"]["name"] for each in component.resources() if each["kind"] == "Job"}

    image = made.image.model_copy(update={"reference": "postgres:19.0"})
    others = [
        made.model_copy(update={"files": {**made.files, "9.sql": "SELECT 1;"}}),
        made.model_copy(update={"image": image}),
    ]
    assert names(made) == names(made.model_copy())
    assert all(names(made).isdisjoint(names(other)) for other in others)
    assert all(len(name) <= 63 - len("-xxxxx") for name in names(made))


def test_the_jobs_apply_the_schema_that_voice_saga_expects() -> None:
    (made,) = (each for each in platform("prod").components if isinstance(each, DatabaseSchemas))
    assert made.files == scripts("postgresql")

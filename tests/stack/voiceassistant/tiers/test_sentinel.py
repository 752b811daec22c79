from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError
from redis.exceptions import AuthenticationError

from components.valkey.replicated import ReplicatedValkey
from components.valkey.replication import HANDOVER, RECONNECT_SECONDS, stop_node
from tests.loopback import free_port
from tests.platforms import platform
from tests.stack.voiceassistant.tiers.real_cache import NODES, SENTINELS, Member, eventually, running_cache
from tests.stack.voiceassistant.tiers.real_servers import answers_probe, password_of, refused_by_valkey


def test_sentinels_replace_a_lost_primary_and_the_lost_server_returns_as_a_replica(tmp_path: Path) -> None:
    with running_cache(tmp_path) as (nodes, sentinels):
        assert all(answers_probe(ReplicatedValkey.scrape, node.port) for node in nodes)
        assert all(answers_probe(ReplicatedValkey.sentinel_scrape, sentinel.port) for sentinel in sentinels)
        identity = {"user": "identity-service", "password": password_of("identity-service-redis")}
        eventually(lambda: nodes[0].ask("SET", "identity-service:1", "before", **identity))
        eventually(lambda: nodes[1].ask("GET", "identity-service:1", **identity) == "before")
        nodes[0].stop()
        (elected,) = eventually(lambda: [node for node in nodes[1:] if node.role == "master"])
        assert eventually(lambda: elected.ask("SET", "identity-service:1", "after", **identity))
        eventually(lambda: {sentinel.primary for sentinel in sentinels} == {elected.name})
        nodes[0].start()
        eventually(lambda: nodes[0].ask("GET", "identity-service:1", **identity) == "after")
        assert (nodes[0].role, elected.role) == ("slave", "master")
        sentinels[0].stop()
        sentinels[0].start()
        assert f"sentinel monitor cache 127.0.0.1 {elected.port} 2\n" in sentinels[0].file.read_text()


def test_all_members_restart_with_a_rotated_password_of_the_replication(tmp_path: Path) -> None:
    """As docs/deploy.md requires, all pods stop before the first pod starts with the new password."""
    with running_cache(tmp_path) as (nodes, sentinels):
        members = (*nodes, *sentinels)
        for member in members:
            member.stop()
        for member in members:
            member.place.mount_secrets("redis", "prod", {"redis-replication": "rotated"})
            member.empty()
        for member in members:
            member.start()
        identity = {"user": "identity-service", "password": password_of("identity-service-redis")}
        assert eventually(lambda: nodes[0].ask("SET", "identity-service:1", "after", **identity))
        eventually(lambda: nodes[2].ask("GET", "identity-service:1", **identity) == "after")
        eventually(lambda: {sentinel.primary for sentinel in sentinels} == {nodes[0].name})
        assert nodes[0].ask("PING", user="replication", password="rotated")  # noqa: S106 - a password of this test
        with pytest.raises(AuthenticationError):
            nodes[0].ask("PING", user="replication", password=password_of("redis-replication"))


def test_a_sentinel_refuses_every_misspelt_key(tmp_path: Path) -> None:
    member = Member(tmp_path, SENTINELS[0], {name: free_port() for name in (*NODES, *SENTINELS)})
    member.stop()
    configured = member.configure().splitlines()
    keys = [" ".join(line.split()[: 2 if line.startswith("sentinel ") else 1]) for line in configured]
    assert len(keys) == len(set(keys)) == 12
    for key in keys:
        assert refused_by_valkey(member.file, configured, key, "--sentinel"), key


def replicated() -> ReplicatedValkey:
    (found,) = (each for each in platform("prod").components if isinstance(each, ReplicatedValkey))
    return found


CLOCK = """\
#!/bin/sh
now=$(cat "$CLOCK")
case ${0##*/} in
  date) echo "$now";;
  sleep) echo $((now + $1)) > "$CLOCK";;
  timeout)
    case "$*" in
      *127.0.0.1*) echo $((now + ANSWER)) > "$CLOCK"; echo master;;
      *) echo $((now + $1)) > "$CLOCK";;
    esac
esac
"""
"""Fakes of the programs `date`, `sleep` and `timeout`. The file `$CLOCK` holds the time in seconds. No Sentinel
answers. The server answers after ANSWER seconds that it is the primary."""


@pytest.mark.parametrize("answer", [0, 1, 2])
def test_a_primary_that_no_sentinel_replaces_stops_within_the_handover_time(tmp_path: Path, answer: int) -> None:
    clock = tmp_path / "clock"
    clock.write_text("1000")
    for name in ("date", "sleep", "timeout"):
        program = tmp_path / name
        program.write_text(CLOCK.replace("ANSWER", str(answer)))
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "CLOCK": str(clock)}
    subprocess.run(["/bin/sh", "-c", stop_node(replicated().members)], check=True, env=environment, timeout=60)
    assert 1000 + RECONNECT_SECONDS < int(clock.read_text()) <= 1000 + HANDOVER.seconds


@pytest.mark.parametrize(
    ("sentinels", "quorum", "sentences"),
    [
        (2, 2, ["sentinels is 2: expected an odd number, at least 3"]),
        (
            4,
            2,
            ["sentinels is 4: expected an odd number, at least 3", "quorum is 2: expected 3 to 4, a majority of the 4"],
        ),
        (3, 1, ["quorum is 1: expected 2 to 3, a majority of the 3 sentinels"]),
        (3, 4, ["quorum is 4: expected 2 to 3, a majority of the 3 sentinels"]),
    ],
    ids=["2 sentinels", "4 sentinels", "quorum below the majority", "quorum above the sentinels"],
)
def test_a_wrong_number_of_sentinels_or_a_wrong_quorum_is_refused(
    sentinels: int, quorum: int, sentences: list[str]
) -> None:
    with pytest.raises(ValidationError) as caught:
        ReplicatedValkey.model_validate({**dict(replicated()), "sentinels": sentinels, "quorum": quorum})
    assert all(sentence in str(caught.value) for sentence in sentences)

"""Requests that set Elasticsearch up: lifecycle policies, log settings, roles and users.

Source: Elastic's API reference 9.x, `ilm.put_lifecycle`, `cluster.put_component_template`, `security.put_role`,
`security.put_user` and `security.change_password`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from voice_policies import ClosedModel, Duration

from components.observability.setup_job import Account, Request
from components.operation import Name
from components.retention import DAY, Stream
from components.secret_keys import SecretKeys

__all__ = ["LOGS", "LOGS_PATTERN", "OTLP_PATTERN", "IndexUser", "user"]

SUPERUSER = Account(user="elastic", secret=SecretKeys(name="elasticsearch-superuser", keys=("password",)))
"""The built-in superuser. Only Elasticsearch's own pods and the setup Job have its password."""
LOGS = "voice-logs"
"""Name of the log stream and of its lifecycle policy."""
LOGS_PATTERN = "logs-*"
"""Every data stream of log lines, for readers."""
OTLP_PATTERN = "logs-*.otel-*"
"""Data streams that the Collector writes. Elasticsearch names them, and applies its built-in template."""
WORDS = {
    "attributes_are_words": {
        "path_match": "attributes.*",
        "match_mapping_type": "string",
        "mapping": {"type": "keyword", "ignore_above": 1024},
    }
}
"""The mapping of every attribute to `keyword`, because the Collector converts each value to a string.

Without this mapping Elastic's template `ecs@mappings` chooses a type by the name. That template maps `exports`
as an object, and Elasticsearch then refuses a record whose `exports` is a string."""
ROLLOVER = Duration("1d")
ROLLOVER_SIZE = "50gb"
"""Largest primary shard: Elastic's guide to sizing shards gives 10 to 50 GB."""


class IndexUser(ClosedModel):
    """A user for one caller, and the role of the same name."""

    account: Account
    indices: tuple[str, ...] = ()
    """Patterns of the indices to which the privileges apply."""
    privileges: tuple[str, ...] = ()
    cluster: tuple[str, ...] = ()
    kibana: tuple[str, ...] = ()
    """Privileges in Kibana's default space."""
    reserved: bool = False
    """True for a user that Elasticsearch creates itself. The request sets only the user's password."""


def requests(streams: Iterable[Stream], users: Iterable[IndexUser]) -> Iterator[Request]:
    """All requests, in the order in which the setup Job must send them."""
    declared = tuple(streams)
    for stream in declared:
        yield Request(
            name=f"lifecycle-{stream.name}", method="PUT", path=f"/_ilm/policy/{stream.name}", body=_lifecycle(stream)
        )
    for stream in declared:
        if stream.name == LOGS:
            yield Request(
                name="settings-logs",
                method="PUT",
                path="/_component_template/logs@custom",
                body={"template": {"settings": _settings(stream), "mappings": {"dynamic_templates": [WORDS]}}},
            )
    for user in users:
        yield from _user(user)


def _lifecycle(stream: Stream) -> dict[str, Any]:
    """A lifecycle policy that deletes an index when its last record is as old as the retention.

    Log indices roll over, and their age counts from the rollover. Other streams write one index a day. The age of a
    daily index counts from its creation, but its last record may come a day later. So the policy adds a day.
    """
    rollover = {"rollover": {"max_age": str(ROLLOVER), "max_primary_shard_size": ROLLOVER_SIZE}}
    hot = {"hot": {"min_age": "0ms", "actions": rollover}} if stream.name == LOGS else {}
    age = stream.retention if stream.name == LOGS else stream.retention + DAY
    return {"policy": {"phases": {**hot, "delete": {"min_age": str(age), "actions": {"delete": {}}}}}}


def _settings(stream: Stream) -> dict[str, Any]:
    """Settings of the log indices. They go to `logs@custom`, which Elasticsearch reserves for its users' changes."""
    return {
        "index.lifecycle.name": stream.name,
        "index.number_of_shards": 1,
        "index.number_of_replicas": stream.copies - 1,
        "index.codec": "best_compression",
    }


def _user(user: IndexUser) -> Iterator[Request]:
    name = user.account.user
    if user.reserved:
        yield Request(
            name=f"password-{name.replace('_', '-')}",
            method="POST",
            path=f"/_security/user/{name}/_password",
            body={},
            account=user.account,
        )
        return
    yield Request(name=f"role-{name}", method="PUT", path=f"/_security/role/{name}", body=_role(user))
    yield Request(
        name=f"user-{name}",
        method="PUT",
        path=f"/_security/user/{name}",
        body={"roles": [name]},
        account=user.account,
    )


def _role(user: IndexUser) -> dict[str, Any]:
    indices = [{"names": list(user.indices), "privileges": list(user.privileges)}] if user.indices else []
    space = {"application": "kibana-.kibana", "privileges": list(user.kibana), "resources": ["space:default"]}
    return {"cluster": list(user.cluster), "indices": indices, "applications": [space] if user.kibana else []}


def user(name: Name, **rights: tuple[str, ...]) -> IndexUser:
    """The user of a caller that is not in the catalogue, such as Kibana. `rights` are fields of `IndexUser`."""
    return IndexUser.model_validate({"account": Account(user=name, secret=user_secret(name)), **rights})


def user_secret(name: Name) -> SecretKeys:
    """The secret with the password of a caller outside the catalogue. Elasticsearch's setup Job reads it too."""
    return SecretKeys(name=f"{name}-elasticsearch", keys=("password",))

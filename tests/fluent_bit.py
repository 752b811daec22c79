"""Fluent Bit 5.1.1's record of a line that a container printed, with the configured filters and output.

Each function does what the source that it names does. A record keeps a key that appears twice, as Fluent Bit's do.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from voice_runtime.runtime import Runtime
from voice_runtime.tracing import JsonFormatter

from tests.bundles import bundle, mount
from tests.cluster.otlp import any_value

Record = list[tuple[str, Any]]
KUBERNETES = {
    "pod_name": "agent-engine-6d5f8b7c9d-x2k4p",
    "namespace_name": "voice-apps",
    "container_name": "agent-engine",
    "docker_id": "0f" * 32,
}

ECS_LINE = json.dumps(
    {
        "@timestamp": "2026-01-01T00:00:00.000Z",
        "log.level": "INFO",
        "message": "served",
        "ecs.version": "1.2.0",
        "service.name": "ES_ECS",
        "event.dataset": "elasticsearch.server",
        "log": {"logger": "http.server"},
        "labels": None,
        "tags": ["a", "b"],
    }
)
"""As Elasticsearch and Kibana print."""
GO_LINE = json.dumps({"time": "2026-01-01T00:00:00Z", "level": "INFO", "msg": "served", "attempts": 2})
"""As Go's slog prints."""


def json_line(message: str, **extra: Any) -> str:
    """As our services print: the runtime's own formatter."""
    with TemporaryDirectory() as folder:
        runtime = Runtime.load(mount(Path(folder), bundle()))
    record = logging.makeLogRecord({"msg": message, "name": "served", "levelname": "INFO", **extra})
    return JsonFormatter(runtime).format(record)


def shipped(pipeline: Mapping[str, Any], line: str) -> dict[str, Any]:
    """The log record, in OTLP's JSON form, that `pipeline` sends of a line."""
    (output,) = pipeline["outputs"]
    return exported(filtered(pipeline["filters"], line), output)


def filtered(filters: list[Mapping[str, Any]], line: str) -> Record:
    """The record behind the parser `cri` (src/multiline/flb_ml_parser_cri.c) and the filters."""
    record: Record = [("time", "2026-01-01T00:00:00.000000001Z"), ("stream", "stdout"), ("_p", "F"), ("log", line)]
    for each in filters:
        record = {"modify": modified, "kubernetes": merged}[each["name"]](record, each)
    return record


def modified(record: Record, options: Mapping[str, Any]) -> Record:
    """Source: plugins/filter_modify/modify.c."""
    return [(key, value) for key, value in record if key not in options["remove"]]


def merged(record: Record, options: Mapping[str, Any]) -> Record:
    """Source: `pack_map_content` in plugins/filter_kubernetes/kubernetes.c: members go behind what is there."""
    assert (options["merge_log"], options["keep_log"], options["use_tag_for_meta"]) == ("on", "off", "on")
    try:
        members = json.loads(dict(record)["log"])
    except ValueError:
        members = None
    if not isinstance(members, dict):
        return [*record, ("kubernetes", KUBERNETES)]
    return [*((key, value) for key, value in record if key != "log"), *members.items(), ("kubernetes", KUBERNETES)]


def exported(record: Record, options: Mapping[str, Any]) -> dict[str, Any]:
    """Source: `log_record_set_body` and what follows it in plugins/out_opentelemetry/opentelemetry_logs.c."""
    assert options["logs_body_key_attributes"] == "on"
    found = {"timeUnixNano": str(time.time_ns())}
    for pattern in options["logs_body_key"]:
        body = [value for key, value in record if f"${key}" == pattern]
        if body:
            rest = [(key, value) for key, value in record if f"${key}" != pattern]
            return {**found, "body": any_value(body[-1]), "attributes": key_values(rest)}
    return {**found, "body": {"kvlistValue": {"values": key_values(record)}}}


def key_values(members: Record) -> list[dict[str, Any]]:
    """Source: plugins/out_opentelemetry/opentelemetry_utils.c. What is null has no value."""
    return [{"key": key, "value": any_value(value)} for key, value in members]

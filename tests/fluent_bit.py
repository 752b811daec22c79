"""An emulation of Fluent Bit 5.1.1, from a container's log line to the record that the configured output sends.

Each function copies the behaviour of the source file in its docstring. A record keeps duplicate keys, as in Fluent Bit.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lupa.luajit21 as lupa
from voice_runtime.runtime import Runtime
from voice_runtime.tracing import JsonFormatter

from tests.bundles import bundle, mount
from tests.cluster.otlp import any_value

Record = list[tuple[str, Any]]
CHANGED = 2
"""Return code of a Lua function that changed the record but not its time."""
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
"""A log line as Elasticsearch and Kibana write it."""
GO_LINE = json.dumps({"time": "2026-01-01T00:00:00Z", "level": "INFO", "msg": "served", "attempts": 2})
"""A log line as Go's slog writes it."""


def json_line(message: str, **extra: Any) -> str:
    """A log line of our services, written by the runtime's own formatter."""
    with TemporaryDirectory() as folder:
        runtime = Runtime.load(mount(Path(folder), bundle()))
    record = logging.makeLogRecord({"msg": message, "name": "served", "levelname": "INFO", **extra})
    return JsonFormatter(runtime).format(record)


def shipped(pipeline: Mapping[str, Any], line: str) -> dict[str, Any]:
    """The log record, in OTLP's JSON format, that `pipeline` sends for a line."""
    (output,) = pipeline["outputs"]
    return exported(filtered(pipeline["filters"], line), output)


def filtered(filters: list[Mapping[str, Any]], line: str) -> Record:
    """The record after the parser `cri` (src/multiline/flb_ml_parser_cri.c) and the filters."""
    record: Record = [("time", "2026-01-01T00:00:00.000000001Z"), ("stream", "stdout"), ("_p", "F"), ("log", line)]
    for each in filters:
        record = {"lua": called, "modify": modified, "kubernetes": merged, "multiline": unjoined}[each["name"]](
            record, each
        )
    return record


def unjoined(record: Record, _options: Mapping[str, Any]) -> Record:
    """Pass a line unchanged, as if it matched no rule of a multiline parser. `joined` emulates the parsers."""
    return record


def joined(parsers: list[Mapping[str, Any]], lines: list[str]) -> list[str]:
    """The texts into which the filter `multiline` joins lines. Source: `flb_ml_rule_process` in src/multiline."""
    rules = [rule for parser in parsers for rule in parser["rules"]]
    found: list[str] = []
    open_in: str | None = None
    for line in lines:
        state = open_in or "start_state"
        rule = next((each for each in rules if state in each["state"].split(",") and _matches(each, line)), None)
        if open_in is not None and rule is not None:
            found[-1] += f"\n{line}"
        else:
            found.append(line)
        open_in = rule["next_state"] if rule else None
    return found


def _matches(rule: Mapping[str, Any], line: str) -> bool:
    return re.search(rule["regex"].strip("/"), line) is not None


def called(record: Record, options: Mapping[str, Any]) -> Record:
    """The record after the filter `lua`. LuaJIT runs the code on bytes, as in Fluent Bit."""
    lua = lupa.LuaRuntime(encoding=None)
    lua.execute(options["code"].encode())
    given = {key.encode(): value.encode(errors="surrogateescape") for key, value in record if isinstance(value, str)}
    code, _, changed = lua.globals()[options["call"].encode()](b"kube.x", 0, lua.table_from(given))
    if code != CHANGED:
        return record
    return [(key.decode(), value.decode(errors="surrogateescape")) for key, value in changed.items()]


def modified(record: Record, options: Mapping[str, Any]) -> Record:
    """The record after the filter `modify`. Source: plugins/filter_modify/modify.c."""
    return [(key, value) for key, value in record if key not in options["remove"]]


def merged(record: Record, options: Mapping[str, Any]) -> Record:
    """The record after the filter `kubernetes`, which appends fields even if they exist.

    Source: `pack_map_content` in plugins/filter_kubernetes/kubernetes.c.
    """
    assert (options["merge_log"], options["keep_log"], options["use_tag_for_meta"]) == ("on", "off", "on")
    try:
        members = json.loads(dict(record)["log"])
    except ValueError:
        members = None
    if not isinstance(members, dict):
        return [*record, ("kubernetes", KUBERNETES)]
    return [*((key, value) for key, value in record if key != "log"), *members.items(), ("kubernetes", KUBERNETES)]


def exported(record: Record, options: Mapping[str, Any]) -> dict[str, Any]:
    """The log record that the output `opentelemetry` sends.

    Source: `log_record_set_body` and the code after it in plugins/out_opentelemetry/opentelemetry_logs.c.
    """
    assert options["logs_body_key_attributes"] == "on"
    found = {"timeUnixNano": str(time.time_ns())}
    for pattern in options["logs_body_key"]:
        body = [value for key, value in record if f"${key}" == pattern]
        if body:
            rest = [(key, value) for key, value in record if f"${key}" != pattern]
            return {**found, "body": any_value(_c_string(body[-1])), "attributes": key_values(rest)}
    return {**found, "body": {"kvlistValue": {"values": key_values(record)}}}


def _c_string(value: Any) -> Any:
    """Cut each text at its first NUL, because the output handles texts as C strings."""
    if isinstance(value, str):
        return value.partition("\0")[0]
    if isinstance(value, dict):
        return {key: _c_string(each) for key, each in value.items()}
    return [_c_string(each) for each in value] if isinstance(value, list) else value


def key_values(members: Record) -> list[dict[str, Any]]:
    """Members as OTLP attributes; null as an empty value. Source: plugins/out_opentelemetry/opentelemetry_utils.c."""
    return [{"key": key, "value": any_value(_c_string(value))} for key, value in members]

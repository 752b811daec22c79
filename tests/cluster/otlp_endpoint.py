"""A stand-in for Elasticsearch's OTLP endpoint for log records. It writes to a real Elasticsearch.

The endpoint is part of the plugin `otel-data`, and no package registry has that plugin. `OtlpEndpoint` does the same as
the plugin's classes `OTLPLogsTransportAction`, `LogDocumentBuilder` and `OTelDocumentBuilder` (read on 2026-11-30).
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import Request, urlopen

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

STREAM = "logs-generic.otel-default"
TYPES_BY_NAME = {
    "date": ("*.timestamp", "*_timestamp", "*.created", "created", "*.start", "*.end"),
    "ip": ("ip", "*.ip", "*_ip"),
    "geo_point": ("location", "*.location"),
    "float": ("*.score.*", "*_score*"),
    "flattened": ("*structured_data", "*exports", "*imports"),
    "keyword": ("*.name", "*.title", "*.executable", "*file.path"),
}
"""Type → names of fields: an excerpt of Elastic's template `ecs@mappings`."""
ATTRIBUTES = {"type": "passthrough", "dynamic": True}
MAPS = {
    "path_match": ["resource.attributes.*", "scope.attributes.*", "attributes.*"],
    "match_mapping_type": "object",
    "mapping": {"type": "flattened"},
}
RECORDS = {
    "settings": {
        "index.mapping.ignore_malformed": True,
        "index.mapping.total_fields.ignore_dynamic_beyond_limit": True,
    },
    "mappings": {
        "dynamic": False,
        "date_detection": False,
        "dynamic_templates": [{"complex_attributes": MAPS}],
        "properties": {
            "@timestamp": {"type": "date"},
            "data_stream": {"properties": {key: {"type": "keyword"} for key in ("type", "dataset", "namespace")}},
            "observed_timestamp": {"type": "date_nanos"},
            "severity_number": {"type": "byte"},
            "severity_text": {"type": "keyword"},
            "log.level": {"type": "alias", "path": "severity_text"},
            "body": {"properties": {"text": {"type": "text"}, "structured": {"type": "flattened"}}},
            "message": {"type": "alias", "path": "body.text"},
            "trace_id": {"type": "keyword"},
            "span_id": {"type": "keyword"},
            "dropped_attributes_count": {"type": "long"},
            "attributes": {**ATTRIBUTES, "priority": 20},
            "scope": {"properties": {"attributes": {**ATTRIBUTES, "priority": 30}}},
            "resource": {"properties": {"attributes": {**ATTRIBUTES, "priority": 40}}},
        },
    },
}
"""Settings and mappings of Elastic's `logs-otel@template`: `logs@settings`, `otel@mappings` and `logs-otel@mappings`.

`text` replaces `match_only_text`, and `keyword` replaces `constant_keyword`, because no package registry has the
modules that contain these types."""


def install_templates(url: str, custom: dict[str, Any]) -> None:
    """Install Elasticsearch's own templates and our `logs@custom`.

    The lifecycle and the codec `best_compression` are left out, because no package registry has the plugin and the
    native library that they need. The number of replicas is 0, because there is only one node.
    """
    settings = {
        name: value
        for name, value in custom["settings"].items()
        if name not in {"index.lifecycle.name", "index.codec", "index.number_of_replicas"}
    }
    by_name = [{kind: {"path_match": [*names], "mapping": {"type": kind}}} for kind, names in TYPES_BY_NAME.items()]
    words = {"match_mapping_type": "string", "mapping": {"type": "keyword", "ignore_above": 1024}}
    parts = {
        "logs-otel@mappings": RECORDS,
        "logs@custom": {**custom, "settings": {**settings, "index.number_of_replicas": 0}},
        "ecs@mappings": {"mappings": {"dynamic_templates": [*by_name, {"all_strings_to_keywords": words}]}},
    }
    for name, template in parts.items():
        ask(url, "PUT", f"/_component_template/{name}", {"template": template})
    template = {"index_patterns": ["logs-*.otel-*"], "data_stream": {}, "composed_of": [*parts]}
    ask(url, "PUT", "/_index_template/logs-otel@template", template)


def ask(url: str, method: str, path: str, body: bytes | dict[str, Any] | None = None) -> Any:
    """Raise `HTTPError` if Elasticsearch refuses the request."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    sent = Request(f"{url}{path}", data=data, method=method, headers={"Content-Type": "application/json"})  # noqa: S310 - loopback
    with urlopen(sent, timeout=60) as answer:  # noqa: S310 - loopback
        return json.load(answer)


def documents(url: str) -> list[dict[str, Any]]:
    """The stored documents, at most 1,000."""
    ask(url, "POST", f"/{STREAM}/_refresh")
    found = ask(url, "GET", f"/{STREAM}/_search?size=1000")
    return [hit["_source"] for hit in found["hits"]["hits"]]


class OtlpEndpoint:
    """`refused` has the error of each refused request or document."""

    def __init__(self, port: int, url: str) -> None:
        self.url = url
        self.refused: list[str] = []
        self.stored = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                self.send_response(outer.take(body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Prints nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)

    def take(self, body: bytes) -> HTTPStatus:
        """Store the records of a request. A document that Elasticsearch refuses does not stop the others."""
        try:
            request = ExportLogsServiceRequest.FromString(body)
            lines = [document(record) for record in _records(request)]
        except (DecodeError, ValueError) as error:
            self.refused.append(f"a whole request: {error}")
            return HTTPStatus.BAD_REQUEST
        bulk = "".join(f'{{"create":{{}}}}\n{line}\n' for line in lines)
        answer = ask(self.url, "POST", f"/{STREAM}/_bulk", bulk.encode())
        results = [item["create"] for item in answer["items"]]
        self.refused += [str(result["error"]) for result in results if "error" in result]
        self.stored += len([result for result in results if "error" not in result])
        return HTTPStatus.OK


def _records(request: ExportLogsServiceRequest) -> Iterator[LogRecord]:
    for resource in request.resource_logs:
        for scope in resource.scope_logs:
            yield from scope.log_records


def document(record: LogRecord) -> str:
    """The document of a record, as JSON. Duplicate keys of attributes are kept.

    Raises:
        ValueError: an attribute has no value, or a value that is not a string. The plugin accepts further types of
            values, but the Collector sends only strings.
    """
    members: dict[str, str] = {
        "@timestamp": json.dumps(record.time_unix_nano // 1_000_000),
        "observed_timestamp": json.dumps(record.observed_time_unix_nano // 1_000_000),
        "data_stream": json.dumps({"type": "logs", "dataset": "generic.otel", "namespace": "default"}),
        "resource": '{"attributes":{}}',
        "attributes": _object((each.key, json.dumps(_text(each))) for each in record.attributes),
        "body": _object([("text", json.dumps(record.body.string_value))]),
    }
    texts = {
        "severity_text": record.severity_text,
        "trace_id": record.trace_id.hex(),
        "span_id": record.span_id.hex(),
    }
    members |= {name: json.dumps(value) for name, value in texts.items() if value}
    if record.dropped_attributes_count:
        members["dropped_attributes_count"] = json.dumps(record.dropped_attributes_count)
    return _object(members.items())


def _text(attribute: KeyValue) -> str:
    if attribute.value.WhichOneof("value") != "string_value":
        raise ValueError(f"{attribute.key}: expected a string")
    return attribute.value.string_value


def _object(members: Iterable[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{json.dumps(key)}:{value}" for key, value in members) + "}"


@contextmanager
def receiving(port: int, url: str) -> Iterator[OtlpEndpoint]:
    endpoint = OtlpEndpoint(port, url)
    threading.Thread(target=endpoint.server.serve_forever, daemon=True).start()
    try:
        yield endpoint
    finally:
        endpoint.server.shutdown()
        endpoint.server.server_close()

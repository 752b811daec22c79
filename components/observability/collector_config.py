"""The Collector's configuration: receive OTLP, process it, export it.

The deployed distribution (`otelcol-k8s`) and the program that the tests build contain every component named here. The
Collector's `validate` refuses unknown keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic_core import to_json
from voice_policies import Bytes, ClosedModel, Ratio

from components.operation import Name
from components.secret_keys import SecretKeys

__all__ = ["Backend", "Sampling"]

GRPC_PORT, HTTP_PORT = 4317, 4318
METRICS_PORT, HEALTH_PORT = 8888, 13133
QUEUE_PATH = "/var/lib/otelcol"
POD_ADDRESS = "${env:POD_IP}"
Signal = Literal["traces", "metrics", "logs"]

BATCH_BYTES = 1_000_000
LARGEST_BATCH_BYTES = 2_000_000
"""Half of the 4 MB that a gRPC server accepts by default. The other half is margin, because the
Collector does not count the envelope around the records of a batch."""
COMPACTED_FROM = Bytes("100Mi")
"""Smallest size of a queue's file that the Collector compacts."""
COMPACTED_COPY = Bytes("10Mi")
"""Largest amount of data that a compaction copies. If the queue holds more, the Collector compacts later."""
DECIDED = "sampling.priority"
"""Attribute that tells the sampler to keep a span."""
SECRET_KEYS = (
    r"(?i)(^|[._-])(authorization|cookie|set-cookie|password|passwd|secret|client_secret|private_key|api[-_.]?key)\z",
    r"(?i)(^|[._-])(access|refresh|id|session|csrf)[-_]?token\z",
)
"""Patterns for names of attributes whose values are masked. A name matches if it ends in one of these words, alone or
after `.`, `_` or `-`. The count `input_tokens` does not match."""
SECRET_VALUES = (
    r"\beyJ[\w-]+\.[\w-]+\.[\w-]*",  # a JSON Web Token
    r"(?i)\b(bearer|basic)\s+[\w.~+/-]{8,}=*",
    r"\b(sk|pk|rk)[-_][\w-]{16,}",  # keys of the language-model and payment providers
    r"://[^/\s:@]+:[^/\s:@]+@",  # a user and a password within a URL
    r"\b[2-6]\d{3}[ -]?\d{4}[ -]?\d{4}[ -]?\d{4}\b",  # a payment card number; a time in microseconds does not match
    r"[\w.+-]+@[\w-]+\.[\w.-]+\w",  # an e-mail address
)
"""Patterns for values that the Collector masks in attributes, log lines, names of spans and events, and status messages
of spans."""
MASK = "****"
"""Replacement of a secret by the processor `redaction`."""
TEXTS_OF_SPANS = ("span.name", "span.status.message", "spanevent.name")
"""Texts of a span that this configuration masks itself. `redaction` masks only attributes: those of the span, its
resource, its scope and its events. No processor can mask the attributes of a span's links."""
LARGEST_MESSAGE = 800_000
LARGEST_ATTRIBUTE = 16_384
LONGEST_NAME = 400
"""Maximum number of characters of an attribute's name. In UTF-8 400 characters have at most 1,600 bytes. The Collector
drops and counts an attribute with a longer name."""
MOST_ATTRIBUTES = 64
"""Limits of a log record: a message of 800,000 bytes, and 64 attributes of 16,384 bytes. With names of 1,600
bytes and a level of 16,384 bytes, the largest record has 800,000 + 64 × (1,600 + 16,384) + 16,384 bytes, less than
`LARGEST_BATCH_BYTES`. If a record is larger, an exporter drops the record and the rest of the batch."""
KEPT = '["kubernetes.namespace_name", "kubernetes.pod_name", "kubernetes.container_name"]'
BROKEN = r'"[\\x00\\x{FFFD}\\x{FFFE}]", "�"'
"""Pattern and replacement for NUL and for invalid UTF-8. A receiver that checks UTF-8, such as Elasticsearch, would
refuse the whole batch. Go's regular expressions match an invalid byte as U+FFFD (tried with Go 1.26.8)."""
NAMELESS = r'"^[\\s\\p{Z}]*\\z", "_"'
"""Pattern and replacement for a name that is empty or has only spaces."""
LINE_STATEMENTS = (
    # The body of a line without a message is a map of fields. If an attribute has the name of a field, the merge keeps
    # only one of the two values.
    'merge_maps(log.attributes, log.body, "upsert") where IsMap(log.body)',
    'set(log.body, "") where IsMap(log.body)',
    "set(log.body, String(log.body)) where not IsString(log.body)",
    "flatten(log.attributes)",
    # Elasticsearch refuses a batch with an empty value, and a record with an attribute whose name has only spaces.
    "stringify_all(log.attributes)",
    # Replace before the limits apply, because the text becomes longer: three bytes replace one invalid byte.
    f"replace_pattern(log.body, {BROKEN})",
    f'replace_all_patterns(log.attributes, "value", {BROKEN})',
    f'replace_all_patterns(log.attributes, "key", {BROKEN})',
    f'replace_all_patterns(log.attributes, "key", {NAMELESS})',
    f"truncate_all(log.attributes, {LARGEST_ATTRIBUTE})",
    # Set the record's own fields from attributes before `limit`, which may drop these attributes.
    (
        'set(log.trace_id.string, log.attributes["trace_id"])'
        r' where IsMatch(log.attributes["trace_id"], "^[0-9a-f]{32}\\z")'
    ),
    (
        'set(log.span_id.string, log.attributes["span_id"])'
        r' where IsMatch(log.attributes["span_id"], "^[0-9a-f]{16}\\z")'
    ),
    'set(log.severity_text, Coalesce([log.attributes["level"], log.attributes["log.level"], log.severity_text]))',
    # Delete duplicates of the record's own fields, and attributes that would choose another data stream.
    r'delete_matching_keys(log.attributes, "^(@timestamp|time|trace_id|span_id|(log\\.)?level)\\z")',
    r'delete_matching_keys(log.attributes, "^(data_stream\\..*|elasticsearch\\.(index|mapping\\..*))\\z")',
    'set(log.cache["attributes"], Len(log.attributes))',
    f'set(log.body, Format("dropped: a message of %d bytes", [Len(log.body)])) where Len(log.body) > {LARGEST_MESSAGE}',
    f'delete_matching_keys(log.attributes, "^(?s:.{{{LONGEST_NAME + 1}}})")',
    f"limit(log.attributes, {MOST_ATTRIBUTES}, {KEPT})",
    (
        'set(log.dropped_attributes_count, log.cache["attributes"] - Len(log.attributes))'
        ' where log.cache["attributes"] > Len(log.attributes)'
    ),
)
"""Statements that give every log record the same form: the body is a string, and each attribute is one string.

Source for Elasticsearch's rules: `OTelDocumentBuilder.buildAnyValue` and `TargetIndex.evaluate` in
x-pack/plugin/otel-data."""

UNNAMED = r'"^[^A-Za-z0-9]*\\z", "unnamed"'
"""Pattern and replacement for a name without an ASCII letter or digit. Prometheus cannot make a valid name from it."""
POINT_STATEMENTS = (
    f"replace_pattern(metric.name, {BROKEN})",
    f"replace_pattern(metric.name, {UNNAMED})",
    *(
        f'replace_all_patterns({attributes}, "{part}", {pattern})'
        for attributes in ("resource.attributes", "datapoint.attributes")
        for part, pattern in (("value", BROKEN), ("key", BROKEN), ("key", UNNAMED))
    ),
)
"""Statements that make names and labels of metrics valid. Prometheus 3.14 refuses a whole batch for one invalid name.
If a label has invalid UTF-8, Prometheus's answers to queries are not valid JSON."""


class Backend(ClosedModel):
    """The destination of a signal, and the rate of the data that the Collector queues while the destination is down."""

    name: Name
    signal: Signal
    endpoint: str
    """`host:port` for gRPC, a URL for HTTP."""
    protocol: Literal["grpc", "http"]
    bytes_per_second: Bytes
    """Rate at which the whole platform sends to this backend, at the declared load."""
    user: str | None = None
    """The user whose password the Collector sends. If it is `None`, the Collector sends no password, and
    only the network policy decides who may write."""
    secret: SecretKeys | None = None
    """The secret whose key `password` the Collector sends."""

    @property
    def exporter(self) -> str:
        """Identifier of the backend's exporter."""
        return f"otlp_{self.protocol}/{self.name}"

    @property
    def authenticator(self) -> str:
        """Identifier of the backend's authenticator."""
        return f"basicauth/{self.name}"

    def extension(self) -> dict[str, Any]:
        """The backend's authenticator. The Collector reads the password file again when the file changes."""
        path = self.secret.path if self.secret else ""
        return {"client_auth": {"username": self.user, "password_file": f"{path}/password"}}

    def document(self, queue: Bytes) -> dict[str, Any]:
        """The backend's exporter: it queues on disk, and retries without a time limit."""
        return {
            "endpoint": self.endpoint,
            **({"tls": {"insecure": True}} if self.protocol == "grpc" else {}),
            **({"auth": {"authenticator": self.authenticator}} if self.user else {}),
            "timeout": "10s",
            "sending_queue": {
                "storage": "file_storage/queues",
                "sizer": "bytes",
                "queue_size": queue.units,
                "num_consumers": 4,
                "batch": {"flush_timeout": "1s", "min_size": BATCH_BYTES, "max_size": LARGEST_BATCH_BYTES},
            },
            # No time limit: queued data waits until the backend is back. New data that does not fit is refused.
            "retry_on_failure": {"initial_interval": "1s", "max_interval": "30s", "max_elapsed_time": "0s"},
        }


class Sampling(ClosedModel):
    """The rule by which the Collector keeps traces.

    A sender with a tracing policy decides at the start of a trace, for all spans of the trace. The Collector does not
    decide about these traces, because a second decision would keep only a share of them. The Collector samples the
    traces of all other senders. Every replica makes the same decision for a trace, so traces stay complete.
    """

    decided: str
    """`service.namespace` of every sender with a tracing policy."""
    others: Ratio

    def processors(self) -> dict[str, Any]:
        """The sampler, between processors that mark the spans of deciding senders and remove the mark again."""
        namespace = {"key": "service.namespace", "value": self.decided}
        decided = {"include": {"match_type": "strict", "resources": [namespace]}}
        return {
            "attributes/decided": {**decided, "actions": [{"key": DECIDED, "value": 1, "action": "upsert"}]},
            "probabilistic_sampler": {
                "mode": "hash_seed",
                "sampling_percentage": float(self.others) * 100,
                "fail_closed": True,
            },
            "attributes/told": {"actions": [{"key": DECIDED, "action": "delete"}]},
        }


def configuration(backends: Iterable[tuple[Backend, Bytes]], sampling: Sampling, memory_limit: Bytes) -> dict[str, Any]:
    """The complete configuration. Each backend comes with the size of its queue."""
    queued = tuple(backends)
    guarded = [backend for backend, _ in queued if backend.user]
    sampled, own_metrics = sampling.processors(), {"host": POD_ADDRESS, "port": METRICS_PORT}
    made = {"traces": (*sampled, "transform/spans"), "metrics": ("transform/points",), "logs": ("transform/lines",)}
    return {
        "extensions": {
            "health_check": {"endpoint": f"{POD_ADDRESS}:{HEALTH_PORT}"},
            "file_storage/queues": {
                "directory": QUEUE_PATH,
                # A queue's file never shrinks by itself, so the Collector compacts it when nearly all of it is empty.
                # It does not compact at its start: it would copy all queued data before the health check answers.
                "compaction": {
                    "on_start": False,
                    "on_rebound": True,
                    "rebound_needed_threshold_mib": COMPACTED_FROM.units >> 20,
                    "rebound_trigger_threshold_mib": COMPACTED_COPY.units >> 20,
                    "cleanup_on_start": True,
                    "directory": QUEUE_PATH,
                },
            },
            **{backend.authenticator: backend.extension() for backend in guarded},
        },
        "receivers": {"otlp": {"protocols": _entrance()}},
        "processors": {
            "memory_limiter": _memory_limiter(memory_limit),
            **sampled,
            "transform/spans": {"trace_statements": [{"statements": _masking(text)} for text in TEXTS_OF_SPANS]},
            "transform/points": {"metric_statements": [{"statements": list(POINT_STATEMENTS)}]},
            "transform/lines": {"log_statements": [{"statements": list(LINE_STATEMENTS)}]},
            "redaction": {
                "allow_all_keys": True,
                "redact_all_types": True,
                "blocked_key_patterns": list(SECRET_KEYS),
                "blocked_values": list(SECRET_VALUES),
                "summary": "silent",
            },
        },
        "exporters": {backend.exporter: backend.document(queue) for backend, queue in queued},
        "service": {
            "extensions": ["health_check", "file_storage/queues", *(backend.authenticator for backend in guarded)],
            "pipelines": {
                signal: {
                    "receivers": ["otlp"],
                    # The limiter comes first: while memory is short, it refuses data before other processors spend time
                    # on the data.
                    "processors": ["memory_limiter", *made.get(signal, ()), "redaction"],
                    "exporters": [backend.exporter for backend, _ in queued if backend.signal == signal],
                }
                for signal in dict.fromkeys(backend.signal for backend, _ in queued)
            },
            "telemetry": {
                "logs": {"encoding": "json"},
                "metrics": {"level": "normal", "readers": [{"pull": {"exporter": {"prometheus": own_metrics}}}]},
            },
        },
    }


def _masking(text: str) -> list[str]:
    """Statements that mask one text.

    Each text needs its own list, because the Collector runs a whole list either for each span or for each event.
    """
    return [f'replace_pattern({text}, {to_json(pattern).decode()}, "{MASK}")' for pattern in SECRET_VALUES]


def _entrance() -> dict[str, Any]:
    """The OTLP receiver. It closes gRPC connections after a while. Senders then also connect to new replicas."""
    age = {"max_connection_age": "10m", "max_connection_age_grace": "30s"}
    return {
        "grpc": {"endpoint": f"{POD_ADDRESS}:{GRPC_PORT}", "keepalive": {"server_parameters": age}},
        "http": {"endpoint": f"{POD_ADDRESS}:{HTTP_PORT}"},
    }


def _memory_limiter(limit: Bytes) -> dict[str, Any]:
    """A limiter that refuses data while the heap is above 60 % of the container's memory limit.

    Above 60 % it also collects garbage, at most every 10 s. Above 80 % (`limit_mib`) it collects at every check.
    """
    mebibytes = limit.units >> 20
    return {"check_interval": "1s", "limit_mib": mebibytes * 8 // 10, "spike_limit_mib": mebibytes * 2 // 10}

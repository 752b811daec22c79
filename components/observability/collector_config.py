"""The Collector's configuration: what comes in over OTLP, what is kept of it, and where it goes.

Every component named here is in the distribution that is deployed (`otelcol-k8s`) and in the program that the tests
build; a key that none of them knows is refused by its `validate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
"""Half of the 4 MB that a gRPC server takes by default: the sum over a batch leaves out its envelope."""
DECIDED = "sampling.priority"
"""The attribute that tells the sampler to keep a span."""
SECRET_KEYS = (
    r"(?i)(^|[._-])(authorization|cookie|set-cookie|password|passwd|secret|client_secret|private_key|api[-_.]?key)\z",
    r"(?i)(^|[._-])(access|refresh|id|session|csrf)[-_]?token\z",
)
"""Attributes that are masked whole, by the end of their name: `input_tokens` counts and is no secret."""
SECRET_VALUES = (
    r"\beyJ[\w-]+\.[\w-]+\.[\w-]*",  # a JSON Web Token
    r"(?i)\b(bearer|basic)\s+[\w.~+/-]{8,}=*",
    r"\b(sk|pk|rk)[-_][\w-]{16,}",  # keys of the language-model and payment providers
    r"://[^/\s:@]+:[^/\s:@]+@",  # a user and a password within a URL
    r"\b[2-6]\d{3}[ -]?\d{4}[ -]?\d{4}[ -]?\d{4}\b",  # a payment card, and no time in microseconds
    r"[\w.+-]+@[\w-]+\.[\w.-]+\w",  # an e-mail address
)
"""Values that the Collector masks everywhere, in log lines too."""
MASK = "****"
"""Replacement of a secret by the processor `redaction`."""
TEXT_OF_SPANS = ("span.name", "span.status.message")
"""Texts of a span that the processor `redaction` leaves alone: it looks at attributes only."""
LINE_STATEMENTS = (
    # A line without a message has its fields in the body. Setting the fields again leaves one copy of each.
    'merge_maps(log.attributes, log.body, "upsert") where IsMap(log.body)',
    'set(log.body, "") where IsMap(log.body)',
    "set(log.body, String(log.body)) where not IsString(log.body)",
    "flatten(log.attributes)",
    # Elasticsearch refuses a whole batch for an empty value, and a number where it has seen a word.
    "stringify_all(log.attributes)",
    (
        'set(log.trace_id.string, log.attributes["trace_id"])'
        r' where IsMatch(log.attributes["trace_id"], "^[0-9a-f]{32}\\z")'
    ),
    (
        'set(log.span_id.string, log.attributes["span_id"])'
        r' where IsMatch(log.attributes["span_id"], "^[0-9a-f]{16}\\z")'
    ),
    'set(log.severity_text, Coalesce([log.attributes["level"], log.attributes["log.level"], log.severity_text]))',
    # What the record says itself, and what would choose another data stream.
    r'delete_matching_keys(log.attributes, "^(@timestamp|time|trace_id|span_id|(log\\.)?level)\\z")',
    r'delete_matching_keys(log.attributes, "^(data_stream\\..*|elasticsearch\\.(index|mapping\\..*))\\z")',
)
"""Statements that give all log records, printed or sent, one form: a text as the body, each attribute once and a text.

Elasticsearch's `OTelDocumentBuilder.buildAnyValue` and `TargetIndex.evaluate` (x-pack/plugin/otel-data) say what it
takes, and what it reads out of attributes.
"""


class Backend(ClosedModel):
    """Where a signal goes, and what of it must be held while it is away."""

    name: Name
    signal: Signal
    endpoint: str
    """`host:port` for gRPC, an address with its path for HTTP."""
    protocol: Literal["grpc", "http"]
    bytes_per_second: Bytes
    """The rate at which the whole platform sends to it, at the declared load."""
    user: str | None = None
    """The user whose password the Collector sends. `None` sends none: the network policy alone admits writers."""
    secret: SecretKeys | None = None
    """Its key `password`."""

    @property
    def exporter(self) -> str:
        """Its exporter's identifier."""
        return f"otlp_{self.protocol}/{self.name}"

    @property
    def authenticator(self) -> str:
        """Its authenticator's identifier."""
        return f"basicauth/{self.name}"

    def extension(self) -> dict[str, Any]:
        """Its authenticator: the file is read again when it changes."""
        path = self.secret.path if self.secret else ""
        return {"client_auth": {"username": self.user, "password_file": f"{path}/password"}}

    def document(self, queue: Bytes) -> dict[str, Any]:
        """Its exporter: a queue on disk, asked again until it is taken."""
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
            # Without an end: what the queue cannot hold is refused at the entrance, and never given up inside.
            "retry_on_failure": {"initial_interval": "1s", "max_interval": "30s", "max_elapsed_time": "0s"},
        }


class Sampling(ClosedModel):
    """Which traces are kept.

    A sender with a tracing policy has decided by it where the trace began, for all of its spans: deciding again would
    keep a share of a share. Of everybody else the same share is kept here, whole traces, alike in every replica.
    """

    decided: tuple[str, ...]
    """`service.name` of every sender with a tracing policy."""
    others: Ratio

    def processors(self) -> dict[str, Any]:
        """The sampler, and what tells it what was decided."""
        decided = {"include": {"match_type": "strict", "services": list(self.decided)}}
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
    """The whole configuration; each backend comes with the size of its queue."""
    queued = tuple(backends)
    guarded = [backend for backend, _ in queued if backend.user]
    sampled = sampling.processors()
    made = {"traces": (*sampled, "transform/spans"), "logs": ("transform/lines",)}
    return {
        "extensions": {
            "health_check": {"endpoint": f"{POD_ADDRESS}:{HEALTH_PORT}"},
            "file_storage/queues": {
                "directory": QUEUE_PATH,
                # A queue's file never shrinks by itself, so the Collector compacts it when most of it is empty.
                "compaction": {"on_start": True, "on_rebound": True, "directory": QUEUE_PATH},
            },
            **{backend.authenticator: backend.extension() for backend in guarded},
        },
        "receivers": {"otlp": {"protocols": _entrance()}},
        "processors": {
            "memory_limiter": _memory_limiter(memory_limit),
            **sampled,
            "transform/spans": {"trace_statements": [{"statements": list(_masking_statements())}]},
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
                    # What is over the limit of memory is refused before anything else looks at it.
                    "processors": ["memory_limiter", *made.get(signal, ()), "redaction"],
                    "exporters": [backend.exporter for backend, _ in queued if backend.signal == signal],
                }
                for signal in dict.fromkeys(backend.signal for backend, _ in queued)
            },
            "telemetry": {
                "logs": {"encoding": "json"},
                "metrics": {
                    "level": "normal",
                    "readers": [{"pull": {"exporter": {"prometheus": {"host": POD_ADDRESS, "port": METRICS_PORT}}}}],
                },
            },
        },
    }


def _masking_statements() -> Iterator[str]:
    for text in TEXT_OF_SPANS:
        for pattern in SECRET_VALUES:
            yield f'replace_pattern({text}, {to_json(pattern).decode()}, "{MASK}")'


def _entrance() -> dict[str, Any]:
    """OTLP. A gRPC connection ends after a while, so that a new replica gets its share of the senders."""
    age = {"max_connection_age": "10m", "max_connection_age_grace": "30s"}
    return {
        "grpc": {"endpoint": f"{POD_ADDRESS}:{GRPC_PORT}", "keepalive": {"server_parameters": age}},
        "http": {"endpoint": f"{POD_ADDRESS}:{HTTP_PORT}"},
    }


def _memory_limiter(limit: Bytes) -> dict[str, Any]:
    """Refuses at 80 % of the container's limit, collects garbage from 60 %."""
    mebibytes = limit.units >> 20
    return {"check_interval": "1s", "limit_mib": mebibytes * 8 // 10, "spike_limit_mib": mebibytes * 2 // 10}

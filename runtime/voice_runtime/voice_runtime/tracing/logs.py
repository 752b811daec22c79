"""Logs as JSON lines with the trace and the digest of the current bundle."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from opentelemetry import trace

from voice_runtime.runtime import Runtime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One line for each record. The fields of `extra=` become fields of the line."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self._runtime = runtime

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        metadata, span = self._runtime.bundle.metadata, trace.get_current_span().get_span_context()
        line: dict[str, Any] = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        line |= {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "service": metadata.service,
            "environment": metadata.environment,
            "policy_digest": self._runtime.digest,
        }
        if span.is_valid:
            line |= {"trace_id": trace.format_trace_id(span.trace_id), "span_id": trace.format_span_id(span.span_id)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        try:
            return json.dumps(line, default=str, allow_nan=False)
        except (TypeError, ValueError, RecursionError):  # a field of `extra=` that is not JSON must not lose the line
            return json.dumps({key: value if type(value) is str else repr(value) for key, value in line.items()})


def log_as_json(runtime: Runtime, level: str = "info") -> None:
    """Write the logs of this process as JSON to standard output. `level` is the lowest level that is written."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(runtime))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)

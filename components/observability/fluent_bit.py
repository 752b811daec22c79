"""Fluent Bit: reads our containers' output on every node and sends it to the Collector.

The message of a JSON line becomes the body of a log record, and the line's other fields become attributes. The
Collector removes duplicate attributes and masks secrets. Namespace, pod and container come from the name of the log
file, so Fluent Bit needs no API server and no token. While the Collector is down, lines wait on the node's disk:
at most `buffer` bytes, for about an hour (`RETRY_LIMIT`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from typing_extensions import override
from voice_policies import Bytes, Duration

from components.component import Exemption
from components.container import ROOT, Container
from components.files import file_text
from components.observability.collector_config import HTTP_PORT as COLLECTOR_PORT
from components.priority import Priority
from components.probes import SLOW, STARTUP_PERIOD, Probe, Probes
from components.scrape import Scrape
from components.server import Server
from components.volumes import ConfigFiles, HostPath
from components.workloads import DaemonSet

__all__ = ["PORT", "FluentBit"]

PORT = 2020
CONFIG_PATH = "/etc/fluent-bit"
LOGS_PATH = "/var/log"
STATE_PATH = "/var/lib/fluent-bit"
"""Directory on the node. A new pod continues at its predecessor's position and sends the lines that are still
queued."""
TAG = "kube."
RETRY_LIMIT = 60
"""Retries of one chunk. They last about an hour: after the first few retries the pause is random between 5 seconds and
`BACKOFF_CAP`, on average 62 s (`backoff_full_jitter` in src/flb_scheduler.c)."""
BACKOFF_CAP = 120
"""Longest pause between two attempts, in seconds."""
BATCH_RECORDS = 50_000
"""More records than a chunk of 2 MB holds. So one request carries a whole chunk. Fluent Bit would count a split chunk
as sent even if only its last part was sent (`otel_process_logs` in plugins/out_opentelemetry/opentelemetry_logs.c)."""
TRACEBACK = {
    "name": "traceback",
    "type": "regex",
    "flush_timeout": 2000,
    "rules": [
        {"state": state, "regex": f"/{regex}/", "next_state": following}
        for state, regex, following in (
            ("start_state", r"^Traceback \(most recent call last\):$", "frames"),
            ("frames", r"^[\t ]", "frames"),
            ("frames", r"^[A-Za-z_][A-Za-z0-9_.]*(:.*)?$", "raised"),
            ("raised", r"^[\t ]*$", "gap"),
            ("gap", r"^(During handling of the above exception|The above exception was the direct cause)", "chained"),
            ("chained", r"^[\t ]*$", "chained"),
            # Not a start state: Fluent Bit begins a new record at each line that matches a start state.
            ("raised,chained", r"^Traceback \(most recent call last\):$", "frames"),
        )
    ],
}
"""Joins the lines of a Python traceback, with the exceptions that it chains. The built-in parser `python` ends a record
at the marks below a line of code (`^^^^`), which Python prints from 3.11 on."""
WITHOUT_NUL = r"""
function without_nul(tag, timestamp, record)
  local line = record["log"]
  if type(line) ~= "string" then return 0, timestamp, record end
  local function replaced(slashes)
    if #slashes % 2 == 1 then return slashes .. "ufffd" end
  end
  record["log"] = line:gsub("%z", "\239\191\189"):gsub("(\\+)u0000", replaced)
  return 2, timestamp, record
end
"""
"""Lua function that replaces NUL, raw or escaped in JSON, by U+FFFD. The output plugin would cut the text at NUL."""
SHUTDOWN = Duration("30s")
PROBES = Probes(
    startup=Probe.http("/api/v1/uptime", period=STARTUP_PERIOD, failures=30),
    readiness=Probe.http("/api/v1/health", **SLOW),
    liveness=Probe.http("/api/v1/uptime", **SLOW),
)
"""Fluent Bit is not ready if the Collector refused more than five chunks within a minute. It is also not ready if more
than five chunks used up their retries within a minute. The numbers are the defaults of `hc_period`, `hc_errors_count`
and `hc_retry_failure_count` (src/http_server/api/v1/health.c)."""


class FluentBit(Server):
    """One pod on each node."""

    folder: ClassVar[str] = "30-observability"
    priority: ClassVar[Priority] = "foundation"
    exemptions: ClassVar[tuple[Exemption, ...]] = (
        Exemption(rule="run_as_user", reason="containers' log files belong to root, and only root can read them"),
        Exemption(
            rule="no_host_path",
            reason="Fluent Bit reads the node's /var/log, and keeps its positions and buffer on the node",
        ),
    )
    scrape: ClassVar[Scrape] = Scrape(port=PORT, path="/api/v2/metrics/prometheus")
    namespaces: str
    """Pattern of the namespaces whose containers' logs Fluent Bit reads."""
    collector: str
    """Host of the Collector."""
    buffer: Bytes
    """Disk on each node for waiting lines. When it is full Fluent Bit drops the oldest lines first."""

    @property
    def files(self) -> dict[str, str]:
        """Names and texts of the configuration files, as mounted."""
        return {"fluent-bit.yaml": file_text(self._configuration())}

    def _configuration(self) -> dict[str, Any]:
        return {
            "service": {
                "flush": 1,
                "grace": SHUTDOWN.whole_seconds(),
                "log_level": "info",
                "http_server": "on",
                "http_listen": "0.0.0.0",  # noqa: S104 - the NetworkPolicy admits only declared callers
                "http_port": PORT,
                "health_check": "on",
                "scheduler.cap": BACKOFF_CAP,
                "storage.path": f"{STATE_PATH}/buffer",
                "storage.sync": "normal",
                "storage.backlog.mem_limit": "16M",
            },
            "multiline_parsers": [TRACEBACK],
            "pipeline": {"inputs": [self._input()], "filters": self._filters(), "outputs": [self._output()]},
        }

    def _input(self) -> dict[str, Any]:
        return {
            "name": "tail",
            "tag": f"{TAG}*",
            "path": f"{LOGS_PATH}/containers/*_{self.namespaces}_*.log",
            "exclude_path": f"{LOGS_PATH}/containers/{self.name}-*_{self.namespace}_*.log",
            "multiline.parser": "cri",
            "db": f"{STATE_PATH}/positions.db",
            "db.locking": True,
            "read_from_head": True,
            "refresh_interval": 10,
            "buffer_max_size": "1M",
            "skip_long_lines": True,
            "storage.type": "filesystem",
        }

    def _filters(self) -> list[dict[str, Any]]:
        """Filters, in order.

        They join a traceback's lines, replace NUL, remove the field `time` of the parser `cri`, add namespace, pod and
        container, and parse the line's JSON. A line that is not JSON stays unchanged. The parser's `time` is removed
        because the JSON may contain a `time` too, and a record must not have two.
        """
        return [
            {
                "name": "multiline",
                "match": f"{TAG}*",
                "multiline.key_content": "log",
                "multiline.parser": f"{TRACEBACK['name']},go",
                "emitter_storage.type": "filesystem",
            },
            {"name": "lua", "match": f"{TAG}*", "code": WITHOUT_NUL, "call": "without_nul"},
            {"name": "modify", "match": f"{TAG}*", "remove": ["time", "_p"]},
            {
                "name": "kubernetes",
                "match": f"{TAG}*",
                "kube_tag_prefix": f"{TAG}{LOGS_PATH.strip('/').replace('/', '.')}.containers.",
                "use_tag_for_meta": "on",
                "merge_log": "on",
                "keep_log": "off",
            },
        ]

    def _output(self) -> dict[str, Any]:
        return {
            "name": "opentelemetry",
            "match": f"{TAG}*",
            "host": self.collector,
            "port": COLLECTOR_PORT,
            # The first key that exists holds the message: `message` in Python's and Elastic's logs, `msg` in Go's logs,
            # and `log` in a record of a line that is not JSON.
            "logs_body_key": ["$message", "$msg", "$log"],
            "logs_body_key_attributes": "on",
            "batch_size": BATCH_RECORDS,
            "compress": "gzip",
            "retry_limit": RETRY_LIMIT,
            "storage.total_limit_size": f"{self.buffer.units // 1024**2}M",
        }

    @override
    def workloads(self) -> Iterator[DaemonSet]:
        yield DaemonSet(
            name=self.name,
            user=ROOT,
            container=Container(
                args=("--config", f"{CONFIG_PATH}/fluent-bit.yaml"),
                ports={"http": PORT},
                mounts={"config": CONFIG_PATH, "logs": LOGS_PATH, "state": STATE_PATH},
                probes=PROBES,
            ),
            volumes={
                "config": ConfigFiles(f"{self.name}-config", self.files),
                "logs": HostPath(LOGS_PATH),
                "state": HostPath(STATE_PATH, read_only=False),
            },
            shutdown=SHUTDOWN,
        )

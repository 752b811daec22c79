"""Malformed log lines pass the shipper's rules and a real Collector, and reach a receiver that checks UTF-8.

No package registry has Fluent Bit, so `tests/fluent_bit.py` emulates it. The receiver decodes OTLP with protobuf's own
library, which refuses a batch with invalid UTF-8, as Elasticsearch does.
"""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from components.observability.fluent_bit import FluentBit
from tests.cluster import otlp
from tests.cluster.test_collector import SECONDS, moved, running
from tests.fluent_bit import joined, shipped
from tests.platforms import platform

pytestmark = pytest.mark.cluster

BAD = "\udcff\udcfe"
"""Two bytes of invalid UTF-8, as Python decodes them."""
MARK, BYTES = "@@BAD@@", b"\xff\xfe\xfd\xff\xfe\xfd\xff"
"""The invalid bytes, and a text that replaces them while protobuf's library writes a request."""
SHOWN = "\ufffd" * len(BYTES)
TRACEBACK = """\
Traceback (most recent call last):
  File "/app/main.py", line 3, in <module>
    main()
    ~~~~^^
  File "/app/main.py", line 2, in main
    raise ValueError("no")
ValueError: no"""
CHAINED = f"""\
{TRACEBACK}

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/app/main.py", line 9, in <module>
    recover()
RuntimeError"""
KINDS: dict[str, tuple[str, str]] = {
    "plain text": ("started", "started"),
    "an empty line": ("", ""),
    "no UTF-8 in plain text": (f"name {BAD} end", f"name {SHOWN} end"),
    "no UTF-8 in a message": (f'{{"message": "name {BAD} end"}}', f"name {SHOWN} end"),
    "no UTF-8 in a field": (f'{{"message": "field", "who": "{BAD}"}}', "field"),
    "no UTF-8 in a field's name": (f'{{"message": "key", "{BAD}": "x"}}', "key"),
    "half of a surrogate pair": (r'{"message": "half \ud800 pair"}', f"half {SHOWN} pair"),
    "a NUL in plain text": ("before\0after", "before\ufffdafter"),
    "a NUL in a message": (r'{"message": "before\u0000after"}', "before\ufffdafter"),
    "a backslash before what looks like a NUL": (r'{"message": "C:\\u0000"}', r"C:\u0000"),
    "a traceback": (TRACEBACK, TRACEBACK),
    "a chained traceback": (CHAINED, CHAINED),
    "a message above the batch's limit": ("x" * 900_000, "dropped: a message of 900000 bytes"),
    "300 fields": (json.dumps({"message": "many", **{f"f{n}": n for n in range(300)}}), "many"),
    "a key twice": ('{"message": "first", "message": "last"}', "last"),
    "JSON that is no object": ("[1, 2, 3]", "[1, 2, 3]"),
    "half of a JSON object": ('{"message": "cut', '{"message": "cut'),
    "terminal colours": ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
    "20 nested objects": ('{"a":' * 20 + "1" + "}" * 20, ""),
    "a field that would choose another index": ('{"message": "index", "data_stream.dataset": "other"}', "index"),
}
"""Kind → the line that a container prints, and the message that must arrive."""


class StrictReceiver:
    """Receives OTLP/HTTP as Elasticsearch does: it refuses the whole request if one text is invalid UTF-8."""

    def __init__(self, port: int) -> None:
        self.records: list[LogRecord] = []
        self.refused = 0
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
        """Keeps the records of a valid request, and returns the status of the answer."""
        try:
            request = ExportLogsServiceRequest.FromString(body)
        except DecodeError:
            self.refused += 1
            return HTTPStatus.BAD_REQUEST
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                self.records += scope.log_records
        return HTTPStatus.OK


@contextmanager
def receiving(port: int) -> Iterator[StrictReceiver]:
    receiver = StrictReceiver(port)
    threading.Thread(target=receiver.server.serve_forever, daemon=True).start()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


def request_of(lines: list[str]) -> bytes:
    """The shipper's request for lines that one container printed."""
    (shipper,) = (each for each in platform("prod").components if isinstance(each, FluentBit))
    document = json.loads(shipper.files["fluent-bit.yaml"])
    texts = joined(document["multiline_parsers"], lines)
    records = otlp.records(*(shipped(document["pipeline"], text) for text in texts))
    text = json.dumps(records, ensure_ascii=False)
    marked = "".join("" if "\udc00" <= c <= "\udcff" and c != "\udcff" else c for c in text)
    marked = "".join(MARK if "\ud800" <= c <= "\udfff" else c for c in marked)
    return json_format.Parse(marked, ExportLogsServiceRequest()).SerializeToString().replace(MARK.encode(), BYTES)


def test_a_malformed_line_does_not_affect_other_lines(collector: Path, tmp_path: Path) -> None:
    place = moved("prod", tmp_path / "place")
    lines = [line for printed, _ in KINDS.values() for line in (*printed.split("\n"), "between")]
    with receiving(place.backends["elasticsearch"]) as receiver, running(collector, replace(place)):
        sent = Request(
            f"http://127.0.0.1:{place.entrance}/v1/logs",
            data=request_of(lines),
            headers={"Content-Type": "application/x-protobuf"},
        )
        with urlopen(sent, timeout=30) as answer:  # noqa: S310 - loopback
            assert answer.status == HTTPStatus.OK
        otlp.eventually(lambda: len(receiver.records) + receiver.refused >= len(KINDS), SECONDS)
    assert receiver.refused == 0
    arrived = [record.body.string_value for record in receiver.records]
    expected = [message for _, wanted in KINDS.items() for message in (wanted[1], "between")]
    assert sorted(arrived) == sorted(expected)
    (many,) = (record for record in receiver.records if record.body.string_value == "many")
    keys = {each.key for each in many.attributes}
    # 300 numbers, three names of the pod, its id and the stream: 64 attributes stay, and the others are counted.
    assert len(keys) == 64
    assert many.dropped_attributes_count + len(keys) == 300 + 5
    assert "kubernetes.pod_name" in keys

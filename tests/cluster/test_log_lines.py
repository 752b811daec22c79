"""The Collector and the core of Elasticsearch 9.5 are real, with the rendered configuration.

No package registry has Fluent Bit or Elasticsearch's OTLP plugin. `tests/fluent_bit.py` emulates Fluent Bit.
`otlp_endpoint.py` emulates the plugin, and replaces the templates that Elasticsearch installs itself.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from components.observability.collector_config import MOST_ATTRIBUTES
from components.observability.elasticsearch import Elasticsearch
from components.observability.fluent_bit import FluentBit
from tests.cluster import otlp
from tests.cluster.otlp_endpoint import documents, install_templates, receiving
from tests.cluster.test_collector import SECONDS, moved, running
from tests.fluent_bit import KUBERNETES, joined, shipped
from tests.integration.elasticsearch_core import ElasticsearchMissingError, running_elasticsearch
from tests.platforms import platform

pytestmark = pytest.mark.cluster

BAD = "\udcff\udcfe"
"""The bytes FF FE, which are not valid UTF-8, as `surrogateescape` decodes them."""
MARK, BYTES = "@@BAD@@", b"\xff\xfe\xfd\xff\xfe\xfd\xff"
"""The protobuf library refuses invalid UTF-8. So it serializes `MARK`, and the test then replaces `MARK` by `BYTES`."""
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
POD = {"stream": "stdout", **{f"kubernetes.{key}": value for key, value in KUBERNETES.items()}}


NAMES = {f"kubernetes.{key}_name" for key in ("namespace", "pod", "container")}


class Kind(NamedTuple):
    """Printed text, and the message and attributes that must arrive. `attributes` leaves out the pod's attributes."""

    printed: str
    message: str
    attributes: Mapping[str, str] = MappingProxyType({})
    dropped: int = 0
    """Number of attributes that the record reports as dropped."""


def fields(message: str, **attributes: Any) -> Kind:
    """A line of JSON whose fields arrive as strings."""
    return Kind(
        json.dumps({"message": message, **attributes}), message, {key: str(value) for key, value in attributes.items()}
    )


Record = tuple[str, tuple[tuple[str, str], ...], int]
"""Message, attributes besides the pod's, and the count of dropped attributes."""
NUMBERED = {f"f{number}": number for number in range(300)}
KINDS: dict[str, Kind] = {
    "plain text": Kind("started", "started"),
    "an empty line": Kind("", ""),
    "invalid UTF-8 in plain text": Kind(f"name {BAD} end", f"name {SHOWN} end"),
    "invalid UTF-8 in a message": Kind(f'{{"message": "bad {BAD} end"}}', f"bad {SHOWN} end"),
    "invalid UTF-8 in a field": Kind(f'{{"message": "field", "who": "{BAD}"}}', "field", {"who": SHOWN}),
    "invalid UTF-8 in a field's name": Kind(f'{{"message": "key", "{BAD}": "x"}}', "key", {SHOWN: "x"}),
    "half of a surrogate pair": Kind(r'{"message": "half \ud800 pair"}', f"half {SHOWN} pair"),
    "a NUL in plain text": Kind("before\0after", "before\ufffdafter"),
    "a NUL in a message": Kind(r'{"message": "start\u0000end"}', "start\ufffdend"),
    "an escaped backslash before u0000": Kind(r'{"message": "C:\\u0000"}', r"C:\u0000"),
    "a traceback": Kind(TRACEBACK, TRACEBACK),
    "a chained traceback": Kind(CHAINED, CHAINED),
    "a message above the limit": Kind("x" * 900_000, "dropped: a message of 900000 bytes"),
    "a message of broken bytes": Kind(BAD * 50_000, f"dropped: a message of {50_000 * len(SHOWN) * 3} bytes"),
    "300 fields": Kind(json.dumps({"message": "many", **NUMBERED}), "many", dropped=300 + len(POD) - MOST_ATTRIBUTES),
    "300 fields before the level and the trace id": Kind(
        json.dumps({"message": "own", **NUMBERED, "level": "ERROR", "trace_id": "0" * 31 + "1"}),
        "own",
        dropped=300 + len(POD) - MOST_ATTRIBUTES,
    ),
    "a name twice": Kind('{"message": "first", "message": "last", "a": 1, "a": 2}', "last", {"a": "2"}),
    "JSON that is no object": Kind("[1, 2, 3]", "[1, 2, 3]"),
    "half of a JSON object": Kind('{"message": "cut', '{"message": "cut'),
    "terminal colours": Kind("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
    "20 nested objects": Kind('{"a":' * 20 + "1" + "}" * 20, "", {".".join("a" * 20): "1"}),
    "a field that would choose another index": Kind('{"message": "index", "data_stream.dataset": "other"}', "index"),
    "an object and a name with a dot": Kind(
        '{"message": "dots", "a": {"b": {"c": 1}}, "a.b": 2, ".x.": 3, "a..b": 4}',
        "dots",
        {"a.b.c": "1", "a.b": "2", ".x.": "3", "a..b": "4"},
    ),
    "an empty name": Kind('{"message": "nameless", "": 1}', "nameless", {"_": "1"}),
    "a name of spaces": Kind('{"message": "blank", "\u2003 ": 1}', "blank", {"_": "1"}),
    "a name above the limit": Kind(
        json.dumps({"message": "long", "n" * 401: 1, "n" * 400: 2}), "long", {"n" * 400: "2"}, 1
    ),
    "a number in a field": fields("number", user=1, ok=3),
    "a word in the same field": fields("word", user="x"),
    "an object in the same field": Kind('{"message": "object", "user": {"id": 1}}', "object", {"user.id": "1"}),
    "words under names of other types": fields(
        "types", client_ip="none", x_timestamp="yesterday", location="here", exports="a word", structured_data="a word"
    ),
    "a value above the limit": Kind(
        json.dumps({"message": "value", "file": {"name": "x" + "é" * 20_000}}), "value", {"file.name": "x" + "é" * 8191}
    ),
    "a level above the limit": Kind(json.dumps({"message": "level", "level": "é" * 20_000}), "level"),
    **{
        f"new fields, line {line}": fields(f"new {line}", **{f"line{line}_{number}": "v" for number in range(50)})
        for line in range(25)
    },
}
"""Together the lines have more than 1,000 different fields. By default an index maps 1,000 fields and refuses more."""


def request_of(lines: list[str]) -> bytes:
    (shipper,) = (each for each in platform("prod").components if isinstance(each, FluentBit))
    document = json.loads(shipper.files["fluent-bit.yaml"])
    texts = joined(document["multiline_parsers"], lines)
    records = otlp.records(*(shipped(document["pipeline"], text) for text in texts))
    text = json.dumps(records, ensure_ascii=False)
    marked = "".join("" if "\udc00" <= c <= "\udcff" and c != "\udcff" else c for c in text)
    marked = "".join(MARK if "\ud800" <= c <= "\udfff" else c for c in marked)
    return json_format.Parse(marked, ExportLogsServiceRequest()).SerializeToString().replace(MARK.encode(), BYTES)


@pytest.fixture(scope="module")
def elasticsearch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    (component,) = (each for each in platform("prod").components if isinstance(each, Elasticsearch))
    try:
        with running_elasticsearch(tmp_path_factory.mktemp("elasticsearch")) as url:
            install_templates(url, json.loads(component.setup["settings-logs.json"])["template"])
            yield url
    except ElasticsearchMissingError as error:
        pytest.skip(str(error))


def test_each_line_arrives_with_its_message_and_attributes_up_to_the_limits(
    collector: Path, elasticsearch: str, tmp_path: Path
) -> None:
    place = moved("prod", tmp_path / "place")
    lines = [line for kind in KINDS.values() for line in (*kind.printed.split("\n"), "between")]
    expected = Counter(
        (kind.message, tuple(sorted(kind.attributes.items())), kind.dropped)
        for found in KINDS.values()
        for kind in (found, Kind("between", "between"))
    )

    def arrived() -> Counter[Record]:
        return Counter(record(each) for each in documents(elasticsearch)) if endpoint.stored else Counter()

    with receiving(place.backends["elasticsearch"], elasticsearch) as endpoint, running(collector, place):
        sent = Request(
            f"http://127.0.0.1:{place.http_port}/v1/logs",
            data=request_of(lines),
            headers={"Content-Type": "application/x-protobuf"},
        )
        with urlopen(sent, timeout=30) as answer:  # noqa: S310 - loopback
            assert answer.status == HTTPStatus.OK
        otlp.eventually(lambda: bool(endpoint.refused) or endpoint.stored >= expected.total(), SECONDS)
    assert endpoint.refused == []
    # Only the beginning of each record, because pytest would compare megabytes.
    assert [repr(each)[:300] for each in expected - arrived()] == []
    # On a busy machine the exporter waits too long for an answer, and sends records a second time.
    assert [repr(each)[:300] for each in arrived().keys() - expected.keys()] == []


def record(document: dict[str, Any]) -> Record:
    """If the document has `MOST_ATTRIBUTES` attributes, check them here and return none of them."""
    attributes, dropped = document["attributes"], document.get("dropped_attributes_count", 0)
    pod, own = attributes.items() & POD.items(), attributes.items() - POD.items()
    if len(attributes) == MOST_ATTRIBUTES:
        assert {key for key, _ in pod} >= NAMES
        assert own < {(key, str(value)) for key, value in NUMBERED.items()}
        return document["body"]["text"], (), dropped
    assert pod == POD.items()
    return document["body"]["text"], tuple(sorted(own)), dropped

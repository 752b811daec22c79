from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from voice_runtime import Runtime
from voice_runtime.tracing import JsonFormatter

from tests.bundles import bundle, mount

ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    "value",
    [{("a", "b"): 1}, float("nan"), ENDLESS, "\ud800\0\n", b"\xff", {1: {2}}],
    ids=lambda value: repr(value)[:20],
)
def test_a_log_line_is_written_even_if_json_cannot_represent_a_field(tmp_path: Path, value: Any) -> None:
    runtime = Runtime.load(mount(tmp_path, bundle()))
    record = logging.getLogger("service").makeRecord(
        "service", logging.INFO, "file", 1, "a message", (), None, extra={"field": value}, sinfo="Stack:\n here"
    )
    text = JsonFormatter(runtime).format(record)
    line = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert "\n" not in text
    assert (line["message"], line["service"], line["stack"]) == ("a message", "agent-engine", "Stack:\n here")
    assert "field" in line

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from voice_reference.flows import FlowError, Sent, check_deadlines, is_whole, main, tree
from voice_runtime.tracing.collector import ReceivedSpan

SPAN = ReceivedSpan(
    resource={"service.name": "agent-engine"},
    name="Reference/run",
    kind=2,
    trace_id="t",
    span_id="a",
    parent_id="gateway",
    begin=0,
    end=1_000_000,
    attributes={"voice.deadline_seconds": 2.0},
    events=(),
    failed=False,
)
CALL = replace(SPAN, kind=3, span_id="b", parent_id="a", attributes={"voice.call": "rag-engine.context"})
CALLEE = replace(SPAN, span_id="c", parent_id="b", attributes={"voice.deadline_seconds": 1.0})


def test_the_error_for_missing_bundles_names_their_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path) in error
    assert "Traceback" not in error


def test_a_trace_is_complete_if_it_has_every_parent_and_both_spans_of_each_successful_call() -> None:
    sent = Sent("t", "gateway", 200, ())
    assert is_whole([SPAN, CALL, CALLEE], sent)
    assert not is_whole([SPAN, CALL], sent)
    assert is_whole([SPAN, replace(CALL, failed=True)], sent)
    assert not is_whole([SPAN, CALLEE], sent)
    assert not is_whole([CALL, CALLEE], sent)
    assert not is_whole([SPAN, CALL, CALLEE], replace(sent, trace_id="other"))
    assert not is_whole([], sent)


def test_a_deadline_that_is_not_shorter_than_the_deadline_of_the_caller_is_reported() -> None:
    check_deadlines([SPAN, CALL, CALLEE])
    with pytest.raises(FlowError, match=r"the deadline is in 2\.0 s; expected less than the 2\.0 s of agent-engine"):
        check_deadlines([SPAN, CALL, replace(CALLEE, attributes={"voice.deadline_seconds": 2.0})])


def test_the_two_spans_of_a_call_are_shown_on_one_line() -> None:
    lines = list(tree([SPAN, CALL, CALLEE]))
    assert [line.split()[0] for line in lines] == ["agent-engine.run", "agent-engine.run"]
    assert lines[1].startswith("  agent")
    assert "deadline in 1.000 s" in lines[1]

"""Each bench refuses `--rounds` below 1."""

from __future__ import annotations

import importlib
import sys

import pytest


@pytest.mark.parametrize("rounds", ["0", "-1", "1.5", "²", "many"])
@pytest.mark.parametrize("bench", ["failover", "render", "sagas"])
def test_a_number_of_rounds_below_1_is_refused(
    bench: str, rounds: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", f"--rounds={rounds}"])
    with pytest.raises(SystemExit) as refused:
        importlib.import_module(f"bench.{bench}.__main__").main()
    assert refused.value.code == 2
    assert f"argument --rounds: is {rounds!r}; expected a whole number from 1" in capsys.readouterr().err

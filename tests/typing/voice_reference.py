"""Only a type checker reads this file: nothing in it runs."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from voice_policies import Duration, PolicyBundle
from voice_reference.configuration import Behaviour, Configuration
from voice_reference.processes import Platform, Process, bundles_of, running


def platform(directory: Path) -> None:
    bundles = bundles_of(directory, ["agent-engine"])
    assert_type(bundles, dict[str, PolicyBundle])
    with running(bundles, "http://127.0.0.1:4317") as started:
        assert_type(started, Platform)
        assert_type(started.processes["agent-engine"], Process)
        started.behave("agent-engine", run=Behaviour(median=Duration("5ms")))
        started.behave("agent-engine", run=5)  # type: ignore[arg-type]  # 5 is not a `Behaviour`
        started.processes["agent-engine"].configure(Configuration())

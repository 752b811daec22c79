from __future__ import annotations

from pathlib import Path

import pytest
from voice_saga import StepContext

from bench.sagas import worker


async def test_the_worker_raises_an_error_if_a_saga_compensates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(context: StepContext) -> None:
        if context.branch == "action":
            raise ValueError("no room")

    monkeypatch.setattr(worker, "nothing", fail)
    with pytest.raises(RuntimeError, match="is compensating: parse: ValueError: no room"):
        await worker.main("sqlite", str(tmp_path / "sagas.db"), 1.0)

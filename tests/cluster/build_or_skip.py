from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import toolchain
from tests.go_programs import SKIPPED


def build_or_skip(request: pytest.FixtureRequest, module: toolchain.Module) -> Path:
    try:
        return toolchain.ensure_built(module)
    except toolchain.GoMissingError as error:
        request.config.stash[SKIPPED] = str(error)
        pytest.skip(str(error))

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.driver import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call", "rendered"]


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dev's bundles, as the command line renders them: a directory for each service."""
    root = tmp_path_factory.mktemp("rendered")
    command = [sys.executable, "-m", "stack.cli", "render", "dev", "-o", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)  # our own
    assert done.returncode == 0, done.stderr
    return root / "policies"

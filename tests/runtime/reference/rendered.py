"""Dev's bundles, as the command line renders them, once for each test process."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from pathlib import Path


@functools.cache
def rendered() -> Path:
    """The directory of bundles, one below it for each service."""
    root = Path(tempfile.mkdtemp(prefix="voice-rendered-"))
    command = [sys.executable, "-m", "stack.cli", "render", "dev", "-o", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)  # our own
    assert done.returncode == 0, done.stderr
    return root / "policies"

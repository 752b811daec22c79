"""`python -m bench.runtime`: the runtime beside published libraries, in one run, in an environment of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.environment import run_apart

if __name__ == "__main__":
    sys.exit(run_apart("bench.runtime.table", Path(__file__).with_name("requirements.lock")))

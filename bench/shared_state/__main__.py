"""`python -m bench.shared_state`: distributed limits beside published libraries, in an environment of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.environment import run_apart

if __name__ == "__main__":
    sys.exit(run_apart("bench.shared_state.table", Path(__file__).with_name("requirements.lock")))

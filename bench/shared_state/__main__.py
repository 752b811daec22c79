"""`python -m bench.shared_state`: measures distributed limits and published libraries, in a virtual environment."""

from __future__ import annotations

import sys
from pathlib import Path

from bench import environment

if __name__ == "__main__":
    sys.exit(environment.run("bench.shared_state.table", Path(__file__).with_name("requirements.lock")))

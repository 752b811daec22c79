"""`python -m bench.shared_state`: runs `table.py` in a virtual environment with the compared libraries."""

from __future__ import annotations

import sys
from pathlib import Path

from bench import environment

if __name__ == "__main__":
    sys.exit(environment.run("bench.shared_state.table", Path(__file__).with_name("requirements.lock")))

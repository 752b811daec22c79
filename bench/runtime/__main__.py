"""`python -m bench.runtime` compares voice_runtime with published libraries, in a virtual environment of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from bench import environment

if __name__ == "__main__":
    sys.exit(environment.run("bench.runtime.table", Path(__file__).with_name("requirements.lock")))

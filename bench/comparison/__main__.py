"""`python -m bench.comparison`: runs the examples in the virtual environment of `bench.runtime`."""

from __future__ import annotations

import sys

from bench import environment

if __name__ == "__main__":
    sys.exit(environment.run("bench.comparison.examples", environment.ROOT / "bench" / "runtime" / "requirements.lock"))

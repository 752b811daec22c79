"""`python -m bench.comparison`: runs the examples in the environment that also holds the compared libraries."""

from __future__ import annotations

import sys

from bench import environment

if __name__ == "__main__":
    sys.exit(environment.run("bench.comparison.examples", environment.ROOT / "bench" / "runtime" / "requirements.lock"))

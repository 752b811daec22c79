"""`python -m bench.comparison`: the examples in the separate environment of the runtime's peers."""

from __future__ import annotations

import sys

from bench import environment

if __name__ == "__main__":
    sys.exit(environment.run("bench.comparison.examples", environment.ROOT / "bench" / "runtime" / "requirements.lock"))

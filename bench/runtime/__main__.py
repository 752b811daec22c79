"""`python -m bench.runtime`: the runtime beside published libraries, in one run, in an environment of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = Path(__file__).with_name("requirements.lock")
ENVIRONMENT = ROOT / "build" / "bench-runtime"


def main() -> int:
    """Install what the lock names, once, and run the table there."""
    python = ENVIRONMENT / "bin" / "python"
    installed = ENVIRONMENT / "lock.sha256"
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if not installed.exists() or installed.read_text() != wanted:
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        install = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
            "-r",
            str(LOCK),
        ]
        subprocess.run([python, *install], check=True)  # noqa: S603  # our own lock
        installed.write_text(wanted)
    ours = os.pathsep.join(str(ROOT / part) for part in ("", "policies", "runtime"))
    environment = {**os.environ, "PYTHONPATH": ours, "PYTHONDONTWRITEBYTECODE": ""}
    return subprocess.run([python, "-m", "bench.runtime.table"], env=environment, cwd=ROOT, check=False).returncode  # noqa: S603  # our own


if __name__ == "__main__":
    sys.exit(main())

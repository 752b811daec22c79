"""A virtual environment for the libraries that a bench compares. A changed lock file rebuilds the environment."""

from __future__ import annotations

import hashlib
import os
import subprocess
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(module: str, lock: Path) -> int:
    """Run `python -m module` in the environment that `lock` describes. Returns the exit code."""
    environment = ROOT / "build" / f"bench-{lock.parent.name}"
    python, installed = environment / "bin" / "python", environment / "lock.sha256"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if not installed.exists() or installed.read_text() != wanted:
        venv.create(environment, clear=True, with_pip=True)
        quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([python, *quiet, "--require-hashes", "-r", str(lock)], check=True)  # noqa: S603  # the repository's own lock
        installed.write_text(wanted)
    ours = os.pathsep.join(
        str(ROOT / part) for part in ("", "policies", "runtime/voice_runtime", "runtime/voice_models")
    )
    variables = {**os.environ, "PYTHONPATH": ours, "PYTHONDONTWRITEBYTECODE": ""}
    return subprocess.run([python, "-m", module], env=variables, cwd=ROOT, check=False).returncode  # noqa: S603  # the repository's own module

"""A copy of the project, in which a test runs the commands of a document."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from stack.model.settings import ROOT


def copied(folder: Path) -> Path:
    """Copy everything that `voice` needs into a folder.

    The copy contains bytecode, because without bytecode each process would compile about 200 modules.
    """
    for part in ("stack", "components", "runtime"):
        shutil.copytree(ROOT / part, folder / part)
    for file in (*ROOT.glob("Pulumi*.yaml"), ROOT / "images.lock.yaml"):
        shutil.copy2(file, folder)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").write_text(f'PATH="{Path(sys.executable).parent}:$PATH"\n')
    return folder


def bash(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    # Python loads old bytecode if a module changes twice in a second and keeps its length.
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = ["bash", "-c", f". {folder}/.venv/bin/activate\n{text}"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

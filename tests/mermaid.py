"""Draws the diagrams of the documents with Mermaid in a real browser.

`python -m tests.mermaid` draws every diagram of the documents into `build/diagrams/`. The pictures are not in the
repository. Their widths depend on the fonts of the machine, so no test could compare them.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from stack.model.settings import ROOT
from tests.documents import blocks, documents

VERSION = "12.3.0"
SCRIPT = "package/dist/mermaid.min.js"
DIGEST = "336df803d87a38b70a01e736e666c8f7601d2ce42f5e47c8fafe5d721074b9a3"
"""SHA-256 of the script in that version's package."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voiceassistant-mermaid"
SECONDS = 120.0
"""Longest wait for npm or for the browser, in seconds. It suffices on a slow machine."""
PAGE = """<!doctype html><meta charset="utf-8"><body><pre id="drawn"></pre><script src="mermaid.js"></script><script>
const draw = async (diagrams) => {
  mermaid.initialize({startOnLoad: false});
  const drawn = {};
  for (const [name, text] of Object.entries(diagrams)) {
    try { drawn[name] = {svg: (await mermaid.render("diagram", text)).svg, error: ""}; }
    catch (error) { drawn[name] = {svg: "", error: String(error)}; }
  }
  document.getElementById("drawn").textContent = JSON.stringify(drawn);
};
draw(DIAGRAMS);
</script>"""


class Drawn(NamedTuple):
    svg: str
    error: str


class MissingProgramError(RuntimeError):
    """A program is not on PATH; the message names it."""


def diagrams() -> dict[str, str]:
    """Every diagram of the documents, by document and number."""
    found: dict[str, str] = {}
    for path in documents():
        drawings = [block.text for block in blocks(path) if block.language == "mermaid"]
        found |= {f"{path.stem}-{number}": text for number, text in enumerate(drawings, 1)}
    return found


def drawn(texts: Mapping[str, str]) -> dict[str, Drawn]:
    """The picture or the error of each diagram. Raises `MissingProgramError` without npm or Chromium."""
    browser = _program("chromium")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        page.with_name("mermaid.js").symlink_to(_script())
        page.write_text(PAGE.replace("DIAGRAMS", json.dumps(texts)), encoding="utf-8")
        # As root, for example in a container, Chromium runs only without its sandbox. The page has 100 s of virtual
        # time to draw every diagram.
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=100000", "--dump-dom")
        command = [browser, *options, f"--user-data-dir={folder}/profile", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    found = re.search(r'<pre id="drawn">(.*?)</pre>', done.stdout, re.DOTALL)
    return {name: Drawn(**each) for name, each in json.loads(html.unescape(found[1] if found else "")).items()}


def _script() -> Path:
    script = CACHE / f"mermaid-{VERSION}.js"
    if not script.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            command = [_program("npm"), "pack", f"mermaid@{VERSION}", "--silent", f"--pack-destination={folder}"]
            subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
            (package,) = Path(folder).glob("*.tgz")
            with tarfile.open(package) as packed:
                packed.extract(SCRIPT, folder, filter="data")
            Path(folder, SCRIPT).replace(script)
    assert sha256(script.read_bytes()).hexdigest() == DIGEST, f"{script} is not Mermaid {VERSION}: delete it"
    return script


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MissingProgramError(f"{name} is not on PATH: install the system's package")
    return found


def main() -> int:
    folder = ROOT / "build" / "diagrams"
    folder.mkdir(parents=True, exist_ok=True)
    refused = 0
    for name, each in drawn(diagrams()).items():
        refused += bool(each.error)
        if each.error:
            sys.stderr.write(f"{name}: {each.error}\n")
        else:
            (folder / f"{name}.svg").write_text(each.svg, encoding="utf-8")
    return min(refused, 1)


if __name__ == "__main__":
    sys.exit(main())

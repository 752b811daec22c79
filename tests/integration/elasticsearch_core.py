"""Elasticsearch's core from Maven: server and HTTP module. No registry has the security, lifecycle or REST plugins."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import URLError
from urllib.request import urlopen

from tests.loopback import free_port, wait_until

SOURCE = Path(__file__).with_name("elasticsearch")
HTTP_MODULE = "transport-netty4"
JAVA = "*25*/bin/java"
"""Elasticsearch 9.5 runs on JDK 25, which need not be the system's default JDK."""


class ElasticsearchMissingError(RuntimeError):
    """Elasticsearch cannot run here."""


def home() -> Path:
    """The folder of the jars, in the layout of a distribution. Maven fetches them once into the user's cache folder.

    Raises:
        ElasticsearchMissingError: Maven is missing, or it cannot fetch the jars.
    """
    pinned = hashlib.sha256((SOURCE / "pom.xml").read_bytes()).hexdigest()[:16]
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    found = caches / "voiceassistant-cluster-tools" / f"elasticsearch-{pinned}"
    if not found.exists():
        maven = shutil.which("mvn")
        if maven is None:
            raise ElasticsearchMissingError("mvn is not on PATH: install Maven, which fetches Elasticsearch's jars")
        found.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f"{found.name}.", dir=found.parent) as partial:
            fetched = _fetched(maven, Path(partial, "home"))
            try:
                fetched.rename(found)
            except OSError:
                if not found.exists():  # if it exists, another process fetched the same jars first
                    raise
    return found


def _fetched(maven: str, root: Path) -> Path:
    command = [maven, "-q", "-B", "-f", str(SOURCE / "pom.xml"), "dependency:copy-dependencies"]
    done = subprocess.run([*command, f"-DoutputDirectory={root / 'lib'}"], check=False, capture_output=True)
    if done.returncode != 0:
        raise ElasticsearchMissingError(f"mvn cannot fetch Elasticsearch: {done.stdout.decode()[-300:]}")
    _lay_out(root)
    return root


def _lay_out(root: Path) -> None:
    """Move the HTTP module and Netty into the folder that the node loads. Unpack the descriptor in the module's jar."""
    module = root / "modules" / HTTP_MODULE
    for folder in (module, root / "config", root / "plugins"):
        folder.mkdir(parents=True)
    for jar in (*(root / "lib").glob("netty-*.jar"), *(root / "lib").glob(f"{HTTP_MODULE}-*.jar")):
        jar.rename(module / jar.name)
    (own,) = module.glob(f"{HTTP_MODULE}-*.jar")
    with zipfile.ZipFile(own) as archive:
        for name in archive.namelist():
            if name.startswith(f"META-INF/es-plugins/{HTTP_MODULE}/") and not name.endswith("/"):
                (module / Path(name).name).write_bytes(archive.read(name))


@contextmanager
def running_elasticsearch(directory: Path) -> Iterator[str]:
    """Run one node, and yield its address.

    Raises:
        ElasticsearchMissingError: JDK 25 or the jars are missing.
    """
    java = next(Path("/usr/lib/jvm").glob(JAVA), None)
    if java is None:
        raise ElasticsearchMissingError(f"no /usr/lib/jvm/{JAVA}: install JDK 25")
    root, port = home(), free_port()
    options = ["-Xmx1g", "--enable-native-access=ALL-UNNAMED", "-p", str(root / "lib")]
    modules = "--add-modules=ALL-MODULE-PATH,jdk.net,jdk.unsupported"
    arguments = [str(root), str(directory / "data"), str(port), str(free_port())]
    with (directory / "log").open("wb") as log:
        command = [str(java), *options, modules, str(SOURCE / "Launch.java"), *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: urlopen(f"{url}/_cluster/health").read(), URLError, process=process, log=directory / "log")  # noqa: S310 - loopback
        yield url
    finally:
        process.kill()
        process.wait()

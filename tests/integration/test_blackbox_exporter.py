from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from cryptography.x509 import load_pem_x509_certificate

from components.observability.blackbox_exporter import TLS, BlackboxExporter
from components.observability.elasticsearch import TRANSPORT
from stack.deploy.secret_values import generated
from tests.loopback import free_port, wait_until
from tests.platforms import ENVIRONMENTS, platform

pytestmark = pytest.mark.integration


def written(environment: str, directory: Path) -> Path:
    (prober,) = (each for each in platform(environment).components if isinstance(each, BlackboxExporter))
    file = directory / "blackbox.json"
    file.write_text(prober.files[file.name], encoding="utf-8")
    return file


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_exporter_accepts_the_configuration(environment: str, blackbox_exporter: Path, tmp_path: Path) -> None:
    command = [str(blackbox_exporter), f"--config.file={written(environment, tmp_path)}", "--config.check"]
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def refusing_clients(secret: Mapping[str, str], directory: Path) -> Iterator[str]:
    """Yields the address of a server that requires client certificates, as Elasticsearch's nodes do."""
    for key, value in secret.items():
        (directory / key).write_text(value, encoding="utf-8")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=directory / "authority")
    context.load_cert_chain(directory / "certificate", directory / "private-key")
    context.verify_mode = ssl.CERT_REQUIRED
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_the_exporter_reads_the_certificate_of_a_server_that_refuses_the_connection(
    blackbox_exporter: Path, tmp_path: Path
) -> None:
    secret, port = generated(TRANSPORT), free_port()
    command = [
        str(blackbox_exporter),
        f"--config.file={written('prod', tmp_path)}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with refusing_clients(secret, tmp_path) as target, subprocess.Popen(command) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                wait_until(lambda: client.get("/-/healthy"), httpx.TransportError, process=process)
                asked = client.get("/probe", params={"module": TLS, "target": target})
        finally:
            process.kill()
    metrics = dict(line.rsplit(" ", 1) for line in asked.text.splitlines() if not line.startswith("#"))
    expiry = load_pem_x509_certificate(secret["certificate"].encode()).not_valid_after_utc
    assert float(metrics["probe_ssl_earliest_cert_expiry"]) == expiry.timestamp()
    assert metrics["probe_success"] == "1"

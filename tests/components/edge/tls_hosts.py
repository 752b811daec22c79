"""TLS servers on loopback that replace external hosts. Each server sends its name."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PATIENCE = 30.0
"""Longest wait of client and server in seconds. A connection over loopback takes far less."""


def certificate(folder: Path, names: Iterable[str]) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "hosts.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@contextmanager
def hosts(names: Iterable[str], pem: Path) -> Iterator[dict[str, int]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with ExitStack() as stack:
        ports = {}
        for name in names:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            ports[name] = listener.getsockname()[1]
            threading.Thread(target=_serve, args=(listener, context, name), daemon=True).start()
        yield ports


def _serve(listener: socket.socket, context: ssl.SSLContext, name: str) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.settimeout(PATIENCE)
        try:
            with context.wrap_socket(connection, server_side=True) as opened:
                opened.sendall(name.encode())
        except OSError:
            continue


def hello(name: str) -> bytes:
    """The first message of a TLS client that asks for the server `name`."""
    sent = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


def reached(port: int, name: str | None, pem: Path) -> str | None:
    """The host that a TLS connection to `port` with server name `name` reaches. `None` if the proxy closes it."""
    context = ssl.create_default_context(cafile=str(pem))
    context.check_hostname = name is not None
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=name) as opened,
        ):
            return opened.recv(1024).decode()
    except (ConnectionResetError, ssl.SSLEOFError):
        return None

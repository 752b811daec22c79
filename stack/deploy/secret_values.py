"""Values of secrets: generated in the format of their reader, or given by the user and checked."""

from __future__ import annotations

import json
import secrets
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from configparser import ConfigParser, ParsingError
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import NameOID

from components.secret_keys import SecretForm, SecretKeys

__all__ = ["ISSUED", "generated", "refusals"]

ISSUED = frozenset({"certificate", "private-key", "authority"})
"""Kinds of values that depend on each other. All such values of one secret are generated together."""
RSA_BITS = 3072
"""Bits of an RSA key. The key is as strong as a symmetric key of 128 bits (NIST SP 800-57 part 1, table 2)."""
VALIDITY = timedelta(days=730)
CLOCK_TOLERANCE = timedelta(minutes=5)
"""Largest time by which a reader's clock may be behind ours."""


def generated(secret: SecretKeys) -> dict[str, str]:
    """A new value for every key of a secret."""
    kinds = {key: secret.form(key).kind for key in secret.keys}
    issued = _issued(secret) if ISSUED & set(kinds.values()) else {}
    return {key: issued[kind] if kind in issued else _MAKERS[kind]() for key, kind in kinds.items()}


def refusals(secret: SecretKeys, values: Mapping[str, str]) -> Iterator[str]:
    """The faults of given values. Each fault is one sentence. It names the key, and does not repeat the value."""
    found = False
    for key, value in values.items():
        try:
            fault = _CHECKS[secret.form(key).kind](secret.form(key), value)
        except (ValueError, TypeError, ParsingError):
            fault = f"is not {secret.form(key).meaning}"
        if fault:
            found = True
            yield f"{key}: {fault}"
    if not found and {"certificate", "private-key"} <= values.keys():
        certificate = x509.load_pem_x509_certificate(values["certificate"].encode())
        key_pair = load_pem_private_key(values["private-key"].encode(), password=None)
        if certificate.public_key() != key_pair.public_key():
            yield "private-key: is not the key of the certificate"


def _private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)


def _issued(secret: SecretKeys) -> dict[str, str]:
    """A certificate and its key.

    If the secret has an authority, the authority signs the certificate, and the authority's key is then discarded.
    Otherwise the certificate is self-signed.
    """
    host = next((form.host for form in secret.forms.values() if form.host), None)
    key, authority_key = _private_key(), None
    issuer = name = _x509_name(host or secret.name)
    authority = ""
    if any(form.kind == "authority" for form in secret.forms.values()):
        authority_key, issuer = _private_key(), _x509_name(f"{secret.name} authority")
        authority = _certificate(issuer, authority_key, issuer, authority_key, None, is_authority=True)
    certificate = _certificate(name, key, issuer, authority_key or key, host, is_authority=False)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return {"certificate": certificate, "private-key": private, "authority": authority}


def _x509_name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(  # noqa: PLR0913 - the fields of a certificate
    subject: x509.Name,
    key: rsa.RSAPrivateKey,
    issuer: x509.Name,
    issuer_key: rsa.RSAPrivateKey,
    host: str | None,
    *,
    is_authority: bool,
) -> str:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - CLOCK_TOLERANCE)
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if host:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def _public_key() -> str:
    """A public key. The private key is discarded, because the platform gives no service a key to sign tokens."""
    public = _private_key().public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _password() -> str:
    """256 bits as hexadecimal digits, which need no quoting in a shell or a configuration file."""
    return secrets.token_hex(32)


def _credentials_file() -> str:
    return f"[default]\naws_access_key_id = {secrets.token_hex(10)}\naws_secret_access_key = {_password()}\n"


_MAKERS: Mapping[str, Callable[[], str]] = {
    "password": _password,
    "uuid": lambda: str(uuid4()),
    "gossip-key": lambda: b64encode(secrets.token_bytes(32)).decode(),
    "url": lambda: f"https://{secrets.token_hex(8)}.invalid/",
    "credentials-file": _credentials_file,
    "docker-config": lambda: '{"auths": {}}',
    "public-key": _public_key,
}


def _check_password(_: SecretForm, value: str) -> str | None:
    if not value.isprintable():
        return "has a character that cannot be printed"
    # Sentinel writes its passwords without quotes into its file, and splits the lines again at a restart.
    return "has a space or a quote" if set(value) & set(" '\"") else None


def _check_url(_: SecretForm, value: str) -> str | None:
    parts = urlsplit(value)
    return None if parts.scheme in {"http", "https"} and parts.hostname else "is no http or https address"


def _check_certificate(form: SecretForm, value: str) -> str | None:
    certificate = x509.load_pem_x509_certificate(value.encode())
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if form.host and not _is_for(certificate, form.host):
        return f"is not for {form.host}"
    return None


def _is_for(certificate: x509.Certificate, host: str) -> bool:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return not {host, f"*.{host.partition('.')[2]}"}.isdisjoint(names.get_values_for_type(x509.DNSName))


def _check_private_key(_: SecretForm, value: str) -> str | None:
    load_pem_private_key(value.encode(), password=None)
    return None


def _check_public_key(_: SecretForm, value: str) -> str | None:
    return None if isinstance(load_pem_public_key(value.encode()), rsa.RSAPublicKey) else "is no RSA key"


def _check_credentials_file(_: SecretForm, value: str) -> str | None:
    file = ConfigParser(interpolation=None, default_section="")
    file.read_string(value)
    needed = {"aws_access_key_id", "aws_secret_access_key"}
    is_complete = file.has_section("default") and needed <= set(file["default"])
    return None if is_complete else "lacks aws_access_key_id or aws_secret_access_key in [default]"


def _check_docker_config(_: SecretForm, value: str) -> str | None:
    document = json.loads(value)
    return None if isinstance(document, dict) and isinstance(document.get("auths"), dict) else "lacks `auths`"


_CHECKS: Mapping[str, Callable[[SecretForm, str], str | None]] = {
    "password": _check_password,
    "uuid": _check_password,
    "gossip-key": _check_password,
    "url": _check_url,
    "credentials-file": _check_credentials_file,
    "docker-config": _check_docker_config,
    "public-key": _check_public_key,
    "certificate": _check_certificate,
    "private-key": _check_private_key,
    "authority": _check_certificate,
}

from __future__ import annotations

import socket
import ssl
from base64 import b64decode
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from components.secret_keys import SecretForm, SecretKeys
from stack.deploy.secret_values import CLOCK_TOLERANCE, VALIDITY, generated, refusals
from tests.platforms import platform


def secret(environment: str, name: str) -> SecretKeys:
    return next(found for found in platform(environment).secrets if found.name == name)


def test_generated_values_are_random_and_one_line_unless_they_are_files() -> None:
    for found in platform("prod").secrets:
        first, second = generated(found), generated(found)
        assert first.keys() == set(found.keys)
        for key, value in first.items():
            if found.form(key).kind != "docker-config":
                assert value != second[key]
                assert len(value) >= 30
            assert value.isprintable() or found.form(key).is_file


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_generated_values_pass_the_checks_of_entered_values(environment: str) -> None:
    for found in platform(environment).secrets:
        assert list(refusals(found, generated(found))) == []


def test_consuls_key_and_tokens_have_the_formats_that_consul_expects() -> None:
    values = generated(secret("dev", "consul-server"))
    assert len(b64decode(values["gossip-key"], validate=True)) == 32
    assert UUID(values["management-token"]) != UUID(values["registration-token"])


def test_the_generated_key_that_verifies_tokens_is_a_public_rsa_key() -> None:
    value = generated(secret("dev", "gateway-jwt"))["public-key"]
    key = load_pem_public_key(value.encode())
    assert isinstance(key, rsa.RSAPublicKey)
    assert "PRIVATE" not in value


def test_a_client_that_trusts_the_gateways_certificate_connects_to_the_gateways_host_name(tmp_path: Path) -> None:
    values = generated(secret("dev", "gateway-tls"))
    chain, key = tmp_path / "certificate", tmp_path / "key"
    chain.write_text(values["certificate"])
    key.write_text(values["private-key"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key)
    client = ssl.create_default_context(cafile=str(chain))
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with server.wrap_socket(theirs, server_side=True) as connection:
            connection.sendall(b"hello")

    thread = Thread(target=serve, daemon=True)
    thread.start()
    with client.wrap_socket(ours, server_hostname="api.voicehelper.localhost") as connection:
        assert connection.recv(5) == b"hello"
    thread.join()


def test_a_shared_certificate_is_signed_by_its_authority_and_expires_on_time() -> None:
    values = generated(secret("prod", "elasticsearch-transport"))
    pair = (values[key].encode() for key in ("certificate", "authority"))
    certificate, authority = map(x509.load_pem_x509_certificate, pair)
    certificate.verify_directly_issued_by(authority)
    lives = certificate.not_valid_after_utc - datetime.now(UTC)
    assert VALIDITY.days - 1 <= lives.days <= VALIDITY.days


def test_the_generated_webhook_has_an_invalid_host() -> None:
    host = urlsplit(generated(secret("prod", "alertmanager-on-call"))["webhook-url"]).hostname or ""
    assert host.endswith(".invalid")


TLS = secret("prod", "gateway-tls")
GIVEN = generated(TLS)
FORMS = {key: form.model_copy(update={"host": None}) for key, form in TLS.forms.items()}
OTHER = generated(TLS.model_copy(update={"forms": FORMS}))


@pytest.mark.parametrize(
    ("name", "values", "fault"),
    [
        ("gateway-tls", {"certificate": "hidden"}, "certificate: is not the certificate with its chain, as PEM"),
        ("gateway-tls", {"certificate": OTHER["certificate"]}, "certificate: is not for api.voicehelper.com"),
        (
            "gateway-tls",
            {**GIVEN, "private-key": OTHER["private-key"]},
            "private-key: is not the key",
        ),
        ("gateway-tls", {"private-key": GIVEN["certificate"]}, "private-key: is not the certificate's private key"),
        ("gateway-jwt", {"public-key": GIVEN["private-key"]}, "public-key: is not the public RSA key"),
        ("alertmanager-on-call", {"webhook-url": "hidden"}, "webhook-url: is no http or https address"),
        ("tempo-object-storage", {"credentials": "hidden"}, "credentials: is not a credentials file"),
        (
            "tempo-object-storage",
            {"credentials": "[default]\na = hidden\n"},
            "credentials: lacks aws_access_key_id or ",
        ),
        (
            "notification-service-sms-provider",
            {"api-key": "hidden\t"},
            "api-key: has a character",
        ),
        ("redis-replication", {"password": "hidden word"}, "password: has a space or a quote"),
        ("redis-replication", {"password": 'hidden"'}, "password: has a space or a quote"),
    ],
)
def test_an_entered_value_of_a_wrong_format_is_refused_and_not_shown(
    name: str, values: dict[str, str], fault: str
) -> None:
    (refusal,) = refusals(secret("prod", name), values)
    assert refusal.startswith(fault)
    assert "hidden" not in refusal


def test_an_expired_certificate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stack.deploy.secret_values.VALIDITY", -CLOCK_TOLERANCE / 2)
    (refusal,) = refusals(TLS, {"certificate": generated(TLS)["certificate"]})
    assert refusal.startswith("certificate: expired on ")


def test_a_wildcard_certificate_matches_a_host_of_its_domain() -> None:
    form = {"certificate": SecretForm(kind="certificate", meaning="a certificate", host="*.voicehelper.com")}
    values = generated(SecretKeys(name="wild", keys=("certificate",), forms=form))
    assert list(refusals(TLS, values)) == []

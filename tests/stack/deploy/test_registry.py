from __future__ import annotations

import json
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from voice_policies import InvalidInputError

from stack.cli import main
from stack.deploy.registry import LONGEST_WAIT, MANIFEST_LIMIT, MAX_RETRIES, Location, Registry, RegistryError
from stack.deploy.registry_logins import read_logins
from stack.model.image_lock import load_lock
from tests.stack.deploy.oci_registry import INDEX, MANIFEST, TOKEN, Answer, OciRegistry, digest, serve

PATH = "/v2/voice/agent/manifests/1.0"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "registry.pem"
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=loopback", "-addext", names, "-keyout", str(path), "-out", "-"]
    issued = subprocess.run(command, check=True, capture_output=True, timeout=300)
    path.write_bytes(path.read_bytes() + issued.stdout)
    return path


@pytest.fixture
def registry(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OciRegistry]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with serve(certificate) as served:
        yield served


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def client(slept: list[float]) -> Registry:
    return Registry(logins=lambda _: None, sleep=slept.append)


def test_a_tag_with_several_architectures_has_the_digest_of_its_index(registry: OciRegistry, client: Registry) -> None:
    registry.push("voice/agent", "1.0", MANIFEST)
    index = registry.push("voice/agent", "1.0", INDEX)
    assert client.digest(f"{registry.host}/voice/agent:1.0") == index


def test_an_image_of_one_architecture_has_the_digest_of_its_manifest(registry: OciRegistry, client: Registry) -> None:
    manifest = registry.push("voice/agent", "1.0", MANIFEST)
    assert client.digest(f"{registry.host}/voice/agent:1.0") == manifest


def test_a_challenge_is_answered_with_an_anonymous_token(registry: OciRegistry, client: Registry) -> None:
    registry.needs_token = True
    pushed = registry.push("voice/agent", "1.0")
    assert client.digest(f"{registry.host}/voice/agent:1.0") == pushed
    assert [(asked.path, asked.authorization) for asked in registry.asked] == [
        (PATH, None),
        ("/token?service=loopback&scope=repository%3Avoice%3Apull", None),
        (PATH, f"Bearer {TOKEN}"),
    ]


@pytest.mark.parametrize(
    "challenge",
    [
        'Basic realm="https://127.0.0.1/token"',
        'Bearer realm="http://127.0.0.1/token"',
        'Bearer realm="https://["',
        "",
        "Bearer",
    ],
)
def test_an_unknown_kind_of_challenge_is_refused(registry: OciRegistry, client: Registry, challenge: str) -> None:
    registry.script(PATH, Answer(401, {"WWW-Authenticate": challenge}))
    with pytest.raises(RegistryError, match="realm over https"):
        client.digest(f"{registry.host}/voice/agent:1.0")
    assert len(registry.asked) == 1


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"token": 3}', b'{"token": "a\\r\\nb"}'])
def test_an_answer_without_a_token_is_an_error(registry: OciRegistry, client: Registry, body: bytes) -> None:
    registry.needs_token = True
    registry.script("/token", Answer(200, body=body))
    with pytest.raises(RegistryError, match="contains no token"):
        client.digest(f"{registry.host}/voice/agent:1.0")


def test_a_refused_token_is_reported_as_an_image_that_is_not_public(registry: OciRegistry, client: Registry) -> None:
    registry.script(PATH, *[Answer(401, {"WWW-Authenticate": registry.challenge(registry.host)})] * 2)
    with pytest.raises(RegistryError, match="is not public"):
        client.digest(f"{registry.host}/voice/agent:1.0")


def test_a_redirect_is_followed(registry: OciRegistry, client: Registry) -> None:
    pushed = registry.push("mirror/agent", "1.0")
    registry.script(PATH, Answer(307, {"Location": "/v2/mirror/agent/manifests/1.0"}))
    assert client.digest(f"{registry.host}/voice/agent:1.0") == pushed


def test_a_token_does_not_follow_a_redirect_to_another_host(registry: OciRegistry, client: Registry) -> None:
    pushed = registry.push("mirror/agent", "1.0")
    challenge = Answer(401, {"WWW-Authenticate": registry.challenge(registry.host)})
    elsewhere = Answer(307, {"Location": f"https://{registry.other_host}/v2/mirror/agent/manifests/1.0"})
    registry.script(PATH, challenge, elsewhere)
    assert client.digest(f"{registry.host}/voice/agent:1.0") == pushed
    assert [asked.authorization for asked in registry.asked if asked.host == registry.other_host] == [None]
    assert f"Bearer {TOKEN}" in [asked.authorization for asked in registry.asked]


def test_after_a_redirect_the_new_hosts_challenge_is_answered(registry: OciRegistry, client: Registry) -> None:
    registry.needs_token = True
    pushed = registry.push("mirror/agent", "1.0")
    location = f"https://{registry.other_host}/v2/mirror/agent/manifests/1.0"
    registry.script(PATH, Answer(307, {"Location": location}))
    assert client.digest(f"{registry.host}/voice/agent:1.0") == pushed
    assert registry.asked[-1].host == registry.other_host


def test_a_redirect_to_plain_http_is_refused(registry: OciRegistry, client: Registry) -> None:
    registry.script(PATH, Answer(307, {"Location": "http://127.0.0.1/v2/x"}))
    with pytest.raises(RegistryError, match="is redirected to http:"):
        client.digest(f"{registry.host}/voice/agent:1.0")


def test_a_redirect_to_a_malformed_address_is_refused(registry: OciRegistry, client: Registry) -> None:
    registry.script(PATH, Answer(307, {"Location": "https://[malformed"}))
    with pytest.raises(RegistryError, match="got no answer"):
        client.digest(f"{registry.host}/voice/agent:1.0")


def test_the_client_waits_as_long_as_retry_after_says(
    registry: OciRegistry, client: Registry, slept: list[float]
) -> None:
    pushed = registry.push("voice/agent", "1.0")
    registry.script(PATH, Answer(429, {"Retry-After": "7"}), Answer(503), Answer(429, {"Retry-After": "3"}))
    assert client.digest(f"{registry.host}/voice/agent:1.0") == pushed
    assert slept == [7, 2, 3]


def test_retries_are_bounded(registry: OciRegistry, client: Registry, slept: list[float]) -> None:
    registry.script(PATH, *[Answer(429)] * 20)
    with pytest.raises(RegistryError, match="HTTP 429"):
        client.digest(f"{registry.host}/voice/agent:1.0")
    assert slept == [1, 2, 4, 8]
    assert len(registry.asked) == MAX_RETRIES + 1


def test_a_wait_that_is_too_long_is_an_error(registry: OciRegistry, client: Registry, slept: list[float]) -> None:
    registry.script(PATH, Answer(429, {"Retry-After": str(int(LONGEST_WAIT) + 1)}))
    with pytest.raises(RegistryError, match="61 s"):
        client.digest(f"{registry.host}/voice/agent:1.0")
    assert slept == []


def test_a_digest_that_does_not_match_the_content_is_refused(registry: OciRegistry, client: Registry) -> None:
    lie = Answer(200, {"Content-Type": INDEX, "Docker-Content-Digest": digest(b"another")}, b"{}")
    registry.script(PATH, lie)
    with pytest.raises(RegistryError) as raised:
        client.digest(f"{registry.host}/voice/agent:1.0")
    assert digest(b"another") in raised.value.args[0]
    assert digest(b"{}") in raised.value.args[1]


def test_a_missing_digest_is_computed_from_the_content(registry: OciRegistry, client: Registry) -> None:
    registry.script(PATH, Answer(200, {"Content-Type": MANIFEST}, b"{}"))
    assert client.digest(f"{registry.host}/voice/agent:1.0") == digest(b"{}")


def test_a_manifest_of_an_unknown_media_type_is_refused(registry: OciRegistry, client: Registry) -> None:
    registry.script(PATH, Answer(200, {"Content-Type": "text/html"}, b"<html>welcome"))
    with pytest.raises(RegistryError, match="served as text/html"):
        client.digest(f"{registry.host}/voice/agent:1.0")


def test_the_client_stops_reading_a_manifest_that_is_too_large(registry: OciRegistry, client: Registry) -> None:
    registry.script(PATH, Answer(200, {"Content-Type": INDEX}, b" " * (MANIFEST_LIMIT + 1)))
    with pytest.raises(RegistryError, match="too large"):
        client.digest(f"{registry.host}/voice/agent:1.0")


def test_an_untrusted_certificate_is_refused(registry: OciRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.push("voice/agent", "1.0")
    monkeypatch.delenv("SSL_CERT_FILE")
    client = Registry(logins=lambda _: None)  # since Python 3.12 a client reads the authorities when it is created
    with pytest.raises(RegistryError, match="CERTIFICATE_VERIFY_FAILED"):
        client.digest(f"{registry.host}/voice/agent:1.0")


def test_one_error_names_every_fault_and_progress_is_shown(registry: OciRegistry, client: Registry) -> None:
    registry.push("voice/agent", "1.0")
    registry.script("/v2/voice/broken/manifests/1", Answer(500))
    names = ("voice/missing:1", "voice/agent:1.0", "voice/broken:1")
    progress: list[str] = []
    with pytest.raises(InvalidInputError) as raised:
        client.digests([f"{registry.host}/{name}" for name in names], progress.append)
    assert [fault.path for fault in raised.value.faults] == [
        f"{registry.host}/voice/broken:1",
        f"{registry.host}/voice/missing:1",
    ]
    assert "HTTP 500" in raised.value.faults[0].value
    assert "is not in its registry" in raised.value.faults[1].value
    assert progress[0] == f"1/3 {registry.host}/voice/agent:1.0"


def test_images_lock_writes_a_complete_lock_or_none(
    registry: OciRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "images.lock.yaml"
    monkeypatch.setattr("stack.model.image_lock.LOCK", lock)
    monkeypatch.setattr(
        "stack.cli.images.used", lambda _: {f"{registry.host}/voice/{name}:1.0" for name in ("agent", "rag")}
    )
    agent = registry.push("voice/agent", "1.0")
    assert main(["images", "lock"]) == 2
    assert not lock.exists()
    assert "voice/rag:1.0: is not in its registry" in capsys.readouterr().err
    rag = registry.push("voice/rag", "1.0")
    assert main(["images", "lock"]) == 0
    written = capsys.readouterr()
    assert written.out == "wrote images.lock.yaml: 2 images\n"
    assert written.err.splitlines() == [
        f"{n}/2 {registry.host}/voice/{name}:1.0" for n, name in ((1, "agent"), (2, "rag"))
    ]
    assert load_lock(lock).digests == {f"{registry.host}/voice/agent:1.0": agent, f"{registry.host}/voice/rag:1.0": rag}


@pytest.mark.usefixtures("registry")
def test_an_unreachable_registry_is_an_error(client: Registry) -> None:
    with pytest.raises(RegistryError, match="cannot be requested"):
        client.digest("127.0.0.1:9/voice/agent:1.0")


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        ("ghcr.io/voicehelper/agent:1.0", "https://ghcr.io/v2/voicehelper/agent/manifests/1.0"),
        ("registry:5000/agent:1.0", "https://registry:5000/v2/agent/manifests/1.0"),
        ("valkey/valkey:9.1.1", "https://registry-1.docker.io/v2/valkey/valkey/manifests/9.1.1"),
        ("docker.io/valkey/valkey:9.1.1", "https://registry-1.docker.io/v2/valkey/valkey/manifests/9.1.1"),
        ("postgres:18.6", "https://registry-1.docker.io/v2/library/postgres/manifests/18.6"),
    ],
)
def test_a_reference_resolves_to_the_url_of_its_manifest(reference: str, url: str) -> None:
    assert Location.of(reference).url == url


LOGIN = b64encode(b"robot:secret").decode()


def logged_in(monkeypatch: pytest.MonkeyPatch, folder: Path, config: object) -> Registry:
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return Registry(read_logins())


@pytest.mark.parametrize("basic", [False, True], ids=["token", "basic"])
@pytest.mark.parametrize("key", ["{host}", "{host}/v2/", "https://{host}/v2/"], ids=["host", "path", "address"])
def test_a_private_image_is_locked_with_the_users_login(
    registry: OciRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str, basic: bool
) -> None:
    registry.needs_token, registry.basic, registry.login = not basic, basic, LOGIN
    pushed = registry.push("voice/agent", "1.0")
    logins = {"http://[malformed": {"auth": "ignored"}, key.format(host=registry.host): {"auth": LOGIN}}
    client = logged_in(monkeypatch, tmp_path, {"auths": logins})
    assert client.digest(f"{registry.host}/voice/agent:1.0") == pushed


def test_a_credential_helper_is_asked_for_the_login(
    registry: OciRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\nread server\necho \'{"Username": "robot", "Secret": "secret"}\'\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    registry.needs_token, registry.login = True, LOGIN
    pushed = registry.push("voice/agent", "1.0")
    client = logged_in(monkeypatch, tmp_path, {"credHelpers": {registry.host: "test"}})
    assert client.digest(f"{registry.host}/voice/agent:1.0") == pushed


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"auths": {"ghcr.io": {"auth": LOGIN}}},
        {"credsStore": "missing"},
        {"auths": 7},
        {"auths": {"{host}": {"auth": "not\nbase64"}}},
    ],
    ids=["no login", "login of another registry", "missing helper", "malformed logins", "login that is not base64"],
)
def test_a_private_image_without_a_login_for_its_registry_is_refused(
    registry: OciRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: object
) -> None:
    registry.needs_token, registry.login = True, LOGIN
    registry.push("voice/agent", "1.0")
    client = logged_in(monkeypatch, tmp_path, json.dumps(config).replace("{host}", registry.host))
    with pytest.raises(RegistryError, match="docker login"):
        client.digest(f"{registry.host}/voice/agent:1.0")
    assert not any("Basic" in (asked.authorization or "") for asked in registry.asked)


@pytest.mark.parametrize("config", ["{", "[]", "[" * 100_000], ids=["broken JSON", "list", "deep nesting"])
def test_a_broken_file_of_logins_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: str
) -> None:
    with pytest.raises(InvalidInputError, match=r"config\.json"):
        logged_in(monkeypatch, tmp_path, config)


def test_a_user_without_a_home_has_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> object:
        raise KeyError

    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert read_logins()("ghcr.io") is None

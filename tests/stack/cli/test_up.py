from __future__ import annotations

import json
import os
import shlex
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from stack.cli import main
from stack.deploy.secret_values import generated
from stack.deploy.workstation import Workstation
from tests.platforms import platform
from tests.stack.cli.test_secrets import Project

OUTPUTS = json.dumps({"gateway_addresses": {"gateway.voice-gateway": {"url": "https://api.voicehelper.localhost"}}})
FAKE = """#!/bin/sh
printf '%s\\n' "$(basename "$0") $*" >> {folder}/log
case "$(basename "$0") $*" in
  *"set-all"*) exec {python} {fake} "$@" ;;
  *"port-forward"*) [ -z "$FORWARDING" ] || {{ echo "$FORWARDING"; exec sleep 60; }}
    [ -n "$PORT" ] || {{ echo "error: no pod" >&2; exit 1; }}
    echo "Forwarding from 127.0.0.1:$PORT -> 443"; exec sleep 60 ;;
  *"kube-system"*) [ -z "$REFUSAL" ] || {{ echo "$REFUSAL" >&2; exit 1; }}
    echo '{{"metadata": {{"uid": "00000000-0000-4000-8000-000000000001"}}}}' ;;
  *"stack output"*) echo {outputs} ;;
  *"pulumi up"*) exit "${{UP:-0}}" ;;
esac
"""
PROGRAMS = ("docker", "kind", "kubectl", "pulumi")


class Machine(Project):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        fake = Path(__file__).with_name("fake_pulumi.py")
        quoted = map(shlex.quote, (str(folder), sys.executable, str(fake), OUTPUTS))
        text = FAKE.format(**dict(zip(("folder", "python", "fake", "outputs"), quoted, strict=True)))
        for name in PROGRAMS:
            program = folder / "bin" / name
            program.write_text(text)
            program.chmod(0o755)

    def voice_up(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        bare = {name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")}
        path = f"{self.folder}/bin{os.pathsep}{os.environ['PATH']}"
        environment = {**bare, "PULUMI_HOME": str(self.folder / "pulumi"), "PATH": path, **variables}
        command = [sys.executable, "-m", "stack.cli", *arguments]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def log(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class GatewayHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        known = (self.path, self.headers["Host"]) == ("/v1/login", "api.voicehelper.localhost")
        self.send_response(200 if known else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parameter's name in http.server
        pass


@pytest.fixture(scope="module")
def gateway_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("gateway")
    values = generated(next(each for each in platform("dev").secrets if each.name == "gateway-tls"))
    for key, value in values.items():
        (folder / key).write_text(value)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate", folder / "private-key")
    with ThreadingHTTPServer(("127.0.0.1", 0), GatewayHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        yield str(server.server_address[1])
        server.shutdown()


def test_up_creates_a_kind_cluster_and_deploys_dev_and_the_gateway_answers(machine: Machine, gateway_port: str) -> None:
    done = machine.voice_up("up", "dev", PORT=gateway_port)
    assert done.returncode == 0, done.stderr
    assert "gateway.voice-gateway: https://api.voicehelper.localhost" in done.stdout
    assert "POST https://api.voicehelper.localhost/v1/login: 200" in done.stdout
    wanted = [
        "kind create cluster --name voice --wait 120s",
        "docker build --file runtime/voice_reference/Dockerfile --tag reference-service:dev .",
        "kind load docker-image reference-service:dev --name voice",
        "pulumi stack select dev --create",
        "pulumi config set --stack dev kubernetes:context kind-voice",
        "pulumi config set --stack dev kubernetes:clusterIdentifier 00000000-0000-4000-8000-000000000001",
        "pulumi config set --stack dev reference_image reference-service:dev",
        "pulumi up --yes --skip-preview --stack dev",
    ]
    assert [line for line in machine.log if line in wanted] == wanted
    passphrase = machine.folder / "pulumi" / "voiceassistant.passphrase"
    assert passphrase.stat().st_mode & 0o777 == 0o600
    assert passphrase.read_text() not in done.stdout + done.stderr


def test_a_second_up_keeps_secrets_and_passphrase(machine: Machine, gateway_port: str) -> None:
    machine.voice_up("up", "dev", "--context", "other", "--image", "registry.example/reference:1", PORT=gateway_port)
    file, passphrase = machine.folder / "Pulumi.dev.yaml", machine.folder / "pulumi" / "voiceassistant.passphrase"
    before = (yaml.safe_load(file.read_text()), passphrase.read_text())
    done = machine.voice_up(
        "up", "dev", "--context", "other", "--image", "registry.example/reference:1", PORT=gateway_port
    )
    assert done.returncode == 0
    assert (yaml.safe_load(file.read_text()), passphrase.read_text()) == before
    assert not any(line.startswith(("kind", "docker")) for line in machine.log)


def test_up_reports_why_the_gateway_gave_no_answer(machine: Machine) -> None:
    done = machine.voice_up("up", "dev")
    assert done.returncode == 1
    assert "voice: no answer to POST https://api.voicehelper.localhost/v1/login: error: no pod" in done.stderr


def test_up_does_not_wait_for_a_kubectl_that_forwards_no_ipv4_port(machine: Machine) -> None:
    done = machine.voice_up("up", "dev", FORWARDING="Forwarding from [::1]:8443 -> 443")
    assert done.returncode == 1
    assert "/v1/login: Forwarding from [::1]:8443 -> 443" in done.stderr


def test_up_stops_at_a_failed_step_with_exit_code_2(machine: Machine) -> None:
    done = machine.voice_up("up", "dev", UP="255")
    assert done.returncode == 2
    assert "pulumi up --yes --skip-preview --stack dev: ended with exit code 255; see its message above" in done.stderr
    assert not any("port-forward" in line for line in machine.log)


def test_up_reports_why_kubectl_cannot_query_the_cluster(machine: Machine) -> None:
    refusal = "Error from server (Forbidden): no access"
    done = machine.voice_up("up", "dev", "--context", "other", "--image", "reference:1", REFUSAL=refusal)
    assert done.returncode == 2
    accepted = "expected a context of the kubeconfig whose cluster kubectl can query"
    assert done.stderr.endswith(f"--context: other: {refusal}; {accepted}\n")


@pytest.mark.parametrize(
    ("context", "last"),
    [
        ([], ["kind delete cluster --name voice", "pulumi stack rm dev --yes --force --preserve-config"]),
        (
            ["--context", "other"],
            ["pulumi destroy --yes --skip-preview --stack dev", "pulumi stack rm dev --yes --force --preserve-config"],
        ),
    ],
    ids=["kind cluster", "cluster of a context"],
)
def test_down_removes_what_up_created(machine: Machine, context: list[str], last: list[str]) -> None:
    assert machine.voice_up("down", "dev", *context).returncode == 0
    assert machine.log == last


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("up", "dev", "--image", "no tag"), "argument --image: is 'no tag'; expected text such as registry.example"),
        (("up", "dev", "--image", ""), "argument --image: is ''; expected text such as registry.example"),
        (("up", "dev", "--context", ""), "argument --context: is ''; expected the name of a context"),
        (("down", "dev", "--context", ""), "argument --context: is ''; expected the name of a context"),
    ],
)
def test_a_wrong_option_is_refused_before_any_program_runs(
    arguments: tuple[str, ...], said: str, machine: Machine
) -> None:
    done = machine.voice_up(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (machine.folder / "log").exists()


@pytest.mark.parametrize("command", ["up", "down"])
def test_every_missing_program_is_named_with_its_install_command(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert main([command, "dev"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"voice: voice {command}: 4 faults",
        "  pulumi: is not on PATH; install it, for example with `brew install pulumi/tap/pulumi`",
        "  kubectl: is not on PATH; install it, for example with `brew install kubectl`",
        "  kind: is not on PATH; install it, for example with `brew install kind`",
        "  docker: is not on PATH; install it, for example with `brew install --cask docker`",
    ]


def test_a_missing_image_and_missing_programs_are_named_together_and_docker_is_not_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["up", "dev", "--context", "other"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "voice: voice up: 3 faults",
        "  pulumi: is not on PATH; install it, for example with `brew install pulumi/tap/pulumi`",
        "  kubectl: is not on PATH; install it, for example with `brew install kubectl`",
        "  --image: is missing; --context requires --image; expected an image that the nodes of this cluster can pull",
    ]


def test_an_interrupted_run_leaves_no_empty_passphrase(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment = {"PULUMI_HOME": str(tmp_path)}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(shutil, "which", str)
    workstation = Workstation("voice up", "dev", None)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(Path, "write_text", interrupt)
        with pytest.raises(KeyboardInterrupt):
            workstation.require(builds_image=True)
    workstation.require(builds_image=True)
    assert Path(environment["PULUMI_CONFIG_PASSPHRASE_FILE"]).read_text()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("command", ["up", "down"])
def test_an_environment_with_real_secrets_is_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "prod"]) == 2
    head, fault = capsys.readouterr().err.splitlines()
    assert head == f"voice: voice {command}: 1 fault"
    assert "ENV: has the profile prod; expected an environment whose secrets" in fault

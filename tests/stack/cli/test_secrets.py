from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from stack.cli import main
from stack.deploy import stack_secrets
from stack.deploy.secret_values import generated
from stack.deploy.stack_secrets import SecretKey
from stack.model.settings import CHANGED, ROOT, SECRETS
from tests.platforms import platform
from tests.stack.deploy.program_run import configured, run_program

TODAY = datetime.now(UTC).date()


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in ("stack", "components", "runtime"):
            shutil.copytree(ROOT / part, folder / part)
        for file in (*ROOT.glob("Pulumi*.yaml"), ROOT / "images.lock.yaml"):
            shutil.copy2(file, folder)
        program = folder / "bin" / "pulumi"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/tests/stack/cli/fake_pulumi.py" "$@"\n')
        program.chmod(0o755)

    def voice(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("secrets", *arguments)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.folder}/bin{os.pathsep}{os.environ['PATH']}"
        command = [sys.executable, "-m", "stack.cli", *arguments]
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def config(self, environment: str) -> dict[str, Any]:
        config: dict[str, Any] = yaml.safe_load((self.folder / f"Pulumi.{environment}.yaml").read_text())["config"]
        return config

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def values(self) -> dict[str, dict[str, str]]:
        nested: dict[str, dict[str, str]] = {}
        for path, value in self.read("values.json").items():
            secret, _, key = path.removeprefix(f"{SECRETS}.").partition(".")
            nested.setdefault(secret, {})[key] = value
        return nested


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_dev_asks_nothing_and_sets_every_secret_that_the_program_needs(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.voice("dev", "--check").returncode == 1
    done = project.voice("dev")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"all {count('dev')} values are stored; `pulumi up --stack dev` deploys them" in done.stdout
    values = project.values()
    for value in (value for keys in values.values() for value in keys.values()):
        assert value not in done.stdout
        assert value not in str(project.read("arguments.json"))
    assert set(project.config("dev")[CHANGED]) == values.keys()
    assert project.voice("dev", "--check").stdout == "dev: no secret is missing or unused\n"
    run_program("dev", {**configured("dev"), CHANGED: project.config("dev")[CHANGED], SECRETS: values}, monkeypatch)


def test_existing_values_are_kept_and_a_missing_private_key_also_renews_its_certificate(project: Project) -> None:
    project.voice("dev")
    document = {"config": project.config("dev")}
    del document["config"][SECRETS]["gateway-tls"]["private-key"]
    del document["config"][SECRETS]["consul-server"]["gossip-key"]
    (project.folder / "Pulumi.dev.yaml").write_text(yaml.safe_dump(document))
    assert project.voice("dev").returncode == 0
    assert project.values().keys() == {"gateway-tls", "consul-server"}
    assert project.values()["gateway-tls"].keys() == {"certificate", "private-key"}
    assert project.values()["consul-server"].keys() == {"gossip-key"}


def test_the_option_rotate_replaces_one_secret_and_the_option_older_than_replaces_old_secrets(project: Project) -> None:
    project.voice("dev")
    document = {"config": project.config("dev")}
    document["config"][CHANGED]["gateway-redis"] = str(TODAY - timedelta(days=91))
    del document["config"][CHANGED]["grafana"]
    (project.folder / "Pulumi.dev.yaml").write_text(yaml.safe_dump(document))
    checked = project.voice("dev", "--check", "--older-than", "90d")
    assert checked.returncode == 1
    assert checked.stdout.splitlines() == [
        "gateway-redis: no write in the last 90d is recorded",
        "grafana: no write in the last 90d is recorded",
    ]
    assert project.voice("dev", "--older-than", "90d", "--rotate", "consul-server").returncode == 0
    assert project.values().keys() == {"gateway-redis", "grafana", "consul-server"}
    done = project.voice("dev", "--check", "--older-than", "90d")
    assert (done.returncode, done.stdout) == (0, "dev: no secret is missing, unused or older than 90d\n")


def test_the_error_for_an_unused_secret_names_the_command_to_remove_it(project: Project) -> None:
    document = {"config": project.config("dev")}
    document["config"][SECRETS] = {"gateway-tsl": {"certificate": {"secure": "v1:encrypted"}}}
    (project.folder / "Pulumi.dev.yaml").write_text(yaml.safe_dump(document))
    done = project.run("check", "dev")
    assert (done.returncode, done.stdout) == (2, "")
    removal = "run `pulumi config rm --stack dev --path secrets.gateway-tsl.certificate`"
    assert done.stderr.endswith(f"secrets.gateway-tsl.certificate: is read by no component; {removal}\n")


def test_an_error_of_pulumi_is_reported(project: Project) -> None:
    (project.folder / "refuses").touch()
    done = project.voice("dev")
    assert done.returncode == 2
    assert "error: no stack named 'dev' found" in done.stderr
    assert "Pulumi.dev.yaml: is unchanged; see Pulumi's message above; `pulumi stack init dev`" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["dev", "--rotate", "gateway-tsl"], "--rotate: is 'gateway-tsl'; did you mean gateway-tls? expected one of"),
        (["dev", "--older-than", "long"], "--older-than: is 'long'; expected a duration"),
    ],
)
def test_a_wrong_option_is_refused(arguments: list[str], fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["secrets", *arguments]) == 2
    assert fault in capsys.readouterr().err


def test_a_check_that_would_rotate_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["secrets", "dev", "--check", "--rotate", "gateway-tls"])
    assert ended.value.code == 2
    assert "argument --rotate: not allowed with argument --check" in capsys.readouterr().err


def test_a_missing_pulumi_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["secrets", "dev"]) == 2
    said = capsys.readouterr()
    assert "pulumi: is not on PATH; install it" in said.err
    assert said.out == "", "the output does not say that values were generated"


def test_a_missing_pulumi_is_reported_before_the_first_question(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = stack_secrets.pulumi_program
    asked = Asked(monkeypatch, tmp_path, "prod")
    monkeypatch.setattr(stack_secrets, "pulumi_program", missing)
    monkeypatch.setenv("PATH", "")
    assert main(["secrets", "prod"]) == 2
    assert asked.questions == {"voice"}, "the error is the only line"


@pytest.mark.parametrize("question", ["getpass.getpass", "builtins.input"])
def test_the_end_of_the_input_interrupts_the_questions(
    question: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def end(_: str) -> str:
        raise EOFError

    asked = Asked(monkeypatch, tmp_path, "prod")
    monkeypatch.setattr(question, end)
    assert main(["secrets", "prod"]) == 2
    assert asked.lines[-1] == "voice: interrupted\n"
    assert not asked.written


@pytest.mark.parametrize("path", ["~nobody-of-this-name/key", "a\0b"])
def test_a_path_that_names_no_file_is_asked_for_again(
    path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = Asked(monkeypatch, tmp_path, "prod")
    question = "registry.dockerconfigjson"
    asked.answers[question].insert(0, path)
    assert main(["secrets", "prod"]) == 0
    assert any(line.startswith(f"  {path} cannot be read: ") for line in asked.lines)
    assert not asked.answers[question]


class Asked:
    """Answers the questions of the command, as a person at a terminal does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, environment: str) -> None:
        self.folder, self.written = folder, dict[SecretKey, str]()
        self.lines: list[str] = []
        self.answers = {question: [answer] for question, answer in self._answers(environment)}
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("sys.stderr.write", self.lines.append)
        monkeypatch.setattr("getpass.getpass", self._answer)
        monkeypatch.setattr("builtins.input", self._answer)
        monkeypatch.setattr(stack_secrets, "stored", lambda _: frozenset(self.written))
        monkeypatch.setattr(stack_secrets, "write", self._write)
        monkeypatch.setattr(stack_secrets, "pulumi_program", lambda: "pulumi")

    def _answers(self, environment: str) -> Iterator[tuple[str, str]]:
        for secret in platform(environment).secrets:
            for key, value in generated(secret).items():
                file = self.folder / f"{secret.name}.{key}"
                file.write_text(value)
                yield file.name, str(file) if secret.form(key).is_file else value

    def _answer(self, _: str) -> str:
        question = [line for line in self.lines if not line.startswith(" ")][-1].partition(":")[0]
        return self.answers[question].pop(0)

    def _write(self, _: str, values: Mapping[SecretKey, str], __: date) -> None:
        self.written.update(values)

    @property
    def questions(self) -> set[str]:
        return {line.partition(":")[0] for line in self.lines if not line.startswith(" ")}


def count(environment: str) -> int:
    return sum(len(secret.keys) for secret in platform(environment).secrets)


def external(environment: str) -> set[str]:
    secrets = platform(environment).secrets
    return {f"{each.name}.{key}" for each in secrets for key in each.keys if each.form(key).external}


def test_prod_asks_for_exactly_the_secrets_that_somebody_outside_issues(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(monkeypatch, tmp_path, "prod")
    assert main(["secrets", "prod"]) == 0
    assert asked.questions == external("prod")
    assert {re.sub(r".*\.", "", question) for question in asked.questions} == {
        "access-key-id",
        "api-key",
        "azure",
        "certificate",
        "credentials",
        "dockerconfigjson",
        "google",
        "mistral",
        "openai",
        "private-key",
        "public-key",
        "secret-access-key",
        "webhook-url",
    }
    assert len(asked.written) == count("prod")
    printed = capsys.readouterr().out + "".join(asked.lines)
    assert all(value not in printed for value in asked.written.values())


def test_an_empty_answer_leaves_the_secret_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(monkeypatch, tmp_path, "prod")
    asked.answers["alertmanager-on-call.webhook-url"] = [""]
    assert main(["secrets", "prod"]) == 1
    assert len(asked.written) == count("prod") - 1
    assert (
        f"prod: 1 of {count('prod')} values are missing; `voice secrets prod --check` lists them"
        in capsys.readouterr().out
    )


def test_a_question_is_repeated_after_a_refused_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = Asked(monkeypatch, tmp_path, "prod")
    (right,) = asked.answers["gateway-jwt.public-key"]
    wrong = tmp_path / "wrong"
    wrong.write_text("hidden")
    asked.answers["gateway-jwt.public-key"] = ["/nowhere", str(wrong), right]
    assert main(["secrets", "prod"]) == 0
    assert any("/nowhere cannot be read: No such file or directory" in line for line in asked.lines)
    assert any("gateway-jwt.public-key: is not the public RSA key" in line for line in asked.lines)
    assert asked.written[SecretKey("gateway-jwt", "public-key")] == Path(right).read_text()


def test_without_a_terminal_one_error_lists_all_questions_of_prod(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["secrets", "prod"]) == 2
    said = capsys.readouterr().err
    assert f"voice secrets prod: {len(external('prod'))} faults" in said
    assert "the public RSA key of the tokens that identity-service signs, as PEM: run `pulumi config set" in said

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path

import pytest

from stack.audit import RULES
from stack.cli import main
from stack.model.settings import ROOT, environments
from tests.platforms import DAY, platform, resources


def voice(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    out, err = io.StringIO(), io.StringIO()
    with chdir(cwd), redirect_stdout(out), redirect_stderr(err):
        try:
            status = main(arguments)
        except SystemExit as ended:
            status = int(ended.code or 0)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def test_render_prints_a_table_and_one_closing_line(tmp_path: Path) -> None:
    done = voice("render", "prod", "-o", str(tmp_path / "out"))
    assert done.returncode == 0
    components, rendered = platform("prod").components, resources("prod")
    files = len(list((tmp_path / "out").rglob("*.*")))
    head, row, closing = done.stdout.splitlines()
    assert head.split("  ")[0] == "environment"
    assert row.split()[:5] == ["prod", *map(str, (len(components), len(rendered), files, 0))]
    assert row.endswith(f"  {tmp_path}/out")
    assert re.fullmatch(r"\d+ exemptions, \d+ images without a digest: `voice render -v` lists them\.", closing)
    assert done.stderr == ""


def test_verbose_render_lists_exemptions_and_images_without_a_digest() -> None:
    exemptions = [(found.name, each) for found in platform("prod").components for each in found.exemptions]
    lines = voice("render", "prod", "-v").stdout.splitlines()
    for name, exemption in exemptions:
        assert f"{name}: exempt from {exemption.rule}: {exemption.reason}" in lines
    assert any(re.fullmatch(r"apache/apisix:\S+: without a digest", line) for line in lines)


def test_render_prints_json(tmp_path: Path) -> None:
    done = voice("render", "dev", "-o", str(tmp_path / "out"), "--format", "json")
    (summary,) = json.loads(done.stdout)["environments"]
    assert (summary["environment"], summary["findings"], summary["path"]) == ("dev", 0, str(tmp_path / "out"))
    assert summary["resources"] == len(resources("dev"))
    wanted = {"component": "redis", "rule": "headless_service"}.items()
    assert any(wanted <= exemption.items() for exemption in summary["exemptions"])
    assert all(image.count(":") for image in summary["unpinned"])


def test_render_without_names_renders_every_environment_that_has_a_file(tmp_path: Path) -> None:
    done = voice("render", cwd=tmp_path)
    assert [line.split()[0] for line in done.stdout.splitlines()[1:-1]] == list(environments())
    assert {path.name for path in (tmp_path / "build").iterdir()} == set(environments())


def test_render_writes_into_build_by_default(tmp_path: Path) -> None:
    assert voice("render", "dev", cwd=tmp_path).returncode == 0
    assert (tmp_path / "build" / "dev" / "index.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("render", "production"), "environment: 1 fault\n  ENV: is 'production'; expected one of dev, prod, staging"),
        (("check", "production"), "or a file Pulumi.production.yaml"),
        (("render", "dev", "-o", "/dev/null"), "/dev/null: is a file; expected a directory"),
        (("render", "prd"), "ENV: is 'prd'; did you mean prod? expected one of "),
        (("diff", "stagin", "prod"), "'stagin': names nothing to compare; did you mean staging? "),
        (
            ("render", "dev", "prod", "-o", "out"),
            "--out: is one directory for 2 environments; expected one ENV with --out",
        ),
        (("check",), "one of the arguments ENV --from is required"),
        (("check", "prod", "--from", "."), "argument --from: not allowed with argument ENV"),
        (("check", "--from", "/dev/null"), "is a pipe or a device; expected a file of at most"),
        (("chek", "prod"), "COMMAND: is 'chek'; did you mean check? expected one of render, check, "),
        (("check", "prod", "--on", "soon"), "--on: is 'soon'; expected a day such as 2027-03-31"),
        (
            ("check", "prod", "--solve", "--format", "sarif"),
            "--format: is 'sarif' with --solve; expected one of json, text",
        ),
        (("check", "--from", ".", "--solve"), "--solve: needs the typed model; name an ENV in place of"),
        (("explain", "R001"), "RULE: is 'R001'; did you mean R01? expected one of "),
        (("explain", "rag-engin", "redis"), "X: is 'rag-engin'; did you mean rag-engine? expected one of "),
        (
            ("check", "prod", "--format", "jason"),
            "--format: is 'jason'; did you mean json? expected one of text, json, ",
        ),
        (("render", "dev", "-o", ""), "argument -o/--out: is ''; expected a path"),
        (("check", "--from", ""), "argument --from: is ''; expected a path"),
        (("check", "prod", "--on", "0000-01-01"), "argument --on: is '0000-01-01'; expected a day such as 2027-03-31"),
        (("check", "../prod"), "ENV: is '../prod'; did you mean prod? expected one of "),
        (("check", "\udcff"), "ENV: is '\\udcff'; expected one of "),
        (("diff", ":dev", "dev"), "':dev': names nothing to compare; did you mean dev? "),
        (("diff", "HEAD:", "dev"), "'HEAD:': names nothing to compare; expected one of "),
        (("diff", "no-such-revision:dev", "dev"), "no-such-revision: cannot be rendered; fatal: Needed a single revis"),
        (("explain", ""), "RULE: is ''; expected one of A01, "),
        (
            ("explain", "R01", "--environment", "dev"),
            "--environment: does not change a rule; leave out --environment, or name X and",
        ),
        (("explain", "rag-engine", "redis", "--environment", ""), "ENV: is ''; expected one of dev, "),
        (("conform", "file:///etc/passwd"), "URL: is 'file:///etc/passwd'; expected the address of a service's HTTP"),
        (("conform", "http://[::1"), "URL: is 'http://[::1'; expected the address of a service's HTTP port"),
        (("up", "nowhere"), "ENV: is 'nowhere'; expected one of dev, "),
        (("images", "lok"), "COMMAND: is 'lok'; did you mean lock? expected one of lock, check"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments: tuple[str, ...], said: str) -> None:
    done = voice(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_check_judges_every_rule_and_finds_nothing_in_prod() -> None:
    done = voice("check", "prod", "--on", str(DAY), "--format", "json")
    assert done.returncode == 0
    rules = {rule["rule"]: rule for rule in json.loads(done.stdout)["rules"]}
    assert set(rules) == {rule.id for rule in RULES}


def test_check_solve_prints_that_nothing_must_change() -> None:
    done = voice("check", "prod", "--solve")
    assert (done.returncode, done.stdout) == (0, "prod: the T, C and R rules hold; nothing to change\n")


def test_the_last_line_of_check_is_the_verdict() -> None:
    assert re.fullmatch(r"prod: .*\d+ rules hold.*", voice("check", "prod", "--on", str(DAY)).stdout.splitlines()[-1])


def test_explain_prints_a_rule_with_a_violating_and_a_satisfying_example() -> None:
    assert voice("explain", "r01").stdout.splitlines() == [
        "R01: attempts along a path stay few",
        "severity   warning",
        "rationale  every hop that retries multiplies the load on the last hop while the last hop is failing",
        "source     CascadeGuard; SRE book ch. 22 (4³ = 64); AWS Builders' Library (3⁵ = 243)",
        "violates   two hops of 3 attempts each: 3 × 3 = 9 attempts > 5",
        "holds      one hop of 5 attempts",
    ]


def test_explain_without_arguments_lists_every_rule() -> None:
    head, *rows = voice("explain").stdout.splitlines()
    assert head.split() == ["rule", "severity", "condition"]
    assert [row.split()[0] for row in rows] == sorted(rule.id for rule in RULES)


def test_explain_prints_json() -> None:
    (rule,) = json.loads(voice("explain", "R01", "--format", "json").stdout)["rules"]
    assert (rule["rule"], rule["severity"], rule["holds"]) == ("R01", "warning", "one hop of 5 attempts")


def test_the_exit_code_of_explain_says_if_x_may_call_y() -> None:
    permitted = voice("explain", "rag-engine", "retrieval-service.search", "--environment", "dev")
    assert (permitted.returncode, permitted.stderr) == (0, "")
    assert permitted.stdout.startswith("rag-engine → retrieval-service.search: permitted in dev\n")
    denied = voice("explain", "retrieval-service", "rag-engine", "--format", "json")
    assert (denied.returncode, json.loads(denied.stdout)["permitted"]) == (1, False)


def test_check_prints_sarif() -> None:
    done = voice("check", "prod", "--format", "sarif")
    assert (done.returncode, json.loads(done.stdout)["version"]) == (0, "2.1.0")


def test_check_audits_a_directory_of_manifests(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: shop}\nspec: {selector: {app: shop}, ports: [{port: 80}]}\n"
    )
    done = voice("check", "--from", str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "")
    assert f"change spec.selector ({tmp_path}/shop.yaml:4)" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"{tmp_path}: 1 warning, ")


def test_graph_is_mermaid_or_json() -> None:
    assert voice("graph").stdout.startswith("flowchart LR\n")
    document = json.loads(voice("graph", "--format", "json").stdout)
    services = {node["name"] for node in document["nodes"] if node["kind"] == "service"}
    assert services == {service.name for service in platform("prod").microservices}


def test_voice_without_arguments_prints_the_help_with_every_command() -> None:
    alone = voice()
    assert (alone.returncode, alone.stdout) == (0, voice("--help").stdout)
    commands = ("render", "check", "explain", "graph", "diff", "images", "secrets", "up", "down", "conform", "docs")
    assert all(re.search(rf"^    {command} ", alone.stdout, re.MULTILINE) for command in (*commands, "schema"))


def test_version_prints_the_version() -> None:
    done = voice("--version")
    assert (done.returncode, done.stdout) == (0, f"voice {version('voiceassistant-platform')}\n")


def test_a_closed_output_pipe_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "stack.cli", "graph"]
    done = subprocess.run(command, check=False, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")

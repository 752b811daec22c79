"""Peers, the tools compared with `voice render`: their installation, and the commands that are timed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.render.processes import Contestant

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build/bench/render"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voiceassistant/bin"
HELM = "helm.sh/helm/v3/cmd/helm@v3.22.0"
"""Version of Helm, which is built from its Go module."""
CDK8S = ("cdk8s==2.70.106", "cdk8s-plus-34==2.0.54", "constructs==10.8.1")
"""Python packages. `cdk8s/package.json` has the same versions for Node."""


def install() -> None:
    """Install missing peers. Needs `go` and `npm`."""
    if not (CACHE / "helm").is_file():
        _run("go", "install", HELM, GOBIN=str(CACHE))
    node = BUILD / "cdk8s"
    if not (node / "node_modules").is_dir():
        shutil.copytree(HERE / "cdk8s", node, dirs_exist_ok=True)
        _run("npm", "install", "--prefix", str(node), "--no-audit", "--no-fund", "--no-package-lock", "--silent")
    if not (BUILD / "python/cdk8s").is_dir():
        uv = str(Path(sys.executable).with_name("uv"))
        _run(uv, "pip", "install", "--quiet", "--target", str(BUILD / "python"), *CDK8S)


def _run(*command: str, **variables: str) -> None:
    subprocess.run(command, check=True, env={**os.environ, **variables})  # noqa: S603 - the bench's own commands


def ours(count: int, out: Path) -> Contestant:
    """`voice render prod` with the given number of services."""
    command = [sys.executable, "-m", "bench.render.generated", str(count), "-o", str(out / "voice")]
    return Contestant("voice render", command, out / "voice")


def helm(count: int, out: Path) -> Contestant:
    """`helm template` of a chart with the same output."""
    chart = str(BUILD / f"{count}-chart")
    homes = {f"HELM_{name}_HOME": str(BUILD / "helm") for name in ("CACHE", "CONFIG", "DATA")}
    command = [str(CACHE / "helm"), "template", "voiceassistant", chart, "-f", f"{chart}.yaml"]
    return Contestant("helm template", command, out / "helm", homes)


def others(count: int, out: Path) -> list[Contestant]:
    """cdk8s-plus in JavaScript and in Python, and a Pulumi program with mocks. Each renders the same objects."""
    objects = str(BUILD / f"{count}.json")
    node, python = out / "cdk8s-node", out / "cdk8s-python"
    return [
        Contestant("cdk8s-plus, Node", ["node", str(BUILD / "cdk8s/synth.js"), objects, str(node)], node),
        Contestant(
            "cdk8s-plus, Python",
            [sys.executable, str(HERE / "cdk8s/synth.py"), objects, str(python)],
            python,
            {"PYTHONPATH": str(BUILD / "python"), "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20"},
        ),
        Contestant("Pulumi, mocks", [sys.executable, "-m", "bench.render.pulumi_mocks", objects], out / "pulumi"),
    ]

"""Installs each distribution into an environment of its own, and runs the distribution's tests there.

    python -m tests.distributions [DISTRIBUTION ...]

The program builds each distribution as a wheel and installs it with its dependencies. The dependencies have the locked
versions and come from uv's cache. It first imports the distribution without extras. It then runs the distribution's
tests with all extras, in a separate folder. Of this repository the folder contains only these tests, the modules in
`tests/` and the documents.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "distributions"
WHEELS = BUILD / "wheels"
LOCK = ROOT / "requirements-dev.lock"
HANG_SECONDS = 300
"""Seconds that a test may take before pytest prints the stack of each thread."""


@dataclass(frozen=True)
class Distribution:
    folder: Path
    tests: str

    @cached_property
    def project(self) -> dict[str, Any]:
        project: dict[str, Any] = tomllib.loads((self.folder / "pyproject.toml").read_text())["project"]
        return project

    @property
    def name(self) -> str:
        return str(self.project["name"])

    @property
    def module(self) -> str:
        return self.name.replace("-", "_")

    @property
    def extras(self) -> tuple[str, ...]:
        return tuple(self.project.get("optional-dependencies", {}))

    def requirement(self, extras: Sequence[str] = ()) -> str:
        """The path of the wheel. If uv got only a name, it would install the wheel of an earlier run from its cache."""
        wheel = WHEELS / f"{self.module}-{self.project['version']}-py3-none-any.whl"
        named = f"{self.name}[{','.join(extras)}]" if extras else self.name
        return f"{named} @ {wheel.as_uri()}"

    def needed(self) -> Iterator[Distribution]:
        """The other distributions of this repository that this one needs, directly or indirectly."""
        for text in self.project["dependencies"]:
            for other in DISTRIBUTIONS:
                if Requirement(text).name == other.name:
                    yield other
                    yield from other.needed()

    @property
    def environment(self) -> Path:
        return BUILD / self.name / "venv"

    @property
    def python(self) -> Path:
        return self.environment / "bin" / "python"


DISTRIBUTIONS = (
    Distribution(ROOT / "policies", "policies"),
    Distribution(ROOT / "runtime" / "voice_runtime", "runtime"),
    Distribution(ROOT / "runtime" / "voice_saga", "saga"),
    Distribution(ROOT / "runtime" / "voice_models", "models"),
    Distribution(ROOT / "runtime" / "voice_reference", "reference"),
)


def main(arguments: Sequence[str]) -> None:
    """Test the named distributions, or all of them. Stops at the first failure with `CalledProcessError`."""
    by_name = {each.name: each for each in DISTRIBUTIONS}
    parser = argparse.ArgumentParser(prog="distributions", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="DISTRIBUTION", help=f"one of {', '.join(by_name)}; default: all")
    names = parser.parse_args(arguments).names or list(by_name)
    if strangers := set(names) - set(by_name):
        parser.error(f"unknown: {', '.join(sorted(strangers))}; expected {', '.join(by_name)}")
    build()
    for name in names:
        install(by_name[name])
        test(by_name[name])


def build() -> None:
    """Build a wheel of every distribution, because a distribution may need another one."""
    say("building wheels")
    shutil.rmtree(WHEELS, ignore_errors=True)
    for distribution in DISTRIBUTIONS:
        run("build", "--wheel", "--no-build-isolation", "--out-dir", WHEELS, distribution.folder)


def install(distribution: Distribution) -> None:
    say(f"{distribution.name}: installing without extras, importing")
    run("venv", "--clear", "--python", sys.executable, distribution.environment)
    install_into(distribution, distribution.requirement())
    command: list[str | Path] = [distribution.python, "-I", "-c", f"import {distribution.module}"]
    subprocess.run(command, check=True, cwd=distribution.environment)
    say(f"{distribution.name}: installing its extras ({', '.join(distribution.extras) or 'none'}) and its tests' tools")
    tools = f"{distribution.folder / 'pyproject.toml'}:test"
    install_into(distribution, distribution.requirement(distribution.extras), "--group", tools)


def install_into(distribution: Distribution, *what: str) -> None:
    needed = [each.requirement() for each in distribution.needed()]
    run("pip", "install", "--python", distribution.python, "--constraints", LOCK, *needed, *what)


def test(distribution: Distribution) -> None:
    """Run the distribution's tests in a folder from which no other code of this repository can be imported."""
    say(f"{distribution.name}: running tests/{distribution.tests}")
    copied = BUILD / distribution.name / "copied"
    shutil.rmtree(copied, ignore_errors=True)
    (copied / "tests").mkdir(parents=True)
    for file in (ROOT / "tests").glob("*.py"):
        shutil.copy(file, copied / "tests")
    for folder in (f"tests/{distribution.tests}", "docs"):
        shutil.copytree(ROOT / folder, copied / folder, ignore=shutil.ignore_patterns("__pycache__"))
    hang = f"faulthandler_timeout={HANG_SECONDS}"
    command = ["-m", "pytest", "-q", "-n", "auto", "-p", "no:cacheprovider", "-o", hang, f"tests/{distribution.tests}"]
    subprocess.run([distribution.python, *command], check=True, cwd=copied)


def run(*arguments: str | Path) -> None:
    """Run uv offline. Its cache has every package of the lock, because `make` has installed these packages."""
    subprocess.run([Path(sys.executable).with_name("uv"), "--quiet", "--offline", *arguments], check=True, cwd=ROOT)


def say(text: str) -> None:
    print(f"distributions: {text}", flush=True)  # noqa: T201  # a long run prints its progress


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit(f"distributions: {' '.join(map(str, error.cmd))} ended with {error.returncode}")

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import pytest

from stack.output.render import render
from tests.cluster import toolchain
from tests.cluster.build_or_skip import build_or_skip
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import control_plane
from tests.platforms import platform

StartCluster = Callable[[], AbstractContextManager[Cluster]]

PROVEN = """\
If these tests pass, validation, admission (Pod Security, quotas, limits), authorization, scheduling and the control
loops work. No container ran, so the tests do not cover images, commands, probes, traffic, network policies and volumes.
The API server validated custom resources against their operators' definitions. No operator and no injector ran, so the
pods that operators create and the containers that injectors add were not scheduled. The audit's capacity ledger counts
these pods and containers."""
REPORT = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    return request.config.stash.setdefault(REPORT, []).append


@pytest.fixture(scope="session")
def start_cluster(request: pytest.FixtureRequest) -> StartCluster:
    build_or_skip(request, toolchain.CONTROL_PLANE)
    build_or_skip(request, toolchain.OPERATORS)
    return control_plane


@pytest.fixture(scope="session")
def kube_score(request: pytest.FixtureRequest) -> Path:
    return build_or_skip(request, toolchain.KUBE_SCORE) / "kube-score"


@pytest.fixture(scope="session")
def promtool(request: pytest.FixtureRequest) -> Path:
    return build_or_skip(request, toolchain.PROMETHEUS) / "promtool"


@pytest.fixture(scope="session")
def prometheus(request: pytest.FixtureRequest) -> Path:
    return build_or_skip(request, toolchain.PROMETHEUS) / "prometheus"


@pytest.fixture(scope="session")
def amtool(request: pytest.FixtureRequest) -> Path:
    return build_or_skip(request, toolchain.AMTOOL) / "amtool"


@pytest.fixture(scope="session")
def collector(request: pytest.FixtureRequest) -> Path:
    return build_or_skip(request, toolchain.COLLECTOR) / "collector"


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def made(environment: str) -> Path:
        output = tmp_path_factory.mktemp(environment)
        render(platform(environment), output)
        return output / "manifests"

    return made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(REPORT, [])
    if lines:
        terminalreporter.section("cluster")
        terminalreporter.write_line("\n".join([*lines, PROVEN]))

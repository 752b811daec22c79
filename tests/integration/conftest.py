from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cluster import toolchain
from tests.cluster.build_or_skip import build_or_skip


@pytest.fixture(scope="session")
def serviceconfig(request: pytest.FixtureRequest) -> Path:
    return build_or_skip(request, toolchain.SERVICE_CONFIG) / "serviceconfig"


@pytest.fixture(scope="session")
def contract(request: pytest.FixtureRequest) -> Path:
    return build_or_skip(request, toolchain.CONTRACT) / "contract"


@pytest.fixture(scope="session")
def consul(request: pytest.FixtureRequest) -> Path:
    return build_or_skip(request, toolchain.CONSUL) / "consul"


@pytest.fixture(scope="session")
def blackbox_exporter(request: pytest.FixtureRequest) -> Path:
    return build_or_skip(request, toolchain.BLACKBOX_EXPORTER) / "blackbox_exporter"


@pytest.fixture(scope="session")
def haproxy() -> Path:
    """HAProxy from the system, because no Python or Go package contains it."""
    found = shutil.which("haproxy")
    if found is None:
        pytest.skip("haproxy is not on PATH: install the system's package")
    return Path(found)

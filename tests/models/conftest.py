from collections.abc import Iterator

import pytest

from tests import redis_servers
from tests.driver import clock, pytest_pyfunc_call
from tests.models.routes import Asynchronous, Driver, Synchronous
from tests.redis_servers import Server

__all__ = ["clock", "pytest_pyfunc_call"]


@pytest.fixture(params=[Asynchronous, Synchronous], ids=["asynchronous", "synchronous"])
def driver(request: pytest.FixtureRequest) -> Driver:
    made: Driver = request.param()
    return made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with redis_servers.single(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.ask("FLUSHALL")
    running.ask("CONFIG", "RESETSTAT")
    return running

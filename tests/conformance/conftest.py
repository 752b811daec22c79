from tests.driver import clock, pytest_pyfunc_call
from tests.runtime.recorded_spans import spans
from tests.saga.backends import backend, database, journal, postgresql, redis_port, temporal

__all__ = [
    "backend",
    "clock",
    "database",
    "journal",
    "postgresql",
    "pytest_pyfunc_call",
    "redis_port",
    "spans",
    "temporal",
]

from tests.driver import pytest_pyfunc_call
from tests.saga.backends import backend, database, journal, postgresql, redis_port, temporal

__all__ = ["backend", "database", "journal", "postgresql", "pytest_pyfunc_call", "redis_port", "temporal"]

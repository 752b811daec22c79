from tests.runtime.saga.backends import backend, database, journal, postgresql, redis_port, temporal

__all__ = ["backend", "database", "journal", "postgresql", "redis_port", "temporal"]

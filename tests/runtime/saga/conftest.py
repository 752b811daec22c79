from tests.runtime.saga.backends import backend, database, postgresql, redis_port, temporal

__all__ = ["backend", "database", "postgresql", "redis_port", "temporal"]

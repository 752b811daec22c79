"""PostgreSQL: one server in dev, a replicated cluster elsewhere. Each service has its own database and role."""

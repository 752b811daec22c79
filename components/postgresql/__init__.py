"""PostgreSQL: one server in dev, a replicated cluster elsewhere, and a database and role for each service."""

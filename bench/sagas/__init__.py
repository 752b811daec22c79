"""Steps per second of the saga engines, compared with the commits per second of PostgreSQL under pgbench."""

"""Observability: collect, store and show metrics, logs and traces."""

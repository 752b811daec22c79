"""Observability: what collects metrics, logs and traces, what keeps them, and where people look at them."""

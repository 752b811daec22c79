"""Valkey: a cache that may lose its data, and a durable store of event streams."""

"""Valkey: a losable cache and a durable store of event streams."""

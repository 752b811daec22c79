"""Consul servers and their snapshots."""

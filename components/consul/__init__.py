"""Consul: its servers, and the snapshots of what they hold."""

"""Enforces a service's policy bundle inside its process."""

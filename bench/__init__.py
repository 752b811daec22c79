"""Measurements: never a test, always side by side."""

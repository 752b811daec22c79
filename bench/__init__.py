"""Measurements. They are no tests: each one compares contestants in the same run."""

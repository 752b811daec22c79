"""Measurements. A bench is not a test: it compares several programs or libraries in one run."""

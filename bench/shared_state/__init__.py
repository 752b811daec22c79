"""Distributed limits beside a bare script and published libraries: `python -m bench.shared_state`."""

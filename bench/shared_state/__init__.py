"""Distributed limits, compared with a bare script and published libraries: `python -m bench.shared_state`."""

"""Compares distributed limits with a bare EVALSHA and published libraries: `python -m bench.shared_state`."""
